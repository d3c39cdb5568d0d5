# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/text/sentencepiece.json: small SentencePiece models of all options, and what the
library does with texts and lists of ids.

Usage: make_sentencepiece.py OUT (needs sentencepiece==0.2.3)
"""
import base64
import io
import json
import pathlib
import random
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

WORDS = ["hello", "world", "New York", "kbd", "the", "quick", "brown fox", "Stra\u00dfe", "\u041f\u0440\u0438\u0432\u0435\u0442",
         "\u4e2d\u6587", "\u65e5\u672c\u8a9e", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0645\u0631\u062d\u0628\u0627", "123", "4567", "<s>", "<unk>",
         "<tool>", "\u2581", "  ", "   ", "\t", "\n", "\u3000", "\u00a0", "====", "=" * 40, "~" * 33, "!!!", "aaaa", "abab",
         "e\u0301", "\u00e9", "\U0001F600", "<0x0A>", "\uff21\uff22"]
# Rules of their own: a small map, with a replacement by nothing and one by a space.
RULES = "FF21\t41\nFF22\t42\n3000\t20\nA0\t20\n65 301\tE9\n200B\t\n41 42\t61 62 63\n"
OPTIONS = [
    ("bpe", {"byte_fallback": True, "remove_extra_whitespaces": False}),
    ("bpe", {"user_defined_symbols": ["New York", "<tool>", "ab"], "rules": True}),
    ("bpe", {"treat_whitespace_as_suffix": True}),
    ("unigram", {"byte_fallback": True, "user_defined_symbols": ["a", "ab", " x", "===="]}),
    ("unigram", {"rules": True, "add_dummy_prefix": False}),
    ("unigram", {"treat_whitespace_as_suffix": True, "unk_surface": "[?]", "control_symbols": ["<tool>"]}),
    ("unigram", {"split_by_whitespace": False, "remove_extra_whitespaces": False}),
    ("char", {"user_defined_symbols": ["New York"], "rules": True}),
]


def text(rng):
    return "".join(rng.choice(WORDS) + rng.choice(["", " ", " "]) for _ in range(rng.randint(0, 7)))


def train(rng, kind, options, rules):
    options = dict(options)
    if options.pop("rules", False):
        options["normalization_rule_tsv"] = str(rules)
    else:
        options["normalization_rule_name"] = "identity"
    out = io.BytesIO()
    corpus = [text(rng) for _ in range(600)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=out, model_type=kind, vocab_size=420, num_threads=1, minloglevel=2,
        character_coverage=0.985, hard_vocab_limit=False, **options)
    return out.getvalue()


def change(rng, blob):
    """The same with pieces no longer in use, more user-defined ones and equal scores."""
    model = sentencepiece_model_pb2.ModelProto.FromString(blob)
    for piece in model.pieces:
        if piece.type != 1:
            continue
        piece.score = round(piece.score)
        piece.type = rng.choices([1, 4, 5], [80, 4, 16])[0]
    model.normalizer_spec.escape_whitespaces = rng.random() < 0.5
    return model.SerializeToString()


def cases(rng, blob):
    library = sentencepiece.SentencePieceProcessor(model_proto=blob)
    encode = [{"text": t, "ids": library.encode(t)} for t in (text(rng) for _ in range(60))]
    decode = []
    for _ in range(40):
        ids = [rng.randrange(library.get_piece_size()) for _ in range(rng.randint(0, 12))]
        ids = [i for i in ids if not library.is_control(i)]
        decode.append({"ids": ids, "text": library.decode(ids)})
    return {"model": base64.b64encode(blob).decode(), "encode": encode, "decode": decode}


def main():
    out = pathlib.Path(sys.argv[1])
    rng = random.Random(1)
    rules = out / "rules.tsv"
    rules.write_text(RULES, encoding="utf-8")
    blobs = [train(rng, kind, options, rules) for kind, options in OPTIONS]
    rules.unlink()
    blobs += [change(rng, blobs[i]) for i in (0, 1, 3, 6)]
    golden = [cases(rng, blob) for blob in blobs]
    (out / "sentencepiece.json").write_text(json.dumps(golden, ensure_ascii=True) + "\n", encoding="utf-8")


main()
