# SPDX-License-Identifier: Apache-2.0
"""Runs llama.cpp on the files of make_family_gguf.py and compares it with transformers' goldens: the proof that their writer is right.
Usage: python check_family_gguf.py ../models GGUF_DIR --llama-server "llama-server" [--only NAME...]   (writes ../models/gguf_oracle.json)

llama-server computes in float32 (f32 cache, no flash attention) and answers with the log-probability of every token after every
prefix of the golden sequences; encoders answer with their pooled embedding."""
import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import shlex
import subprocess
import time
import urllib.request

import gguf
import numpy as np

import make_family_gguf

PORT = 18199
# Where llama.cpp computes something else than transformers, and what it is compared with instead.
TRUNCATED = ("llama.cpp rounds YaRN's correction range: compared with transformers under truncate = true, "
             "from which the golden differs by golden_difference")
GELU = "llama.cpp's GELU is a table of f16 values; with such a table in transformers 8e-5 to 8e-4 remain"
NOTES = {
    "bert": "llama.cpp has the tanh form of GELU from a table of f16 values, the golden the erf; with that table in transformers 2.4e-5 remain",
    "gemma2-window16": GELU, "gemma3": GELU, "gemma3-7layers": GELU,
    "gpt-oss-bf16": TRUNCATED, "gpt-oss-3layers": TRUNCATED,
    "gpt-oss-mxfp4": TRUNCATED + "; it also rounds activations to 8 bits before MXFP4 weights: 1.2e-5 with those dequantised",
    "phi3-longrope": "llama.cpp takes the long factors for every length once its context is over the original one: "
                     "compared on the sequence of 40",
    "deepseek-v2-lite": "attention.q_lora_rank = 0 is there for llama.cpp; the converter leaves it out"}


def request(path, body):
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, headers), timeout=60) as answer:
        return json.load(answer)


@contextlib.contextmanager
def server(command, model, embeds):
    flags = f"--port {PORT} -c 512 -np 1 -ctk f32 -ctv f32 -fa off -t 2 --no-warmup" + (" --embedding" if embeds else "")
    command = shlex.split(command) + ["-m", str(model)] + flags.split()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise SystemExit(f"llama-server does not load {model}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).close()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def next_logprobs(ids, vocab):
    # Probabilities are those before sampling; token 4 is made to win since the server keeps back half a character, and its numbers.
    body = {"prompt": ids, "n_predict": 1, "n_probs": vocab, "temperature": 0, "cache_prompt": False, "logit_bias": [[4, 1000.0]]}
    top = request("/completion", body)["completion_probabilities"][0]["top_logprobs"]
    result = np.full(vocab, -np.inf)
    for entry in top:
        result[entry["id"]] = entry["logprob"]
    return result


def golden_arrays(folder):
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    data = np.fromfile(folder / "golden.f32", "<f4")
    for entry in golden["sequences"]:
        get = lambda key: data[entry[key]["offset"]:][:int(np.prod(entry[key]["shape"]))].reshape(entry[key]["shape"])
        yield entry["ids"], get, golden["vocab_size"]


def truncated_logits(folder, ids):
    """transformers on the same weights with YaRN's range rounded."""
    import make_models
    import torch
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_scaling"]["truncate"] = True
    mxfp4 = config.pop("quantization_config", None) is not None
    spec = {"config": config, "load_config": config, "mxfp4": mxfp4}
    return make_models.load(str(folder), spec)(torch.tensor([ids])).logits[0].numpy()


def compare(folder, pooling):
    """`pooling`: the golden's name for the embedding, none for a decoder."""
    worst = against_golden = 0.0
    for ids, get, vocab in golden_arrays(folder):
        if pooling:
            answer = request("/embedding", {"content": ids, "embd_normalize": -1})[0]["embedding"][0]
            worst = max(worst, float(np.abs(np.array(answer) - get(pooling)).max()))
            continue
        if folder.name == "phi3-longrope" and len(ids) < 33:
            continue
        got = np.stack([next_logprobs(ids[:n + 1], vocab) for n in range(len(ids))])
        difference = float(np.abs(got - log_softmax(get("logits"))).max())
        against_golden = max(against_golden, difference)
        if folder.name.startswith("gpt-oss"):
            difference = float(np.abs(got - log_softmax(truncated_logits(folder, ids))).max())
        worst = max(worst, difference)
    result = {"difference": float(f"{worst:.2g}")}
    return result | ({"golden_difference": float(f"{against_golden:.2g}")} if against_golden > worst else {})


def check(folder, path, command):
    """What gguf_oracle.json says of one file."""
    make_family_gguf.write(folder, path)
    fields = gguf.GGUFReader(path).fields
    architecture = fields["general.architecture"].contents()
    kind = fields.get(f"{architecture}.pooling_type")
    pooling = {None: None, 1: "mean", 2: "cls", 3: "last"}[kind and kind.contents()]
    entry = {"architecture": architecture, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with server(command, path, pooling is not None):
        entry |= compare(folder, pooling)
    return entry | ({"note": NOTES[folder.name]} if folder.name in NOTES else {})


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("models", type=pathlib.Path)
    ap.add_argument("gguf", type=pathlib.Path)
    ap.add_argument("--only", nargs="+")
    ap.add_argument("--llama-server", default="llama-server")
    args = ap.parse_args()
    version = subprocess.run(shlex.split(args.llama_server) + ["--version"], capture_output=True, text=True, check=True)
    version = (version.stdout + version.stderr).split("version: ")[1].split("\n")[0].split(" (")[0]
    files = {}
    for folder in make_family_gguf.twins(args.models):
        if not args.only or folder.name in args.only:
            files[folder.name] = check(folder, (args.gguf / f"{folder.name}.gguf").resolve(), args.llama_server)
            print(folder.name, json.dumps(files[folder.name]), flush=True)
    if args.only:
        return
    head = {"what": "the files of make_family_gguf.py, and the largest difference of llama.cpp's log-probabilities (encoders: of its "
                    "pooled embedding) from transformers' goldens",
            "llama.cpp": version, "gguf": importlib.metadata.version("gguf"), "not_held": make_family_gguf.NOT_HELD}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in files.items())
    text = json.dumps(head, indent=1)[:-2] + ',\n "files": {\n' + lines + "\n }\n}\n"
    (args.models / "gguf_oracle.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
