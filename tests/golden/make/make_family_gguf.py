# SPDX-License-Identifier: Apache-2.0
"""GGUF twins of the Hugging Face folders in golden/models, with the tensors and metadata that llama.cpp's own converter writes for
each family: float32, MXFP4 experts kept as MXFP4. The same input gives the same bytes.
Usage: python make_family_gguf.py ../models OUT_DIR [NAME...]   (needs numpy and gguf 0.19)

check_family_gguf.py compares the files with llama.cpp and keeps their hashes in ../models/gguf_oracle.json."""
import argparse
import json
import math
import pathlib
import re

import gguf
import numpy as np

# Folders that a GGUF file cannot hold: what is lost has no key in the format, or llama.cpp reads it another way.
NOT_HELD = {
    "bert-head7": "an encoder's activation has no key: GELU is implied",
    "mistral-window8": "llama.cpp's llama has no sliding window",
    "qwen3-moe": "a dense layer among sparse ones (mlp_only_layers) has no key",
    "gemma2": "query_pre_attn_scalar other than head_dim has no key",
    "gemma3-with-vision": "its text model is another gemma3, and GGUF holds no other part of it",
    "smollm3-interval": "every 4th layer without RoPE is implied",
    "xlm-roberta": "the format has it as bert, without the positions that no text has",
    "deepseek-v2-groups": "llama.cpp ranks groups of experts by the sum of the best two, this model by the best one",
}

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "ministral3": "mistral3", "qwen2": "qwen2", "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "olmo": "olmo",
    "olmo2": "olmo2", "granite": "granite", "smollm3": "smollm3", "gpt_oss": "gpt-oss", "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2", "bert": "bert", "nomic_bert": "nomic-bert"}
# Their q and k rows are reordered so that a RoPE pair is two neighbours (deepseek2's already are).
PERMUTED = {"llama", "mistral3", "granite", "smollm3", "olmo"}
WITH_VOCAB_SIZE = {"llama", "mistral3", "granite", "smollm3", "deepseek2"}

MODEL_TENSORS = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm", "emb_ln": "token_embd_norm"}
LAYER_TENSORS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
    # experts: a router, and one tensor for all experts of a layer
    "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp", "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps", "mlp.experts.up_proj": "ffn_up_exps", "mlp.experts.down_proj": "ffn_down_exps",
    "block_sparse_moe.experts.w1": "ffn_gate_exps", "block_sparse_moe.experts.w3": "ffn_up_exps",
    "block_sparse_moe.experts.w2": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp", "mlp.gate.e_score_correction": "exp_probs_b",
    # multi-head latent attention
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.k_b_proj": "attn_k_b", "self_attn.v_b_proj": "attn_v_b", "self_attn.sinks": "attn_sinks",
    # encoders
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
    "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "norm1": "attn_output_norm", "norm2": "layer_output_norm",
    "mlp.fc11": "ffn_up", "mlp.fc12": "ffn_gate", "mlp.fc2": "ffn_down"}
# Where a family means something else by a name.
SANDWICH = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm"}
FAMILY_TENSORS = {"gemma2": SANDWICH, "gemma3": SANDWICH, "olmo2": SANDWICH,
                  "gpt-oss": {"post_attention_layernorm": "post_attention_norm"}}


