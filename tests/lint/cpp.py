# SPDX-License-Identifier: Apache-2.0
"""What the lint needs to know about C++ text, without a compiler: code without comments and literals, the includes, and
where each function's body begins and ends."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<line_comment>//(?:\\\n|[^\n])*)
      | (?P<block_comment>/\*.*?\*/)
      | (?P<raw>(?:u8|u|U|L)?R"(?P<tag>[^()\s\\]{0,16})\(.*?\)(?P=tag)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<number>(?<![\w.])\d[\w.']*)
      | (?P<char>'(?:\\.|[^'\\\n])+')
    """,
    re.VERBOSE | re.DOTALL,
)


def _blank(text: str) -> str:
    """The same number of lines and columns, with nothing on them."""
    return re.sub(r"[^\n]", " ", text)


def strip(text: str) -> str:
    """Code alone: comments become spaces, literals become empty ones. Lines keep their numbers."""

    def replace(match: re.Match) -> str:
        kind = match.lastgroup
        found = match.group()
        if kind == "number":
            return found
        if kind in ("line_comment", "block_comment"):
            return _blank(found)
        quote = "'" if kind == "char" else '"'
        return quote + _blank(found[1:-1]) + quote

    return _TOKEN.sub(replace, text)


def includes(text: str) -> list[tuple[int, str]]:
    """(line, path) of each #include, quoted or in angle brackets."""
    found = re.finditer(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', text, re.MULTILINE)
    return [(text.count("\n", 0, m.start()) + 1, m.group(1)) for m in found]


@dataclass
class Function:
    name: str
    first_line: int  # of the body's opening brace
    last_line: int  # of its closing brace

    @property
    def lines(self) -> int:
        return self.last_line - self.first_line + 1


class UnbalancedBraces(Exception):
    pass


_TYPE_HEAD = re.compile(r"^(?:\w+\s+)*?(?:class|struct|union|enum)\b")
_SCOPE_HEAD = re.compile(r'\bnamespace\b[\w\s:]*$|^extern\s*"')
_LAMBDA_HEAD = re.compile(r"(?<![\w\])])\[[^\[\]]*\]\s*(?:\([^{}]*\)[^(){}]*)?$")


def _without_templates(head: str) -> str:
    """Drops template<...> heads, so that `class T` in one is not taken for a class."""
    while (start := re.search(r"\btemplate\s*<", head)) is not None:
        depth, end = 1, start.end()
        while end < len(head) and depth:
            depth += {"<": 1, ">": -1}.get(head[end], 0)
            end += 1
        head = head[: start.start()] + head[end:]
    return head


def _classify(head: str, in_parentheses: bool) -> str:
    """What the brace after `head` opens, outside a function: 'function', 'scope' or 'values' (an initialiser)."""
    head = re.sub(r"\[\[.*?\]\]|\balignas\s*\([^()]*\)", " ", _without_templates(head), flags=re.DOTALL)
    head = re.sub(r"\b(?:public|private|protected)\s*:(?!:)", " ", head).strip()
    if _SCOPE_HEAD.search(head):
        return "scope"
    if _LAMBDA_HEAD.search(head):
        return "function"
    if in_parentheses or head.endswith(("=", ",", "(", "return")) or ")" not in head:
        return "scope" if _TYPE_HEAD.match(head) else "values"
    if _TYPE_HEAD.match(head) and not head.endswith(")"):
        return "scope"
    # A constructor's `: member_{...}`: the brace follows a name, and an initialiser list has begun before it.
    if re.search(r"\)\s*(?:noexcept\s*)?:(?!:)", head) and re.search(r"[\w>]$", head):
        return "values"
    return "function"


def _function_name(head: str) -> str:
    head = _without_templates(head)
    named = re.search(r"(operator\s*\S+?|~?[A-Za-z_][\w:~]*)\s*\(", head)
    if named is None:
        return "lambda"
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", named.group(1)):  # TEST(Suite, Case) and the like
        return " ".join(head[named.start() :].split())
    return named.group(1)


class _Parser:
    """Walks the braces outside and inside functions. A lambda or a local class belongs to the function it stands in."""

    def __init__(self) -> None:
        self.functions: list[Function] = []
        self.stack: list[tuple[str, int, str]] = []  # (kind, line, head)
        self.head = ""
        self.parentheses = 0

    def in_function(self) -> bool:
        return any(kind == "function" for kind, _, _ in self.stack)

    def open(self, line: int) -> None:
        kind = "block" if self.in_function() else _classify(self.head, self.parentheses > 0)
        self.stack.append((kind, line, self.head))
        if kind in ("function", "scope"):
            self.head = ""

    def close(self, line: int) -> None:
        if not self.stack:
            raise UnbalancedBraces(f"line {line}: a brace closes nothing")
        kind, first_line, head = self.stack.pop()
        if kind == "function":
            self.functions.append(Function(_function_name(head), first_line, line))
        if kind == "values":
            self.head = head + "{}"  # the statement goes on behind an initialiser
        elif kind != "block":
            self.head = ""

    def feed(self, char: str, line: int) -> None:
        if char == "{":
            self.open(line)
        elif char == "}":
            self.close(line)
        elif self.in_function():
            return
        elif char == ";" and self.parentheses == 0:
            self.head = ""
        else:
            self.parentheses = max(0, self.parentheses + {"(": 1, ")": -1}.get(char, 0))
            self.head += char


def functions(text: str) -> list[Function]:
    """Every function with a body, in order of its end. Raises UnbalancedBraces."""
    code = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", lambda m: _blank(m.group()), strip(text), flags=re.MULTILINE)
    parser = _Parser()
    line = 1
    for char in code:
        parser.feed(char, line)
        line += char == "\n"
    if parser.stack:
        raise UnbalancedBraces(f"line {parser.stack[-1][1]}: a brace is never closed")
    return parser.functions
