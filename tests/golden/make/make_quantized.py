# SPDX-License-Identifier: Apache-2.0
"""Tiny quantised Llama checkpoints, each written by its format's own package, with transformers' logits on the dequantised weights.

Usage: python make_quantized.py --out ../models [--only NAME]
Needs torch, transformers, safetensors; compressed-tensors (ct-*), gptqmodel (gptq-*), autoawq and datasets (awq).

Each package packs the codes, and its own dequantiser gives the weights of the goldens: in float32 where the project keeps codes and scales
as they are ("exact"), else in the dtype that the package itself would use. golden.json, golden.f32: as make_models.py writes them.
"""
import argparse
import json
import os
import re
import shutil
import types
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

torch.set_num_threads(2)
torch.set_grad_enabled(False)

LENGTHS = (1, 17, 40)
NEW_TOKENS = 16
MIN_MARGIN = 1e-3
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def group_bounds(weight, group):
    """Least and largest value of each group of a row: [rows, groups]."""
    groups = weight.reshape(weight.shape[0], -1, group)
    return groups.amin(-1), groups.amax(-1)


def round_to_nearest(weight, bits, group, sym, group_of=None):
    """Scales (as float16 holds them) and zero points [rows, groups] of the unsigned codes that GPTQ and AWQ have."""
    if group_of is not None:
        weight = weight[:, torch.argsort(group_of, stable=True)]
    low, high = group_bounds(weight, group)
    low, high, most = low.clamp(max=0), high.clamp(min=0), 2**bits - 1
    if sym:
        scale = (torch.maximum(-low, high) * 2 / most).half().float()
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    scale = ((high - low) / most).half().float()
    return scale, (-low / scale).round().clamp(0, most)


class Gptq:
    def __init__(self, bits, group, sym, desc_act, version, exact):
        self.bits, self.group, self.sym, self.desc_act, self.version, self.exact = bits, group, sym, desc_act, version, exact
        self.config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym, "lm_head": False,
                       "true_sequential": True, "damp_percent": 0.01, "checkpoint_format": version, "pack_dtype": "int32",
                       "meta": {"quantizer": ["gptqmodel:7.7.0"]}}

    def quantize(self, name, weight, gen):
        from gptqmodel.nn_modules.qlinear.torch import TorchLinear
        from gptqmodel.quantization import FORMAT
        from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module

        rows, cols = weight.shape
        group_of = torch.arange(cols, dtype=torch.int32) // self.group
        if self.desc_act:
            group_of = group_of[torch.randperm(cols, generator=gen)]
        scale, zero = round_to_nearest(weight, self.bits, self.group, self.sym, group_of if self.desc_act else None)
        linear = torch.nn.Linear(cols, rows, bias=False)
        linear.weight.copy_(weight)
        packed = TorchLinear(bits=self.bits, group_size=self.group, sym=self.sym, desc_act=self.desc_act, in_features=cols, out_features=rows,
                             bias=False, format=FORMAT.GPTQ_V2)
        packed.pack_original(linear, scale, zero, group_of)
        dequantized = self.dequantize(packed)
        if self.version == "gptq":
            convert_gptq_v2_to_v1_format_module(packed, types.SimpleNamespace(bits=self.bits, pack_dtype=torch.int32))
        tensors = {f"{name}.{part}": getattr(packed, part).clone() for part in ("qweight", "qzeros", "scales", "g_idx")}
        if self.version == "gptq":  # what the package reads back is what it wrote
            convert_gptq_v1_to_v2_format_module(packed, bits=self.bits, pack_dtype=torch.int32)
            assert torch.equal(self.dequantize(packed), dequantized)
        return tensors, dequantized

    def dequantize(self, packed):
        packed.post_init()
        if not self.exact:
            return packed.dequantize_weight().T.float()
        scales = packed.scales
        packed.scales = scales.float()
        weight = packed.dequantize_weight().T.clone()
        packed.scales = scales
        return weight


