// SPDX-License-Identifier: Apache-2.0
// Templates that mean harm: each must end in an error, soon, without much memory and without
// overflowing the stack.
#include <sys/resource.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/strings.h"
#include "models/chat_template.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

absl::Status StatusOf(const std::string& source, const Json& variables = Json::object(),
                      const ChatTemplateLimits& limits = {}) {
  const absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ParseChatTemplate(source, limits);
  return parsed.ok() ? (*parsed)->Render(variables).status() : parsed.status();
}

// However long it takes.
std::string TextOf(const std::string& source, const Json& variables = Json::object()) {
  const absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed =
      ParseChatTemplate(source, {.max_time = absl::InfiniteDuration()});
  if (!parsed.ok()) return std::string(parsed.status().message());
  const absl::StatusOr<RenderedPrompt> prompt = (*parsed)->Render(variables);
  return prompt.ok() ? prompt->text : std::string(prompt.status().message());
}

std::string Repeated(const std::string& unit, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += unit;
  return text;
}

void ExpectRefused(const std::string& source, const std::string& reason) {
  const absl::Status status = StatusOf(source);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source.substr(0, 200);
  EXPECT_THAT(std::string(status.message()), HasSubstr(reason)) << source.substr(0, 200);
}

// Steps or time, whichever comes first on this machine.
constexpr char kTooLong[] = "the template needs more than";

TEST(JinjaSandbox, BoundsSteps) {
  const std::string loop = "{% for i in range(100000) %}";
  ExpectRefused(loop + loop + "{{ i }}{% endfor %}{% endfor %}", kTooLong);
  ExpectRefused(loop + loop + "{% endfor %}{% endfor %}", kTooLong);
  ExpectRefused("{{ range(100000000) }}", "Range too big");
  ExpectRefused("{{ range(-9223372036854775808, 18446744073709551615) }}", "Range too big");
  ExpectRefused("{% for i in [0] * 100000000 %}{% endfor %}", "");
  ExpectRefused(
      "{% set x = range(100000)|list %}" + loop + "{% if x == x|list %}{% endif %}{% endfor %}",
      kTooLong);
  // One node must not stand for unbounded work on text.
  ExpectRefused("{% set x = 'a' * 30000000 %}" + loop + "{% set y = x|upper %}{% endfor %}",
                kTooLong);
  for (const char* costly : {"('İß' * 5000000).casefold()", "('ß' * 10000000).upper()",
                             "('aB' * 10000000).swapcase()", "('\\t' * 1000000).expandtabs(8)"}) {
    ExpectRefused(loop + "{% set y = " + costly + " %}{% endfor %}", kTooLong);
  }
  ExpectRefused("{% set x = range(100000)|map('string')|list %}" + loop +
                    "{% set y = x|unique|list %}{% endfor %}",
                kTooLong);
  ExpectRefused("{% set x = 'a' * 30000000 %}" + loop + "{% if 'b' in x %}{% endif %}{% endfor %}",
                kTooLong);
}

