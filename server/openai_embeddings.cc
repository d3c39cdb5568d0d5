// SPDX-License-Identifier: Apache-2.0
#include "server/openai_embeddings.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/types/span.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "server/errors.h"
#include "server/json_append.h"
#include "server/json_fields.h"

namespace fairlead {
namespace {

constexpr int64_t kMaxToken = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxNumber = 16;  // characters of a float32: "-1.17549435e-38," is the longest

absl::Status BadInput(const std::string& name, const Json& value, std::string_view allowed) {
  return FieldError("input", StrCat(name, " is ", ShortDump(value), "; allowed: ", allowed));
}

absl::Status ReadIds(const std::string& name, const Json& ids, pb::EmbedInput& input) {
  auto& out = *input.mutable_tokens()->mutable_ids();
  out.Reserve(static_cast<int>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = JsonInteger(ids[i], std::numeric_limits<int32_t>::min(), kMaxToken);
    if (!id) {
      return BadInput(StrCat(name, "[", i, "]"), ids[i],
                      "token ids, which are integers of the model's vocabulary");
    }
    out.Add(static_cast<int32_t>(*id));
  }
  return absl::OkStatus();
}

absl::Status AddInput(const std::string& name, const Json& value, pb::EmbedInput& input) {
  if (value.is_string()) {
    input.set_text(value.get_ref<const std::string&>());
    return absl::OkStatus();
  }
  if (value.is_array()) return ReadIds(name, value, input);
  return BadInput(name, value,
                  name == "input" ? "text, token ids, or a list of either" : "text or token ids");
}

absl::Status CheckCount(std::string_view field, size_t count) {
  if (count >= 1 && count <= kMaxEmbedInputs) return absl::OkStatus();
  return FieldError(field, StrCat(field, count == 0 ? " is empty" : " has ",
                                  count == 0 ? "" : StrCat(count, " texts"), "; allowed: 1 to ",
                                  kMaxEmbedInputs));
}

absl::Status ReadInputs(const Json* value, pb::EmbedRequest& request) {
  if (value == nullptr) return FieldError("input", "input is missing");
  const bool is_list = value->is_array() && !value->empty() && !value->front().is_number();
  if (!is_list) {
    if (value->is_array() && value->empty()) return FieldError("input", "input is empty");
    return AddInput("input", *value, *request.add_inputs());
  }
  if (absl::Status status = CheckCount("input", value->size()); !status.ok()) return status;
  for (size_t i = 0; i < value->size(); ++i) {
    absl::Status status = AddInput(StrCat("input[", i, "]"), (*value)[i], *request.add_inputs());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Fields of vLLM's and Cohere's that change the answer and that this server does not have: refused
// by name where their value is not one of these, or null.
struct UnsupportedField {
  const char* name;
  std::string_view neutral;  // JSON: a list of values
  const char* instead = "";
};
constexpr UnsupportedField kUnsupported[] = {
    {"embed_dtype", R"(["float32"])", "; supported: float32"},
    {"endianness", R"(["native", "little"])", "; supported: native, little"},
    {"truncation_side", R"(["right"])", "; supported: right"},
    {"activation", "[false]", "; see normalize"},
    {"use_activation", "[]", "; see normalize"},
    {"softmax", "[false]", "; see normalize"},
    {"pooling", "[]", "; the model's own is used"},
    {"chat_template", R"([""])"},
    {"chat_template_kwargs", "[{}]"},
    {"mm_processor_kwargs", "[{}]"},
    {"stream", "[false]"},
    {"embedding_types", R"([[], ["float"]])", "; see encoding_format"},
    {"output_dimension", "[]", "; see dimensions"},
    {"max_tokens_per_doc", "[0]", "; see truncate_prompt_tokens"},
    {"rank_fields", R"([[], ["text"]])", "; supported: text"},
};

void RefuseUnsupported(JsonFields& fields) {
  for (const UnsupportedField& field : kUnsupported) {
    const Json* value = fields.Find(field.name);
    if (value == nullptr) continue;
    const Json neutral = Json::parse(field.neutral);
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    fields.Fail(field.name,
                StrCat("is ", ShortDump(*value), ": not supported by this server", field.instead));
  }
}

// What embeddings, scores and reranking have in common.
void ReadCommon(JsonFields& fields, pb::EmbedRequest& request) {
  RefuseUnsupported(fields);
  request.set_model(fields.String("model").value_or(""));
  if (const auto kept = fields.Int("truncate_prompt_tokens"))
    request.set_truncate_prompt_tokens(*kept);
  if (const auto add = fields.Bool("add_special_tokens")) request.set_add_special_tokens(*add);
  if (const auto parse = fields.Bool("parse_special")) request.set_parse_special(*parse);
  fields.String("user");  // changes nothing
}

// Fields of embeddings that scores have none of.
void RefuseOfEmbeddings(JsonFields& fields) {
  for (const char* name : {"dimensions", "encoding_format", "normalize"}) {
    if (fields.Find(name) != nullptr) fields.Fail(name, "is a field of /v1/embeddings alone");
  }
}

absl::Status RequireObject(const Json& body) {
  return body.is_object() ? absl::OkStatus() : FieldError("", "the body must be a JSON object");
}

// A document is a string, or Jina's {"text": ...}.
absl::Status AddText(std::string_view field, const std::string& name, const Json& value,
                     pb::EmbedRequest& request) {
  const Json* text = &value;
  if (value.is_object() && value.contains("text")) text = &value["text"];
  if (!text->is_string()) {
    return FieldError(field,
                      StrCat(name, " is ", ShortDump(value), "; it must be a string",
                             name == field ? ", a list of them," : "", " or {\"text\": a string}"));
  }
  request.add_inputs()->set_text(text->get_ref<const std::string&>());
  return absl::OkStatus();
}

struct AddedTexts {
  std::string field;
  size_t count = 0;
  bool list = false;

  std::string Name(size_t index) const { return list ? StrCat(field, "[", index, "]") : field; }
};

absl::StatusOr<AddedTexts> AddTexts(const JsonFields& fields, const char* name,
                                    pb::EmbedRequest& request) {
  const Json& value = *fields.Find(name);
  if (!value.is_array()) {
    if (absl::Status status = AddText(name, name, value, request); !status.ok()) return status;
    return AddedTexts{name, 1};
  }
  if (absl::Status status = CheckCount(name, value.size()); !status.ok()) return status;
  const AddedTexts texts{name, value.size(), true};
  for (size_t i = 0; i < texts.count; ++i) {
    absl::Status status = AddText(name, texts.Name(i), value[i], request);
    if (!status.ok()) return status;
  }
  return texts;
}

// A side of a comparison has several names.
using Names = absl::Span<const char* const>;
constexpr const char* kLeftNames[] = {"text_1", "queries", "data_1"};
constexpr const char* kRightNames[] = {"text_2", "documents", "data_2", "items"};

// Which of them the body has; null: none.
absl::StatusOr<const char*> FindSide(const JsonFields& fields, Names names) {
  const char* found = nullptr;
  for (const char* name : names) {
    if (fields.Find(name) == nullptr) continue;
    if (found != nullptr) {
      return FieldError(name, StrCat(name, " is another name of ", found, ": only one is allowed"));
    }
    found = name;
  }
  return found;
}

absl::Status Missing(const char* name) { return FieldError(name, StrCat(name, " is missing")); }

// What goes with `name`, of `names`, on the other side.
const char* PartnerOf(const char* name, Names names, Names others) {
  const auto at = std::find(names.begin(), names.end(), name) - names.begin();
  return at < 3 ? others[static_cast<size_t>(at)] : "queries";
}

// The fields of the left and the right texts.
absl::StatusOr<std::pair<const char*, const char*>> FindSides(const JsonFields& fields) {
  const absl::StatusOr<const char*> left = FindSide(fields, kLeftNames);
  if (!left.ok()) return left.status();
  const absl::StatusOr<const char*> right = FindSide(fields, kRightNames);
  if (!right.ok()) return right.status();
  if (*left == nullptr && *right == nullptr) return Missing(kLeftNames[0]);
  if (*left == nullptr) return Missing(PartnerOf(*right, kRightNames, kLeftNames));
  if (*right == nullptr) return Missing(PartnerOf(*left, kLeftNames, kRightNames));
  return std::pair{*left, *right};
}

absl::Status CheckTogether(std::string_view field, const pb::EmbedRequest& request) {
  if (request.inputs_size() <= kMaxEmbedInputs) return absl::OkStatus();
  return FieldError(field, StrCat(field, " and what they are compared with are ",
                                  request.inputs_size(), " texts; at most ", kMaxEmbedInputs));
}

// Errors call each text by the field that the client has put it in.
InputName ScoreNames(const AddedTexts& left, const AddedTexts& right) {
  return [left, right](const pb::EmbedRequest&, int index) {
    const auto i = static_cast<size_t>(index);
    return i < left.count ? left.Name(i) : right.Name(i - left.count);
  };
}

std::vector<double> Cosines(const ScoreRequest& request, const EmbedAnswer& answer) {
  std::vector<double> scores;
  for (size_t right = request.left; right < answer.size(); ++right) {
    const auto a = answer[request.left == 1 ? 0 : right - request.left], b = answer[right];
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      ab += static_cast<double>(a[i]) * b[i];
      aa += static_cast<double>(a[i]) * a[i];
      bb += static_cast<double>(b[i]) * b[i];
    }
    scores.push_back(aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0);
  }
  return scores;
}

Json UsageJson(const EmbedAnswer& answer) {
  return {{"prompt_tokens", answer.prompt_tokens}, {"total_tokens", answer.prompt_tokens}};
}

void AppendBase64(absl::Span<const float> vector, std::string* out) {
  static_assert(std::endian::native == std::endian::little);
  const absl::string_view bytes(reinterpret_cast<const char*>(vector.data()),
                                vector.size() * sizeof(float));
  out->push_back('"');
  out->append(absl::Base64Escape(bytes));
  out->push_back('"');
}

void AppendNumbers(absl::Span<const float> vector, std::string* out) {
  const size_t begin = out->size();
  out->resize(begin + vector.size() * kMaxNumber + 2);
  char* next = out->data() + begin;
  char* const end = out->data() + out->size();
  *next++ = '[';
  for (const float value : vector) {
    next = std::to_chars(next, end, value).ptr;
    *next++ = ',';
  }
  next[-1] = ']';
  out->resize(static_cast<size_t>(next - out->data()));
}

}  // namespace

absl::StatusOr<OpenAiEmbeddings> ParseEmbeddingsRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  OpenAiEmbeddings out;
  JsonFields fields(body);
  ReadCommon(fields, out.request);
  const std::string format = fields.String("encoding_format").value_or("float");
  out.base64 = format == "base64";
  if (!out.base64 && format != "float")
    fields.Fail("encoding_format", StrCat("is '", format, "'; allowed: float, base64"));
  if (const auto dimensions = fields.Int("dimensions")) out.request.set_dimensions(*dimensions);
  if (const auto normalize = fields.Bool("normalize")) out.request.set_normalize(*normalize);
  if (fields.Find("messages") != nullptr)
    fields.Fail("messages", "is not supported by this server: send texts as input");
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = ReadInputs(fields.Find("input"), out.request); !status.ok())
    return status;
  return out;
}