class Awq:
    def __init__(self, group):
        self.group = group
        self.config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                       "modules_to_not_convert": None}

    def quantize(self, name, weight, gen):
        from awq.modules.linear.gemm import WQLinear_GEMM
        from awq.utils.packing_utils import dequantize_gemm

        scale, zero = round_to_nearest(weight, 4, self.group, sym=False)
        codes = (weight.reshape(*scale.shape, -1) / scale[..., None]).round() + zero[..., None]
        clamped = ((codes.clamp(0, 15) - zero[..., None]) * scale[..., None]).reshape(weight.shape)
        linear = torch.nn.Linear(*reversed(weight.shape), bias=False)
        linear.weight.copy_(clamped)
        packed = WQLinear_GEMM.from_linear(linear, 4, self.group, scales=scale.T.contiguous(), zeros=zero.T.contiguous())
        tensors = {f"{name}.{part}": getattr(packed, part).clone() for part in ("qweight", "qzeros", "scales")}
        return tensors, dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), 4, self.group).T.contiguous()


class Fp8:
    """transformers' own conversion, both ways; per tensor as AutoFP8 names it."""

    def __init__(self, block, dtype, scale_fmt="float"):
        from transformers.integrations import finegrained_fp8
        from transformers.utils.quantization_config import FineGrainedFP8Config

        class Quantizer:
            quantization_config = FineGrainedFP8Config(weight_block_size=block, scale_fmt=scale_fmt)

        self.block, self.dtype = block, dtype
        self.forward, self.back = finegrained_fp8.Fp8Quantize(Quantizer()), finegrained_fp8.Fp8Dequantize(Quantizer())
        if block:
            self.config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": list(block),
                           "modules_to_not_convert": ["lm_head"]}
        else:
            self.config = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}

    def quantize(self, name, weight, gen):
        made = self.forward.convert({"weight": weight})
        codes, scale = made["weight"], made["weight_scale_inv"]
        dequantized = self.back._dequantize_one(codes, scale, output_dtype=self.dtype).float()
        if self.block:
            return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale}, dequantized
        return {f"{name}.weight": codes, f"{name}.weight_scale": scale.reshape(()), f"{name}.input_scale": torch.tensor(0.05)}, dequantized


