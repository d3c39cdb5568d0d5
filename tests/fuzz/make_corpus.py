# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of tests/fuzz/corpus: small inputs that pass, made of tests/golden. Inputs that once found a bug are not
made here; their names say what they found.
Usage: python make_corpus.py ../golden corpus"""

import json
import pathlib
import struct
import sys

LONGEST = 16384  # run.sh cuts inputs there
GOLDEN, CORPUS = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
TEXT = "Hello, world! It's 2024\n\tna\u00efve \u4f60\u597d <|endoftext|>"
LARGEST_FOLDER = 40_000  # bytes of config and weights of one seed


def save(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def gguf_string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(value):
    """The number of its type, and its bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, gguf_string(value)
    items = [gguf_value(item) for item in value]
    return 9, struct.pack("<IQ", items[0][0], len(items)) + b"".join(raw for _, raw in items)


def gguf_file(metadata, tensors):
    """tensors: (name, dims fastest first, type, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        number, raw = gguf_value(value)
        out += gguf_string(key) + struct.pack("<I", number) + raw
    data = b""
    for name, dims, number, raw in tensors:
        data += bytes(-len(data) % 32)
        out += gguf_string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", number, len(data))
        data += raw
    return out + bytes(-len(out) % 32) + data


def llama(prefix="llama", **more):
    return {"general.architecture": prefix, f"{prefix}.block_count": 1, f"{prefix}.context_length": 64,
            f"{prefix}.embedding_length": 32, f"{prefix}.feed_forward_length": 64, f"{prefix}.attention.head_count": 2,
            f"{prefix}.attention.head_count_kv": 1, f"{prefix}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{prefix}.vocab_size": 8, **more}


def gguf_seeds():
    tokens = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe",
              "tokenizer.ggml.tokens": ["<s>", "H", "e", "l", "o", "ll", "\u0120", "He"],
              "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1, 1], "tokenizer.ggml.merges": ["l l", "H e"],
              "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.add_bos_token": True}
    tensors = [("token_embd.weight", [32, 8], 0, bytes(range(256)) * 4), ("output_norm.weight", [32], 0, bytes(128)),
               ("blk.0.attn_norm.weight", [32], 0, bytes(128)), ("blk.0.attn_q.weight", [32, 2], 8, bytes(68)),
               ("blk.0.attn_k.weight", [32, 1], 2, bytes(18)), ("blk.0.ffn_up.weight", [32, 2], 1, bytes(128)),
               ("blk.0.ffn_gate.weight", [256, 1], 19, bytes(50)), ("blk.0.ffn_down.weight", [256, 1], 12, bytes(144))]
    save("gguf", "tensors", gguf_file(llama(), tensors))
    save("gguf", "tokenizer", gguf_file(llama(**tokens), tensors[:2]))
    save("gguf", "aligned", gguf_file(llama(**{"general.alignment": 64}), tensors[:1]))
    save("gguf", "gemma3", gguf_file(llama("gemma3", **{"gemma3.attention.sliding_window": 16}), tensors[:1]))
    save("gguf", "experts", gguf_file(llama("qwen3moe", **{"qwen3moe.expert_count": 4, "qwen3moe.expert_used_count": 2,
                                                           "qwen3moe.expert_feed_forward_length": 32}), []))
    save("gguf", "nvfp4", gguf_file(llama(), [("blk.0.ffn_up.weight", [64, 2], 40, bytes(72)),
                                              ("blk.0.ffn_up.scale", [1], 0, bytes(4))]))
    save("gguf", "bert", gguf_file(llama("bert", **{"bert.pooling_type": 1, "bert.attention.layer_norm_epsilon": 1e-12}), []))
    for pre in ("gpt-2", "smollm", "qwen2", "gpt-4o", "tekken", "deepseek-v3"):
        save("gguf", f"pre_{pre}", gguf_file(llama(**{**tokens, "tokenizer.ggml.pre": pre}), []))


def safetensors_file(header, data):
    raw = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors_seeds():
    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    save("safetensors", "two", safetensors_file({"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 3], 0, 24),
                                                 "b": entry("BF16", [4], 24, 32)}, bytes(32)))
    save("safetensors", "skipped", safetensors_file({"x": entry("I64", [2], 0, 16), "y": entry("F8_E4M3", [3], 16, 19)},
                                                    bytes(19)))
    save("safetensors", "scalars", safetensors_file({"s": entry("F16", [], 0, 2), "none": entry("F32", [0, 4], 2, 2)},
                                                    bytes(2)))
    save("safetensors", "nothing", safetensors_file({}, b""))


def config_seeds():
    for folder in sorted((GOLDEN / "models").iterdir()):
        config = folder / "config.json"
        if not config.exists():
            continue
        text = json.dumps(json.loads(config.read_text()), separators=(",", ":"))
        save("config_json", folder.name, text)
        # What a quantisation makes of the tensors: of small folders, the tensors of one layer.
        weights = folder / "model.safetensors"
        if "quantization_config" in text and weights.exists():
            part = layer_of(weights.read_bytes())
            if len(part) < LARGEST_FOLDER:
                save("config_json", f"{folder.name}_weights", text.encode() + b"\0" + part)


def layer_of(raw):
    """The tensors of the first layer's key projection (or of all its experts): a file of its own."""
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + size]), raw[8 + size:]
    kept, out = {}, b""
    for name, entry in header.items():
        if name == "__metadata__" or not (".0.self_attn.k_proj." in name or ".0.mlp.experts." in name):
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [len(out), len(out) + end - begin]}
        out += data[begin:end]
    return safetensors_file(kept, out)


