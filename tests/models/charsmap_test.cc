// SPDX-License-Identifier: Apache-2.0
// Precompiled charsmaps: rules, and maps that lie. What real maps do is compared in tokenizer_test
// (unigram-t5) and sentencepiece_test (spm-unigram).
#include "models/charsmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "models/detokenizer.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// Units of a double array: see charsmap.cc.
uint32_t Node(uint32_t offset, unsigned char label, bool value) {
  return offset << 10 | (value ? 1u << 8 : 0) | label;
}
uint32_t Value(uint32_t value) { return 1u << 31 | value; }

std::string Bytes(const std::vector<uint32_t>& unit, const std::string& replacements) {
  std::string out(4 + unit.size() * 4, '\0');
  const auto size = static_cast<uint32_t>(unit.size() * 4);
  std::memcpy(out.data(), &size, 4);
  std::memcpy(out.data() + 4, unit.data(), size);
  return out + replacements;
}

// "a" becomes XY, "ab" becomes Z: the root's children stand at 256 ^ byte, those of "a" at
// 512 ^ byte, those of "ab" at 1024 ^ byte; a value stands at its node's offset.
std::vector<uint32_t> SmallTrie() {
  std::vector<uint32_t> unit(2048);
  unit[0] = Node(256, 0, false);
  const uint32_t a = 256 ^ 'a';
  unit[a] = Node(a ^ 512, 'a', true);
  unit[512] = Value(0);
  const uint32_t b = 512 ^ 'b';
  unit[b] = Node(b ^ 1024, 'b', true);
  unit[1024] = Value(3);
  return unit;
}
const std::string kReplacements("XY\0Z\0", 5);

Charsmap Make(const std::string& bytes) {
  absl::StatusOr<Charsmap> map = Charsmap::Create(bytes);
  EXPECT_TRUE(map.ok()) << map.status();
  return map.ok() ? *std::move(map) : Charsmap();
}

TEST(Charsmap, LongestAndShortestRule) {
  const Charsmap map = Make(Bytes(SmallTrie(), kReplacements));
  ASSERT_TRUE(map.Longest("abc").has_value());
  EXPECT_EQ(map.Longest("abc")->length, 2u);
  EXPECT_EQ(map.Longest("abc")->replacement, "Z");
  EXPECT_EQ(map.Shortest("abc")->length, 1u);
  EXPECT_EQ(map.Shortest("abc")->replacement, "XY");
  EXPECT_EQ(map.Longest("ac")->replacement, "XY");
  EXPECT_FALSE(map.Longest("b").has_value());
  EXPECT_FALSE(map.Longest("").has_value());
  EXPECT_FALSE(Charsmap().Longest("a").has_value());
}

// Trust follows what a character becomes; a mark that is dropped with its letter takes it away.
TEST(Charsmap, TrustedSpansFollow) {
  const auto normalizer = PrecompiledNormalizer::Create(Bytes(SmallTrie(), kReplacements));
  ASSERT_TRUE(normalizer.ok()) << normalizer.status();
  TrustedSpans trusted;
  trusted.Add(0, 2);
  EXPECT_EQ((*normalizer)->Apply("aca", &trusted), "XYcXY");
  ASSERT_THAT(trusted.spans(), SizeIs(1));
  EXPECT_EQ(trusted.spans()[0].begin, 0u);
  EXPECT_EQ(trusted.spans()[0].end, 3u);
  TrustedSpans letter;
  letter.Add(0, 1);
  EXPECT_EQ((*normalizer)->Apply("a\u0301", &letter), "XY");
  EXPECT_THAT(letter.spans(), SizeIs(0));
}

TEST(Charsmap, MalformedBytesAreRefused) {
  const auto message = [](const std::string& bytes) {
    return Charsmap::Create(bytes).status().ToString();
  };
  EXPECT_THAT(message("abc"), HasSubstr("header"));
  EXPECT_THAT(message(std::string("\x08\0\0\0abcd", 8)), HasSubstr("trie's size is 8"));
  EXPECT_THAT(message(std::string("\x03\0\0\0abcd", 8)), HasSubstr("multiple of 4"));
  EXPECT_THAT(message(Bytes({0}, "abc")), HasSubstr("no end"));
  EXPECT_THAT(message(Bytes({0}, std::string("\xff\0", 2))), HasSubstr("UTF-8"));
  EXPECT_THAT(message(Bytes({0}, std::string(257, 'x') + '\0')), HasSubstr("257 bytes"));
  EXPECT_TRUE(Charsmap::Create(Bytes({}, "")).ok());
}

TEST(Charsmap, OffsetsOutsideMatchNothing) {
  std::vector<uint32_t> unit = SmallTrie();
  unit[512] = Value(5);  // behind the replacements
  EXPECT_FALSE(Make(Bytes(unit, kReplacements)).Longest("ac").has_value());
  unit = SmallTrie();
  unit[512] = Value(0x7FFFFFFF);
  EXPECT_FALSE(Make(Bytes(unit, kReplacements)).Longest("ac").has_value());
  unit = SmallTrie();
  unit[256 ^ 'a'] = Node((1u << 21) - 1, 'a', true);  // a value outside the array
  EXPECT_FALSE(Make(Bytes(unit, kReplacements)).Longest("ac").has_value());
  unit[0] = Node((1u << 21) - 1, 0, false);
  EXPECT_FALSE(Make(Bytes(unit, kReplacements)).Longest("ac").has_value());
  // Into the middle of a character.
  unit = SmallTrie();
  unit[512] = Value(1);
  EXPECT_FALSE(Make(Bytes(unit, std::string("\xc3\xa9\0", 3))).Longest("ac").has_value());
}

// A node that is its own child accepts any number of its byte.
TEST(Charsmap, ACycleTakesLinearTime) {
  std::vector<uint32_t> unit(512);
  unit[0] = Node(256, 0, false);
  const uint32_t a = 256 ^ 'a';
  unit[a] = Node(a ^ 256, 'a', false);
  const Charsmap map = Make(Bytes(unit, kReplacements));
  const std::string text(1 << 20, 'a');
  for (size_t pos = 0; pos < text.size(); pos += 16)
    EXPECT_FALSE(map.Longest(std::string_view(text).substr(pos)).has_value());
}

TEST(Charsmap, RandomBytesAreHarmless) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint32_t> unit(random() % 600);
    for (uint32_t& u : unit)
      u = random() % 4 == 0 ? random() : Node(random() % 512, random(), random() % 2);
    absl::StatusOr<std::unique_ptr<Normalizer>> normalizer =
        PrecompiledNormalizer::Create(Bytes(unit, kReplacements));
    ASSERT_TRUE(normalizer.ok()) << normalizer.status();
    const std::string out = (*normalizer)->Apply("abc \u00e9\u4e2d\u6587 e\u0301 \U0001F600\r\n");
    EXPECT_TRUE(IsValidUtf8(out));
  }
}

}  // namespace
}  // namespace fairlead