class CompressedTensors:
    """`groups`: (targets, weight arguments, format, input activations) each. Integers times scales in float32, FP8 in the scales' dtype."""

    def __init__(self, groups, scale_dtype, ignore=("lm_head",)):
        from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

        self.groups, self.scale_dtype = [], scale_dtype
        self.ignore = list(ignore)
        for targets, weights, layout, inputs in groups:
            scheme = QuantizationScheme(targets=targets, weights=QuantizationArgs(**weights),
                                        input_activations=QuantizationArgs(**inputs) if inputs else None)
            scheme.format = layout
            self.groups.append((targets, scheme, layout))
        config = QuantizationConfig(config_groups={f"group_{i}": scheme for i, (_, scheme, _) in enumerate(self.groups)},
                                    format=groups[0][2] if len(groups) == 1 else "mixed-precision", ignore=self.ignore,
                                    quantization_status="compressed")
        self.config = json.loads(json.dumps(config.model_dump(mode="json")))

    def scheme(self, name):
        for targets, scheme, layout in self.groups:
            for target in targets:
                if target in (name, "Linear") or (target.startswith("re:") and re.match(target[3:], name)):
                    return scheme, layout
        raise KeyError(name)

    def quantize(self, name, weight, gen):
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization.utils import calculate_qparams

        scheme, layout = self.scheme(name)
        args = scheme.weights
        rows, cols = weight.shape
        if args.strategy == "tensor":
            low, high = weight.amin().reshape(1), weight.amax().reshape(1)
        elif args.strategy == "channel":
            low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        elif args.strategy == "block":
            m, n = args.block_structure
            tiles = torch.nn.functional.pad(weight, (0, -cols % n, 0, -rows % m))
            tiles = tiles.reshape(tiles.shape[0] // m, m, tiles.shape[1] // n, n)
            low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
        else:
            low, high = group_bounds(weight, args.group_size)
        scale, zero = calculate_qparams(low, high, args)
        scale = scale.to(self.scale_dtype)
        compressor = BaseCompressor.get_value_from_registry(layout)
        state = {"weight": weight.to(self.scale_dtype), "weight_scale": scale}
        if not args.symmetric:
            state["weight_zero_point"] = zero.to(torch.int8)
        packed = compressor.compress(state, scheme)
        read = dict(packed)
        if args.type == "int":
            read["weight_scale"] = read["weight_scale"].float()
        dequantized = compressor.decompress(read, scheme)["weight"].float()
        return {f"{name}.{part}": value.clone() for part, value in packed.items()}, dequantized


GROUPED = dict(num_bits=4, type="int", strategy="group")
DYNAMIC_FP8 = dict(num_bits=8, type="float", strategy="token", dynamic=True)
DYNAMIC_INT8 = dict(num_bits=8, type="int", strategy="token", dynamic=True)


def specs():
    half, brain, single = torch.float16, torch.bfloat16, torch.float32
    packed, linear = "pack-quantized", ["Linear"]
    return {
        "fp8-block": ("bfloat16", {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}, lambda: Fp8((128, 128), brain)),
        "fp8-tensor": ("float32", {}, lambda: Fp8(None, single)),
        "gptq-int4": ("float16", {}, lambda: Gptq(4, 32, True, False, "gptq", exact=True)),
        "gptq-int4-asym": ("float16", {}, lambda: Gptq(4, 64, False, False, "gptq_v2", exact=True)),
        "gptq-int4-act-order": ("float16", {}, lambda: Gptq(4, 32, False, True, "gptq", exact=False)),
        "gptq-int8": ("float16", {}, lambda: Gptq(8, 32, True, False, "gptq", exact=True)),
        "awq-int4": ("float16", {}, lambda: Awq(64)),
        "ct-int4": ("bfloat16", {"hidden_size": 128, "intermediate_size": 256},
                    lambda: CompressedTensors([(linear, dict(GROUPED, group_size=128), packed, None)], brain)),
        "ct-int4-asym": ("float16", {},
                         lambda: CompressedTensors([(linear, dict(GROUPED, group_size=32, symmetric=False), packed, None)], half)),
        "ct-int8-packed": ("float32", {"intermediate_size": 144},
                           lambda: CompressedTensors([(linear, dict(num_bits=8, strategy="channel", symmetric=False), packed, None)],
                                                     single)),
        "ct-int8": ("bfloat16", {},
                    lambda: CompressedTensors([(linear, dict(num_bits=8, strategy="channel"), "int-quantized", DYNAMIC_INT8)], brain)),
        "ct-fp8-block": ("bfloat16", {"intermediate_size": 144},
                         lambda: CompressedTensors([(linear, dict(num_bits=8, type="float", strategy="block", block_structure=[64, 64]),
                                                     "float-quantized", DYNAMIC_FP8)], brain)),
        "ct-mixed": ("bfloat16", {},
                     lambda: CompressedTensors([(["re:.*self_attn.*"], dict(num_bits=8, type="float", strategy="channel"), "float-quantized",
                                                 DYNAMIC_FP8),
                                                (["re:.*mlp.(gate|up)_proj$"], dict(GROUPED, group_size=64), packed, None),
                                                (["model.layers.1.mlp.down_proj"], dict(num_bits=8, type="float", strategy="tensor"),
                                                 "float-quantized", DYNAMIC_FP8)],
                                               brain, ignore=("lm_head", "model.layers.0.mlp.down_proj"))),
    }


def llama_config(dtype, changes):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
              "max_position_embeddings": 256, "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "bos_token_id": 1,
              "eos_token_id": 2, "tie_word_embeddings": False, "torch_dtype": dtype}
    return config | changes


