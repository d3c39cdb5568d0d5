#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chat template goldens: renders templates/*.jinja and the language cases below through transformers' own
render_jinja_template (jinja2, sandboxed, as apply_chat_template runs it) and writes ../templates/*.json.

  python3 -m venv V; V/bin/pip install jinja2==3.1.6 transformers==5.24.0; V/bin/python make_templates.py

Each case: name, template (or template_name, a key of the file's templates), its own variables over the file's,
and expected (the text) or error (the exception's message; `raised` is true if the template raised it itself by
raise_exception). The clock stands at 2025-07-04 09:05:03.
"""
import datetime
import json
import pathlib

import jinja2
import transformers
from transformers import tokenization_utils_base
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
OUT = HERE.parent / "templates"


class FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 7, 4, 9, 5, 3)


chat_template_utils.datetime = FixedDatetime


def render(template, variables):
    rest = dict(variables)
    messages = tokenization_utils_base._normalize_chat_messages(rest.pop("messages", []))
    rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, **rest)
    return rendered[0]


def case(name, template, variables):
    """One answer. The caller adds what the file says about the template and the variables."""
    result = {"name": name}
    try:
        result["expected"] = render(template, variables)
    except Exception as error:  # noqa: BLE001: any exception is an answer
        result["error"] = str(error)
        result["raised"] = type(error) is jinja2.exceptions.TemplateError
    return result


def write(file_name, cases, **shared):
    names = [c["name"] for c in cases]
    assert len(set(names)) == len(names), "names repeat"
    document = {"oracle": f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}", **shared, "cases": cases}
    (OUT / file_name).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(file_name, len(cases), "cases,", sum("error" in c for c in cases), "of them errors")


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Today's weather \"here\" & there", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "e.g. Zürich"},
            "days": {"type": "integer", "minimum": 1, "maximum": 18446744073709551615},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "nullable": True},
            "where": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {
                "lat": {"type": "number", "default": 1.0}, "lon": {"type": "number", "default": -0.5}},
                "required": ["lat"]}]},
            "mixed": {"type": ["string", "null"]}, "flag": {"type": "boolean"}, "free": {"type": "object"}},
        "required": ["city"]}}}
CLOCK = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {
    "type": "object", "properties": {}}, "return": {"type": "string"}}}
CALL = {"id": "abcdef123", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}}

PLAIN = [user("What is the capital of France?")]
WITH_SYSTEM = [system("You are terse.\n"), user("  Hi there!  "), assistant(" Hello. "), user("Bye <|im_end|>")]
TWO_TURNS = [user("Hi"), assistant("Hello!"), user("日本語で? 😀\n\n```py\nprint('x')\n```")]
TOOL_CHAT = [system("Use tools."), user("Weather in Zürich?"), {"role": "assistant", "content": "", "tool_calls": [CALL]},
             {"role": "tool", "content": "{\"temp\": 21.5}", "tool_call_id": "abcdef123", "name": "get_weather"},
             assistant("21.5 degrees."), user("Thanks")]
TWO_RESULTS = [user("Both?"), {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
               {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
THINKING = [user("1+1?"), assistant("<think>\neasy\n</think>\n\n2"), user("2+2?"),
            assistant("4", reasoning_content="still easy"), user("3+3?")]
PENDING_THOUGHT = [user("Go"), assistant("", reasoning="need a tool", tool_calls=[CALL]),
                   {"role": "tool", "content": "sunny"}]
PARTS = [system("Look closely."), {"role": "user", "content": [
    {"type": "image"}, {"type": "text", "text": "  What is this? "}]}]
NOT_ALTERNATING = [user("a"), user("b")]
CONVERSATIONS = {"plain": PLAIN, "system": WITH_SYSTEM, "turns": TWO_TURNS, "not-alternating": NOT_ALTERNATING}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def chat_cases():
    cases = []
    sources = {}

    def add(template_name, what, messages, **variables):
        source = (HERE / "templates" / f"{template_name}.jinja").read_text(encoding="utf-8")
        sources[template_name] = source
        own = {"messages": messages, **variables}
        answer = case(f"{template_name}: {what}", source, {"add_generation_prompt": True, **TOKENS, **own})
        cases.append({**answer, "template_name": template_name, "variables": own})

    for name in ("smollm2", "chatml", "llama3", "llama31", "qwen25", "qwen3", "mistral", "gemma", "gemma3", "phi3",
                 "zephyr", "llama2", "schema_macro", "command", "deepseek_r1", "gptoss", "granite", "phi4", "phi4_mini", "hermes_tool_use"):
        for what, messages in CONVERSATIONS.items():
            add(name, what, messages)
        add(name, "no generation prompt", TWO_TURNS, add_generation_prompt=False)
    for name in ("llama31", "qwen25", "qwen3", "mistral", "schema_macro", "deepseek_r1", "gptoss", "granite", "hermes_tool_use"):
        add(name, "tools", WITH_SYSTEM, tools=[WEATHER, CLOCK])
        add(name, "tool call and result", TOOL_CHAT, tools=[WEATHER])
        add(name, "two calls", TWO_RESULTS, tools=[WEATHER, CLOCK])
        add(name, "keys that are null", [{**user("q"), "name": None}, {"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": [
            {**CALL, "id": "abcdefghi"}]}, {"role": "tool", "tool_call_id": "abcdefghi", "content": "ok", "name": None}], tools=[WEATHER])
    add("llama31", "tools apart", TOOL_CHAT, tools=[WEATHER], tools_in_user_message=False)
    add("llama31", "tools without a user", [system("x")], tools=[CLOCK])
    add("llama31", "builtin tools", [user("x"), {"role": "assistant", "tool_calls": [
        {"function": {"name": "brave_search", "arguments": {"query": "a \"b\"", "site": "c"}}}]}],
        builtin_tools=["code_interpreter", "brave_search"], date_string="1 Jan 2025")
    add("qwen3", "thinking", THINKING)
    add("qwen3", "thinking off", THINKING, enable_thinking=False)
    add("qwen3", "pending thought", PENDING_THOUGHT, tools=[WEATHER])
    add("schema_macro", "thinking", THINKING, reasoning_effort="high")
    add("mistral", "bad call id", [user("x"), {"role": "assistant", "tool_calls": [{**CALL, "id": "1"}]}])
    add("gemma3", "parts", PARTS)
    add("gemma3", "content of a wrong type", [user(5)])
    add("command", "documents", WITH_SYSTEM, documents=[{"title": "T \"1\"", "text": "a\nb"}, {"title": "ü", "text": ""}])
    add("deepseek_r1", "thinking", THINKING)
    add("deepseek_r1", "an answer after results", TWO_RESULTS + [assistant("Both done."), user("And now?")])
    add("deepseek_r1", "unknown role", [{"role": "critic", "content": "x"}])
    add("gptoss", "thinking", THINKING, reasoning_effort="high", model_identity="You are R2.")
    add("gptoss", "pending thought", PENDING_THOUGHT, tools=[WEATHER, CLOCK], builtin_tools=["python", "browser", "python"])
    add("gptoss", "developer", [{"role": "developer", "content": "Be terse."}, user("Hi")], reasoning_effort="")
    add("gptoss", "a result without a call", [user("x"), {"role": "tool", "content": "1"}])
    add("gptoss", "channel in the content", [user("x"), assistant("<|channel|>analysis")])
    add("gptoss", "result that is an object", [user("x"), {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": [1, {"a": None}]}])
    for what, variables in {
            "documents": {"documents": DOCUMENTS}, "tools and documents": {"documents": DOCUMENTS, "tools": [CLOCK]}, "thinking": {"thinking": True},
            "citations": {"documents": DOCUMENTS, "controls": {"citations": True, "length": "long"}}, "length": {"controls": {"length": "any"}}}.items():
        add("granite", what, TWO_TURNS, **variables)
    add("granite", "unknown role", [user("x"), {"role": "critic", "content": "x"}])
    add("phi4_mini", "tools of a message", [{**system("Use them."), "tools": json.dumps([CLOCK])}, user("When?")])
    add("hermes_tool_use", "bare functions", [user("x")], tools=[CLOCK["function"] | {"parameters": {"type": "object", "properties": {
        "when": {"type": "array", "items": {"type": "number"}, "description": "<now> & later"},
        "zone": {"type": ["string", "null"]}, "map": {"type": "object", "additionalProperties": {"type": "boolean"}}}}}])
    return cases, sources


DOCUMENTS = [{"doc_id": 7, "title": "T \"1\"", "text": "a\nb"}, {"title": None, "text": "ü"}, {"text": ""}]

VARIABLES = {
    "messages": [],
    "s": "Hello World", "pad": " \t x y \n", "u": "héllo ñandú ß 日本 😀", "e": "", "n": 5, "neg": -3, "f": 2.5, "t": True,
    "none_value": None, "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "nested": [[1, 2], [3, [4, "x"]], {}],
    "d": {"a": 1, "b": {"c": [1, 2]}, "items": "shadow", "z": None},
    "users": [{"name": "Bo", "age": 3, "on": True}, {"name": "al", "age": 1, "on": False}, {"name": "Cy", "age": 2, "on": True}],
    "html": "<a href='x'>&\"</a>", "lines": "a\nb\n\nc\r\nd", "control": "\u0000\u001f\u007f\u00ad\u200b\u2028\\",
}

# One expression each, printed; grouped by what they are about.
EXPRESSIONS = {
    "precedence": ["1 + 2 * 3 ** 2", "-2 ** 2", "2 ** 3 ** 2", "not 1 == 2", "1 ~ 2 + 3", "1 + 2 ~ 3 * 4", "'a' ~ 1 + 2",
                   "1 < 2 < 3", "1 < 3 < 2", "1 == 1 in [true]", "not true or true", "true or false and false",
                   "1 if 0 else 2 if 0 else 3", "'x' if false", "[1, 2][0]|string + 'x'", "-l[0]|abs", "(-3)|abs", "- 3|abs",
                   "2 * 3 is divisibleby 3", "not n is odd", "n is odd and s is string", "1 in [1] == true",
                   "3 not in l", "s[0] in 'HJ' and 'x' not in s", "n|float / 2", "7 // 2, 7 % 3, -7 // 2, -7 % 3, 7.5 // 2, -7.5 % 2",
                   "7 / 2, 6 / 3, 2 ** -1, 2 ** 0.5, 10 ** 15", "'ab' 'cd' \"ef\"", "1_000 + 0x1F + 0b11 + 0o17", "1e3, 1.5e-7, 1_0.5"],
    "printing": ["1.0", "0.1 + 0.2", "1e16", "123456789012345680.0", "1e-5, 0.0001", "1e22", "2.5e-310", "1/3", "[1.0, none, true]",
                 "{'a': 1, 'b': [true, none]}", "('x',)", "()", "[[], {}, ()]", "[\"it's\", 'say \"x\"', 'both \\' \"', '\\n\\t\\\\']",
                 "[u, control]", "d", "nested", "users[0]", "{1: 'a', none: 2, true: 3, 2.5: 4, (1, 2): 5}", "none", "true", "undefined_name",
                 "[undefined_name]", "range(3)", "range(5, 0, -2)", "d.keys()", "d.items()|list", "d.values()", "9223372036854775807", "18446744073709551615",
                 "-9223372036854775808", "'%s' % 1.0", "namespace(a=1)", "dict(a=1, b='x')", "'\\x41\\u00e9\\U0001F600\\101\\q'", "'é\\é'"],
    "undefined": ["undefined_name is defined", "undefined_name.x", "undefined_name['x']", "d.nope is defined", "d.nope.x", "d['nope']", "d.nope|default('D')",
                  "undefined_name|default", "e|default('D', true)", "none_value|default('D')", "undefined_name + 1", "undefined_name ~ 'x'", "undefined_name == undefined_other",
                  "undefined_name|length", "undefined_name|list", "undefined_name in [1]", "'x' in undefined_name", "undefined_name()", "d.nope()", "none_value.x", "none_value['x'].y",
                  "not undefined_name", "undefined_name|upper", "undefined_name < 1", "undefined_name|int", "[1][5]", "[1][5].x", "s.nope", "l|first|string ~ (e|first)", "(l|map('upper')|list)[0]",
                  "undefined_name|tojson", "''.__class__", "''.__class__.__mro__", "[].append(1)", "d.update", "d.update({})", "s['__len__']", "l.sort()", "d.pop('a')", "(1).__add__(2)"],
    "slices": ["l[1:]", "l[::-1]", "l[-2:]", "l[:100]", "l[5:1]", "s[1:4]", "s[::-1]", "s[::2]", "u[1:8]", "u[-1]", "u[-3:]", "u[::3]", "(1, 2, 3)[1:]", "range(10)[2:8:3]", "s[-3:-1]",
               "l[::0]", "l[-100:2]", "s[6:][0]", "d['b'].c[1]", "d.b['c'][-1]", "users[1].name[0]", "l['0']", "l.0", "nested.1.1.0", "u[100]", "s[1:none]", "l['a':]"],
    "strings": ["s.upper(), s.lower(), s.title(), s.swapcase()", "u.upper()", "u|title", "'ǆ ŉ ﬁ ß İ'.upper()", "'ΑΣ ΣΑΣ'.lower(), 'İ'.lower()|length", "'foo-bar (baz) it\\'s'|title", "\"they're\".title()",
                "'éCOLE'.capitalize()", "pad.strip()|length", "pad.lstrip()", "pad|trim|length", "'xxaxx'.strip('x')", "'a,b,,c'.split(',')", "pad.split()", "'a b  c'.split(' ')", "'a b c'.split(' ', 1)", "'a b c'.rsplit(' ', 1)",
                "lines.splitlines()", "lines.splitlines(true)", "'a'.split('')", "s.startswith('He'), s.endswith(('x', 'ld'))", "s.replace('l', 'L', 2)", "'aaa'.replace('', '-')", "u.find('日'), s.find('zz'), s.index('o')", "s.index('zz')", "s.count('l'), u.count('')",
                "', '.join(words)", "', '.join([1])", "'{} {b} {0[1]}'.format('xy', b=2)", "'{:>6}|{:<6}|{:^6}|{:06.2f}'.format('a', 'b', 'c', 3.14159)", "'%s %d %5.1f %r %x %%' % ('a', 3, 2.25, 'q', 255)", "'%(a)s' % d", "'%d' % 'x'",
                "'12'.isdigit(), '²'.isdigit(), '½'.isnumeric(), 'a1'.isalnum(), ' '.isspace(), 'Ab'.istitle()", "'abc'.zfill(5), '-5'.zfill(4)", "'ab'.center(7, '*'), 'ab'.ljust(4, '.'), 'ab'.rjust(4)", "'a=b=c'.partition('='), 'a=b=c'.rpartition('=')",
                "s.removeprefix('Hello '), s.removesuffix('x')", "u|length, u|upper|length, '😀'|list|length", "'a' * 3, 'a' * -1", "'a' + 1", "s|reverse", "'abc' < 'abd', 'Z' < 'a', 'é' > 'z'", "'a\\\nb'"],
    "filters": ["l|sort, words|sort, words|sort(case_sensitive=true), l|sort(reverse=true)", "users|sort(attribute='name')|map(attribute='name')|list", "[1, 'a']|sort", "l|sum, l|min, l|max, users|sum(attribute='age')", "words|join('-'), l|join, users|join(', ', attribute='name')",
                "users|selectattr('on')|map(attribute='name')|list", "users|rejectattr('age', 'gt', 1)|list|length", "l|select('odd')|list, l|reject('odd')|list, [0, 1, '']|select|list", "users|selectattr('age', 'in', [1, 2])|map(attribute='name')|join(',')",
                "words|map('upper')|join, [['a'], []]|map('first')|list", "users|map(attribute='x', default='-')|list", "users|map(attribute='name.0')|list", "l|first, l|last, e|first is defined", "['a', 'A', 'b']|unique|list", "l|reverse|list, 'abc'|reverse, d|reverse|list", "d|dictsort, {'b': 1, 'A': 2}|dictsort, {'b': 1, 'A': 2}|dictsort(by='value')",
                "d|items|list, d|list, 'ab'|list", "'42'|int, '4.7'|int, 'x'|int, 'x'|int(7), '0x1f'|int(base=16), ' 12 '|int, '1_0'|int", "'1.5'|float, 'x'|float, 'inf'|float, 3|float, true|int", "2.5|round, 3.5|round, 2.675|round(2), -2.5|round, 1234|round(-2), 2.1|round(0, 'ceil'), 2.19|round(1, 'floor'), 5|round",
                "html|e, html|escape|e, html|safe + '<b>'", "html|forceescape|forceescape", "lines|indent, lines|indent(2, true), lines|indent('> ', blank=true)", "'a b c d e f g'|truncate(7), 'abcdefghij'|truncate(5, true, '~', 0)", "'Hello big world'|wordcount", "'a b/ü&'|urlencode", "[1, 2, 3, 4, 5]|batch(2)|list, [1, 2, 3]|batch(2, 0)|list, [1, 2, 3, 4, 5]|slice(2)|list",
                "users|groupby('on')|map('first')|list", "'%s-%s'|format(1, 'b')", "'x'|default('y'), false|default('y', true)", "(l|map('string')) is iterable, (l|map('string'))|length", "true if l|select('gt', 10) else false", "[3, 1]|map('no_such')|list", "s|no_such", "'x' if true else s|no_such", "n|attr('real'), d|attr('a') is defined, s|attr('upper') is callable", "pad|string|length, 5|string ~ none|string", "words|map('length')|sum, none|length"],
    "tests": ["1 is number, 1.0 is float, true is integer, true is boolean, true is number", "s is string, l is sequence, d is sequence, d is mapping, s is iterable, 5 is iterable, d.items() is sequence", "none is none, none_value is none, undefined_name is none, none is defined", "4 is even, 4 is odd, 9 is divisibleby 3, 9 is divisibleby(2)",
              "1 is eq 1, 1 is ne 1, 1 is lt 2, 2 is ge 3, 1 is equalto(1), 'a' is in 'abc', 1 is in [1]", "'ABC' is upper, 'abc' is lower, 'Ab' is lower, '12' is upper", "range is callable, s.upper is callable, s is callable", "1 is sameas 1, none is sameas none, true is sameas 1, false is false, true is true, 1 is true", "s is not string, n is not odd", "'upper' is filter, 'odd' is test, 'zz' is filter", "s is nope"],
    "tojson": ["d|tojson", "[1, 1.0, 1e100, true, none, 'é\"\\\\/\\n\\t']|tojson", "u|tojson(ensure_ascii=true)", "control|tojson", "nested|tojson(indent=2)", "{'b': 1, 'a': {'d': [], 'c': {}}}|tojson(indent=4, sort_keys=true)", "d|tojson(separators=(',', ':'))", "{1: 2, none: 3, true: 4, 1.5: 5}|tojson", "(1, 2)|tojson", "d|tojson(indent='--')", "[1]|tojson(indent=0)", "l|map('string')|tojson", "{(1, 2): 3}|tojson", "html|tojson", "'\\u2028'|tojson", "18446744073709551615|tojson, -0.0|tojson"],
    "numbers": ["1 + 1.0, 5 // 2.0, 5 % 2.5, true + true", "1 / 0", "1 % 0", "9223372036854775807 + 1 - 1", "2 ** 62 + 2 ** 62 - 1", "0.1 + 0.7, 1e308 * 10, -1e308 * 10", "3 == 3.0, 1 == true, '1' == 1, [1, 2] == [1.0, 2], (1, 2) == [1, 2], {'a': 1} == {'a': 1.0}", "1 < 'a'", "none < 1", "[1, 2] < [1, 3], (1,) < (1, 0)", "[1] + [2], (1,) + (2,), [0] * 3", "[1] + (2,)", "1 in {1: 2}, 'c' in d.b, [] in {}", "{[]: 1}", "+true, -true, -'a'", "5 is in 5"],
}

EXPRESSIONS |= {
    "folding": ["'ẞ İ ς ŉ Ǆ ﬃ'.casefold(), u.casefold()", "'a\\tbc\\td\\n\\te'.expandtabs(), '\\ta'.expandtabs(3), 'a\\tb'.expandtabs(0)", "'ab\\tc'.expandtabs(tabsize=4)"],
    "methods": ["'a=1;b=2'.split(';')|map('split', '=')|list", "[1, 2, 1].count(1), [1, 2].index(2)", "(1, 2).index(3)", "range(5).index(3.0), range(5).count(true)",
                "d.get('nope') is none, d.get('nope', 5)", "d.keys()|list|join(','), d.values()|list|length", "l.append(4)", "l.extend([4])", "l.insert(0, 1)", "d.setdefault('a', 1)", "d.copy() == d",
                "'a b'.partition(' '), 'ab'.rpartition(' ')", "'x'.join(['a'])|length, 'x'.join('abc')", "'007'.zfill(2), '+7'.zfill(4), 'é'.zfill(3)", "'a\\x1cb\\u2028c'.splitlines()", "'{:>{w}}'.format('a', w=4)",
                "'{0.real}'.format(1)", "'{a[0]}'.format(a=[7])", "'%*d|%-*d|' % (5, 1, 4, 2)", "'%(a)s%s' % {'a': 1}", "'%s' % [1]", "'%s %s' % (1,)", "'%s' % {'a': 1}", "('%s' ~ s) % 1", "s.upper.lower"],
    "markup joins": ["('<'|e).join([1, '<', none])", "('-'|safe).join(['<']) ~ '<'", "[('a b'|e)|title, ('a b'|e)|capitalize]"],
    "selection": ["users|groupby('age')|map('last')|map('length')|list", "users|groupby('nope', default='D')", "users|groupby('name')|map(attribute='grouper')|list", "users|unique(attribute='on')|map(attribute='name')|join",
                  "users|max(attribute='age'), users|min(attribute='name')|length", "l|sum(start=10), [[1], [2]]|sum(start=[])", "range(7)|batch(3, 'x')|map('list')|list", "range(7)|slice(3, 'x')|list", "users|map(attribute='age')|map('string')|join('+')",
                  "users|map('attr', 'age')|list", "words|map('replace', 'a', 'z')|list", "words|select('in', ['a', 'b'])|list", "users|selectattr('name', 'lower')|list|length", "[1, none, 0]|reject('none')|list", "l|sort(reverse='x')", "l|sort(reverse=1)",
                  "[[2, 'a'], [1, 'b']]|sort, [[2, 'a'], [1, 'b']]|sort(attribute=1)", "users|sort(attribute='on,age', reverse=true)|map(attribute='name')|list", "d|dictsort(false, 'key', true)|map('first')|list", "dict(undefined_name)", "dict([['a', 1], ('b', 2)], c=3)"],
    "comparisons": ["1 < n <= 5 != 6", "1 < 'a' < 2", "'a' < 'b' < 'c' > 'a'", "[1, [2, 'x']] == [1.0, [2, 'x']], {'a': [1]} != {'a': [1]}", "{'a': 1} < {'a': 2}", "none == false, none in [none], '' in 'abc', 'a' in {'a': 1}, 1.0 in range(3)",
                    "(1, 2) < (1, 3), 'a' in ('a',), [] < [0]", "true + 1 == 2 and not false", "n in [5] and n not in (4,)"],
    "conversion": ["'12abc'|int, '0b11'|int(0, 2), '0o17'|int(base=8), 'ff'|int(0, 16), none|int(-1), [1]|int(3), '1e3'|int", "'1e3'|float, 'nan'|float, none|float(2.5), ' 1.5 '|float, '1_0.5'|float", "3.99|int, -3.99|int, '3.99'|int, true|float",
                   "1.0|string ~ 1e300|string ~ -0.0|string", "[1, 'a']|string + 'x', none|string, d|string|length", "5|round(1), 5.15|round(1), 1e20|round, 0.5|round|int, -7|abs, 2.5|round(method='ceil')"],
}

# Whole templates.
TEMPLATES = {
    "recursive: a tree": "{% for x in nested recursive %}{{ loop.depth }}{{ loop.index }}/{{ loop.length }}{% if x is sequence and x is not string %}({{ loop(x) }}){% else %}={{ x }}{% endif %}{% if not loop.last %},{% endif %}{% endfor %}",
    "recursive: scopes, else and a filter": "{% set a = 'A' %}{% for x in [[1, [5]], [], [2, 3]] if x != 3 recursive %}{% set b = loop.depth0 ~ a %}[{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{{ b }}]{% else %}-{% endfor %}{{ b }}",
    "recursive: break in it": "{% for x in [1, [2, 3, 4], 5] recursive %}{% if x == 3 %}{% break %}{% endif %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ x }}{% endif %}{% endfor %}",
    "recursive: without the marker": "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "recursive: in a macro": "{% macro walk(items, sep=',') %}{% for x in items recursive %}{{ sep if not loop.first }}{{ '{' ~ loop(x) ~ '}' if x is iterable and x is not string else x }}{% endfor %}{% endmacro %}{{ walk(nested[:2]) }}{{ walk(nested[:2], sep=';') }}",
    "recursive: over none": "{% for x in [none] recursive %}{{ loop(x) }}{% endfor %}",
    "recursive as a name": "{% for x in recursive %}{{ x }}{% endfor %}ok{% for x in l, 9 recursive %}{{ x }}{% endfor %}",
    "a comment that the end cuts off": "a{#",
    "raw that the end cuts off": "a {%- raw %}",
    "block set with a filter of its own names": "{% set x | replace('a', s) %}a{% endset %}{{ x }}",
    "block set with a filter of known names": "{{ s }}{% set x | replace('a', s) %}a{{ n }}{% endset %}{{ x }}",
    "trailing comma of a target": "{% for a, in [[1]] %}{{ a }}{% endfor %}",
    "call with arguments and kwargs": "{% macro list_all(items, sep=', ', last=' and ') %}{% for i in items %}{{ caller(i, loop.index) }}{{ '' if loop.last else last if loop.revindex == 2 else sep }}{% endfor %}{% endmacro %}{% call(x, at) list_all(words, last=' or ') %}{{ at }}:{{ x|upper }}{% endcall %}",
    "namespace from a dict": "{% set ns = namespace({'a': 1}, b=[2]) %}{% set ns.c = ns.a + ns.b[0] %}{{ ns.c }}{{ ns.d is defined }}{% set ns.b = ns.b + [ns.c] %}{{ ns.b }}",
    "last user of a chat": "{% set ns = namespace(at=-1) %}{% for m in users[::-1] %}{% if m.on and ns.at < 0 %}{% set ns.at = (users|length - 1) - loop.index0 %}{% endif %}{% endfor %}{{ ns.at }}{{ users[ns.at].name }}",
    "whitespace: crlf everywhere": "{% if t %}\r\n  a\r\n{%- endif %}\r\n{# c #}\r\n{{ n }}\r\n",
    "whitespace: plus against lstrip": "x\n  {%+ if t %}a{% endif %}\n\t{{+ n }}\n  {#+ c #}b{%- raw %}\n y {%+ endraw %} z",
    "whitespace: minus takes lines": "a\n\n {{- n -}} \n\n b {%- set x = 1 -%} \n c {#- d -#} \n e",
    "strftime_now: names": "{{ strftime_now('%d %B %Y, %-d/%-m %e|%y|%I%p|%U|%G') }}",
    "generation across lines": "{%- for x in l %}\n{% generation %}\n{{ x }}{% endgeneration %}\n{%- endfor %}",

    "whitespace: trim_blocks and lstrip_blocks": "a\n  {% if t %}\n    b\n  {% endif %}\nc\n",
    "whitespace: minus": "a \n {%- if t -%} \n b \n {%- endif -%} \n c",
    "whitespace: plus": "a\n  {%+ if t +%}\n b\n  {%+ endif %}\nc",
    "whitespace: variables keep lines": "a\n  {{ n }}\n  {{- n }}\n  {{ n -}}\n  b",
    "whitespace: comments": "a\n  {# c #}\nb {#- c -#} d\n  {#+ c +#}\n e",
    "whitespace: raw": "a\n  {% raw %}\n {{ x }} {% if %} {# #}\n  {% endraw %}\nb {%- raw -%}  y  {%- endraw -%}  c",
    "whitespace: tag after text": "a {% if t %} b {% endif %} c\n{% if t %}\n\n{% endif %}\nd",
    "whitespace: carriage returns": "a\r\n{% if t %}\r\nb\r{% endif %}c\r\n",
    "whitespace: last newlines": "a\n\n",
    "whitespace: tabs and unicode spaces": "a\n\t\u00a0{% if t %}b{% endif %}\u2003{%- if t %}c{% endif %}",
    "whitespace: inside tags": "{{n}}{%if t%}x{%endif%}{{  [ 1 ,\n 2 ]  }}{{'a'~\n'b'}}",
    "scope: set in a loop does not leak": "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}",
    "scope: namespace does": "{% set ns = namespace(x=1, y=[]) %}{% for i in l %}{% set ns.x = ns.x + i %}{% set ns.y = ns.y + [i] %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.zz }}",
    "scope: set in if leaks": "{% if t %}{% set x = 1 %}{% else %}{% set y = 2 %}{% endif %}{{ x }}|{{ y }}",
    "scope: a name set later hides the variable before": "{% for i in [1] %}{{ s }}{% endfor %}|{{ s }}{% set s = 2 %}|{{ s }}",
    "scope: loop variable shadows": "{% set i = 'o' %}{% for i in l %}{{ i }}{% endfor %}{{ i }}",
    "scope: loop in if in loop": "{% for i in l %}{% if i > 1 %}{% set z = i %}{% endif %}[{{ z }}]{% endfor %}",
    "scope: with": "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% set a = 3 %}{{ a }}{% endwith %}{{ a }}{{ b }}",
    "scope: macro sees globals set before and after": "{% set a = 1 %}{% macro m() %}{{ a }}{{ b }}{% endmacro %}{{ m() }}{% set b = 2 %}{{ m() }}{% set a = 3 %}{{ m() }}",
    "scope: block set": "{% set x %}a {{ n }} b{% endset %}[{{ x }}]{% set y | upper | trim %} q{{ s }} {% endset %}[{{ y }}]",
    "scope: tuple targets": "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (a, b) = (b, a) %}{{ a }}{{ b }}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for (x, y), z in [[[1, 2], 3]] %}{{ x }}{{ y }}{{ z }}{% endfor %}",
    "scope: unpacking too many": "{% for a, b in [[1, 2, 3]] %}{% endfor %}",
    "scope: unpacking too few": "{% set a, b = [1] %}",
    "scope: assigning to what is no namespace": "{% set d.x = 1 %}",
    "scope: underscore on a namespace": "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "scope: assigning to loop": "{% for i in l %}{% set loop = 1 %}{% endfor %}",
    "scope: caller's variable in a branch": "{% if not t %}{% set s = 'set' %}{% endif %}{{ s }}{% for i in [1] %}{% if not t %}{% set s = 'set' %}{% endif %}{{ s }}{% endfor %}",
    "loop: all of loop": "{% for x in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }}{{ loop.depth }}{{ loop.depth0 }}\n{% endfor %}",
    "loop: changed": "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "loop: else": "{% for x in [] %}x{% else %}none{% endfor %}{% for x in l if x > 5 %}x{% else %}filtered{% endfor %}{% for x in undefined_name %}x{% else %}undefined{% endfor %}",
    "loop: filter": "{% for x in l if x != 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}{% for k, v in d.items() if v %}{{ k }}{{ loop.nextitem }}{% endfor %}",
    "loop: filter sees changes": "{% set ns = namespace(last=0) %}{% for x in [1, 1, 2, 2, 3] if x != ns.last %}{% set ns.last = x %}{{ x }}{% endfor %}",
    "loop: break and continue": "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "loop: else after break": "{% for x in l %}{% break %}{% else %}else{% endfor %}|{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{% else %}else{% endfor %}|{% for x in l %}{% continue %}{% else %}else{% endfor %}",
    "loop: nested": "{% for a in nested[0] %}{% for b in words %}{{ loop.index }}{{ a }}{{ b }}{% endfor %}{{ loop.index }};{% endfor %}",
    "loop: over a dict, a string, a generator": "{% for k in d %}{{ k }}{% endfor %}{% for c in u %}[{{ c }}]{% endfor %}{% set g = l|map('string') %}{% for x in g %}{{ x }}{{ loop.last }}{% endfor %}{% for x in g %}again{% endfor %}",
    "loop: over a number": "{% for x in 5 %}{% endfor %}",
    "loop: break outside": "{% break %}",
    "loop: break in a macro in a loop": "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "macro: arguments": "{% macro m(a, b='B', c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, c=3) }}{{ m(b=4) }}{{ m() }}",
    "macro: varargs and kwargs": "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m(*[1, 2], **{'y': 5}) }}",
    "macro: too many": "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "macro: unknown keyword": "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}",
    "macro: recursion": "{% macro tree(x) %}({% for y in x %}{% if y is sequence and y is not string %}{{ tree(y) }}{% else %}{{ y }}{% endif %}{% endfor %}){% endmacro %}{{ tree(nested) }}",
    "macro: call block": "{% macro box(title) %}<{{ title }}>{{ caller('arg') }}</{{ title }}>{% endmacro %}{% call(x) box('t') %}in {{ x }} {{ n }}{% endcall %}",
    "macro: no caller": "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "macro: as a value": "{% macro m() %}x{% endmacro %}{{ [m(), m()] }}{{ m() ~ m()|upper }}{{ m is callable }}",
    "macro: non-default after default": "{% macro m(a=1, b) %}{% endmacro %}",
    "filter block": "{% filter upper|replace('L', '_') %}hello {{ s }}{% endfilter %}",
    "generation block": "{% for x in l %}{% generation %}{% set y = x %}{{ y }}{% endgeneration %}[{{ y }}]{% endfor %}",
    "if: elif chain": "{% for x in range(5) %}{% if x == 0 %}zero{% elif x == 1 %}one{% elif x == 2 %}two{% else %}many{% endif %},{% endfor %}",
    "if: unknown filter in a dead branch": "{% if false %}{{ s|no_such }}{% endif %}ok",
    "if: unknown filter in a live branch": "{% if true %}{{ s|no_such }}{% endif %}ok",
    "print tag": "{% print s, n %}{% print l %}",
    "joiner and cycler": "{% set j = joiner('|') %}{% set c = cycler('a', 'b') %}{% for x in l %}{{ j() }}{{ c.next() }}{{ c.current }}{% endfor %}{{ c.reset() }}{{ c.next() }}",
    "strftime_now": "{{ strftime_now('%Y-%m-%d %H:%M:%S %f %j %A %b %p %I %y %% %z|') }}",
    "raise_exception": "{{ raise_exception('Only user and assistant roles: ' ~ n) }}",
    "raise_exception: unreached": "{% if not t %}{{ raise_exception('x') }}{% endif %}fine",
    "tools and documents are none": "{{ tools is none }}{{ documents is none }}{{ tools is defined }}{{ messages }}{{ add_generation_prompt }}",
    "method or key": "{{ d.items is callable }}{{ d['items'] }}{{ d['keys'] is defined }}{{ d.get('a') }}{{ d.get('q', 'D') }}",
    "generators are true": "{% if l|select('gt', 100) %}yes{% else %}no{% endif %}{% if l|select('gt', 100)|list %}yes{% else %}no{% endif %}",
    "markup": "{% set m = '<b>'|safe %}{{ m + '<i>' }}{{ '<i>' + m }}{{ m ~ '<i>' }}{{ [m] }}{{ m.upper() + '&' }}{{ m|replace('b', '<') }}{{ m * 2 }}",
    "syntax: unclosed variable": "{{ s ",
    "syntax: unclosed if": "{% if t %}x",
    "syntax: unknown tag": "{% nope %}",
    "syntax: stray end": "{% endif %}",
    "syntax: unbalanced": "{{ (1 + 2] }}",
    "syntax: lonely operator": "{{ 1 + }}",
    "syntax: unclosed string": "{{ 'abc }}",
    "syntax: unclosed comment": "a {# b",
    "syntax: unclosed raw": "{% raw %} a",
    "syntax: assignment to a constant": "{% set true = 1 %}",
    "syntax: empty expression": "{{ }}",
    "syntax: positional after keyword": "{{ dict(a=1, 2) }}",
    "syntax: test chain": "{{ 1 is odd is even }}",
    "syntax: bad character": "{{ 1 ? 2 }}",
    "syntax: truncated escape": "{{ '\\x4' }}",
}


def language_cases():
    cases = []
    for topic, expressions in EXPRESSIONS.items():
        for expression in expressions:
            template = "{{ " + expression + " }}"
            cases.append({**case(f"{topic}: {expression}", template, VARIABLES), "template": template})
    for name, template in TEMPLATES.items():
        cases.append({**case(name, template, VARIABLES), "template": template})
    return cases


def continued_cases():
    """The prompt up to the final message's content, which occurs in the template's own text, or is cut or is a list."""
    texts = ["end", "<", ">", "|", "s", "/s", "assistant", "The ans", " The ans \n", "\n", "", "ü \u3000", "q", "user"]
    cases = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        contents = [*texts, [{"type": "text", "text": "one"}, {"type": "text", "text": "two "}]]
        for number, content in enumerate(contents):
            messages = [user("q"), {"role": "assistant", "content": content}]
            answer = case(f"{path.stem} {number}", source, {**TOKENS, "messages": messages, "continue_final_message": True})
            cases.append({**answer, "template_name": path.stem, "messages": messages})
        for number, final in enumerate(({"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "assistant"})):
            messages = [user("q"), final]
            answer = case(f"{path.stem} nothing {number}", source, {**TOKENS, "messages": messages, "continue_final_message": True})
            cases.append({**answer, "template_name": path.stem, "messages": messages})
    return cases


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    chats, sources = chat_cases()
    write("chat.json", chats, templates=sources, variables={"add_generation_prompt": True, **TOKENS})
    write("continued.json", continued_cases(), variables=TOKENS)
    write("language.json", language_cases(), variables=VARIABLES)
