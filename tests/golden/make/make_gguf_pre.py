# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/text/gguf_pre.json: how llama.cpp cuts text by the names of tokenizer.ggml.pre.

One byte-level BPE vocabulary whose merges know no words, so that every cut shows; texts; and for each group of names
the ids. Most are llama.cpp's (0.7). Where llama.cpp approximates the expressions of the models (letters by ASCII case,
digits by ASCII), the ids are those of Hugging Face's tokenizers with the expressions themselves. "special": tokens
behind that vocabulary with their types, texts and llama.cpp's ids with special tokens parsed. "bert": texts and ids of
tests/golden/tokenizers/wordpiece-bert with other settings of BertNormalizer, by tokenizers.

Usage: make_gguf_pre.py OUT WORDPIECE COMMAND... (needs tokenizers==0.23.3 and gguf). COMMAND MODEL loads the vocabulary with libllama,
reads records of two int32 (2 to parse special tokens or 0, bytes of the text) and the text, and answers each with llama_tokenize's count and ids, int32 too.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from make_text_cases import KIMI_K2, O200K
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BY_LLAMA_CPP = """default gpt-2 phi-2 mpt olmo jais exaone4 gigachat jina-v2-es jina-v2-de a.x-4.0 mellum trillion granite-docling
smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 llama3 llama-bpe falcon3 pixtral lfm2 dbrx smaug-bpe glm4 glm5
chatglm-bpe qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez grok-2 solar-open bailingmoe bailingmoe2 llada-moe qwen35 ufakzeka
seed-coder minicpm5 jais-2 exaone-moe laguna chameleon deepseek-v3 hunyuan-dense hy_v4 joyai-llm deepseek-coder falcon bloom
poro-chat gpt3-finnish viking""".split()
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
BY_TOKENIZERS = {"gpt-4o": [O200K], "llama4": [O200K], "kanana2": [O200K], "talkie": [O200K], "minimax-m2": [O200K], "tekken": [TEKKEN],
                 "kimi-k2": [KIMI_K2], "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", O200K], "cohere2moe": [r"\d{1,3}(?=(?:\d{3})*\b)", O200K],
                 "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"]}
TEXTS = [
    "I'll don't WE'RE he'S they'Ve; a ) ( b, 1 22 333 4444 55555 666666 7777777 12,345,678.90 x1y22z333 $100.00 100% -1 --22",
    "def f(x):\n    return x+1\n\n\n\tfor (int i=0;i<10;++i) { a[i] = b->c; }  // CamelCaseHTTPServer2x\r\n\r\n!!!/\n !!\n/\n\n  \n  y  ",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u3067\u3059\u3002\u4e2d\u6587123\u4e2d\u6587 abc\u65e5\u672cABC\ud55c\uad6d\uc5b4 \ubb38\uc7a5 a b \u00e9t\u00e9 \u00c9T\u00c9 \u00df\u20ac\u00a3 \u00bf\u00a1\u00ab\u00bb\u2026\u2014\u201cx\u201d",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964 \u0661\u0662\u0663\u0664 x\u0301\u0302y \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0645\u0631\u062d\u0628\u0627\u060c \u01c5 \u2167 \u00bd\u00b2 \u2460 \U0001f469\u200d\U0001f467 \U0001f680\U0001f3fd",
    "a" + " " * 2 + "b" + " " * 3 + "c" + " " * 7 + "d" + " " * 70 + "e\u00a0f\u3000g\u2003 h\u200bi\n \n\n   \n\t\t j   ",
    "<sentinel:12>IMGIMGABZ{x|y}~`^_=<>+$a`b'c 'S'T 'x s' \\n #tag @me e.g. i.e. (1) [2] {3} \"q\" https://ex.org/a?b=c&d=%20 __init__",
]

SPECIAL = ["<mask>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "</s>", "<eos>", "[EOT]", "<|end_of_text|>",
           "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|other|>", "<unused>"]
SPECIAL_TYPES = [3, 1, 5, 1, 5, 1, 1, 5, 1, 1, 1, 1, 5]
SPECIAL_TEXTS = ["a <mask> b", "a<mask>b", "x \n <mask><mask> y", "".join(SPECIAL), " x ".join(SPECIAL), "hi<|im_end|>\n</s"]
BERT_TEXTS = ["H\u00e9llo W\u00d6RLD na\u00efve caf\u00e9", "hello world", "THE QUICK e\u0301clair"]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text[i:] + text[:i] for text in TEXTS for i in range(0, len(text), 5)],
                                  trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False, max_token_length=6))
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(merge) for merge in model["merges"]]


def write(path, pre, tokens, merges, types):
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(512)
    out.add_embedding_length(32)
    out.add_block_count(1)
    out.add_feed_forward_length(32)
    out.add_head_count(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(merges)
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_sep_token_id(0)
    out.add_add_bos_token(False)
    out.add_tensor("token_embd.weight", np.zeros((1, 32), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def by_llama_cpp(command, folder, pre, tokens, merges, texts=TEXTS, special=()):
    write(folder / "pre.gguf", pre, tokens + [*special], merges, [1] * len(tokens) + SPECIAL_TYPES[:len(special)])
    records = [text.encode() for text in texts]
    text = b"".join(struct.pack("<ii", 2 if special else 0, len(record)) + record for record in records)
    answer = subprocess.run([*command, folder / "pre.gguf"], input=text, capture_output=True, check=True).stdout
    ids = []
    while answer:
        count = struct.unpack_from("<i", answer)[0]
        ids.append(list(struct.unpack_from(f"<{count}i", answer, 4)))
        answer = answer[4 + 4 * count:]
    assert len(ids) == len(texts), pre
    return ids


def by_tokenizers(patterns, tokens, merges):
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns] +
                                                      [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return [tokenizer.encode(text).ids for text in TEXTS]


def bert(path):
    cases = []
    for lowercase in (False, True):
        for strip_accents in (None, False, True):
            tokenizer = Tokenizer.from_file(path)
            tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
            for text in BERT_TEXTS:
                cases.append({"lowercase": lowercase, "strip_accents": strip_accents, "text": text,
                              "ids": tokenizer.encode(text, add_special_tokens=False).ids})
    return cases


def main():
    tokens, merges = train()
    groups = []
    command = sys.argv[3:]
    with tempfile.TemporaryDirectory(dir=pathlib.Path(sys.argv[1]).parent) as folder:
        folder = pathlib.Path(folder)
        found = [(pre, by_llama_cpp(command, folder, pre, tokens, merges)) for pre in BY_LLAMA_CPP]
        special = [{"pre": pre, "ids": by_llama_cpp(command, folder, pre, tokens, merges, SPECIAL_TEXTS, SPECIAL)}
                   for pre in ("gpt-2", "jina-v2-de", "jina-v2-es", "llama3")]
    found += [(pre, by_tokenizers(patterns, tokens, merges)) for pre, patterns in BY_TOKENIZERS.items()]
    for pre, ids in found:
        same = [group for group in groups if group["ids"] == ids]
        if same:
            same[0]["pre"].append(pre)
        else:
            groups.append({"pre": [pre], "ids": ids})
    with open(sys.argv[1], "w", encoding="ascii") as out:
        json.dump({"tokens": tokens, "merges": merges, "texts": TEXTS, "groups": groups,
                   "special": {"tokens": SPECIAL, "types": SPECIAL_TYPES, "texts": SPECIAL_TEXTS, "cases": special},
                   "bert": bert(sys.argv[2])}, out, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
