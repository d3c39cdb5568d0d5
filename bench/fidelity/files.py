#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fidelity of many files beside their speed: bench/run.sh fidelity. Needs torch, transformers, gguf and numpy.

Makes files of a model with llama-quantize, and of a seeded Llama that is 1,024 wide (rows of SmolLM2, 576 wide, are no
multiple of 256, so that llama-quantize falls back from the K- and IQ-types there). For each, what float32 transformers
say on the weights of that very file is compared with what we say and with what llama.cpp says: the mean over the
prefixes of KL(float32 || theirs), over the whole vocabulary, and how often the most likely token is the same.

  files.py make | reference | fidelity | speed | table    one step each; all of them without one
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "smollm2" / "fidelity.json"
NARROW_TYPES = ["Q4_0", "Q5_0", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "F16", "BF16"]
WIDE_TYPES = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS"]
NUMERICS = ["precise", "fast"]
PORT = 18123
README_BEGIN = "<!-- fidelity of files: by bench/fidelity/files.py, not by hand -->"
README_END = "<!-- end of fidelity of files -->"
# The seeded model. As Hugging Face initialises a Llama, but for a head that is wider, so that its distributions are about as
# sure of a token as a real model's.
WIDE = {"hidden": 1024, "ffn": 2816, "layers": 12, "heads": 16, "kv_heads": 8, "vocab": 32000, "context": 2048}
DEVIATION, HEAD_DEVIATION = 0.02, 0.06
# Of the peer: the tokens it is asked for; the likeliest by float32 that are compared one by one, all others being one more.
ASKED, LISTED = 8192, 2048
INSTRUCTIONS = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]
PRINTABLE = 40  # a token that is printable text in both vocabularies
WIDE_PREFIXES, SHORTEST, LONGEST = 100, 16, 400


