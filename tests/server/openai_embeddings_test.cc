// SPDX-License-Identifier: Apache-2.0
#include "server/openai_embeddings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "models/detokenizer.h"
#include "server/errors.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json Parsed(const std::string& text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.ok() ? *std::move(json) : Json();
}

TEST(OpenAiEmbeddingsTest, FormsOfInput) {
  const auto inputs = [](const std::string& input) {
    const auto parsed = ParseEmbeddingsRequest(Parsed(absl::StrCat(R"({"input":)", input, "}")));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? parsed->request.inputs()
                       : google::protobuf::RepeatedPtrField<pb::EmbedInput>();
  };
  EXPECT_EQ(inputs(R"("hi")")[0].text(), "hi");
  const auto texts = inputs(R"(["a", "", "c"])");
  ASSERT_EQ(texts.size(), 3);
  EXPECT_EQ(texts[2].text(), "c");
  EXPECT_THAT(inputs("[1, 2]")[0].tokens().ids(), ElementsAre(1, 2));
  const auto lists = inputs("[[1, 2], [3]]");
  ASSERT_EQ(lists.size(), 2);
  EXPECT_THAT(lists[1].tokens().ids(), ElementsAre(3));
}

TEST(OpenAiEmbeddingsTest, Options) {
  const auto parsed = ParseEmbeddingsRequest(Parsed(
      R"({"input":"x","model":"m","encoding_format":"base64","dimensions":7,"normalize":true,
          "truncate_prompt_tokens":-1,"add_special_tokens":false,"parse_special":false,"user":"u"})"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->base64);
  EXPECT_EQ(parsed->request.model(), "m");
  EXPECT_EQ(parsed->request.dimensions(), 7);
  EXPECT_TRUE(parsed->request.normalize());
  EXPECT_EQ(parsed->request.truncate_prompt_tokens(), -1);
  EXPECT_FALSE(parsed->request.add_special_tokens());
  EXPECT_FALSE(parsed->request.parse_special());
  const auto plain = ParseEmbeddingsRequest(Parsed(R"({"input":"x"})"));
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->base64);
  for (const char* field : {"dimensions", "normalize", "truncate_prompt_tokens"}) {
    const auto& reflection = *plain->request.GetReflection();
    EXPECT_FALSE(
        reflection.HasField(plain->request, plain->request.GetDescriptor()->FindFieldByName(field)))
        << field;
  }
}

TEST(OpenAiEmbeddingsTest, BadRequestsNameTheField) {
  const auto param = [](const std::string& body) {
    const auto parsed = ParseEmbeddingsRequest(Parsed(body));
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << body;
    return ErrorParam(parsed.status());
  };
  for (const char* input :
       {R"({})", R"({"input":[]})", R"({"input":null})", R"({"input":7})", R"({"input":{}})",
        R"({"input":[1,"a"]})", R"({"input":["a",{}]})", R"({"input":[1.5]})",
        R"({"input":[[1],[2.5]]})", R"({"input":[[[1]]]})", R"({"input":[99999999999]})"}) {
    EXPECT_EQ(param(input), "input") << input;
  }
  EXPECT_EQ(param(R"({"input":"x","encoding_format":"hex"})"), "encoding_format");
  EXPECT_EQ(param(R"({"input":"x","dimensions":1.5})"), "dimensions");
  EXPECT_EQ(param(R"({"input":"x","normalize":"yes"})"), "normalize");
  EXPECT_EQ(param(R"({"input":"x","truncate_prompt_tokens":"all"})"), "truncate_prompt_tokens");
  EXPECT_EQ(param(R"({"messages":[]})"), "messages");
  EXPECT_EQ(param(R"([])"), "");
  std::string many = R"({"input":["a")";
  for (int i = 0; i < 2048; ++i) many += R"(,"a")";
  EXPECT_EQ(param(many + "]}"), "input");
}

