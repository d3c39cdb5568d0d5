# SPDX-License-Identifier: Apache-2.0
"""Two tiny Llama GGUF files whose layer mixes the block formats that the gguf package (0.19) reads but does not write, as the
files of llama-quantize do, and the logits of transformers in float64 on the values that the package dequantises.
Usage: python make_gguf_mixed.py ../gguf   (writes tiny-mixed and tiny-tables, .gguf and .json; needs gguf, numpy, torch,
transformers)"""
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from transformers import LlamaConfig, LlamaForCausalLM

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 256, 256, 1, 4, 2, 16, 40
# Where the f16 scales of a block stand, and what the minimum is times the scale for values around 0. MXFP4 has an exponent.
SCALES = {Q.Q8_0: (0,), Q.Q5_0: (0,), Q.Q5_1: (0, 2), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,), Q.IQ4_NL: (0,),
          Q.IQ4_XS: (0,), Q.Q3_K: (108,), Q.Q2_K: (80, 82), Q.IQ3_S: (0,), Q.IQ2_XS: (0,)}
MINIMUM = {Q.Q5_1: -15.5, Q.Q4_K: 7.5, Q.Q5_K: 15.5, Q.Q2_K: 1.5}
# Of the embedding, the head, and q, k, v, o, gate, up, down.
FILES = {
    "tiny-mixed": (Q.Q6_K, Q.Q4_K, Q.Q5_K, Q.Q5_0, Q.Q6_K, Q.Q5_1, Q.Q5_K, Q.Q8_0, Q.Q4_K),
    "tiny-tables": (Q.Q3_K, Q.IQ4_XS, Q.IQ4_XS, Q.MXFP4, Q.Q3_K, Q.IQ4_NL, Q.Q2_K, Q.IQ3_S, Q.IQ2_XS),
}

out = pathlib.Path(sys.argv[1])


def blocks(rng, rows, cols, qtype):
    """Random bytes with scales that make the standard deviation about 1 / sqrt(cols)."""
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    data = rng.integers(0, 256, (rows, cols // elements, size), dtype=np.uint8)

    def scale_to(value):
        factors = np.float16(value * rng.uniform(0.8, 1.2, data.shape[:2]))
        if qtype == Q.MXFP4:
            data[:, :, 0] = 128 + np.round(np.log2(factors.astype(np.float32)))
            return gguf.dequantize(data.reshape(rows, -1), qtype)
        for place, factor in zip(SCALES[qtype], (factors, factors * np.float16(MINIMUM.get(qtype, 0)))):
            data[:, :, place : place + 2] = np.ascontiguousarray(factor.astype(np.float16)[..., None]).view(np.uint8)
        return gguf.dequantize(data.reshape(rows, -1), qtype)

    deviation = scale_to(2**-6).std()
    return data.reshape(rows, -1), scale_to(2**-6 / deviation / np.sqrt(cols))


def make(file, types):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / f"{file}.gguf", "llama")
    writer.add_name("Mixed")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(ord("a") + i) if i < 26 else f"<{i}>" for i in range(VOCAB)])
    writer.add_token_types([1 if i < 26 else 3 for i in range(VOCAB)])
    writer.add_add_bos_token(False)
    state = {}

    def add(name, hf_name, rows, cols, qtype, heads=0):
        if cols:
            data, values = blocks(rng, rows, cols, qtype)
        else:
            data, values = (rng.uniform(0.5, 1.5, rows).astype(np.float32),) * 2
        writer.add_tensor(name, data, raw_dtype=qtype)
        if heads:  # the file has element pairs of a head side by side, transformers has its halves
            values = values.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        state[hf_name] = torch.from_numpy(values.astype(np.float64))

    embedding, head, q, k, v, o, gate, up, down = types
    add("token_embd.weight", "model.embed_tokens.weight", VOCAB, HIDDEN, embedding)
    add("output.weight", "lm_head.weight", VOCAB, HIDDEN, head)
    add("output_norm.weight", "model.norm.weight", HIDDEN, 0, Q.F32)
    b, h = "blk.0.", "model.layers.0."
    add(b + "attn_norm.weight", h + "input_layernorm.weight", HIDDEN, 0, Q.F32)
    add(b + "attn_q.weight", h + "self_attn.q_proj.weight", HEADS * HEAD_DIM, HIDDEN, q, heads=HEADS)
    add(b + "attn_k.weight", h + "self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN, k, heads=KV_HEADS)
    add(b + "attn_v.weight", h + "self_attn.v_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN, v)
    add(b + "attn_output.weight", h + "self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM, o)
    add(b + "ffn_norm.weight", h + "post_attention_layernorm.weight", HIDDEN, 0, Q.F32)
    add(b + "ffn_gate.weight", h + "mlp.gate_proj.weight", FFN, HIDDEN, gate)
    add(b + "ffn_up.weight", h + "mlp.up_proj.weight", FFN, HIDDEN, up)
    add(b + "ffn_down.weight", h + "mlp.down_proj.weight", HIDDEN, FFN, down)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=128,
        tie_word_embeddings=False, attn_implementation="eager")).double().eval()
    model.load_state_dict(state)
    ids = [int(i) for i in rng.integers(0, VOCAB, 20)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    (out / f"{file}.json").write_text(json.dumps({
        "ids": ids, "logits": [[float(f"{x:.7g}") for x in row] for row in logits.tolist()]}).replace("], [", "],\n[") + "\n")


for file, types in FILES.items():
    make(file, types)