// Operations that take many nanoseconds a byte, or that are long by themselves.
TEST(JinjaSandbox, BoundsTime) {
  struct Costly {
    const char* value;
    const char* operation;
  };
  for (const Costly& costly : {
           Costly{R"('\u0001' * 5000000)", "x|tojson"},
           Costly{"' ' * 5000000 ~ '1'", "x|int"},
           Costly{"'1' * 5000000", "x|float"},
           Costly{"' ' * 60000000", "x.strip()"},
           Costly{"'a b ' * 100000", "x|title"},
           Costly{R"(['\'"' * 5000000])", "x|string"},
           Costly{"'x' * 30000000", "'x' * 15000000 ~ 'y' in x"},
           Costly{"'\u00e9' * 30000000", "x[-1]"},
           Costly{"'\u00e9' * 30000000", "x[1:]"},
           Costly{"'A' * 60000000", "x|lower"},
           Costly{"['x' * 1000000] * 100", "x|sort"},
           Costly{"['x' * 1000000] * 1000", "x|unique|list"},
       }) {
    ExpectRefused(StrCat("{% set x = ", costly.value, " %}{% for i in range(100000) %}{% set y = ",
                         costly.operation, " %}{% endfor %}"),
                  kTooLong);
  }
}

TEST(JinjaSandbox, TimeIsTheCallers) {
  ChatTemplateLimits limits;
  limits.max_time = absl::ZeroDuration();
  const std::string loop = "{% for i in range(100000) %}{% endfor %}";
  EXPECT_THAT(std::string(StatusOf(loop, Json::object(), limits).message()),
              HasSubstr("more than 0 ms of processor time"));
  limits.max_time = absl::InfiniteDuration();
  EXPECT_TRUE(StatusOf(loop, Json::object(), limits).ok());
}

TEST(JinjaSandbox, RaisedTextsAreCut) {
  const auto raised = [](const std::string& text) {
    return std::string(StatusOf("{{ raise_exception(" + text + ") }}").message());
  };
  EXPECT_EQ(raised("'a\u00e9'").size(), 3u);
  EXPECT_EQ(raised("'\u4f60' * 1000000").size(), 2048u / 3 * 3);
  EXPECT_THAT(raised("'x' * 70000000"), HasSubstr("more than 67108864 bytes"));
}

// Each of these would take the product of two lengths if it were done naively.
TEST(JinjaSandbox, SearchesInLinearTime) {
  const std::string texts =
      "{% set x = 'a' * 20000000 %}{% set y = 'a' * 10000000 ~ 'b' %}{% set z = 'b' ~ 'a' * "
      "10000000 %}";
  EXPECT_EQ(TextOf(texts + "{{ x.find(y) }}{{ x.rfind(z) }}{{ x.count(y) }}{{ y in x }}"),
            "-1-10False");
  EXPECT_EQ(TextOf(texts + "{{ x.split(y)|length }}{{ x.rsplit(z)|length }}"
                           "{{ x.replace(y, '')|length }}"),
            "1120000000");
  EXPECT_EQ(TextOf(texts + "{{ x.strip(z)|length }}{{ x.partition(y)[2] }}"), "0");
}

TEST(JinjaSandbox, BoundsText) {
  ExpectRefused("{{ 'a' * 10 ** 9 }}", "bytes");
  ExpectRefused("{{ 10 ** 9 * 'a' }}", "bytes");
  ExpectRefused("{{ 'a' * 9223372036854775807 * 9223372036854775807 }}", "");
  ExpectRefused(
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x "
      "%}{% endfor %}",
      "bytes");
  ExpectRefused(
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x "
      "%}{% endfor %}",
      "bytes");
  ExpectRefused(
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = [ns.x, "
      "ns.x]|join %}{% endfor %}",
      "bytes");
  ExpectRefused(
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = "
      "ns.x|replace('a', 'aaaa') %}{% endfor %}",
      "");
  ExpectRefused("{% set x = 'a' * 60000000 %}{{ x }}{{ x }}", "bytes");
  ExpectRefused("{% set x = 'a' * 60000000 %}{% set y = [x ~ 1, x ~ 2, x ~ 3, x ~ 4, x ~ 5] %}",
                "bytes");
  ExpectRefused("{{ 'a'.center(10 ** 12) }}", "bytes");
  ExpectRefused("{{ '\\t'.expandtabs(10 ** 12) }}", "bytes");
  ExpectRefused("{{ ('\\t' * 1000000).expandtabs(1000) }}", "bytes");
  ExpectRefused("{{ 'a'|indent(10 ** 12) }}", "");
  ExpectRefused("{{ [1]|tojson(indent=10 ** 12) }}", "");
  ExpectRefused("{{ '%1000000000d' % 1 }}", "width");
  ExpectRefused("{{ '%.*f' % (10 ** 9, 1.5) }}", "width");
  ExpectRefused("{{ '{:1000000000}'.format(1) }}", "width");
  ExpectRefused("{{ strftime_now('%1000000000d') }}", "");
  ExpectRefused(
      "{% macro m(n) %}{{ 'a' * 60000000 }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ "
      "m(50) }}",
      "bytes");
}

TEST(JinjaSandbox, BoundsContainers) {
  ExpectRefused(
      "{% set ns = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% "
      "endfor %}",
      "");
  ExpectRefused(
      "{% set ns = namespace(x=[]) %}{% for i in range(10000) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}{{ ns.x }}",
      "nested deeper");
  ExpectRefused(
      "{% set ns = namespace(x={}) %}{% for i in range(10000) %}{% set ns.x = {'a': ns.x} %}{% "
      "endfor %}",
      "nested deeper");
  ExpectRefused(
      "{% set ns = namespace(x=[]) %}{% for i in range(10000) %}{% set ns.x = ns.x|map('upper') "
      "%}{% endfor %}",
      "nested deeper");
  ExpectRefused(
      "{% set ns = namespace(x={}) %}{% for i in range(10000) %}{% set ns.x = {1: ns.x.items()} "
      "%}{% endfor %}",
      "nested deeper");
  // Shared parts make few values look like very many.
  const std::string doubled =
      "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] "
      "%}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
  ExpectRefused(doubled + "{{ ns.x }}", "");
  ExpectRefused(doubled + "{{ ns.x|tojson }}", "");
  ExpectRefused(doubled + "{{ ns.x == ns.y }}", kTooLong);
  ExpectRefused(doubled + "{{ ns.x < ns.y }}", kTooLong);
  ExpectRefused(
      "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% "
      "endfor %}{{ {ns.x: 1}[ns.x] }}{{ dict([[ns.x, 1]])|length }}{% for j in range(10) %}{{ {1: "
      "1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, ns.x: 1}|length }}{% endfor %}",
      kTooLong);
}

TEST(JinjaSandbox, BoundsNesting) {
  constexpr size_t kDeep = 100'000;
  constexpr size_t kLongDeep = 50'000;  // a template has at most 2^20 bytes
  ExpectRefused("{{ " + Repeated("(", kDeep) + "1" + Repeated(")", kDeep) + " }}", "deeper");
  ExpectRefused("{{ " + Repeated("[", kDeep) + Repeated("]", kDeep) + " }}", "deeper");
  ExpectRefused("{{ " + Repeated("{1:", kDeep) + "1" + Repeated("}", kDeep) + " }}", "deeper");
  ExpectRefused("{{ " + Repeated("-", kDeep) + "1 }}", "deeper");
  ExpectRefused("{{ 1" + Repeated(" if 1 else 1", kLongDeep) + " }}", "deeper");
  ExpectRefused("{{ 1" + Repeated(" if 1", kDeep) + " }}", "levels");
  ExpectRefused("{{ 1" + Repeated(" + 1", kDeep) + " }}", "levels");
  ExpectRefused("{{ 1" + Repeated(" ** 1", kDeep) + " }}", "levels");
  ExpectRefused("{{ 'a'" + Repeated("|upper", kDeep) + " }}", "levels");
  ExpectRefused("{{ a" + Repeated(".b", kDeep) + " }}", "levels");
  ExpectRefused("{{ a" + Repeated("[0]", kDeep) + " }}", "levels");
  ExpectRefused("{{ a" + Repeated("()", kDeep) + " }}", "levels");
  ExpectRefused("{{ f(" + Repeated("f(", kDeep) + Repeated(")", kDeep) + ") }}", "deeper");
  ExpectRefused(Repeated("{% if 1 %}", kDeep), "deeper");
  ExpectRefused(Repeated("{% for i in x %}", kLongDeep), "deeper");
  ExpectRefused(Repeated("{% set x %}", kLongDeep), "deeper");
  ExpectRefused(Repeated("{% macro m() %}", kLongDeep), "deeper");
  ExpectRefused("{% for " + Repeated("(", kDeep) + "x" + Repeated(")", kDeep) + " in y %}",
                "deeper");
  ExpectRefused("{{ 1 is eq " + Repeated("[", kDeep) + Repeated("]", kDeep) + " }}", "deeper");
  EXPECT_EQ(TextOf("{{ " + Repeated("not ", kDeep) + "1 }}"), "True");
  EXPECT_EQ(TextOf("{{ 1" + Repeated(" ~ 1", 1000) + " }}"), Repeated("1", 1001));
  EXPECT_EQ(TextOf("{% if 0 %}" + Repeated("{% elif 0 %}", 5000) + "{% else %}x{% endif %}"), "x");
}

TEST(JinjaSandbox, AllowsWhatIsWithinTheLimits) {
  EXPECT_EQ(TextOf("{{ " + Repeated("(", 90) + "1" + Repeated(")", 90) + " }}"), "1");
  EXPECT_EQ(TextOf("{{ 0" + Repeated(" + 1", 300) + " }}"), "300");
  EXPECT_EQ(TextOf(Repeated("{% if 1 %}", 90) + "x" + Repeated("{% endif %}", 90)), "x");
  EXPECT_EQ(
      TextOf("{% macro m(n) %}{{ n }}{% if n %},{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(80) }}")
          .substr(0, 6),
      "80,79,");
  EXPECT_EQ(TextOf("{% set x = 'a' * 20000000 %}{{ (x ~ x)|length }}"), "40000000");
  EXPECT_EQ(TextOf("{% for i in range(100000) %}{% if loop.last %}{{ i }}{% endif %}{% endfor %}"),
            "99999");
}

TEST(JinjaSandbox, BoundsRecursion) {
  ExpectRefused("{% for x in [0] recursive %}{{ loop([0]) }}{% endfor %}", "deeper");
  ExpectRefused("{% for x in range(100) recursive %}{{ loop(range(100)) }}{% endfor %}", "deeper");
  ExpectRefused(
      "{% set ns = namespace(l=none) %}{% for x in [1, 2] recursive %}{% if loop.depth < 60 "
      "%}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
      kTooLong);
  ExpectRefused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deeper");
  ExpectRefused(
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "deeper");
  ExpectRefused("{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}", "deeper");
  ExpectRefused("{% macro m() %}{% call m() %}{% endcall %}{{ caller() }}{% endmacro %}{{ m() }}",
                "deeper");
  ExpectRefused("{% macro m(x=m()) %}{% endmacro %}{{ m() }}", "");
  // The deepest expressions in the deepest calls.
  const std::string nested = Repeated("(", 90) + "m()" + Repeated("|string)", 90);
  ExpectRefused("{% macro m() %}{{ " + nested + " }}{% endmacro %}{{ m() }}", "deeper");
  ExpectRefused("{% macro m() %}" + Repeated("{% if 1 %}{% for i in [1] %}", 40) +
                    "{{ [[[[m()]]]] }}" + Repeated("{% endfor %}{% endif %}", 40) +
                    "{% endmacro %}{{ m() }}",
                "deeper");
}

TEST(JinjaSandbox, SelfReferencesEnd) {
  ExpectRefused("{% set a = namespace() %}{% set a.a = a %}{{ a }}", "deeper");
  EXPECT_EQ(TextOf("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ "
                   "a.b.a.b is defined }}"),
            "True");
  EXPECT_EQ(TextOf("{% set ns = namespace(x=none) %}{% for i in range(1000) %}{% set ns.x = "
                   "namespace(y=ns.x) %}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(TextOf("{% set ns = namespace(x=none) %}{% for i in range(1000) %}{% for j in [ns.x] "
                   "%}{% set ns.x = loop %}{% endfor %}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(TextOf("{% set ns = namespace(f=none) %}{% macro m(f) %}{% macro inner() %}{{ f }}{% "
                   "endmacro %}{% set ns.f = inner %}{% endmacro %}{% for i in range(1000) %}{{ "
                   "m(ns.f) }}{% endfor %}ok"),
            "ok");
  // A loop kept beyond its end still answers.
  EXPECT_EQ(TextOf("{% set ns = namespace() %}{% for i in [1, 2] if i > 0 %}{% set ns.l = loop "
                   "%}{% endfor %}{{ ns.l.index }}"),
            "2");
}

TEST(JinjaSandbox, BoundsIntegers) {
  ExpectRefused("{{ 18446744073709551615 + 1 }}", "overflow");
  ExpectRefused("{{ 18446744073709551615 * 18446744073709551615 }}", "overflow");
  ExpectRefused("{{ -9223372036854775808 - 1 }}", "overflow");
  ExpectRefused("{{ 2 ** 64 }}", "overflow");
  ExpectRefused("{{ 10 ** 18446744073709551615 }}", "overflow");
  ExpectRefused("{{ -(2 ** 63) - 1 }}", "overflow");
  ExpectRefused("{{ 18446744073709551616 }}", "2^64");
  ExpectRefused("{{ '99999999999999999999999999'|int }}", "overflow");
  ExpectRefused("{{ 1e300|int }}", "overflow");
  EXPECT_EQ(TextOf("{{ -9223372036854775808 // -1 }}"), "9223372036854775808");
  EXPECT_EQ(TextOf("{{ x }}", {{"x", UINT64_MAX}}), "18446744073709551615");
  EXPECT_EQ(TextOf("{{ 1 ** 18446744073709551615 }}{{ (-1) ** 18446744073709551615 }}"), "1-1");
  EXPECT_EQ(TextOf("{{ 'abc'[-9223372036854775808:18446744073709551615] }}"), "abc");
  EXPECT_EQ(TextOf("{{ [1, 2][::9223372036854775807] }}"), "[1]");
}

TEST(JinjaSandbox, HidesPythonsInside) {
  EXPECT_EQ(
      TextOf("{{ ''.__class__ }}{{ {}['__class__'] }}{{ [].__len__ }}{{ range.__globals__ }}"), "");
  ExpectRefused("{{ ''.__class__.__mro__ }}", "unsafe");
  ExpectRefused("{{ ''['__class__']['__mro__'] }}", "unsafe");
  ExpectRefused("{{ '{0.__class__.__mro__}'.format(1) }}", "unsafe");
  ExpectRefused("{{ (''|attr('__class__')).x }}", "unsafe");
  ExpectRefused("{{ ([1]|map(attribute='__class__')|list)[0].x }}", "unsafe");
  ExpectRefused("{{ [].append(1) }}", "unsafe");
  ExpectRefused("{{ {}.update({}) }}", "unsafe");
  ExpectRefused("{{ messages.clear() }}", "");
  ExpectRefused("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "underscore");
  ExpectRefused("{% set ns = namespace(_x=1) %}", "underscore");
  for (const char* tag : {"include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'",
                          "block x", "autoescape true"}) {
    ExpectRefused(std::string("{% ") + tag + " %}", "not supported");
  }
}

TEST(JinjaSandbox, BoundsVariables) {
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({deep});
  const absl::Status status = StatusOf("{{ x }}", {{"x", deep}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nested deeper"));
}

TEST(JinjaSandbox, LimitsAreTheCallers) {
  ChatTemplateLimits limits;
  limits.max_steps = 100;
  EXPECT_THAT(
      std::string(
          StatusOf("{% for i in range(1000) %}{% endfor %}", Json::object(), limits).message()),
      HasSubstr("more than 100 steps"));
  limits = {};
  limits.max_output_bytes = 1000;
  EXPECT_THAT(std::string(StatusOf("{{ 'a' * 1001 }}", Json::object(), limits).message()),
              HasSubstr("more than 1000 bytes"));
  EXPECT_TRUE(StatusOf("{{ 'a' * 1000 }}", Json::object(), limits).ok());
  limits = {};
  limits.max_depth = 10;
  EXPECT_FALSE(StatusOf("{{ (((((((((((1))))))))))) }}", Json::object(), limits).ok());
}

// Loops that call themselves keep themselves alive no longer than the rendering.
TEST(JinjaSandbox, RecursiveLoopsEnd) {
  EXPECT_EQ(TextOf("{% set ns = namespace(l=none) %}{% for x in [[1], 2] recursive %}{% set ns.l = "
                   "loop %}{% if x is iterable %}{{ loop(x) }}{% endif %}{% endfor %}{{ ns.l([]) }}"
                   "ok"),
            "ok");
  EXPECT_EQ(TextOf("{% for x in range(1000) recursive %}{% if x is iterable %}{{ loop(x) }}{% else "
                   "%}{{ loop([[]]) if x < 0 }}{% endif %}{% endfor %}ok"),
            "ok");
}

// None of the above may have held more than a few times the output limit.
TEST(JinjaSandbox, PeakMemoryStaysBounded) {
  ExpectRefused(
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ['a' * "
      "100000 ~ i] %}{% endfor %}",
      "");
  ExpectRefused(
      "{% set ns = namespace(l=none) %}{% for i in range(100000) %}{% for j in range(100000) %}{% "
      "set ns.l = namespace(x=ns.l) %}{% endfor %}{% endfor %}",
      "");
  rusage usage{};
  ASSERT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
#if !defined(__SANITIZE_ADDRESS__)  // the sanitizer keeps freed memory for a while
  EXPECT_LT(usage.ru_maxrss, 1500 * 1024);
#endif
}

}  // namespace
}  // namespace fairlead