TEST(OpenAiEmbeddingsTest, ErrorsRepeatTheValueAndSayWhatIsAllowed) {
  const auto embed = [](const std::string& fields) {
    return std::string(
        ParseEmbeddingsRequest(Parsed(absl::StrCat("{", fields, "}"))).status().message());
  };
  const auto rerank = [](const std::string& fields) {
    return std::string(ParseRerankRequest(Parsed(absl::StrCat(R"({"query":"q",)", fields, "}")))
                           .status()
                           .message());
  };
  constexpr const char* kIds = "; allowed: token ids, which are integers of the model's vocabulary";
  EXPECT_EQ(embed(R"("input":[[101,99999999999]])"),
            absl::StrCat("input[0][1] is 99999999999", kIds));
  EXPECT_EQ(embed(R"("input":[1,"a"])"), absl::StrCat("input[1] is \"a\"", kIds));
  EXPECT_EQ(embed(R"("input":["a",null])"), "input[1] is null; allowed: text or token ids");
  EXPECT_EQ(embed(R"("input":7)"), "input is 7; allowed: text, token ids, or a list of either");
  EXPECT_EQ(embed(R"("input":"x","dimensions":"12")"),
            "dimensions is \"12\"; it must be an integer of at most 32 bits");
  EXPECT_EQ(embed(R"("input":"x","dimensions":18446744073709551616)"),
            "dimensions is 1.8446744073709552e+19; it must be an integer of at most 32 bits");
  EXPECT_EQ(embed(R"("input":"x","user":7)"), "user is 7; it must be a string");
  EXPECT_EQ(embed(R"("input":"x","normalize":"yes")"),
            "normalize is \"yes\"; it must be true or false");
  EXPECT_LT(
      embed(absl::StrCat(R"("input":"x","dimensions":")", std::string(10000, 'x'), "\"")).size(),
      200u);
  EXPECT_EQ(rerank(R"("documents":[5])"),
            "documents[0] is 5; it must be a string or {\"text\": a string}");
  EXPECT_EQ(rerank(R"("documents":"b")"), "documents is \"b\"; it must be an array");
  EXPECT_EQ(rerank(R"("documents":["b"],"top_n":1.5)"),
            "top_n is 1.5; it must be an integer of at most 32 bits");
}

