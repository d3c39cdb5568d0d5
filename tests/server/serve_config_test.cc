// SPDX-License-Identifier: Apache-2.0
// The settings of `serve`: values and ranges, YAML and command line, what they say together,
// /config.
#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Parsed {
  ServeConfig config;
  absl::Status status;
};

std::string WriteYaml(const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "config_test.yaml";
  std::ofstream(path) << text;
  return path.string();
}

// As `serve` reads its configuration.
Parsed Parse(const std::vector<std::string>& arguments, const std::string& yaml = "") {
  Parsed parsed;
  const std::vector<Flag> flags = ServeFlags(parsed.config);
  FlagTexts texts;
  CLI::App app;
  AddFlags(app, flags, texts);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  app.parse(reversed);
  if (!yaml.empty()) {
    const auto from_file = ReadYaml(WriteYaml(yaml), flags);
    parsed.status = from_file.status();
    if (parsed.status.ok()) parsed.status = ApplyTexts(*from_file, "file: ", flags);
  }
  if (parsed.status.ok()) parsed.status = ApplyTexts(texts, "--", flags);
  return parsed;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ServeConfig, DefaultsAreTheDocumentedOnes) {
  const ServeConfig config = Parse({"--model", "m"}).config;
  EXPECT_EQ(config.http.ToString(), "127.0.0.1:8000");
  EXPECT_EQ(config.grpc.ToString(), "127.0.0.1:8001");
  EXPECT_EQ(config.runtime.max_num_seqs, 64);
  EXPECT_EQ(config.runtime.max_queue, 512);
  EXPECT_EQ(config.runtime.max_batched_tokens, 256);
  EXPECT_EQ(config.runtime.max_logprobs, 20);
  EXPECT_EQ(config.runtime.numerics, "precise");
  EXPECT_EQ(config.max_connections, 1024);
  EXPECT_EQ(config.drain_timeout, 30);
  EXPECT_FALSE(config.runtime.kv_cache_memory.has_value());
  EXPECT_FALSE(config.allow_anonymous);
}

TEST(ServeConfig, CommandLineWinsOverYaml) {
  const Parsed parsed = Parse(
      {"--max-queue", "7", "--no-prefix-cache"},
      "model: from-yaml\nmax-queue: 9\ngrpc: off\nallow-anonymous: true\ndrain-timeout: 1.5\n");
  ASSERT_TRUE(parsed.status.ok()) << parsed.status;
  EXPECT_EQ(parsed.config.runtime.model, "from-yaml");
  EXPECT_EQ(parsed.config.runtime.max_queue, 7);
  EXPECT_TRUE(parsed.config.runtime.no_prefix_cache);
  EXPECT_TRUE(parsed.config.allow_anonymous);
  EXPECT_TRUE(parsed.config.grpc.off());
  EXPECT_EQ(parsed.config.drain_timeout, 1.5);
}

TEST(ServeConfig, EveryFlagIsAYamlKey) {
  ServeConfig config;
  const std::vector<Flag> flags = ServeFlags(config);
  for (const Flag& flag : flags) {
    const Json value = flag.get();
    const std::string text = value.is_string() ? value.get<std::string>()
                             : value.is_null() ? "1"
                                               : DumpJson(value);
    const Parsed parsed = Parse({}, flag.name + ": \"" + text + "\"");
    EXPECT_TRUE(parsed.status.ok()) << flag.name << ": " << parsed.status;
  }
}

TEST(ServeConfig, YamlErrorsNameTheKeyAndTheLine) {
  EXPECT_THAT(Message(Parse({}, "model: a\nmax-qeue: 3\n").status),
              AllOf(HasSubstr("line 2"), HasSubstr("'max-qeue'")));
  EXPECT_THAT(Message(Parse({}, "max-queue: [1, 2]\n").status), HasSubstr("'max-queue'"));
  EXPECT_THAT(Message(Parse({}, "max-queue: 1\nmax-queue: 2\n").status), HasSubstr("twice"));
  EXPECT_THAT(Message(Parse({}, "- model\n").status), HasSubstr("mapping"));
  EXPECT_THAT(Message(Parse({}, "model: \"unclosed\nx").status), HasSubstr("line"));
  ServeConfig config;
  EXPECT_THAT(Message(ReadYaml("/no/such/file.yaml", ServeFlags(config)).status()),
              HasSubstr("/no/such/file.yaml"));
  EXPECT_THAT(Message(ReadYaml(testing::TempDir(), ServeFlags(config)).status()),
              HasSubstr("cannot be read"));  // a folder
  EXPECT_TRUE(Parse({}, "# nothing\n").status.ok());
}

TEST(ServeConfig, ValuesOutOfRangeNameTheValueAndTheRange) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"--max-num-seqs", "0"}, "--max-num-seqs: '0' is not a whole number from 1 to 65536"},
      {{"--block-tokens", "8"}, "--block-tokens: '8' is not a whole number from 16 to 1024"},
      {{"--block-tokens", "24"}, "--block-tokens: '24' is not a multiple of 16"},
      {{"--threads", "1025"}, "'1025' is not a whole number from 0 to 1024"},
      {{"--speculation", "draft"}, "--speculation: 'draft' is not one of off, ngram"},
      {{"--max-queue", "many"}, "--max-queue: 'many' is not a whole number from 0"},
      {{"--max-queue", "99999999999999999999"}, "--max-queue: '99999999999999999999'"},
      {{"--max-batched-tokens", "1.5"}, "'1.5'"},
      {{"--drain-timeout", "-1"}, "'-1' is not a number from 0 to 86400"},
      {{"--drain-timeout", "nan"}, "'nan'"},
      {{"--numerics", "exact"}, "'exact' is not one of float32, precise, fast"},
      {{"--device", "tpu"},
       "'tpu' is not one of auto, cpu, cuda:N, hip:N, host-simt:32, host-simt:64"},
      {{"--device", "cuda:"}, "'cuda:' is not one of auto, cpu, cuda:N, hip:N"},
      {{"--device", "cuda:-1"}, "'cuda:-1' is not one of"},
      {{"--device", "hip:0x1"}, "'hip:0x1' is not one of"},
      {{"--device", "cuda0"}, "'cuda0' is not one of"},
      {{"--kv-cache-dtype", "q4_0"}, "'q4_0' is not one of auto, f32, f16, bf16, q8_0, f8_e4m3"},
      {{"--kv-cache-memory", "lots"}, "'lots' is not a size such as 512MiB"},
      {{"--max-body-size", "10%"}, "'10%' is not a size from 1024"},
      {{"--http", "8000"}, "'8000' is not HOST:PORT"},
  };
  for (const auto& [arguments, expected] : cases) {
    const absl::Status status = Parse(arguments).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr(expected));
  }
}

