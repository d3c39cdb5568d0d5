# SPDX-License-Identifier: Apache-2.0
"""Random small chat templates and their variables, over the whole language. Most of them render: expressions are
drawn by type, now and then of a wrong one. The caller's strings have Cyrillic letters, ideographs and emoji that the
template's literals never have, and literals Greek letters that the caller's never have: who wrote a character of the
output shows on it."""
import random

CALLER = ["дом", "Яблоко", "ЩУКА", "ёж", "日本", "語", "😀", "👩‍👧"]
LITERAL = ["λόγος", "Αθήνα", "ΣΑΣ", "ω"]
PLAIN = ["a", "B", "x y", "Zed", "", " ", "  pad ", "\n", "a\nb", "line1\r\nline2", "\t", "it's", '"q"', "<b>&", "%", "{}", "0", "12", "-7", "3.5",
         "1e3", "a,b,,c", "a b  c", "a-b_c", "True", "\\", "/", "é", "ß", "ǆ", "İ", "\u00a0", "x=1", "key", "name", "\x0b|\x0c|\x1c|\x85|\u2028"]
INTS = [0, 1, 2, 3, -1, -2, 5, 7, 10, 42, 100]
FLOATS = ["0.0", "1.0", "2.5", "-0.5", "3.14159", "1e3", "1.5e-7", "100.0", "2.675", "1e16"]
KEYS = ["a", "b", "name", "role", "content", "items", "x1"]
NAMES = ["s", "t", "u", "n", "m", "f", "yes", "no", "nothing", "l", "words", "nested", "d", "e", "users", "missing", "messages", "tools"]
STRING_NAMES, LIST_NAMES, DICT_NAMES = ["s", "t", "u"], ["l", "words", "nested", "users", "messages"], ["d", "e", "users[0]", "messages[0]"]
ATTRIBUTES = ["name", "age", "on", "tag.a", "0", "none_such"]
TYPES = ["str", "int", "float", "bool", "list", "dict", "any"]
FORMATS = ["%s", "%d", "%r", "%5s|", "%-6s|", "%05d", "%.2f", "%+d", "%x", "%c", "%%", "%e", "%g", "%(a)s", "%i", "%#x", "%10.3f", "%o", "%.3s"]
BRACES = ["{}", "{0}", "{1}", "{a}", "{:>6}", "{:*<5}", "{:^7}", "{:,}", "{:.2f}", "{:05d}", "{!r}", "{0[0]}", "{:+}", "{:x}", "{{}}", "{:e}", "{:%}",
          "{:.3}", "{!s:>4}", "{:_}", "{a[b]}", "{:{}}", "{:08.3f}", "{:#b}", "{:c}", "{0.x}"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "callable", "odd",
         "even", "upper", "lower", "true", "false", "escaped", "filter", "test"]
TESTS_OF_ONE = ["eq", "ne", "lt", "le", "gt", "ge", "in", "sameas", "divisibleby", "equalto", "==", "!=", "greaterthan", "lessthan", "<", ">="]