// vLLM's and Cohere's.
TEST(OpenAiEmbeddingsTest, FieldsThatWouldChangeTheAnswerAreRefusedByName) {
  struct Field {
    const char* name;
    const char* value;
    const char* neutral;
  };
  for (const Field& field : {Field{"embed_dtype", R"("float16")", R"("float32")"},
                             {"endianness", R"("big")", R"("little")"},
                             {"endianness", R"("big")", R"("native")"},
                             {"truncation_side", R"("left")", R"("right")"},
                             {"activation", "true", "false"},
                             {"use_activation", "true", "null"},
                             {"use_activation", "false", "null"},
                             {"softmax", "true", "false"},
                             {"pooling", R"("cls")", "null"},
                             {"chat_template", R"("{{")", R"("")"},
                             {"chat_template_kwargs", R"({"a":1})", "{}"},
                             {"mm_processor_kwargs", R"({"a":1})", "{}"},
                             {"stream", "true", "false"},
                             {"embedding_types", R"(["int8"])", R"(["float"])"},
                             {"output_dimension", "8", "null"},
                             {"max_tokens_per_doc", "8", "0"},
                             {"rank_fields", R"(["title"])", R"(["text"])"},
                             {"user", "5", R"("u")"}}) {
    const auto with = [&](const char* value) {
      return Parsed(absl::StrCat(R"({"input":"a","text_1":"a","text_2":"b","query":"a",)",
                                 R"("documents":["b"],"request_id":"r","priority":1,)",
                                 R"("cache_salt":"s","input_type":"query",")", field.name,
                                 "\":", value, "}"));
    };
    const Json bad = with(field.value), good = with(field.neutral);
    Json bad_score = bad, good_score = good;
    bad_score.erase("documents");
    good_score.erase("documents");
    EXPECT_EQ(ErrorParam(ParseEmbeddingsRequest(bad).status()), field.name);
    EXPECT_EQ(ErrorParam(ParseScoreRequest(bad_score).status()), field.name);
    EXPECT_EQ(ErrorParam(ParseRerankRequest(bad).status()), field.name);
    EXPECT_TRUE(ParseEmbeddingsRequest(good).ok()) << field.name;
    EXPECT_TRUE(ParseScoreRequest(good_score).ok()) << field.name;
    EXPECT_TRUE(ParseRerankRequest(good).ok()) << field.name;
  }
}

constexpr float kOdd[] = {0.1f, -1.17549435e-38f, 3.4028235e38f, 1e-45f, 0.0f, -2.0f};

TEST(OpenAiEmbeddingsTest, NumbersAreTheVeryFloats) {
  const EmbedAnswer answer = {
      .dimensions = 3, .values = {std::begin(kOdd), std::end(kOdd)}, .prompt_tokens = 9};
  const Json body = Parsed(EmbeddingsBody(answer, "a\"b", false));
  EXPECT_EQ(body["object"], "list");
  EXPECT_EQ(body["model"], "a\"b");
  EXPECT_EQ(body["usage"], (Json{{"prompt_tokens", 9}, {"total_tokens", 9}}));
  ASSERT_EQ(body["data"].size(), 2u);
  for (size_t i = 0; i < 6; ++i) {
    const Json& entry = body["data"][i / 3];
    EXPECT_EQ(entry["object"], "embedding");
    EXPECT_EQ(entry["index"], i / 3);
    EXPECT_EQ(static_cast<float>(entry["embedding"][i % 3].get<double>()), kOdd[i]);
  }
}

TEST(OpenAiEmbeddingsTest, Base64IsLittleEndianFloat32) {
  const EmbedAnswer answer = {
      .dimensions = 6, .values = {std::begin(kOdd), std::end(kOdd)}, .prompt_tokens = 9};
  const Json body = Parsed(EmbeddingsBody(answer, "m", true));
  std::string bytes;
  ASSERT_TRUE(absl::Base64Unescape(body["data"][0]["embedding"].get<std::string>(), &bytes));
  ASSERT_EQ(bytes.size(), sizeof(kOdd));
  for (size_t i = 0; i < 6; ++i) {
    uint32_t bits = 0;
    for (size_t b = 0; b < 4; ++b)
      bits |= uint32_t{static_cast<unsigned char>(bytes[4 * i + b])} << (8 * b);
    EXPECT_EQ(std::bit_cast<float>(bits), kOdd[i]);
  }
}

TEST(OpenAiEmbeddingsTest, ScoresAreCosines) {
  auto score = ParseScoreRequest(Parsed(R"({"text_1":"a","text_2":["b","c","d"]})"));
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(score->left, 1u);
  ASSERT_EQ(score->request.inputs_size(), 4);
  EXPECT_EQ(score->request.inputs(3).text(), "d");
  const EmbedAnswer answer = {
      .dimensions = 2, .values = {3, 4, 6, 8, -4, 3, 0, 0}, .prompt_tokens = 8};
  const Json body = ScoreBody(*score, answer, "m");
  ASSERT_EQ(body["data"].size(), 3u);
  EXPECT_DOUBLE_EQ(body["data"][0]["score"].get<double>(), 1);
  EXPECT_DOUBLE_EQ(body["data"][1]["score"].get<double>(), 0);
  EXPECT_DOUBLE_EQ(body["data"][2]["score"].get<double>(), 0);  // no direction
  EXPECT_EQ(body["data"][1]["index"], 1);
  EXPECT_EQ(body["data"][1]["object"], "score");
  EXPECT_EQ(body["usage"]["total_tokens"], 8);
  score = ParseScoreRequest(Parsed(R"({"queries":["a","b"],"documents":["c","d"]})"));
  ASSERT_TRUE(score.ok()) << score.status();
  const Json pairs = ScoreBody(*score, answer, "m");
  EXPECT_DOUBLE_EQ(pairs["data"][0]["score"].get<double>(), 0);
  EXPECT_DOUBLE_EQ(pairs["data"][1]["score"].get<double>(), 0);
  const EmbedAnswer other = {.dimensions = 2, .values = {3, 4, 1, 0, 6, 8, 1, 1}};
  EXPECT_DOUBLE_EQ(ScoreBody(*score, other, "m")["data"][1]["score"].get<double>(), std::sqrt(0.5));
}

TEST(OpenAiEmbeddingsTest, RerankingIsBestFirst) {
  const auto rerank =
      ParseRerankRequest(Parsed(R"({"query":"q","documents":["a",{"text":"b"},"c"],"top_n":2})"));
  ASSERT_TRUE(rerank.ok()) << rerank.status();
  const EmbedAnswer answer = {.dimensions = 2, .values = {1, 0, -1, 0, 1, 0, 2, 0}};
  const Json body = RerankBody(*rerank, answer, "m");
  ASSERT_EQ(body["results"].size(), 2u);
  EXPECT_EQ(body["results"][0],
            (Json{{"index", 1}, {"relevance_score", 1.0}, {"document", {{"text", "b"}}}}));
  EXPECT_EQ(body["results"][1]["index"], 2);  // of equals, the first comes first
  const auto bare =
      ParseRerankRequest(Parsed(R"({"query":"q","documents":["a"],"return_documents":false})"));
  ASSERT_TRUE(bare.ok());
  EXPECT_FALSE(RerankBody(*bare, answer, "m")["results"][0].contains("document"));
}

TEST(OpenAiEmbeddingsTest, ValuesInErrorsAreCutBetweenCharacters) {
  std::string body = R"({"input":"x","dimensions":"a)";
  for (int i = 0; i < 100; ++i) body += "\xc3\xa9";
  const absl::Status status = ParseEmbeddingsRequest(Parsed(body + "\"}")).status();
  EXPECT_EQ(ErrorParam(status), "dimensions");
  const std::string message(status.message());
  EXPECT_TRUE(IsValidUtf8(message)) << message;
  EXPECT_THAT(message, HasSubstr("\xc3\xa9..."));
}