def read_safetensors(folder):
    """Every tensor of a folder by name: bf16 widened to float32, bytes as they are."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.read_bytes()
        end = 8 + int.from_bytes(blob[:8], "little")
        for name, info in json.loads(blob[8:end]).items():
            if name == "__metadata__":
                continue
            begin, stop = info["data_offsets"]
            data = blob[end + begin:end + stop]
            if info["dtype"] == "BF16":
                array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
            else:
                array = np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "U8": "u1"}[info["dtype"]])
            tensors[name] = array.reshape(info["shape"])
    return tensors


class Config:
    """config.json in its old and new forms, under one set of names."""

    NEWER = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size", "n_layer": "num_hidden_layers",
             "n_positions": "max_position_embeddings", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta"}

    def __init__(self, folder):
        self.values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for old, new in self.NEWER.items():
            if old in self.values:
                self.values.setdefault(new, self.values[old])
        if "max_trained_positions" in self.values:
            self.values["max_position_embeddings"] = self.values["max_trained_positions"]
        self.rope = dict(self.values.get("rope_parameters") or self.values.get("rope_scaling") or {})
        self.rope_type = self.rope.get("rope_type", self.rope.get("type", "default"))
        self.rope_theta = self.rope.get("rope_theta", self.values.get("rope_theta", 10000.0))
        self.arch = ARCHITECTURES[self.values["model_type"]]
        self.heads = self.values["num_attention_heads"]
        self.kv_heads = self.values.get("num_key_value_heads", self.heads)
        self.head_dim = self.values.get("head_dim") or self.values["hidden_size"] // self.heads

    def __getitem__(self, key):
        return self.values[key]

    def get(self, key, default=None):
        value = self.values.get(key)
        return default if value is None else value


def permute(weight, heads):
    """Rows i and i + d/2 of each head of d rows become rows 2i and 2i + 1."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def stack_experts(tensors):
    """...experts.E.NAME of all experts E -> ...experts.NAME [experts, ...]."""
    groups = {}
    for name in [n for n in tensors if re.search(r"\.experts\.\d+\.", n)]:
        stem, expert, rest = re.match(r"(.*\.experts)\.(\d+)\.(.*)", name).groups()
        groups.setdefault(f"{stem}.{rest}", {})[int(expert)] = tensors.pop(name)
    for name, experts in groups.items():
        tensors[name] = np.stack([experts[i] for i in range(len(experts))])


def mxfp4_blocks(blocks, scales):
    """Hugging Face's bytes hold elements 2j (low nibble) and 2j + 1, GGUF's elements j and j + 16, after the scale's byte."""
    nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
    packed = nibbles[..., :16] | nibbles[..., 16:] << 4
    rows = np.concatenate([scales[..., None], packed], -1)
    return rows.reshape(*rows.shape[:-2], -1)


def split_gpt_oss_experts(tensors):
    """gate_up interleaves gate and up; matrices are [experts, in, out] unless they are MXFP4 blocks."""
    for name in [n for n in tensors if ".experts." in n]:
        if name.endswith("_scales"):
            continue
        value = tensors.pop(name)
        stem, kind = re.match(r"(.*\.experts\.(?:gate_up_proj|down_proj))(|_bias|_blocks)$", name).groups()
        if kind == "_blocks":
            value = mxfp4_blocks(value, tensors.pop(stem + "_scales"))
        elif kind == "":
            value = value.swapaxes(1, 2)
        suffix = ".bias" if kind == "_bias" else ".weight"
        if stem.endswith("gate_up_proj"):
            tensors[stem[:-12] + "gate_proj" + suffix] = value[:, 0::2]
            tensors[stem[:-12] + "up_proj" + suffix] = value[:, 1::2]
        else:
            tensors[stem + suffix] = value
    for name in [n for n in tensors if n.endswith(".sinks")]:
        tensors[name + ".weight"] = tensors.pop(name)


def split_latent_kv(tensors, config):
    """kv_b [heads x (nope + v), rank] -> k_b [heads, rank, nope] and v_b [heads, v, rank]."""
    nope, v = config["qk_nope_head_dim"], config["v_head_dim"]
    for name in [n for n in tensors if n.endswith(".kv_b_proj.weight")]:
        kv = tensors.pop(name)
        kv = kv.reshape(config.heads, nope + v, kv.shape[-1])
        tensors[name.replace("kv_b_proj", "k_b_proj")] = kv[:, :nope].swapaxes(1, 2)
        tensors[name.replace("kv_b_proj", "v_b_proj")] = kv[:, nope:]