std::string EmbeddingsBody(const EmbedAnswer& answer, const std::string& model, bool base64) {
  std::string out = R"({"object":"list","data":[)";
  const size_t row = static_cast<size_t>(answer.dimensions);
  out.reserve(answer.size() * (row * (base64 ? 6 : 13) + 64) + model.size() + 128);
  for (size_t i = 0; i < answer.size(); ++i) {
    out.append(
        StrCat(i == 0 ? "" : ",", R"({"object":"embedding","index":)", i, R"(,"embedding":)"));
    (base64 ? AppendBase64 : AppendNumbers)(answer[i], &out);
    out.push_back('}');
  }
  out.append(R"(],"model":)");
  AppendJsonString(model, &out);
  out.append(StrCat(R"(,"usage":)", DumpJson(UsageJson(answer)), "}"));
  return out;
}

absl::StatusOr<ScoreRequest> ParseScoreRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  ScoreRequest out;
  JsonFields fields(body);
  ReadCommon(fields, out.request);
  RefuseOfEmbeddings(fields);
  if (!fields.status().ok()) return fields.status();
  const auto sides = FindSides(fields);
  if (!sides.ok()) return sides.status();
  const auto left = AddTexts(fields, sides->first, out.request);
  if (!left.ok()) return left.status();
  const auto right = AddTexts(fields, sides->second, out.request);
  if (!right.ok()) return right.status();
  out.left = left->count;
  out.names = ScoreNames(*left, *right);
  if (out.left != 1 && out.left != right->count) {
    return FieldError(left->field, StrCat(left->field, " has ", out.left, " texts and ",
                                          right->field, " ", right->count, "; ", left->field,
                                          " must have 1, or as many as ", right->field));
  }
  if (absl::Status status = CheckTogether(right->field, out.request); !status.ok()) return status;
  return out;
}