TEST(OpenAiEmbeddingsTest, TextsAreCalledAsTheClientCallsThem) {
  const auto names = [](const absl::StatusOr<ScoreRequest>& request) {
    std::vector<std::string> all;
    EXPECT_TRUE(request.ok()) << request.status();
    for (int i = 0; request.ok() && i < request->request.inputs_size(); ++i)
      all.push_back(request->names(request->request, i));
    return all;
  };
  const auto score = [&](const std::string& body) {
    return names(ParseScoreRequest(Parsed(body)));
  };
  EXPECT_THAT(score(R"({"text_1":"a","text_2":"b"})"), ElementsAre("text_1", "text_2"));
  EXPECT_THAT(score(R"({"queries":"a","documents":["b","c"]})"),
              ElementsAre("queries", "documents[0]", "documents[1]"));
  EXPECT_THAT(score(R"({"data_1":["a","b"],"data_2":["c","d"]})"),
              ElementsAre("data_1[0]", "data_1[1]", "data_2[0]", "data_2[1]"));
  EXPECT_THAT(names(ParseRerankRequest(Parsed(R"({"query":"a","documents":["b"]})"))),
              ElementsAre("query", "documents[0]"));
  const absl::Status status =
      ParseScoreRequest(Parsed(R"({"queries":"a","items":["b",null]})")).status();
  EXPECT_EQ(ErrorParam(status), "items");
  EXPECT_THAT(std::string(status.message()), HasSubstr("items[1] is null; it must be a string"));
}

TEST(OpenAiEmbeddingsTest, BadScoresNameTheField) {
  const auto score = [](const std::string& body) {
    return ErrorParam(ParseScoreRequest(Parsed(body)).status());
  };
  EXPECT_EQ(score("{}"), "text_1");
  EXPECT_EQ(score(R"({"queries":"a"})"), "documents");
  EXPECT_EQ(score(R"({"data_1":"a"})"), "data_2");
  EXPECT_EQ(score(R"({"data_2":"a"})"), "data_1");
  EXPECT_EQ(score(R"({"items":"a"})"), "queries");
  EXPECT_EQ(score(R"({"queries":"a","text_1":"b","text_2":"c"})"), "queries");
  EXPECT_EQ(score(R"({"text_1":"a","text_2":"b","items":"c"})"), "items");
  EXPECT_EQ(score(R"({"text_1":"a"})"), "text_2");
  EXPECT_EQ(score(R"({"text_1":"a","text_2":[]})"), "text_2");
  EXPECT_EQ(score(R"({"text_1":"a","text_2":[1]})"), "text_2");
  EXPECT_EQ(score(R"({"text_1":["a","b"],"text_2":["a","b","c"]})"), "text_1");
  EXPECT_EQ(score(R"({"queries":["a","b"],"documents":["a","b","c"]})"), "queries");
  const auto rerank = [](const std::string& body) {
    return ErrorParam(ParseRerankRequest(Parsed(body)).status());
  };
  EXPECT_EQ(rerank("{}"), "query");
  EXPECT_EQ(rerank(R"({"query":"a"})"), "documents");
  EXPECT_EQ(rerank(R"({"query":"a","documents":"b"})"), "documents");
  EXPECT_EQ(rerank(R"({"query":"a","documents":["b"],"top_n":-1})"), "top_n");
  EXPECT_EQ(rerank(R"({"query":"a","documents":["b"],"top_n":0})"), "");  // vLLM's: all
  EXPECT_EQ(rerank(R"({"query":"a","documents":["b"],"dimensions":2})"), "dimensions");
  EXPECT_EQ(score(R"({"text_1":"a","text_2":"b","normalize":true})"), "normalize");
  std::string many = R"({"query":"a","documents":["a")";
  for (int i = 0; i < 2047; ++i) many += R"(,"a")";
  EXPECT_EQ(rerank(many + "]}"), "documents");
}

}  // namespace
}  // namespace fairlead
