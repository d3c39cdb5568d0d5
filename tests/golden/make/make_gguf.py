# SPDX-License-Identifier: Apache-2.0
"""A tiny Llama GGUF file in every weight format we read, by the gguf package (0.19), and what a reader must find in it.
Usage: python make_gguf.py ../gguf   (writes tiny-llama.gguf, tiny-llama.json)"""
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 64, 96, 2, 4, 2, 16, 5

out = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(1)
writer = gguf.GGUFWriter(out / "tiny-llama.gguf", "llama")
writer.add_name("Tiny")
writer.add_block_count(LAYERS)
writer.add_context_length(128)
writer.add_embedding_length(HIDDEN)
writer.add_feed_forward_length(FFN)
writer.add_head_count(HEADS)
writer.add_head_count_kv([KV_HEADS] * LAYERS)
writer.add_key_length(HEAD_DIM)
writer.add_value_length(HEAD_DIM)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(10000.0)
writer.add_rope_dimension_count(HEAD_DIM)
writer.add_tokenizer_model("gpt2")
writer.add_token_list(["<s>", "a", "b", "ab", "\u00e9"])
writer.add_token_types([3, 1, 1, 1, 1])
writer.add_add_bos_token(False)
writer.add_uint8("test.u8", 255)
writer.add_int8("test.i8", -128)
writer.add_uint16("test.u16", 65535)
writer.add_int16("test.i16", -32768)
writer.add_int32("test.i32", -2147483648)
writer.add_uint64("test.u64", 18446744073709551615)
writer.add_int64("test.i64", -9223372036854775808)
writer.add_float64("test.f64", 0.1)

expected = []


def add(name, hf_name, shape, qtype):
    values = rng.standard_normal(shape).astype(np.float32)
    if name == "rope_freqs.weight":
        values = np.array([1, 1, 1.5, 2, 4, 8, 8, 8], np.float32)
    data = gguf.quants.quantize(values, qtype)
    writer.add_tensor(name, data, raw_shape=data.shape if qtype not in (Q.F32, Q.F16) else None, raw_dtype=qtype)
    expected.append({"file_name": name, "name": hf_name, "dim": list(shape), "dtype": qtype.name.lower(),
                     "bytes": data.nbytes,
                     # sum of (index + 1) * byte, modulo 2^32
                     "checksum": sum((i + 1) * b for i, b in enumerate(data.tobytes())) % 2**32})


add("token_embd.weight", "model.embed_tokens.weight", (VOCAB, HIDDEN), Q.Q8_0)
add("rope_freqs.weight", "rope_freqs.weight", (HEAD_DIM // 2,), Q.F32)
for n, q in enumerate([Q.Q4_1, Q.Q4_0]):
    b, h = f"blk.{n}.", f"model.layers.{n}."
    add(b + "attn_norm.weight", h + "input_layernorm.weight", (HIDDEN,), Q.F32)
    add(b + "attn_q.weight", h + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN), q)
    add(b + "attn_k.weight", h + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN), q)
    add(b + "attn_v.weight", h + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN), Q.F16)
    add(b + "attn_output.weight", h + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM), Q.BF16)
    add(b + "ffn_norm.weight", h + "post_attention_layernorm.weight", (HIDDEN,), Q.F32)
    add(b + "ffn_gate.weight", h + "mlp.gate_proj.weight", (FFN, HIDDEN), q)
    add(b + "ffn_up.weight", h + "mlp.up_proj.weight", (FFN, HIDDEN), q)
    add(b + "ffn_down.weight", h + "mlp.down_proj.weight", (HIDDEN, FFN), q)
add("output_norm.weight", "model.norm.weight", (HIDDEN,), Q.F32)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
(out / "tiny-llama.json").write_text("[\n" + ",\n".join(json.dumps(e) for e in expected) + "\n]\n")
