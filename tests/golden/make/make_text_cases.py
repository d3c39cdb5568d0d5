# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/text: what Python and Hugging Face's tokenizers do with odd text.

utf8.json   bytes (hex) and Python's bytes.decode("utf-8", "replace")
nfc.json    texts and the library's NFC
split.json  pre-tokenizers, texts and the words the library cuts them into
regex.json  regular expressions, texts and what of the texts they match, without the empty matches
added.json  tiny tokenizers with all kinds of added tokens and unknown characters; texts and their ids:
            plain, with special tokens around, with special-token text left alone; id lists and their text

Usage: make_text_cases.py OUT (needs tokenizers==0.23.3)
"""
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.pre_tokenizers import Split

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTE_LEVEL_SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
          r"\s*[\r\n]|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

WORDS = ["hello", "world", "New York", "kbd", "don't", "I'LL", "we've", "'s", "'\u017f", "<mask>", "<sep>", "<tool>",
         "<s>", "</s>", "<s", "\r\n", "\n\n", "\t", "    ", "  ", "\0", "123", "4567", "\u2460", "\u0663\u0664",
         "\u2167", "\U0001F469\u200D\U0001F467", "\u00e9", "e\u0301", "\u212b", "\ufb01", "\u4e2d\u6587",
         "\ud55c\uad6d\uc5b4", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u180e", "\u0085", "\u2028", "\u200b",
         "  \n  ", "x" * 9, "!?", "def f(x):\n    return x\n", "_kbd", "kbd\u00e9", "\U00010400", "\u00b2", "\u24b6"]


def code_points(test):
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and test(unicodedata.category(chr(c)))]


ASSIGNED = code_points(lambda category: category not in ("Cn", "Co"))
MARKS = code_points(lambda category: category[0] == "M")
COMPOSED = [c for c in ASSIGNED if unicodedata.decomposition(c)]


def text(rng, pieces):
    out = []
    for _ in range(rng.randint(0, pieces)):
        kind = rng.random()
        if kind < 0.6:
            out.append(rng.choice(WORDS))
        elif kind < 0.75:
            out.append("".join(rng.choices(ASSIGNED, k=rng.randint(1, 3))))
        elif kind < 0.85:
            out.append(rng.choice("aeocAE") + "".join(rng.choices(MARKS, k=rng.randint(1, 3))))
        else:
            out.append("".join(chr(rng.randint(0, 127)) for _ in range(rng.randint(1, 6))))
        if rng.random() < 0.4:
            out.append(" ")
    return "".join(out)


def utf8_cases(rng):
    edges = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF,
             0xF0, 0xF1, 0xF4, 0xF5, 0xFF]
    cases = [bytes([a, b]) for a in edges for b in edges]
    for _ in range(600):
        cases.append(bytes(rng.choices(edges, k=rng.randint(1, 9))))
    for _ in range(200):
        whole = "".join(rng.choices(ASSIGNED, k=rng.randint(1, 5))).encode()
        begin = rng.randrange(len(whole))
        cases.append(whole[begin:rng.randint(begin, len(whole))])
    return [{"bytes": case.hex(), "text": case.decode("utf-8", "replace")} for case in cases]


def nfc_cases(rng):
    nfc = normalizers.NFC()
    texts = [c for c in COMPOSED if unicodedata.normalize("NFC", c) != c]
    texts += [unicodedata.normalize("NFD", c) for c in rng.sample(COMPOSED, 500)]
    hangul = [chr(c) for c in range(0x1100, 0x1200)] + ["\uac00", "\uac01", "\ud7a3"]
    for _ in range(500):
        pool = rng.choice([MARKS, COMPOSED, hangul])
        texts.append(rng.choice("aeouAEO") + "".join(rng.choices(pool, k=rng.randint(1, 5))) + rng.choice(["", "x"]))
    return [{"text": t, "nfc": nfc.normalize_str(t)} for t in texts]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def pre_tokenizers():
    out = [BYTE_LEVEL, BYTE_LEVEL_SPACE]
    for behavior in BEHAVIORS:
        for invert in (False, True):
            out.append(sequence(split(r"\s+|[a-d]", behavior, invert), BYTE_LEVEL))
            out.append(sequence(split(r"x*", behavior, invert), BYTE_LEVEL))
        out.append(sequence(split(" ", behavior, kind="String"), split("\u00e9", behavior, kind="String"), BYTE_LEVEL))
    for pattern in (r"\w+|\W", r"\h+|[\h_]+|\H", r"^\s*|.$|\s+$", r"(?m:.{3})|\u00e9|[[:upper:]]+", CL100K, O200K,
                    r"\d{1,3}(?=(?:\d{3})*\b)", r"\B", "[]x]+", r"[^\S\n]+"):
        out.append(sequence(split(pattern), BYTE_LEVEL))
    for individual in (False, True):
        digits = {"type": "Digits", "individual_digits": individual}
        out.append(sequence(digits, BYTE_LEVEL_SPACE))
        out.append(sequence(BYTE_LEVEL_SPACE, digits))
    return out


def empty_tokenizer():
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {}, "merges": []}}


BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
KIMI_K2 = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
           r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
           r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
           r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
POSIX = ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit"]
PROPERTIES = ["Han", "han", "Hiragana", "Katakana", "Hangul", "Arabic", "Latin", "Greek", "Devanagari", "Common", "Hani", "Letter",
              "Number", "Uppercase_Letter", "lowercase letter", "Punct", "Punctuation", "Digit", "Word", "Alnum", "Space",
              "Symbol", "Mark", "Nonspacing_Mark", "Separator", "Control", "Print", "Graph", "Blank", "XDigit", "LC",
              "Alphabetic", "Ideographic", "Any", "Cntrl", "Upper", "L", "^N"]
CLASSES = [r"\s", r"\w+", r"\W", r"\h+", r"[\h]+|\H", r"\d+", r"\D", r"[\w]", r"[\W]", r"[^\W]", r"[^\w\s]+", r"[\W\d]+",
           r"[\s\S]", r"[^\s]+", r"[\H]", r"[\D]", r"[^\D\W]", r"[\p{L}\d_]+", r"[\P{L}x]+", r"[^\P{L}a-f]+", r"[\P{Punct}]",
           r"[a-z&&b-d]", r"[^a-d&&c-f]", r"[a-c[x-z]&&b-y]", r"[\w&&[^\d]&&[^_]]+", r"[a[^b]]", r"[^a[^b]]", r"[^[^b]]",
           r"[a-z&&[^aeiou]]+", r"[a[b[c[d]]]]+", r"[[a-f]&&[^\w&&[b]]]", r"[[a][^\w]]+", r"(?i)[a-z&&[^k]]+", r"[a-&&a]",
           r"[-[a]]", r"[]a]+", r"[^]a]+", r"[a-c-e]", r"[--a]", r"[a&b]", r"[a&&&b]", r"[a[]b]]", r"[\n-\r]", r"[\u0041-\x43\x{1F469}]",
           r"[\101-\103]", r"[\]\[\-^]", r"[[:^alpha:]]+", r"[[:alpha:][:^word:]]+", r"[^[:punct:]a]", r"[[:x]]+", r"[\v\b\Q]",
           r"(?:[ab]|[^\W])+d", r"[\w[^a]]*x", r"(?<=[a&&[^b]])b", r"[^\w[^\w]]"]
SYNTAX = [r"^.|.$", r"a.b", r"(?m:a.b)", r"(?mi)A.B", r"\u00e9", r"[\u00e9]", r"\pL", r"\Q", r"\v", r"\x41", r"a{,3}", r"a{1,2}+", r"a{2}?",
          r"a{1,2}?", r"a{2}{3}", r"\p{N}{1,3}+", r"(?:ab){1,2}+c", r"[ab]{2}+", r"a{,}", r"x(?i)a|b", r"(?i)a|b", r"(a(?i)b|c)d|e",
          r"(?#[)a", r"\bk", r"\B.", r"a++b", r"(?>a+)b", r"\R", r"\101", r"(?<n>a)\g<n>", r"(a)\1", r"a|", r"\[a\]"]
EXTENDED = [r"(?x)a\ b", r"(?x: a {2}+ )", r"(?-x)a#?", r"(?x:a)#?", "(?x)a # c (\n b", "(?x) [ ab ]+ c", r"((?x)a b)c d", r"(?x:a(?-x) b)",
            r"[.,.]", r"[=x=]", r"[..]", r"[[.][.]]", r"[:,:]", r"a{2}(?#c)+"]
MORE_TEXTS = ["\u4e2d\u3001\u6587\u3002\u300cx\u300d", "\u2460\u00bd\u00b2!", "hi, (you)|me. \u4e2d\u3001\u6587 ]x[", "abcdefxyz a-b [a] ^ ]",
              "akKbK \u212a", "aaaaaaab ababc", "a\nb\r\nc", "xA xB B b abd aCd Cd e", "1234567 \u0661\u0662 \u00b2\u00bd", "A\u4e2dB ab\u4e2d\u6587's HTTPServer",
              "__init__ \u203f x=1;", "\u0378\ue000\u2028\u00ad\u200d", "pL Q a{,} \x0b", "\u30fc\u30a2\u3042\uff71\u3005\u3007\u0640\u060c\u0964",
              "".join(chr(c) for c in range(1, 0x180)), "".join(chr(c) for c in range(0x2000, 0x2100))]


def regex_cases(rng):
    texts = [" ".join(WORDS)] + MORE_TEXTS + [text(rng, 7) for _ in range(2)]
    patterns = [CL100K, O200K, BLOOM, KIMI_K2] + [f"[[:{name}:]]" for name in POSIX] + [f"\\p{{{name}}}" for name in PROPERTIES]
    out = []
    for pattern in patterns + CLASSES + SYNTAX + EXTENDED:
        matches = Split(Regex(pattern), "removed", invert=True)
        cases = [{"text": case, "matches": [word for word, _ in matches.pre_tokenize_str(case)]} for case in texts]
        out.append({"pattern": pattern, "cases": cases})
    return out


def split_cases(rng):
    out = []
    for pre_tokenizer in pre_tokenizers():
        tokenizer = empty_tokenizer()
        tokenizer["pre_tokenizer"] = pre_tokenizer
        library = Tokenizer.from_str(json.dumps(tokenizer))
        cases = []
        for _ in range(24):
            case = text(rng, 7)
            cases.append({"text": case, "words": [w for w, _ in library.pre_tokenizer.pre_tokenize_str(case)]})
        out.append({"pre_tokenizer": pre_tokenizer, "cases": cases})
    return out


def alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def tiny_tokenizer(missing=""):
    spelled = alphabet()
    vocab = ["<unk>", "<s>", "</s>"] + [spelled[b] for b in range(256) if spelled[b] not in missing]
    merges = []
    pairs = ["h e", "l l", "he ll", "hell o", "\u0120 \u0120", "\u0120\u0120 \u0120\u0120", "o r", "\u0120 hello",
             "N e", "Ne w", "k b", "kb d", "\u00c3 \u00a9", "i n", "in g", "x x", "xx xx"]
    for pair in pairs:
        left, right = pair.split(" ")
        if left in vocab and right in vocab:
            vocab.append(left + right)
            merges.append([left, right])
    out = empty_tokenizer()
    out["model"]["vocab"] = {token: id for id, token in enumerate(vocab)}
    out["model"]["merges"] = merges
    out["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return out


def added(content, **flags):
    return {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **flags}


def tiny_tokenizers():
    flags = [added("<s>", special=True), added("</s>", special=True), added("<mask>", lstrip=True, special=True),
             added("<sep>", rstrip=True, special=True), added("<tool>"), added("New York", normalized=True),
             added("kbd", single_word=True), added("\u0120\u0109"), added("<s><sep>", special=True)]
    first = tiny_tokenizer()
    first["added_tokens"] = flags
    first["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    first["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]}
    second = tiny_tokenizer()
    second["added_tokens"] = flags + [
        added(" ", rstrip=True), added("\u00e9", normalized=True, special=True), added("e\u0301x"),
        added("world", single_word=True, lstrip=True, rstrip=True), added("wor"), added("wor", lstrip=True),
        added("\u4e2d", lstrip=True, rstrip=True, normalized=True), added("hello", special=True, normalized=True)]
    second["normalizer"] = {"type": "NFC"}
    second["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1],
                                "trim_offsets": True, "add_prefix_space": True}
    unknown = []
    for unk_token, fuse in ((None, False), ("<unk>", False), ("<unk>", True)):
        third = tiny_tokenizer(missing="zq\u00c3\u00ef")
        third["model"]["unk_token"] = unk_token
        third["model"]["fuse_unk"] = fuse
        third["model"]["merges"] = [" ".join(pair) for pair in third["model"]["merges"]]
        unknown.append(third)
    fallback = tiny_tokenizer(missing="zq!")
    fallback["model"]["byte_fallback"] = True
    fallback["model"]["unk_token"] = "<unk>"
    for byte in b"zq":
        fallback["model"]["vocab"][f"<0x{byte:02X}>"] = len(fallback["model"]["vocab"])
    whole = tiny_tokenizer()
    whole["model"]["ignore_merges"] = True
    for word in ("ld", "\u0120world", "return", "123"):
        whole["model"]["vocab"][word] = len(whole["model"]["vocab"])
    return [first, second, *unknown, fallback, whole]


def added_cases(rng):
    out = []
    for tokenizer in tiny_tokenizers():
        source = json.dumps(tokenizer)
        library = Tokenizer.from_str(source)
        alone = Tokenizer.from_str(source)
        alone.encode_special_tokens = True
        cases = []
        for _ in range(120):
            case = text(rng, 7) + rng.choice(["", "zq", "qz!\u00c3"])
            cases.append({"text": case, "ids": library.encode(case, add_special_tokens=False).ids,
                          "ids_special": library.encode(case).ids,
                          "ids_unparsed": alone.encode(case, add_special_tokens=False).ids})
        decode = []
        for _ in range(40):
            ids = [rng.randrange(library.get_vocab_size() + 3) for _ in range(rng.randint(0, 12))]
            decode.append({"ids": ids, "decoded": library.decode(ids, skip_special_tokens=False),
                           "decoded_skip": library.decode(ids)})
        out.append({"tokenizer": tokenizer, "encode": cases, "decode": decode})
    return out


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (("utf8", utf8_cases), ("nfc", nfc_cases), ("split", split_cases), ("regex", regex_cases), ("added", added_cases)):
        cases = make(random.Random(name))
        with open(folder / f"{name}.json", "w", encoding="ascii") as out:
            out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
