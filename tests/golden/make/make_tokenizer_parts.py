#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each normalizer, pre-tokenizer and decoder of tokenizer.json alone, with the answers of Hugging Face's tokenizers.

Usage: make_tokenizer_parts.py OUT   (needs tokenizers)

A part is put into a tokenizer whose ids show what it did: a token a byte after a normalizer, a token a byte after a
pre-tokenizer with another one for the first byte of a word; for decoders a vocabulary of odd tokens.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

TEXTS = [
    "", " ", "a", "Hello, World!", "  two  spaces  ", "tab\tnew\nline\r\n", "don't I'll we've", "x=1; y=2.5e-3", "naïve café Ångström",
    "e\u0301 a\u0308\u0323 \u0323\u0307", "\u1e9b\u0323 ﬁ ½ ² ℃ Ⅷ", "ÀÉÎ İı ß ẞ Σίσυφος", "漢字かな交じり文 カタカナ", "한국어 \u1112\u1161\u11ab",
    "العربية ١٢٣ עִבְרִית", "हिन्दी १२ ไทย ๑๒", "😀👩‍👩‍👧 🇩🇪", "\u200b\ufeff\u00ad\u0000\u0007\u0085\u00a0\u2028\u3000x", "a_b-c/d\\e(f)[g]{h}", "«quoted» “quotes” ‚…’",
    "\u2581already \u2581 there\u2581", "MIXED case Text 123abc456", "\ufffdreplacement", "\U0001d400\U0001d7d8 math", "end of text   ",
]

NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Prepend", "prepend": "\u2581"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": ""}, {"type": "ByteLevel"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    {"type": "Sequence", "normalizers": []},
] + [{"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": apart, "strip_accents": strip, "lowercase": lower}
     for clean, apart, strip, lower in [(True, True, None, True), (True, False, None, False), (False, True, True, False), (True, True, False, True)]]

PRE_TOKENIZERS = [
    None, {"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "FixedLength", "length": 3},
    {"type": "CharDelimiterSplit", "delimiter": "e"}, {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False},
    {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}]},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
] + [{"type": "Punctuation", "behavior": b} for b in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")
] + [{"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": b, "invert": i} for b in ("Isolated", "Removed") for i in (False, True)
] + [{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": p, "split": s} for p in ("always", "first", "never") for s in (True, False)]

FUSED = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
DECODERS = [
    None, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": False}, # (both at once: the library panics on a token of spaces alone)
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Strip", "content": " ", "start": 0, "stop": 1},
    {"type": "Replace", "pattern": {"String": "lo"}, "content": "LO"}, {"type": "Replace", "pattern": {"Regex": "[a-m]+"}, "content": "-"},
    {"type": "Sequence", "decoders": [*FUSED, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, {"type": "Sequence", "decoders": FUSED},
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "o", "start": 0, "stop": 1}]},
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "##"}, "content": "="}]},
]
TOKENS = ["hello", "##lo", "\u2581", "\u2581the", "\u2581\u2581x\u2581", "world</w>", "</w>", "|", "<pad>", " lead", "trail ", " ", "  ", ".", ",", "?", "'", "n't", "'s", "do not", "#", "o", "oo",
          "Ġa", "Ċ", "é", "漢", "😀", "<0xE2>", "<0x96>", "<0x81>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0x41>", "<0x0A>", "<0xZZ>", "<unk>"]


def byte_alphabet() -> list[str]:
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def base(model: dict) -> dict:
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": model}


def bpe(affix: dict, tokens: list[str]) -> dict:
    return base({"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                 "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [], **affix})


def with_bytes(pre_tokenizer: dict | None) -> dict:
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*([pre_tokenizer] if pre_tokenizer else []), last]}


def encoded(tokenizer: dict) -> list[list[int]]:
    return [encoding.ids for encoding in Tokenizer.from_str(json.dumps(tokenizer)).encode_batch(TEXTS)]


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    letters = byte_alphabet()
    plain = bpe({}, letters)
    plain["pre_tokenizer"] = with_bytes(None)
    marked = bpe({"continuing_subword_prefix": "~~"}, [*letters, *("~~" + letter for letter in letters)])
    odd = base({"type": "WordLevel", "vocab": {t: i for i, t in enumerate(TOKENS)}, "unk_token": "<unk>"})

    def put(name: str, tokenizer: dict, **rest) -> None:
        (out / f"{name}.json").write_text(json.dumps({"tokenizer": tokenizer, **rest}, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")

    put("normalizers", plain, texts=TEXTS, cases=[{"part": part, "ids": encoded({**plain, "normalizer": part})} for part in NORMALIZERS])
    put("pre_tokenizers", marked, texts=TEXTS, cases=[
        {"part": with_bytes(part), "ids": encoded({**marked, "pre_tokenizer": with_bytes(part)})} for part in PRE_TOKENIZERS])
    choose = random.Random(1)
    lists = [[i] for i in range(len(TOKENS))] + [choose.choices(range(len(TOKENS)), k=choose.randint(2, 12)) for _ in range(80)]
    put("decoders", odd, ids=lists, cases=[
        {"part": part, "texts": [Tokenizer.from_str(json.dumps({**odd, "decoder": part})).decode(ids, skip_special_tokens=False) for ids in lists]} for part in DECODERS])
    return 0


if __name__ == "__main__":
    sys.exit(main())