absl::StatusOr<ScoreRequest> ParseRerankRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  ScoreRequest out;
  out.left = 1;
  JsonFields fields(body);
  ReadCommon(fields, out.request);
  RefuseOfEmbeddings(fields);
  const auto query = fields.String("query");
  const Json* documents = fields.Array("documents");
  if (const auto top_n = fields.Int("top_n")) {
    if (*top_n < 0) fields.Fail("top_n", StrCat("is ", *top_n, "; allowed: 0 (all) or more"));
    if (*top_n > 0) out.top_n = static_cast<size_t>(*top_n);
  }
  out.return_documents = fields.Bool("return_documents").value_or(true);
  if (!fields.status().ok()) return fields.status();
  if (!query) return Missing("query");
  if (documents == nullptr) return Missing("documents");
  out.request.add_inputs()->set_text(*query);
  const auto added = AddTexts(fields, "documents", out.request);
  if (!added.ok()) return added.status();
  out.names = ScoreNames({.field = "query", .count = 1}, *added);
  if (absl::Status status = CheckTogether("documents", out.request); !status.ok()) return status;
  return out;
}

Json ScoreBody(const ScoreRequest& request, const EmbedAnswer& answer, const std::string& model) {
  Json data = Json::array();
  for (const double score : Cosines(request, answer))
    data.push_back({{"index", data.size()}, {"object", "score"}, {"score", score}});
  return {{"object", "list"},
          {"data", std::move(data)},
          {"model", model},
          {"usage", UsageJson(answer)}};
}

Json RerankBody(const ScoreRequest& request, const EmbedAnswer& answer, const std::string& model) {
  const std::vector<double> scores = Cosines(request, answer);
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(std::min(order.size(), request.top_n.value_or(order.size())));
  Json results = Json::array();
  for (const size_t i : order) {
    Json result = {{"index", i}, {"relevance_score", scores[i]}};
    if (request.return_documents) {
      const int input = static_cast<int>(i + request.left);
      result["document"] = {{"text", request.request.inputs(input).text()}};
    }
    results.push_back(std::move(result));
  }
  return {{"model", model}, {"results", std::move(results)}, {"usage", UsageJson(answer)}};
}

}  // namespace fairlead