def rope_tensors(config):
    """Frequency divisors: of llama3 scaling one set, of longrope two."""
    if config.rope_type == "longrope":
        return {f"rope_factors_{kind}.weight": np.array(config.rope[f"{kind}_factor"], "<f4") for kind in ("long", "short")}
    if config.rope_type != "llama3":
        return {}
    rope, original = config.rope, config.rope["original_max_position_embeddings"]
    divisors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * config.rope_theta ** (i / config.head_dim)
        smooth = (original / wavelength - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        if wavelength < original / rope["high_freq_factor"]:
            divisors.append(1.0)
        elif wavelength > original / rope["low_freq_factor"]:
            divisors.append(rope["factor"])
        else:
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return {"rope_freqs.weight": np.array(divisors, "<f4")}


def gguf_name(name, arch):
    stem, _, suffix = name.rpartition(".")
    if name.endswith(".e_score_correction_bias"):
        stem, suffix = name[:-5], "bias"
    layer = re.match(r"(?:model\.layers|encoder\.layers?)\.(\d+)\.(.*)", stem)
    if layer is None:
        return f"{MODEL_TENSORS[stem]}.{suffix}"
    table = {**LAYER_TENSORS, **FAMILY_TENSORS.get(arch, {})}
    return f"blk.{layer[1]}.{table[layer[2]]}.{suffix}"


def gguf_tensors(tensors, config):
    """The tensors of the GGUF file by name, in the converter's form."""
    arch = config.arch
    if not any(n.startswith(("model.", "embeddings.")) for n in tensors):  # a bare backbone (Qwen3-Embedding)
        tensors = {"model." + n: t for n, t in tensors.items()}
    tensors = {n: t for n, t in tensors.items() if not n.startswith("pooler.")}
    if arch == "gpt-oss":
        split_gpt_oss_experts(tensors)
    if arch == "deepseek2":
        split_latent_kv(tensors, config)
    stack_experts(tensors)
    result = rope_tensors(config)
    for name, value in tensors.items():
        if arch in PERMUTED and ".self_attn.q_proj." in name:
            value = permute(value, config.heads)
        if arch in PERMUTED and ".self_attn.k_proj." in name:
            value = permute(value, config.kv_heads)
        if arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
            value = value + np.float32(1)
        result[gguf_name(name, arch)] = np.ascontiguousarray(value)
    return dict(sorted(result.items()))


def add_rope(writer, config):
    arch, rope = config.arch, config.rope
    if arch not in ("gemma2", "bert"):
        writer.add_rope_freq_base(config.rope_theta)
    if config.rope_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(config.rope_type))
        writer.add_rope_scaling_factor(rope["factor"])
    if config.rope_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        if "mscale_all_dim" in rope:
            writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"] * (0.1 if arch == "deepseek2" else 1.0))
    if arch in PERMUTED and arch != "olmo":
        writer.add_rope_dimension_count(config.head_dim)
    if arch == "deepseek2":
        writer.add_rope_dimension_count(config["qk_rope_head_dim"])
    if arch == "phi3":
        original = config.get("original_max_position_embeddings", config["max_position_embeddings"])
        writer.add_rope_dimension_count(int(config.get("partial_rotary_factor", 1.0) * config["hidden_size"]) // config.heads)
        writer.add_rope_scaling_orig_ctx_len(original)
        if config.rope_type == "longrope":
            scale = config["max_position_embeddings"] / original
            writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)


def add_attention(writer, config):
    arch = config.arch
    writer.add_head_count(config.heads)
    if arch not in ("bert", "nomic-bert"):
        writer.add_head_count_kv(1 if arch == "deepseek2" else config.kv_heads)  # latent attention is stored as multi-query
    if arch == "deepseek2":
        rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
        # llama.cpp asks for the key except of models of 26 or 27 layers, whose q has no low rank; the converter leaves it out.
        writer.add_q_lora_rank(config.get("q_lora_rank", 0))
        writer.add_kv_lora_rank(rank)
        writer.add_key_length(rank + rope)
        writer.add_value_length(rank)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
        writer.add_value_length_mla(config["v_head_dim"])
    elif arch in ("llama", "mistral3", "gemma2", "gemma3", "gpt-oss", "qwen3", "qwen3moe") and config["model_type"] != "mixtral":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if arch in ("gemma2", "gemma3", "gpt-oss"):
        writer.add_sliding_window(config["sliding_window"])
    if arch == "phi3":
        writer.add_sliding_window(config.get("sliding_window", 0))
    if arch == "gemma3":
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
        if config["sliding_window_pattern"] != 6:  # 6 is implied; the converter knows no other
            writer.add_sliding_window_pattern(config["sliding_window_pattern"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping") is not None:
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "mistral3":
        writer.add_attn_temperature_scale(config.rope["llama_4_scaling_beta"])
    if arch == "olmo" and config.get("clip_qkv") is not None:
        writer.add_clamp_kqv(config["clip_qkv"])
    if arch == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])