TEST(ServeConfig, MemorySizes) {
  const std::pair<const char*, uint64_t> sizes[] = {
      {"512MiB", 512ull << 20},
      {"2G", 2ull << 30},
      {"1500000", 1500000},
      {"1kb", 1000},
      {"1.5GiB", 3ull << 29},
      {"1t", 1ull << 40},
      {"3MB", 3'000'000},
      {"100KiB", 100ull << 10},
      {"7b", 7},
  };
  for (const auto& [text, bytes] : sizes) {
    MemorySize size;
    ASSERT_TRUE(ParseMemorySize(text, size).ok()) << text;
    EXPECT_EQ(size.bytes, bytes) << text;
    EXPECT_EQ(size.percent, 0);
  }
  MemorySize share;
  ASSERT_TRUE(ParseMemorySize("25%", share).ok());
  EXPECT_EQ(share.percent, 25);
  for (const char* text : {"", "0", "-1G", "101%", "0%", "5XB", "G", "1e30T", "1.2.3M", "nan"}) {
    MemorySize size;
    EXPECT_FALSE(ParseMemorySize(text, size).ok()) << text;
  }
}

TEST(ServeConfig, ListenAddresses) {
  struct Case {
    const char* text;
    const char* host;
    int port;
    bool loopback;
  };
  const Case cases[] = {{"127.0.0.1:8000", "127.0.0.1", 8000, true},
                        {"[::1]:0", "::1", 0, true},
                        {"localhost:65535", "localhost", 65535, true},
                        {"0.0.0.0:80", "0.0.0.0", 80, false},
                        {"[::]:80", "::", 80, false},
                        {"127.evil.example:80", "127.evil.example", 80, false},
                        {"10.1.2.3:80", "10.1.2.3", 80, false}};
  for (const Case& c : cases) {
    ListenAddress address;
    ASSERT_TRUE(ParseListenAddress(c.text, address).ok()) << c.text;
    EXPECT_EQ(address.host, c.host);
    EXPECT_EQ(address.port, c.port);
    EXPECT_EQ(address.IsLoopback(), c.loopback) << c.text;
    EXPECT_EQ(address.ToString(), c.text);
  }
  for (const char* text :
       {"", ":8000", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "[::1]",
        "[::1:80", "[host]:80", "a b:80", "host:8 0", "[]:1"}) {
    ListenAddress address;
    EXPECT_FALSE(ParseListenAddress(text, address).ok()) << text;
  }
}

TEST(ServeConfig, ReachableAddressesNeedKeys) {
  const auto check = [](const std::vector<std::string>& arguments) {
    return CheckServeConfig(Parse(arguments).config);
  };
  EXPECT_TRUE(check({}).ok());
  for (const char* flag : {"--http", "--grpc"}) {
    const absl::Status status = check({flag, "0.0.0.0:8000"});
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(Message(status), AllOf(HasSubstr("0.0.0.0:8000"), HasSubstr("--allow-anonymous")));
    EXPECT_TRUE(check({flag, "0.0.0.0:8000", "--allow-anonymous"}).ok());
    EXPECT_TRUE(check({flag, "0.0.0.0:8000", "--api-key-file", "keys"}).ok());
    EXPECT_TRUE(check({flag, "off"}).ok());
  }
  EXPECT_FALSE(check({"--http", "off", "--grpc", "off"}).ok());
  EXPECT_THAT(Message(check({"--tls-cert", "a"})), HasSubstr("--tls-key"));
  EXPECT_FALSE(check({"--api-key-file", "keys", "--allow-anonymous"}).ok());
}

TEST(ServeConfig, ConfigJsonHidesSecrets) {
  Parsed parsed = Parse({"--api-key-file", "/secret/keys", "--tls-key", "/secret/key.pem",
                         "--tls-cert", "cert.pem", "--kv-cache-memory", "10%"});
  const Json json = ConfigJson(ServeFlags(parsed.config));
  EXPECT_THAT(DumpJson(json), testing::Not(HasSubstr("/secret")));
  EXPECT_EQ(json["api-key-file"], "(hidden)");
  EXPECT_EQ(json["tls-key"], "(hidden)");
  EXPECT_EQ(json["tls-cert"], "cert.pem");
  EXPECT_EQ(json["max-queue"], 512);
  EXPECT_EQ(json["speculation"], "off");
  EXPECT_EQ(json["kv-cache-memory"], "10%");
  EXPECT_EQ(json["http"], "127.0.0.1:8000");
  EXPECT_TRUE(json["max-model-len"].is_null());
  ServeConfig unset;
  EXPECT_EQ(ConfigJson(ServeFlags(unset))["api-key-file"], "");
}

}  // namespace
}  // namespace fairlead