class Grammar:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.depth = 0
        self.loops = 0
        self.lazy = -1  # the depth at which a generator may stand
        self.macros = []
        self.names = []
        self.namespaces = []
        self.counter = 0

    # --- draws -------------------------------------------------------------------------------------------------
    def pick(self, *options):
        return self.random.choice(options)

    def one_of(self, options):
        return self.random.choice(options)

    def chance(self, probability):
        return self.random.random() < probability

    def count(self, most):
        return self.random.randint(0, most)

    # --- variables ---------------------------------------------------------------------------------------------
    def caller_text(self):
        return "".join(self.one_of(CALLER if self.chance(0.5) else PLAIN) for _ in range(self.random.randint(1, 3)))

    def scalar(self):
        return self.one_of([self.caller_text(), self.one_of(INTS), float(self.one_of(FLOATS)), True, False, None])

    def value(self, depth=0):
        kind = self.count(6 if depth < 2 else 3)
        if kind < 4:
            return self.scalar()
        if kind == 4:
            return {self.one_of(KEYS): self.value(depth + 1) for _ in range(self.count(3))}
        return [self.value(depth + 1) for _ in range(self.count(3))]

    def variables(self):
        user = lambda: {"name": self.caller_text(), "age": self.one_of(INTS), "on": self.chance(0.5), "tag": {"a": self.scalar()}}
        message = lambda: {"role": self.pick("user", "assistant", "system", "tool"), "content": self.caller_text()}
        return {
            "s": self.caller_text(), "t": self.caller_text(), "u": self.one_of(PLAIN), "n": self.one_of(INTS), "m": self.one_of(INTS),
            "f": float(self.one_of(FLOATS)), "yes": True, "no": False, "nothing": None, "l": [self.one_of(INTS) for _ in range(self.count(5))],
            "words": [self.caller_text() for _ in range(self.count(4))], "nested": [self.value() for _ in range(self.count(3))],
            "d": {key: self.value() for key in self.random.sample(KEYS, self.count(4))}, "e": {"a": 1, "b": self.caller_text()},
            "users": [user() for _ in range(self.random.randint(1, 3))], "messages": [message() for _ in range(self.random.randint(1, 3))]}

    # --- expressions -------------------------------------------------------------------------------------------
    def expression(self, kind="any"):
        if self.chance(0.02):
            kind = self.one_of(TYPES)
        if kind == "any":
            kind = self.one_of(TYPES[:-1])
        self.depth += 1
        try:
            simple = self.depth > 3 or self.chance(0.2 + 0.15 * self.depth)
            if not simple and self.chance(0.12):
                return self.general(kind)
            return getattr(self, kind + ("_leaf" if simple else "_tree"))()
        finally:
            self.depth -= 1

    def general(self, kind):
        """Forms that every type has."""
        e = self.expression
        return self.one_of([
            lambda: f"({e(kind)})",
            lambda: f"({e(kind)} if {e('bool')} else {e(kind)})",
            lambda: f"({e(kind)} if {e('any')})",
            lambda: f"({e('any')} or {e(kind)})",
            lambda: f"({e(kind)} and {e(kind)})",
            lambda: f"{self.primary(kind)}|default({e(kind)}{self.pick('', ', true', ', boolean=true')})",
            lambda: f"[{e(kind)}, {e(kind)}][{self.pick('0', '1', '-1', '2')}]",
            lambda: f"{{'a': {e(kind)}}}.a",
            lambda: f"({e('list')})|{self.pick('first', 'last', 'min', 'max')}",
            lambda: f"missing|d({e(kind)})",
            lambda: self.one_of(self.names) if self.names else "missing",
            lambda: f"{self.one_of(self.namespaces)}.{self.pick('v', 'w', 'none_such')}" if self.namespaces else "missing.x",
            lambda: self.macro_call() if self.macros else "yes",
            lambda: f"{self.one_of(DICT_NAMES)}.get({self.string()}, {e(kind)})",
            lambda: f"{self.one_of(DICT_NAMES)}[{self.string()}]",
        ])()

    def primary(self, kind):
        text = self.expression(kind)
        return text if text.isidentifier() or (text[0] in "[(" and self.chance(0.3)) else f"({text})"

    def string(self):
        """A literal of a string."""
        text = "".join(self.one_of(LITERAL if self.chance(0.3) else PLAIN + KEYS) for _ in range(self.random.randint(1, 2)))
        quote = self.pick("'", '"')
        out = []
        for c in text:
            if c == quote or c == "\\":
                out.append("\\" + c)
            elif c in "\n\t\r" and self.chance(0.7):
                out.append({"\n": "\\n", "\t": "\\t", "\r": "\\r"}[c])
            elif ord(c) > 127 and self.chance(0.1):
                out.append(f"\\u{ord(c):04x}")
            else:
                out.append(c)
        return quote + "".join(out) + quote

    def str_leaf(self):
        return self.string() if self.chance(0.5) else self.one_of(STRING_NAMES + ["users[0].name", "messages[-1]['content']"])

    def str_tree(self):
        e, p = self.expression, self.primary
        small = lambda: self.pick("0", "1", "2", "3", "-1", "-2", "n", "10")
        return self.one_of([
            lambda: f"{p('str')} + {p('str')}",
            lambda: f"{p('any')} ~ {p('any')}" + (f" ~ {p('str')}" if self.chance(0.3) else ""),
            lambda: f"{p('str')} * {self.pick('0', '1', '2', '3', '-1')}",
            lambda: f"{p('str')}[{self.pick('', small())}:{self.pick('', small())}{self.pick('', '', ':', ':2', ':-1', ':-2')}]",
            lambda: f"{p('str')}[{small()}]",
            lambda: f"{p('str')}.{self.pick('upper', 'lower', 'title', 'capitalize', 'swapcase', 'casefold', 'strip', 'lstrip', 'rstrip')}()",
            lambda: f"{p('str')}.{self.pick('strip', 'lstrip', 'rstrip', 'removeprefix', 'removesuffix')}({p('str')})",
            lambda: f"{p('str')}.replace({e('str')}, {e('str')}{self.pick('', ', 1', ', 2', ', -1')})",
            lambda: f"{p('str')}.{self.pick('center', 'ljust', 'rjust')}({self.pick('3', '8', '11')}{self.pick('', ', ' + self.pick('s', self.string(), repr('*')))})",
            lambda: f"{p('str')}.zfill({self.pick('3', '8')})",
            lambda: f"{p('str')}.join({e('list')})",
            lambda: f"{self.braces()}.format({', '.join(e('any') for _ in range(self.count(2)))}{self.pick('', ', a=' + e('any'), ', *l', ', **e')})".replace("(, ", "("),
            lambda: f"{self.percents()} % {self.pick(p('any'), '(' + e('any') + ', ' + e('any') + ')', '(' + e('int') + ',)', 'e')}",
            lambda: f"{p('str')}|{self.pick('upper', 'lower', 'title', 'capitalize', 'trim', 'e', 'escape', 'safe', 'forceescape', 'string', 'urlencode')}",
            lambda: f"{p('any')}|string",
            lambda: f"{p('str')}|trim({e('str')})",
            lambda: f"{p('str')}|replace({e('str')}, {e('str')}{self.pick('', ', 1', ', count=2')})",
            lambda: f"{p('str')}|center({self.pick('5', '12', 'width=9')})",
            lambda: f"{p('str')}|indent({self.pick('', '2', '2, true', self.string(), 'first=true', '1, blank=true', 'width=3, blank=true, first=true')})",
            lambda: f"{p('str')}|truncate({self.pick('3', '5, true', '8, false, ' + self.string(), '6, leeway=0', '9, true, end=' + self.string())})",
            lambda: f"{p('any')}|tojson{self.pick('', '', '(indent=2)', '(indent=0)', '(ensure_ascii=false)', '(sort_keys=true)', '(separators=(' + repr(',') + ', ' + repr(':') + '))', '(indent=4, sort_keys=true)', '(2)', '(indent=' + self.string() + ')')}",
            lambda: f"{p('list')}|join({self.pick('', e('str'), self.string() + ', attribute=' + repr('name'))})",
            lambda: f"{self.percents()}|format({e('any')}{self.pick('', ', ' + e('any'))})",
            lambda: f"{p('str')}.{self.pick('partition', 'rpartition')}({e('str')})[{self.pick('0', '1', '2')}]",
            lambda: f"{p('str')}.{self.pick('split', 'rsplit')}({self.pick('', e('str'), e('str') + ', 1', 'none, 1', 'maxsplit=1')})[{self.pick('0', '-1')}]",
            lambda: f"strftime_now({self.pick(repr('%d %b %Y'), repr('%H:%M:%S%%'), repr('%Y-%m-%d'), repr('%-d %B'), repr('%a %A %j'))})",
            lambda: f"{self.string()} {self.string()}",
            lambda: f"{p('str')}.expandtabs({self.pick('', '4', '0')})",
        ])()

    def braces(self):
        parts = "".join(self.one_of(BRACES) if self.chance(0.7) else self.one_of(LITERAL + ["-", " "]) for _ in range(self.random.randint(1, 3)))
        return repr(parts) if self.chance(0.9) else f"({repr(parts)} ~ {self.one_of(STRING_NAMES)})"

    def percents(self):
        parts = "".join(self.one_of(FORMATS) if self.chance(0.7) else self.one_of(LITERAL + ["-", " "]) for _ in range(self.random.randint(1, 2)))
        return repr(parts) if self.chance(0.9) else f"({self.one_of(STRING_NAMES)} ~ {repr(parts)})"

    def int_leaf(self):
        return str(self.one_of(INTS)) if self.chance(0.5) else self.one_of(["n", "m", "l|length", "users[0].age", "0x1F", "1_000", "0b101", "0o17"] + ["loop.index", "loop.length"] * bool(self.loops))

    def int_tree(self):
        e, p = self.expression, self.primary
        return self.one_of([
            lambda: f"{p('int')} {self.pick('+', '-', '*', '//', '%')} {p('int')}",
            lambda: f"{p('int')} ** {self.pick('0', '1', '2', '3')}",
            lambda: f"{self.pick('-', '+', '- ')}{p('int')}",
            lambda: f"{p(self.pick('str', 'list', 'dict', 'any'))}|{self.pick('length', 'count')}",
            lambda: f"{p('any')}|int{self.pick('', '(7)', '(default=-1)', '(0, 16)', '(base=2)')}",
            lambda: f"{p('int')}|abs",
            lambda: f"{p('str')}.{self.pick('find', 'rfind', 'count', 'index', 'rindex')}({e('str')}{self.pick('', '', ', 1', ', 1, 3', ', -2')})",
            lambda: f"{p('list')}.{self.pick('index', 'count')}({e('any')})",
            lambda: f"{p('list')}|sum{self.pick('', '(start=5)', '(attribute=' + repr('age') + ')')}",
            lambda: f"users|{self.pick('sum', 'max', 'min')}(attribute='age')" + self.pick("", ".age"),
            lambda: f"{p('str')}|wordcount",
            lambda: f"{p('list')}|{self.pick('max', 'min')}",
            lambda: f"{p('int')}.bit_length()",
        ])()

    def float_leaf(self):
        return self.one_of(FLOATS) if self.chance(0.7) else "f"

    def float_tree(self):
        p = self.primary
        return self.one_of([
            lambda: f"{p('float')} {self.pick('+', '-', '*', '/', '//', '%')} {p(self.pick('int', 'float'))}",
            lambda: f"{p('int')} / {p('int')}",
            lambda: f"{p('float')}|round{self.pick('', '(1)', '(2)', '(1, ' + repr('floor') + ')', '(method=' + repr('ceil') + ')', '(-1)')}",
            lambda: f"{p('any')}|float{self.pick('', '(1.5)', '(default=0.0)')}",
            lambda: f"-{p('float')}",
            lambda: f"{p('float')}|abs",
            lambda: f"{p('int')} ** {self.pick('0.5', '-1', '2.0')}",
        ])()

    def bool_leaf(self):
        return self.one_of(["true", "false", "True", "False", "yes", "no"] + ["loop.first", "loop.last"] * bool(self.loops))

    def bool_tree(self):
        e, p = self.expression, self.primary
        compare = lambda: self.pick("==", "!=", "<", "<=", ">", ">=")
        kind = self.one_of(TYPES)
        return self.one_of([
            lambda: f"{p(kind)} {compare()} {p(kind)}",
            lambda: f"{p('int')} {compare()} {p('int')} {compare()} {p('int')}",
            lambda: f"{p('any')} {self.pick('==', '!=')} {p('any')}",
            lambda: f"{p('str')} {self.pick('in', 'not in')} {p('str')}",
            lambda: f"{p('any')} {self.pick('in', 'not in')} {p(self.pick('list', 'dict'))}",
            lambda: f"not {p('any')}",
            lambda: f"{p('bool')} {self.pick('and', 'or')} {p('bool')}",
            lambda: f"{p('any')} is {self.pick('', 'not ')}{self.one_of(TESTS)}",
            lambda: f"{p('any')} is {self.pick('', 'not ')}{self.one_of(TESTS_OF_ONE)}({e('any')})",
            lambda: f"{p('int')} is {self.pick('divisibleby', 'eq', 'gt', 'in')} {p('int')}",
            lambda: f"{p('str')}.{self.pick('startswith', 'endswith')}({self.pick(e('str'), '(' + e('str') + ', ' + e('str') + ')')})",
            lambda: f"{p('str')}.{self.pick('isdigit', 'isalpha', 'isalnum', 'isspace', 'isupper', 'islower', 'istitle', 'isnumeric', 'isdecimal', 'isascii', 'isprintable')}()",
            lambda: f"{self.one_of(NAMES)} is {self.pick('', 'not ')}defined",
            lambda: f"{p('list')} {compare()} {p('list')}",
            lambda: f"loop.changed({e('any')})" if self.loops else "loop is defined",
        ])()

    def list_leaf(self):
        return self.one_of(LIST_NAMES + ["[]", "[1, 2, 3]", "(1, 'a')", "()", "range(4)", "range(1, 9, 3)", "range(3, 0, -1)", "words", "d|list"])

    def list_tree(self):
        e, p = self.expression, self.primary
        attribute = lambda: repr(self.one_of(ATTRIBUTES))
        some = lambda kind: p(kind) if kind != "users" else "users"
        test = lambda: self.pick(repr(self.one_of(TESTS)), repr(self.one_of(TESTS_OF_ONE)) + ", " + self.pick(e("any"), "1"))
        # A generator prints an address.
        to_list = self.pick("|list", "", "|join(',')") if self.depth == self.lazy else self.pick("|list", "|list", "|join(',')")
        return self.one_of([
            lambda: f"[{', '.join(e('any') for _ in range(self.count(3)))}{self.pick('', '')}]",
            lambda: f"({e('any')}, {e('any')})",
            lambda: f"{p('list')} + {p('list')}",
            lambda: f"{p('list')} * {self.pick('0', '2')}",
            lambda: f"{p('list')}[{self.pick('', '0', '1', '-2', 'n')}:{self.pick('', '1', '2', '-1')}{self.pick('', '', ':2', '::', ':-1')}]".replace(":::", "::"),
            lambda: f"{p(self.pick('str', 'dict', 'list'))}|list",
            lambda: f"{p('list')}|{self.pick('reverse', 'unique', 'sort')}{to_list}",
            lambda: f"{p('list')}|sort({self.pick('reverse=true', 'true', 'case_sensitive=true', 'reverse=true, case_sensitive=true')})",
            lambda: f"users|sort(attribute={attribute()}{self.pick('', ', reverse=true')}){to_list}",
            lambda: f"users|sort(attribute='age,name')|map(attribute='name'){to_list}",
            lambda: f"users|map(attribute={attribute()}{self.pick('', ', default=' + e('any'))}){to_list}",
            lambda: f"{p('list')}|map({repr(self.pick('upper', 'string', 'length', 'trim', 'int', 'tojson', 'first', 'list', 'abs', 'title', 'e'))}){to_list}",
            lambda: f"{p('list')}|map({self.pick(repr('replace') + ', ' + self.string() + ', ' + e('str'), repr('default') + ', ' + e('any'), repr('join') + ', ' + e('str'), repr('round') + ', 1', repr('int') + ', default=3', repr('indent') + ', width=1')}){to_list}",
            lambda: f"{p('list')}|{self.pick('select', 'reject')}{self.pick('', '(' + test() + ')')}{to_list}",
            lambda: f"users|{self.pick('selectattr', 'rejectattr')}({attribute()}{self.pick('', ', ' + test())})|map(attribute='name'){to_list}",
            lambda: f"{p('list')}|batch({self.pick('1', '2', '3')}{self.pick('', ', ' + e('any'))}){to_list}",
            lambda: f"{p('list')}|slice({self.pick('1', '2', '3')}{self.pick('', ', ' + e('any'))}){to_list}",
            lambda: f"users|groupby({attribute()}{self.pick('', ', default=' + e('any'), ', case_sensitive=true')}){self.pick('|list', '|map(attribute=' + repr('grouper') + ')|list', '|map(' + repr('first') + ')|list')}",
            lambda: f"{p('list')}|unique({self.pick('true', 'case_sensitive=true', 'attribute=' + repr('name'))}){to_list}",
            lambda: f"{p('dict')}|dictsort{self.pick('', '(true)', '(by=' + repr('value') + ')', '(reverse=true)')}",
            lambda: f"{p('dict')}|items{to_list}",
            lambda: f"{p('dict')}.{self.pick('keys', 'values', 'items')}(){to_list}",
            lambda: f"{p('str')}.{self.pick('split', 'rsplit')}({self.pick('', e('str'), e('str') + ', 2', 'sep=' + e('str'))})",
            lambda: f"{p('str')}.splitlines({self.pick('', 'true', 'keepends=true')})",
            lambda: f"{p('str')}.{self.pick('partition', 'rpartition')}({e('str')})",
            lambda: f"range({self.pick('3', '1, 5', '0, 9, 2', 'n', '5, 0, -2')}){to_list}",
            lambda: f"{p('list')}.copy()",
        ])()

    def dict_leaf(self):
        return self.one_of(DICT_NAMES + ["{}", "{'a': 1}", "{'b': s, 'a': none}", "dict(a=1, b=2)"])

    def dict_tree(self):
        e = self.expression
        key = lambda: self.pick(self.string(), self.string(), e("int"), "none", "true", "(1, 2)", e("any"))
        return self.one_of([
            lambda: "{" + ", ".join(f"{key()}: {e('any')}" for _ in range(self.count(3))) + self.pick("", "") + "}",
            lambda: f"dict({self.one_of(DICT_NAMES)}, {self.one_of(KEYS)}={e('any')})",
            lambda: f"dict({e('list')}|map('list'))" if self.chance(0.3) else f"dict([[{self.string()}, {e('any')}]])",
            lambda: f"{self.one_of(DICT_NAMES)}.copy()",
            lambda: f"dict({self.one_of(DICT_NAMES)}.items())",
            lambda: f"namespace(a={e('any')})" if self.chance(0.1) else "e",
        ])()

    def macro_call(self):
        name, parameters = self.one_of(self.macros)
        arguments = [self.expression("any") for _ in range(self.random.randint(0, len(parameters) + self.chance(0.1)))]
        if parameters and self.chance(0.3):
            arguments.append(f"{self.one_of(parameters)}={self.expression('any')}")
        return f"{name}({', '.join(arguments)})"

    # --- statements --------------------------------------------------------------------------------------------
    def tag(self, inside):
        left = self.pick("{%", "{%", "{%", "{%-", "{%+" if self.chance(0.3) else "{%")
        right = self.pick("%}", "%}", "%}", "-%}", "+%}" if self.chance(0.3) else "%}")
        space = " " if self.chance(0.95) else ""
        return f"{left}{space}{inside} {right}"

    def text(self):
        words = ["", " ", "\n", "\n\n", "  ", "\t", "a ", "b\n", " c", "λ ", "\r\n", "<|im_start|>", "\\n", "'"]
        words += ["}}", "%", "{", "#"] * self.chance(0.03)
        return "".join(self.one_of(words) for _ in range(self.random.randint(0, 3)))

    def output(self, depth=0):
        left, right = self.pick("{{", "{{", "{{-", "{{+" if self.chance(0.05) else "{{"), self.pick("}}", "}}", "-}}")
        return f"{left} {self.expression()} {right}"

    def block(self, depth):
        return "".join(self.text() + self.statement(depth) for _ in range(self.random.randint(1, 2))) + self.text()

    def statement(self, depth):
        if depth > 2 or self.chance(0.45):
            return self.output()
        if self.loops and self.chance(0.08):
            return self.tag(self.pick("break", "continue"))
        return self.one_of([self.if_, self.for_, self.for_, self.set_, self.set_, self.set_block, self.macro, self.call, self.filter, self.with_,
                            self.comment, self.raw, self.namespace, self.generation, self.output, self.raise_, self.recursive, self.loop_details])(depth + 1)

    def if_(self, depth):
        out = self.tag(f"if {self.expression('bool')}") + self.block(depth)
        if self.chance(0.3):
            out += self.tag(f"elif {self.expression('any')}") + self.block(depth)
        if self.chance(0.4):
            out += self.tag("else") + self.block(depth)
        return out + self.tag("endif")

    def new_name(self):
        self.counter += 1
        return self.one_of(["v", "w", "s", "n", "item"]) + (str(self.counter) if self.chance(0.6) else "")

    def for_(self, depth):
        name = self.new_name()
        self.lazy = self.depth + 1
        head, source = name, self.expression("list")
        self.lazy = -1
        if self.chance(0.2):
            head, source = f"k, {name}", self.pick("d.items()", "e|dictsort", "[[1, 2], [3, 4]]", "users|groupby('on')", "e.items()", f"({self.expression('list')})")
        condition = f" if {self.expression('bool')}" if self.chance(0.15) else ""
        self.loops += 1
        kept = list(self.names)
        self.names.append(name)
        body = self.block(depth)
        self.names = kept
        self.loops -= 1
        otherwise = self.tag("else") + self.block(depth) if self.chance(0.2) else ""
        return self.tag(f"for {head} in {source}{condition}") + body + otherwise + self.tag("endfor")

    def loop_details(self, depth):
        what = self.pick("loop.index", "loop.index0", "loop.revindex", "loop.revindex0", "loop.first", "loop.last", "loop.length", "loop.previtem",
                         "loop.nextitem", "loop.cycle('a', s)", "loop.depth", "loop.depth0", "loop.changed(x)", "loop.changed(x, loop.first)")
        source = self.pick(self.expression("list"), "l|select('odd')", "words", "'λογ'", "d")
        condition = self.pick("", "", " if x", " if loop.index is defined")
        return self.tag(f"for x in {source}{condition}") + "{{ " + what + " }}," + self.tag("endfor")

    def recursive(self, depth):
        return self.tag("for x in nested recursive") + "{{ loop.depth }}" + self.tag("if x is iterable and x is not string and x is not mapping") + "({{ loop(x) }})" + \
            self.tag("else") + "{{ x }}" + self.tag("endif") + self.tag("endfor")

    def set_(self, depth):
        if self.chance(0.15):
            return self.tag(f"set v, w = {self.pick(self.expression('any') + ', ' + self.expression('any'), self.expression('list'))}")
        name = self.new_name()
        out = self.tag(f"set {name} = {self.expression()}")
        self.names.append(name)
        return out

    def set_block(self, depth):
        name = self.new_name()
        filters = self.pick("", "", " | upper", " | trim | replace('a', s)")
        out = self.tag(f"set {name}{filters}") + self.block(depth) + self.tag("endset")
        self.names.append(name)
        return out

    def macro(self, depth):
        name, parameters = f"m{len(self.macros)}", self.random.sample(["p", "q", "s"], self.count(3))
        defaults = len(parameters) and self.count(len(parameters))
        head = ", ".join(p if i < len(parameters) - defaults else f"{p}={self.expression()}" for i, p in enumerate(parameters))
        kept, kept_loops = list(self.names), self.loops
        self.names += parameters + self.pick([], [], ["varargs"], ["kwargs"])
        self.loops = 0
        body = self.block(depth) + (self.pick("", "{{ caller() }}") if self.chance(0.2) else "")
        self.names, self.loops = kept, kept_loops
        out = self.tag(f"macro {name}({head})") + body + self.tag(self.pick("endmacro", f"endmacro {name}" if self.chance(0.1) else "endmacro"))
        self.macros.append((name, parameters))
        return out

    def call(self, depth):
        define = self.tag("macro box(p='-')") + "[{{ p }}{{ caller(p) }}]" + self.tag("endmacro")
        return define + self.tag(f"call(v) box({self.pick('', self.expression())})") + self.block(depth) + "{{ v }}" + self.tag("endcall")

    def filter(self, depth):
        name = self.pick("upper", "trim", "replace('a', s)", "indent(2)", "title|trim", "e", "tojson")
        return self.tag(f"filter {name}") + self.block(depth) + self.tag("endfilter")

    def with_(self, depth):
        name = self.new_name()
        return self.tag(f"with {name} = {self.expression()}") + "{{ " + name + " }}" + self.block(depth) + self.tag("endwith")

    def comment(self, depth):
        return self.pick("{#", "{#-", "{#+") + self.pick(" c ", "", "\n{{ x }}\n", " %} ") + self.pick("#}", "-#}", "+#}" if self.chance(0.2) else "#}")

    def raw(self, depth):
        return self.pick("{% raw %}", "{%- raw -%}", "{% raw -%}") + self.pick("{{ x }}", " {% if %} ", "\n{# c #}\n", "") + self.pick("{% endraw %}", "{%- endraw -%}")

    def namespace(self, depth):
        name = f"ns{len(self.namespaces)}"
        out = self.tag(f"set {name} = namespace({self.pick('', 'v=' + self.expression(), 'e', 'v=1, w=s')})")
        self.namespaces.append(name)
        return out + self.tag(f"set {name}.v = {self.expression()}")

    def generation(self, depth):
        return self.tag("generation") + self.block(depth) + self.tag("endgeneration")

    def raise_(self, depth):
        return self.tag(f"if {self.pick('no', 'yes', self.expression('bool'), 'false')}") + "{{ raise_exception(" + self.expression("str") + ") }}" + self.tag("endif")

    # --- whole cases -------------------------------------------------------------------------------------------
    def template(self):
        text = self.block(0) + (self.block(0) if self.chance(0.5) else "")
        if self.chance(0.08):
            text = self.mutate(text)
        if self.chance(0.05):
            text = text.replace("\n", self.pick("\r\n", "\r"))
        return text

    def mutate(self, text):
        """A change of one place, as a slip of the pen has it."""
        at = self.count(max(len(text) - 1, 0))
        what = self.count(3)
        if what == 0:
            return text[:at] + text[at + 1:]
        if what == 1:
            return text[:at] + self.one_of(list("(){}[]%|.,'\"-+~=:")) + text[at:]
        if what == 2:
            return text[:at]
        end = min(len(text), at + 1 + self.count(6))
        return text[:at] + text[end:]