def tokenizer_seeds():
    for folder in sorted((GOLDEN / "tokenizers").iterdir()):
        path = folder / "tokenizer.json"
        if not path.exists():
            continue
        file = json.loads(path.read_text())
        cut_down(file)
        seed = json.dumps(file, ensure_ascii=False, separators=(",", ":")).encode() + b"\0" + TEXT.encode()
        if len(seed) <= LONGEST:  # one has a charsmap of 320 KB
            save("tokenizer_json", folder.name, seed)


def cut_down(file):
    """Leaves the short tokens and the merges that make them."""
    model, longest = file["model"], 2
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        added = {token["content"] for token in file.get("added_tokens", [])}
        short = [text for text in vocabulary if len(text) == 1 or text in added][:300]
        pairs = [text for text in vocabulary if len(text) == longest and text not in added][:40]
        model["vocab"] = {text: i for i, text in enumerate(short + pairs)}
        # Those that the vocabulary lacks come behind it, in their order.
        ids = dict(model["vocab"])
        for token in file.get("added_tokens", []):
            token["id"] = ids.setdefault(token["content"], len(ids))
        renumber(file.get("post_processor"), ids)
    elif isinstance(vocabulary, list):
        model["vocab"] = vocabulary[:120]
    if "merges" in model:
        def parts(merge):
            return merge.split(" ") if isinstance(merge, str) else merge
        known = model["vocab"]
        model["merges"] = [merge for merge in model["merges"]
                           if all(part in known for part in (*parts(merge), "".join(parts(merge))))]


def renumber(processor, ids):
    """The ids of a template's special tokens."""
    for step in (processor or {}).get("processors", [processor or {}]):
        for text, token in step.get("special_tokens", {}).items():
            token["ids"] = [ids[text]]


def jinja_seeds():
    for name in ("chat", "language"):
        golden = json.loads((GOLDEN / "templates" / f"{name}.json").read_text())
        for i, case in enumerate(golden["cases"][::6]):
            source = case.get("template") or golden["templates"][case["template_name"]]
            variables = case.get("variables", golden.get("variables"))
            save("jinja", f"{name}_{i}", source + "\0" + json.dumps(variables, separators=(",", ":")))


def request_seeds():
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {
        "type": "object", "properties": {"x": {"type": "integer"}}}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 7, "max_tokens": 5, "n": 2,
                "stop": ["a", "b"], "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1,
                "logit_bias": {"5": -100}}
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "1", "content": "2"}]
    bodies = {
        "0_chat": {"model": "fake", "messages": messages, "tools": [tool], **sampling},
        "0_stream": {"model": "fake", "messages": messages[:2], "stream": True, "logprobs": True, "top_logprobs": 3,
                     "stream_options": {"include_usage": True}, "chat_template_kwargs": {"enable_thinking": False}},
        "1_completion": {"model": "fake", "prompt": ["a", "b"], "echo": True, "logprobs": 2, **sampling},
        "1_ids": {"model": "fake", "prompt": [1, 2, 3], "return_token_ids": True, "ignore_eos": True, "min_tokens": 2},
        "2_text": {"model": "fake", "prompt": "text <eos>", "add_special_tokens": False},
        "2_chat": {"model": "fake", "messages": messages, "add_generation_prompt": True},
        "3_ids": {"model": "fake", "tokens": [72, 105]},
    }
    for name, body in bodies.items():
        save("json_request", name, name[0] + json.dumps(body, separators=(",", ":")))


