# SPDX-License-Identifier: Apache-2.0
"""Tiny random-weight Hugging Face models with transformers' logits, hidden states and greedy tokens (float32, CPU, eager attention).
Usage: python make_models.py --specs models_more.json --out ../models [--seed 1] [--only NAME]   (needs torch, transformers, safetensors)

Each spec's "config" is written as config.json unchanged; the goldens come from reloading that folder."""
import argparse
import json
import os
import shutil
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

torch.set_num_threads(int(os.environ.get("GOLDEN_THREADS", "2")))
torch.set_grad_enabled(False)

LENGTHS = (1, 17, 40)
NEW_TOKENS = 16
MIN_MARGIN = 1e-3  # a greedy step whose top-2 logits are closer than this is not comparable
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def write_golden(path, golden):
    """One line per sequence, so that diffs and greps stay usable."""
    dump = lambda x: json.dumps(x, ensure_ascii=False, separators=(",", ":"))
    parts = []
    for key, value in golden.items():
        body = dump(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            body = "[\n" + ",\n".join("  " + dump(v) for v in value) + "\n ]"
        parts.append(f" {json.dumps(key)}:{body}")
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("{\n" + ",\n".join(parts) + "\n}\n")


def init_weights(model, spec, gen):
    """Large enough that logits are far from flat: matrices std 0.15, head 0.3, norms around 1, biases 0.2."""
    gemma = spec["config"]["model_type"].startswith("gemma")
    done = set()
    for name, p in model.named_parameters():
        if p.data_ptr() in done:
            continue
        done.add(p.data_ptr())
        noise = torch.randn(p.shape, generator=gen)
        if "norm" in name.lower() and name.endswith("weight"):
            value = 0.2 * noise + (0.0 if gemma else 1.0)  # gemma multiplies by 1 + weight
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif "sinks" in name:
            value = noise
        elif "embed" in name or "lm_head" in name:
            value = spec.get("embed_std", 0.3) * noise
        else:
            value = spec.get("std", 0.15) * noise
        p.copy_(value)
    for name, b in model.named_buffers():
        if name.endswith("e_score_correction_bias"):  # DeepSeek-V3: stored, and no parameter
            b.copy_(0.2 * torch.randn(b.shape, generator=gen))


def pack_mxfp4(folder, gen):
    """Replace the expert matrices with random MXFP4 blocks and scales, laid out as published gpt-oss files are."""
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, k, n = tensors.pop(name).shape
        tensors[name + "_blocks"] = torch.randint(0, 256, (experts, n, k // 32, 16), generator=gen, dtype=torch.uint8)
        tensors[name + "_scales"] = torch.randint(121, 124, (experts, n, k // 32), generator=gen, dtype=torch.uint8)
    save_file(tensors, path, metadata={"format": "pt"})


def unpack_mxfp4(tensors):
    """blocks [E, N, K/32, 16] (low nibble first) times 2^(scale - 127) -> [E, K, N] float32."""
    e2m1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    for name in [n for n in tensors if n.endswith("_blocks")]:
        blocks, scales = tensors.pop(name), tensors.pop(name[:-7] + "_scales")
        nibbles = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()
        values = e2m1[nibbles] * torch.exp2(scales.float() - 127)[..., None]
        tensors[name[:-7]] = values.flatten(-2).transpose(1, 2).contiguous()
    return tensors


def model_class(spec):
    """`class` where the weights are of another class than config.json says (Qwen3-Embedding: no `model.` in the names)."""
    return getattr(transformers, spec.get("class", spec["config"]["architectures"][0]))


def load_config(folder, spec):
    """`load_config` where transformers wants other keys than the published config.json has (nomic-bert)."""
    if "load_config" in spec:
        return transformers.AutoConfig.for_model(**spec["load_config"])
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def load(folder, spec, dtype=torch.float32):
    config = load_config(folder, spec)
    if not spec.get("mxfp4"):
        return model_class(spec).from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()
    config._attn_implementation = config._experts_implementation = "eager"
    model = model_class(spec)(config).float().eval()
    model.load_state_dict(unpack_mxfp4(load_file(os.path.join(folder, "model.safetensors"))))
    return model.to(dtype)


def write_checkpoint(spec, folder, gen):
    """config.json, the spec's other files and random weights, as save_pretrained writes them."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    config = spec["config"]
    for name, content in {"config.json": config, **spec.get("files", {})}.items():
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)
    model = model_class(spec)(load_config(folder, spec)).float().eval()
    init_weights(model, spec, gen)
    stored = STORED[config["torch_dtype"]]
    total = sum(p.numel() * stored.itemsize for p in model.parameters())
    scratch = folder + ".tmp"
    model.to(stored).save_pretrained(scratch, **({"max_shard_size": int(total * 0.6)} if spec.get("sharded") else {}))
    for name in os.listdir(scratch):
        if "safetensors" in name:
            shutil.move(os.path.join(scratch, name), folder)
    shutil.rmtree(scratch)
    if spec.get("mxfp4"):
        pack_mxfp4(folder, gen)


def greedy(model, ids):
    """Full forward pass at each step, no cache: nothing but the model's definition."""
    ids, tokens, margins = list(ids), [], []
    for _ in range(NEW_TOKENS):
        top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        tokens.append(int(top.indices[0]))
        margins.append(float(f"{float(top.values[0] - top.values[1]):.6g}"))
        ids.append(tokens[-1])
    comparable = next((i for i, m in enumerate(margins) if m < MIN_MARGIN), NEW_TOKENS)
    return {"greedy": tokens, "margins": margins, "comparable_steps": comparable}


class Goldens:
    """The arrays of golden.f32 and where each stands."""

    def __init__(self):
        self.blobs, self.offset = [], 0

    def put(self, entry, key, tensor):
        array = np.ascontiguousarray(tensor.numpy(), dtype="<f4")
        entry[key] = {"offset": self.offset, "shape": list(array.shape)}  # offset in floats
        self.blobs.append(array.ravel())
        self.offset += array.size


def put_pooled(goldens, entry, hidden):
    goldens.put(entry, "last_hidden_state", hidden)
    normalize = lambda v: torch.nn.functional.normalize(v, dim=0)
    for key, value in (("cls", hidden[0]), ("mean", hidden.mean(0)), ("mean_normalized", normalize(hidden.mean(0))),
                       ("last", hidden[-1]), ("last_normalized", normalize(hidden[-1]))):
        goldens.put(entry, key, value)


def build(spec, out, seed):
    folder = os.path.join(out, spec["name"])
    gen = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{spec['name']}".encode()))
    write_checkpoint(spec, folder, gen)
    model = load(folder, spec)
    try:
        exact = load(folder, spec, torch.float64)
    except Exception as e:  # some code paths are float32 only
        print("no float64 run:", e)
        exact = None
    config = spec["config"]
    embeds = not model_class(spec).__name__.endswith(("ForCausalLM", "ForConditionalGeneration"))
    vocab = config.get("text_config", config)["vocab_size"]
    result = lambda o: (o.last_hidden_state if embeds else o.logits)[0].float()
    golden = {"name": spec["name"], "architecture": config["architectures"][0], "vocab_size": vocab,
              "arithmetic": "float32", "data": "golden.f32", "min_margin": MIN_MARGIN}
    goldens, noise, sequences = Goldens(), 0.0, []
    for length in LENGTHS:
        ids = torch.randint(0, vocab, (length,), generator=gen).tolist()
        entry, batch = {"ids": ids}, torch.tensor([ids])
        options = {} if "bert" in config["model_type"] else {"use_cache": False}
        o = model(batch, output_hidden_states=True, **options)
        if exact is not None:
            noise = max(noise, float((result(exact(batch, **options)) - result(o)).abs().max()))
        if embeds:
            put_pooled(goldens, entry, o.last_hidden_state[0])
        else:
            goldens.put(entry, "logits", o.logits[0])
            entry |= greedy(model, ids)
        if length == 17:
            goldens.put(entry, "hidden_states", torch.stack(o.hidden_states)[:, 0])
        sequences.append(entry)
    data = np.concatenate(goldens.blobs)
    assert np.isfinite(data).all(), spec["name"]
    golden["float32_vs_float64"] = float(f"{noise:.3g}") if exact is not None else None
    golden["sequences"] = sequences
    data.tofile(os.path.join(folder, "golden.f32"))
    write_golden(os.path.join(folder, "golden.json"), golden)
    print(f"{spec['name']:20s} out std {float(result(o).std()):.2f}  float32-float64 {noise:.2e}  comparable "
          f"{[s.get('comparable_steps') for s in sequences]}", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--specs", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--only")
    args = ap.parse_args()
    with open(args.specs, encoding="utf-8") as f:
        specs = json.load(f)
    for spec in specs:
        if not args.only or args.only == spec["name"]:
            build(spec, args.out, args.seed)


if __name__ == "__main__":
    main()