def add_experts(writer, config):
    count = config.get("num_local_experts", config.get("num_experts", config.get("n_routed_experts")))
    if count is None:
        return
    writer.add_expert_count(count)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if config.arch in ("qwen2moe", "qwen3moe", "deepseek2"):
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.arch == "gpt-oss":
        writer.add_expert_feed_forward_length(config["intermediate_size"])
    if config.arch == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if config.arch == "deepseek2":
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType[config["scoring_func"].upper()])
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        if config["norm_topk_prob"]:
            writer.add_expert_weights_norm(True)


def add_pooling(writer, config, folder):
    if config.arch in ("bert", "nomic-bert"):
        writer.add_causal_attention(False)
        writer.add_token_type_count(config["type_vocab_size"])
    path = folder / "1_Pooling" / "config.json"
    if path.exists():
        pooling = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"mean_tokens": gguf.PoolingType.MEAN, "cls_token": gguf.PoolingType.CLS, "lasttoken": gguf.PoolingType.LAST}
        writer.add_pooling_type(next(kind for key, kind in kinds.items() if pooling.get("pooling_mode_" + key)))


def byte_letters():
    """GPT-2's letter for each byte: itself where it prints, else one from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def add_tokenizer(writer, config):
    """As little as a loader accepts. 256 tokens have no room for the last 5 bytes, which no UTF-8 text has."""
    size = config["vocab_size"]
    if config.arch in ("bert", "nomic-bert"):
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581a", "b"]
        types = [3] * 5 + [1] * 2
        writer.add_tokenizer_model("bert")
        for name, token in (("pad", 0), ("unk", 1), ("bos", 2), ("sep", 3), ("mask", 4)):
            getattr(writer, f"add_{name}_token_id")(token)
    else:
        # llama.cpp looks for <|endoftext|> where a model's name has "phi3" in it.
        tokens = (["<unk>", "<s>", "</s>", "<|endoftext|>", "ab"] + byte_letters())[:size]
        types = [3] * 4 + [1] * (len(tokens) - 4)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
    extra = [f"<extra {i}>" for i in range(len(tokens), size)]
    writer.add_token_list(tokens + extra)
    writer.add_token_types(types + [5] * len(extra))


def write(folder, path):
    config = Config(folder)
    tensors = gguf_tensors(read_safetensors(folder), config)
    is_mxfp4 = {name: value.dtype == np.uint8 for name, value in tensors.items()}
    file_type = gguf.LlamaFileType.MOSTLY_MXFP4_MOE if any(is_mxfp4.values()) else gguf.LlamaFileType.ALL_F32
    writer = gguf.GGUFWriter(path, config.arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(folder.name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    if config.get("rms_norm_eps") is not None:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(config.get("layer_norm_eps", 1e-5))  # OLMo's is fixed
    if config.arch in WITH_VOCAB_SIZE:
        writer.add_vocab_size(config["vocab_size"])
    for step in (add_rope, add_attention, add_experts, add_tokenizer):
        step(writer, config)
    add_pooling(writer, config, folder)
    for name, value in tensors.items():
        raw = gguf.GGMLQuantizationType.MXFP4 if is_mxfp4[name] else None
        writer.add_tensor(name, value if is_mxfp4[name] else value.astype("<f4"), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def twins(models):
    """The folders that a GGUF file can hold: not those of other quantisations, whose values are what GGUF's types cannot say."""
    return [f for f in sorted(models.iterdir()) if (f / "config.json").exists() and f.name not in NOT_HELD
            and Config(f).get("quantization_config", {}).get("quant_method", "mxfp4") == "mxfp4"]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("models", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("names", nargs="*")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in twins(args.models):
        if not args.names or folder.name in args.names:
            write(folder, args.out / f"{folder.name}.gguf")


if __name__ == "__main__":
    main()