def embedding_seeds():
    bodies = {
        "0_text": {"input": "hello", "model": "fake", "dimensions": 2, "encoding_format": "base64"},
        "0_texts": {"input": ["a", "b\u00e9"], "normalize": True, "truncate_prompt_tokens": 5, "parse_special": False},
        "0_ids": {"input": [[72, 105], [7]], "add_special_tokens": False, "user": "u"},
        "1_pairs": {"text_1": ["a", "b"], "text_2": ["c", "d"]},
        "1_one": {"queries": "a", "documents": ["c", {"text": "d"}], "model": "fake"},
        "2_rerank": {"query": "a", "documents": ["c", {"text": "d"}, "e"], "top_n": 2, "return_documents": False},
    }
    for name, body in bodies.items():
        save("embedding_request", name, name[0] + json.dumps(body, separators=(",", ":")))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def message_fields(raw):
    """(number, whole field, content where it is of bytes) of each field of a protobuf message."""
    at = 0
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(raw):
        begin = at
        tag = number()
        content = None
        if tag & 7 == 0:
            number()
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            size = number() if size is None else size
            content = raw[at:at + size]
            at += size
        yield tag >> 3, raw[begin:at], content


def sentencepiece_seeds():
    """Each kind of model with its first pieces and without its charsmap."""
    text = TEXT.encode()
    configs = {"plain": {}, "marked": {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"}}
    for folder in sorted((GOLDEN / "tokenizers").glob("spm-*")):
        model, pieces = b"", 0
        for number, field, content in message_fields((folder / "tokenizer.model").read_bytes()):
            pieces += number == 1
            if number == 3:  # NormalizerSpec; its second field is the charsmap
                content = b"".join(part for inner, part, _ in message_fields(content) if inner != 2)
                field = bytes([3 << 3 | 2]) + varint(len(content)) + content
            if number != 1 or pieces <= 300:
                model += field
        for name, config in configs.items():
            parts = [text, json.dumps(config, separators=(",", ":")).encode() if config else b""]
            save("sentencepiece", f"{folder.name}_{name}", b"".join(struct.pack("<H", len(p)) + p for p in parts) + model)


def detokenizer_seeds():
    texts = [TEXT, "a\u0301\U0001f469\u200d\U0001f680 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "x" * 64, " \n\r\n  \t", "<|begin_of_text|>it's"]
    for tokenizer in range(4):
        for i, text in enumerate(texts):
            save("detokenizer", f"{tokenizer}_{i}", bytes([tokenizer]) + text.encode())
        save("detokenizer", f"{tokenizer}_bytes", bytes([tokenizer]) + b"\xff\xfe\xe4\xbd\x80\xf0\x9f\x00\xc3")


def packed_seeds():
    def text(raw):
        return struct.pack("<I", len(raw)) + raw
    index = text(b"identity") + struct.pack("<I", 2) + text(b"a") + struct.pack("<QQ", 0, 8)
    index += text(b"weight") + struct.pack("<QQ", 4096, 4) + struct.pack("<IQ", 1, 0)
    payload = b"12345678".ljust(4096, b"\0") + b"abcd"
    begin = (40 + len(index) + 4095) // 4096 * 4096
    save("packed_file", "two_runs", (b"FLWEIGHT" + struct.pack("<IIQQQ", 1, 0, begin + len(payload), len(index), 0) +
                                     index).ljust(begin, b"\0") + payload)
    index = text(b"identity") + struct.pack("<II", 0, 0)
    save("packed_file", "empty", (b"FLWEIGHT" + struct.pack("<IIQQQ", 1, 0, 4096, len(index), 0) + index).ljust(4096, b"\0"))


def pooling_seeds():
    module = "sentence_transformers.models."
    modules = [{"idx": i, "name": str(i), "path": path, "type": module + kind} for i, (path, kind) in
               enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    sentence = {"max_seq_length": 256, "do_lower_case": False}
    for name, parts in {"all": (modules, pooling, sentence), "plain": (modules[:2], {"pooling_mode": "cls"}, {})}.items():
        save("pooling", name, "\0".join(json.dumps(part, separators=(",", ":")) for part in parts))


gguf_seeds()
safetensors_seeds()
config_seeds()
tokenizer_seeds()
jinja_seeds()
request_seeds()
embedding_seeds()
sentencepiece_seeds()
detokenizer_seeds()
packed_seeds()
pooling_seeds()