def greedy(model, ids):
    ids, tokens, margins = list(ids), [], []
    for _ in range(NEW_TOKENS):
        top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        tokens.append(int(top.indices[0]))
        margins.append(float(f"{float(top.values[0] - top.values[1]):.6g}"))
        ids.append(tokens[-1])
    return tokens, margins


def write_goldens(folder, name, model, exact, gen):
    golden = {"name": name, "architecture": "LlamaForCausalLM", "vocab_size": model.config.vocab_size, "arithmetic": "float32",
              "data": "golden.f32", "min_margin": MIN_MARGIN}
    blobs, offset, noise, sequences = [], 0, 0.0, []
    for length in LENGTHS:
        ids = torch.randint(0, model.config.vocab_size, (length,), generator=gen).tolist()
        output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        noise = max(noise, float((exact(torch.tensor([ids]), use_cache=False).logits.float() - output.logits).abs().max()))
        tokens, margins = greedy(model, ids)
        steps = next((i for i, m in enumerate(margins) if m < MIN_MARGIN), len(margins))
        entry = {"ids": ids}
        arrays = {"logits": output.logits[0]}
        if length == 17:
            arrays["hidden_states"] = torch.stack(output.hidden_states)[:, 0]
        for key, array in arrays.items():
            entry[key] = {"offset": offset, "shape": list(array.shape)}
            blobs.append(np.ascontiguousarray(array.numpy(), dtype="<f4").ravel())
            offset += array.numel()
        sequences.append(entry | {"greedy": tokens, "margins": margins, "comparable_steps": steps})
    data = np.concatenate(blobs)
    assert np.isfinite(data).all(), name
    data.tofile(os.path.join(folder, "golden.f32"))
    golden["float32_vs_float64"] = float(f"{noise:.3g}")
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    lines = [f" {json.dumps(key)}:{dump(value)}" for key, value in golden.items()]
    lines.append(' "sequences":[\n' + ",\n".join("  " + dump(s) for s in sequences) + "\n ]")
    with open(os.path.join(folder, "golden.json"), "w", newline="\n") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{name:22s} logits std {float(output.logits.std()):.2f}  f32-f64 {noise:.2e}  "
          f"{sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)) // 1024} KiB", flush=True)


def build(name, dtype, changes, quantizer, out, seed):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    config = llama_config(dtype, changes)
    gen = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float().eval()
    model.config._attn_implementation = "eager"
    ignored = set(getattr(quantizer, "ignore", ["lm_head"]))
    tensors = {}
    for full, parameter in model.named_parameters():
        module = full.removesuffix(".weight")
        noise = torch.randn(parameter.shape, generator=gen)
        std = 0.3 if "embed" in full or "lm_head" in full else 0.15
        value = (1 + 0.2 * noise if "norm" in full else std * noise).to(DTYPES[dtype])
        if "_proj" in full and module not in ignored:
            stored, dequantized = quantizer.quantize(module, value.float(), gen)
            assert dequantized.shape == value.shape and (dequantized - value.float()).abs().max() < 0.2, full
            tensors |= stored
            parameter.copy_(dequantized)
        else:
            tensors[full] = value
            parameter.copy_(value.float())
    save_file({key: value.contiguous() for key, value in tensors.items()}, os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config | {"quantization_config": quantizer.config}, f, indent=1)
    exact = transformers.LlamaForCausalLM(model.config).double().eval()
    exact.load_state_dict({key: value.double() for key, value in model.state_dict().items()})
    write_goldens(folder, name, model, exact, gen)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    args = parser.parse_args()
    for name, (dtype, changes, make) in specs().items():
        if not args.only or args.only == name:
            build(name, dtype, changes, make(), args.out, args.seed)


if __name__ == "__main__":
    main()