def log(text: str) -> None:
    print(f"[fidelity {time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def peer_command(options: argparse.Namespace, program: str) -> list[str]:
    return [*options.peer.removeprefix("llama:").split(), program]


def peer_environment(options: argparse.Namespace) -> dict[str, str]:
    return {**os.environ, "MODELS": str(options.files)}


# --- the files


def write_wide(path: Path) -> None:
    """A Llama of seeded normal weights in f16, with a vocabulary of made-up words, by llama.cpp's own package."""
    import gguf
    import numpy as np

    w, random = WIDE, np.random.default_rng(1)
    head_dim = w["hidden"] // w["heads"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(w["layers"])
    writer.add_context_length(w["context"])
    writer.add_embedding_length(w["hidden"])
    writer.add_feed_forward_length(w["ffn"])
    writer.add_head_count(w["heads"])
    writer.add_head_count_kv(w["kv_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(w["vocab"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["w", "1", *(f"w{i}" for i in range(1, w["vocab"] - 1))])
    writer.add_token_types([gguf.TokenType.NORMAL] * w["vocab"])
    writer.add_token_merges(["w 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)

    def matrix(name: str, rows: int, cols: int, deviation: float = DEVIATION) -> None:
        writer.add_tensor(name, (random.standard_normal((rows, cols), dtype=np.float32) * deviation).astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(name, 1 + random.standard_normal(w["hidden"], dtype=np.float32) * np.float32(0.1))

    matrix("token_embd.weight", w["vocab"], w["hidden"])
    kv = w["kv_heads"] * head_dim
    for i in range(w["layers"]):
        norm(f"blk.{i}.attn_norm.weight")
        for name, rows, cols in [("attn_q", w["hidden"], w["hidden"]), ("attn_k", kv, w["hidden"]), ("attn_v", kv, w["hidden"]),
                                 ("attn_output", w["hidden"], w["hidden"]), ("ffn_gate", w["ffn"], w["hidden"]),
                                 ("ffn_up", w["ffn"], w["hidden"]), ("ffn_down", w["hidden"], w["ffn"])]:
            matrix(f"blk.{i}.{name}.weight", rows, cols)
        norm(f"blk.{i}.ffn_norm.weight")
    norm("output_norm.weight")
    matrix("output.weight", w["vocab"], w["hidden"], HEAD_DEVIATION)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def plan(options: argparse.Namespace) -> list[dict]:
    """The files, in the order of the table."""
    files = [{"model": "SmolLM2-135M", "type": "Q4_1", "path": options.files / "smollm2.gguf"}]
    files += [{"model": "SmolLM2-135M", "type": t, "path": options.files / f"smollm2.{t}.gguf"} for t in NARROW_TYPES]
    files += [{"model": "seeded, 1,024 wide", "type": t, "path": options.files / f"wide.{t}.gguf"} for t in WIDE_TYPES]
    return [f for f in files if not options.only or any(part in f["path"].name for part in options.only)]


def make(options: argparse.Namespace) -> None:
    options.files.mkdir(parents=True, exist_ok=True)
    for base in ("smollm2.gguf", "wide.gguf"):
        path = options.files / base
        if path.exists() or not any(f["path"].name.startswith(path.stem) for f in plan(options)):
            continue
        log(f"making {path}")
        if base == "wide.gguf":
            write_wide(path)
        else:  # no link: the peer may see this folder alone
            path.write_bytes(Path(options.model).read_bytes())
    for file in plan(options):
        path = file["path"]
        if path.exists():
            continue
        log(f"making {path}")
        command = [*peer_command(options, "llama-quantize"), "--allow-requantize",
                   str(options.files / f"{path.name.split('.')[0]}.gguf"), str(path), file["type"], str(options.threads)]
        done = subprocess.run(command, env=peer_environment(options), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            path.unlink(missing_ok=True)
            sys.exit(f"error: llama-quantize failed: {done.stderr[-500:]}")


def prefixes_of(options: argparse.Namespace, file: dict) -> list[list[int]]:
    return all_prefixes_of(file)[:: options.stride]


def all_prefixes_of(file: dict) -> list[list[int]]:
    if file["path"].name.startswith("smollm2"):
        return [prefix["ids"] for prefix in json.loads(GOLDEN.read_text())["prefixes"]]
    import numpy as np

    random = np.random.default_rng(2)
    lengths = np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST), WIDE_PREFIXES)).round().astype(int)
    return [random.integers(2, WIDE["vocab"], length).tolist() for length in lengths]


# --- what each says: [prefixes, vocabulary], log-probabilities up to a constant


def of_transformers(path: Path, prefixes: list[list[int]], threads: int):
    """The file's weights, dequantised to float32."""
    import numpy as np
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    rows = []
    with torch.no_grad():
        for ids in prefixes:
            rows.append(model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].numpy())
    return np.stack(rows)


def of_ours(options: argparse.Namespace, path: Path, prefixes: list[list[int]], numerics: str):
    import numpy as np

    golden, out = options.files / "prefixes.json", options.files / "logits.f32"
    golden.write_text(json.dumps({"prefixes": [{"ids": ids} for ids in prefixes]}))
    subprocess.run([str(options.build / "fidelity"), "-m", str(path), "--golden", str(golden), "--numerics", numerics,
                    "--logits", str(out)], check=True, stdout=subprocess.DEVNULL)
    logits = np.fromfile(out, dtype="<f4").reshape(len(prefixes), -1)
    out.unlink()
    golden.unlink()
    return logits


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def of_peer(options: argparse.Namespace, path: Path, prefixes: list[list[int]]):
    """llama-server's probabilities before sampling, of the ASKED tokens it thinks likeliest; the rest is -inf. Its defaults
    otherwise, but for the token that is sampled: an end of text, or a part of a character, would come without them. (Every token's would be ten megabytes of JSON a prefix; llama-perplexity's files round log-probabilities.)"""
    import numpy as np

    server = subprocess.Popen([*peer_command(options, "llama-server"), "-m", str(path), "-t", str(options.threads), "-np", "1",
                               "-c", "2048", "--host", "127.0.0.1", "--port", str(PORT), "--no-webui"],
                              env=peer_environment(options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(600):
            try:
                ask(f"{url}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None:
                    raise RuntimeError(f"llama-server ended with {server.returncode}") from None
                time.sleep(0.2)
        vocab = ask(f"{url}/v1/models")["data"][0]["meta"]["n_vocab"]
        rows = np.full((len(prefixes), vocab), -np.inf)
        for row, ids in zip(rows, prefixes):
            answer = ask(f"{url}/completion", {"prompt": ids, "n_predict": 1, "n_probs": min(ASKED, vocab),
                                                "logit_bias": [[PRINTABLE, 1000]], "cache_prompt": False})
            for entry in answer["completion_probabilities"][0]["top_logprobs"]:
                row[entry["id"]] = entry["logprob"]
        return rows
    finally:
        server.terminate()
        server.wait()


def normalised(logits):
    import numpy as np

    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def agreement(p, best) -> dict:
    import numpy as np

    return {"top1": float((p.argmax(-1) == best).mean()),
            # Where float32's own best two are close, either is right.
            "top1_within_0.1": float((p.max(-1) - np.take_along_axis(p, best[:, None], -1)[:, 0] < 0.1).mean())}


def compare_listed(p, q) -> float:
    """KL with all but float32's likeliest tokens, and those that q does not list, as one: at most that of all."""
    import numpy as np

    listed = np.argsort(-p, -1)[:, :LISTED]
    p, q = np.take_along_axis(p, listed, -1), np.take_along_axis(q, listed, -1)
    there = np.isfinite(q)
    mass_p, mass_q = np.where(there, np.exp(p), 0), np.where(there, np.exp(np.where(there, q, 0)), 0)
    rest_p, rest_q = 1 - mass_p.sum(-1), np.maximum(1 - mass_q.sum(-1), 1e-12)
    rest = np.where(rest_p > 1e-9, rest_p * np.log(np.maximum(rest_p, 1e-12) / rest_q), 0)
    return float(((mass_p * np.where(there, p - np.where(there, q, 0), 0)).sum(-1) + rest).mean())


def compare(wanted, found, whole: bool) -> dict:
    """whole: found are logits of all tokens, else log-probabilities of some."""
    import numpy as np

    p = normalised(wanted)
    if not whole:
        return {"kl_mean": compare_listed(p, found), **agreement(p, found.argmax(-1))}
    if not np.isfinite(found).all():
        raise RuntimeError("a logit is not finite")
    q = normalised(found)
    return {"kl_mean": float((np.exp(p) * (p - q)).sum(-1).mean()), "kl_listed": compare_listed(p, q), **agreement(p, q.argmax(-1))}


def load(options: argparse.Namespace) -> dict:
    return json.loads(options.output.read_text()) if options.output.exists() else {"files": {}}


def store(options: argparse.Namespace, result: dict) -> None:
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def entry_of(result: dict, file: dict) -> dict:
    return result["files"].setdefault(file["path"].name, {"model": file["model"], "type": file["type"]})


def reference_of(options: argparse.Namespace, file: dict) -> Path:
    return options.files / f"{file['path'].name}.{options.stride}.npy"


def reference(options: argparse.Namespace) -> None:
    import numpy as np

    for file in plan(options):
        if not reference_of(options, file).exists():
            log(f"transformers on {file['path'].name}")
            np.save(reference_of(options, file), of_transformers(file["path"], prefixes_of(options, file), options.threads))


def fidelity(options: argparse.Namespace) -> None:
    import numpy as np

    for file in plan(options):
        path, prefixes = file["path"], prefixes_of(options, file)
        wanted = np.load(reference_of(options, file))
        found = {}
        for who in [*NUMERICS, "llama.cpp"] if options.peer else NUMERICS:
            log(f"{who} on {path.name}")
            if who == "llama.cpp":
                found[who] = compare(wanted, of_peer(options, path, prefixes), whole=False)
            else:
                found[who] = compare(wanted, of_ours(options, path, prefixes, who), whole=True)
        result = load(options)
        entry_of(result, file).update({"prefixes": len(prefixes), "fidelity": found, "bytes": path.stat().st_size})
        store(options, result)
        log(f"{path.name}: {json.dumps(found)}")


# --- speed, in turns


def samples_of_ours(options: argparse.Namespace, path: Path, numerics: str) -> dict[str, float]:
    done = subprocess.run([str(options.build / "engine_bench"), "-m", str(path), "-t", str(options.threads), "--numerics", numerics,
                           "-r", "1", "-p", "512", "-n", "64", "--json", "-"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout[done.stdout.index("{"):])
    return {test["test"]: test["samples"][0] for setup in found["setups"] for test in setup["tests"]}


def samples_of_peer(options: argparse.Namespace, path: Path) -> dict[str, float]:
    done = subprocess.run([*peer_command(options, "llama-bench"), "-m", str(path), "-t", str(options.threads), "-p", "512", "-n", "64",
                           "-r", "1", "-o", "jsonl"], env=peer_environment(options), capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row["samples_ts"][0] for row in rows}


def speed(options: argparse.Namespace) -> None:
    samples: dict[str, dict] = {}
    who = [*NUMERICS, "llama.cpp"] if options.peer else NUMERICS
    for _ in range(options.rounds):  # of all files, so that a slow minute is not one file's
        for file in plan(options):
            of = samples.setdefault(file["path"].name, {})
            for name in who:
                found = samples_of_peer(options, file["path"]) if name == "llama.cpp" else samples_of_ours(options, file["path"], name)
                for test, rate in found.items():
                    of.setdefault(name, {}).setdefault(test, []).append(rate)
            log(f"{file['path'].name}: " + "; ".join(f"{name} {[round(v[-1]) for v in of[name].values()]}" for name in who))
    result = load(options)
    for file in plan(options):
        entry_of(result, file)["speed"] = samples[file["path"].name]
    # The last step: nothing else shall run beside it.
    result["machine"] = facts(options)
    store(options, result)


def facts(options: argparse.Namespace) -> dict:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    peer = ""
    if options.peer:
        done = subprocess.run([str(ROOT / "bench/peers/llama.sh"), options.peer.removeprefix("llama:"), "version"],
                              capture_output=True, text=True, check=False)
        peer = done.stdout.strip()
    said = subprocess.run([str(options.build / "fairlead"), "--version"], capture_output=True, text=True, check=False).stdout.strip()
    flags = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split())
    return {"cpu": cpu, "instructions": [name for name in INSTRUCTIONS if name in flags], "threads": options.threads, "date": time.strftime("%Y-%m-%d"), "commit": commit, "peer": peer,
            "version": said, "rounds": options.rounds}


# --- the table


def table_of(result: dict, order: list[str]) -> list[str]:
    lines = ["| model, type | MB | precise: KL, top-1 | fast | llama.cpp | precise: prefill, decode | fast | llama.cpp |",
             "|---|---|---|---|---|---|---|---|"]

    def closeness(entry: dict, who: str) -> str:
        found = entry.get("fidelity", {}).get(who)
        return f"{found['kl_mean']:.1e}, {100 * found['top1']:.1f} %" if found else ""

    def rates(entry: dict, who: str) -> str:
        tests = entry.get("speed", {}).get(who)
        return ", ".join(f"{statistics.median(tests[test]):,.0f}" for test in ("pp512", "tg64")) if tests else ""

    for name in order:
        entry = result["files"].get(name)
        if not entry:
            continue
        cells = [f"{entry['model']}, {entry['type']}", f"{entry.get('bytes', 0) / 1e6:,.0f}"]
        for cell in (closeness, rates):
            cells += [cell(entry, who) for who in (*NUMERICS, "llama.cpp")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def text_of(options: argparse.Namespace) -> str:
    result = load(options)
    machine = result.get("machine", {})
    options.only = []
    lines = []
    if machine:
        lines += [f"{machine['cpu']} ({' '.join(machine['instructions'])}), {machine['threads']} threads, commit {machine['commit']}, {machine['date']}; tokens/s are medians of "
                  f"{machine['rounds']}, of a prompt of 512 and of 64 tokens after it. KL over the whole vocabulary, llama.cpp's a lower bound from its "
                  f"{ASKED:,} likeliest tokens; top-1 is strict, over 200 prefixes and {WIDE_PREFIXES}. Peer: llama.cpp, {machine['peer']}.", ""]
    return "\n".join([*lines, *table_of(result, [f["path"].name for f in plan(options)])])


def table(options: argparse.Namespace) -> None:
    text = text_of(options)
    print(text)
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    if old.count(README_BEGIN) != 1 or old.count(README_END) != 1:
        sys.exit(f"error: README.md: the markers {README_BEGIN} and {README_END} must stand there once each")
    before, rest = old.split(README_BEGIN)
    readme.write_text(f"{before}{README_BEGIN}\n{text}\n{README_END}{rest.split(README_END)[1]}", encoding="utf-8")


STEPS = {"make": make, "reference": reference, "fidelity": fidelity, "speed": speed, "table": table}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=STEPS)
    parser.add_argument("--model", help="SmolLM2's GGUF file")
    parser.add_argument("--peer", default="", help="llama:PREFIX, see bench/peers/llama.sh; it makes the files as well")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help="where our programs are")
    parser.add_argument("--files", type=Path, default=ROOT / "build" / "fidelity", help="the folder of the files, 3 GB")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "fidelity-files.json")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stride", type=int, default=1, help="every N-th prefix alone: a look")
    parser.add_argument("--only", action="append", default=[], help="files whose name has this in it")
    options = parser.parse_args()
    for step in [options.step] if options.step else STEPS:
        STEPS[step](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
