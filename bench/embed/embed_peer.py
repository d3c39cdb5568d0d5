#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Embeddings beside HF transformers: batches of texts of 8 to 128 tokens, ours over HTTP and in process, and the peer, in turns.

  bench/embed/embed_peer.py --model FOLDER --python PYTHON [--batch 32] [--rounds 15] [--threads 2] [--numerics precise]

Needs the programs `fairlead` and `embed_bench` (--build) and, in PYTHON, torch and transformers. Every turn is one request of
--batch new texts, tokenizing included on all sides. The peer pads the batch to its longest text, pools the mean and
normalizes, in float32 on --threads threads: what Sentence Transformers does, without its sorting, of which one batch has
no use. Ours answers as JSON numbers or as base64, the client's default. Prints medians of texts/s, their ratio to the peer's,
and the least cosine between our vectors and the peer's.
"""

import argparse
import base64
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHORTEST, LONGEST = 8, 128  # tokens of a text, about
WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were "
         "all her she there would their we him been has when who will no more if out so up said what its about than into them can only "
         "other time new some could these two may first then do any like my now over such our man me even most made after also did many "
         "off before must well back through years much where your way down should because long each just state those people too mr how "
         "little good world make very year still see work life such great against right part under upon took came both general while").split()


class Peer:
    """Runs in --python: a JSON list of texts a line in, {"seconds", "vectors"} a line out."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(self, texts: list[str]):
        with self.torch.inference_mode():
            batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            return self.torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def serve(self, out) -> None:
        for line in sys.stdin:
            texts = json.loads(line)
            begin = time.perf_counter()
            vectors = self.embed(texts).numpy()
            seconds = time.perf_counter() - begin
            print(json.dumps({"seconds": seconds, "vectors": vectors.tolist()}), file=out, flush=True)


class Lines:
    """A process that answers a line with a line."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, value: object) -> dict:
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} has ended")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        command = [str(options.build / "fairlead"), "serve", "--model", options.model, "--http", "127.0.0.1:0", "--grpc", "off",
                   "--log-level", "error", *ours(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = "http://" + json.loads(self.process.stdout.readline())["http"] + "/v1/embeddings"

    def ask(self, body: dict) -> dict:
        """The answer, and the seconds that its client saw until its last byte."""
        data = json.dumps(body).encode()
        begin = time.perf_counter()
        with urllib.request.urlopen(urllib.request.Request(self.url, data, {"Content-Type": "application/json"})) as answer:
            text = answer.read()
        return {"seconds": time.perf_counter() - begin, "answer": json.loads(text)}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def ours(options: argparse.Namespace) -> list[str]:
    return ["--threads", str(options.threads), "--numerics", options.numerics, *options.ours]


def texts_of(batch: int, generator: random.Random) -> list[str]:
    """Words of the commonest kind are a token each; two tokens are the model's own."""
    return [" ".join(generator.choices(WORDS, k=generator.randint(SHORTEST - 2, LONGEST - 2))) for _ in range(batch)]


def vectors_of(answer: dict) -> list[list[float]]:
    rows = [entry["embedding"] for entry in answer["data"]]
    return [list(array("f", base64.b64decode(row))) if isinstance(row, str) else row for row in rows]


def least_cosine(ours_: list[list[float]], theirs: list[list[float]]) -> float:
    def cosine(a: list[float], b: list[float]) -> float:
        product = sum(x * y for x, y in zip(a, b))
        return product / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    return min(cosine(a, b) for a, b in zip(ours_, theirs))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder of Sentence Transformers: mean pooling, normalized")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--numerics", default="precise")
    parser.add_argument("--json", type=Path, help="all samples go there")
    parser.add_argument("--peer-serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("ours", nargs="*", help="after --: further flags of fairlead")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict:
    peer = Lines([options.python, __file__, "--peer-serve", "--model", options.model, "--threads", str(options.threads)])
    inside = Lines([str(options.build / "embed_bench"), "--model", options.model, *ours(options)])
    server = Server(options)
    sides = {
        "transformers": peer.ask,
        "fairlead in process": lambda texts: inside.ask({"input": texts}),
        "fairlead http float": lambda texts: server.ask({"input": texts}),
        "fairlead http base64": lambda texts: server.ask({"input": texts, "encoding_format": "base64"}),
    }
    samples: dict[str, list[float]] = {name: [] for name in sides}
    generator, cosine, tokens = random.Random(1), 1.0, 0
    try:
        for number in range(-2, options.rounds):  # the first two are not counted
            texts = texts_of(options.batch, generator)
            answers = {name: ask(texts) for name, ask in sides.items()}
            for name, answer in answers.items():
                if number >= 0:
                    samples[name].append(options.batch / answer["seconds"])
                if name != "transformers":
                    cosine = min(cosine, least_cosine(vectors_of(answer["answer"]), answers["transformers"]["vectors"]))
                    tokens = answer["answer"]["usage"]["prompt_tokens"]
    finally:
        for side in (peer, inside, server):
            side.close()
    return {"samples": samples, "least_cosine": cosine, "tokens_of_the_last_batch": tokens,
            "options": {key: str(value) for key, value in vars(options).items()}}


def main() -> None:
    options = parse_options()
    if options.peer_serve:
        out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        Peer(options.model, options.threads).serve(out)
        return
    result = measure(options)
    medians = {name: statistics.median(values) for name, values in result["samples"].items()}
    print(f"batches of {options.batch} texts ({result['tokens_of_the_last_batch']} tokens in the last), {options.threads} threads, "
          f"{options.numerics}, medians of {options.rounds}")
    for name, median in medians.items():
        print(f"{name:22} {median:8.0f} texts/s {median / medians['transformers']:6.2f} x transformers")
    print(f"least cosine to float32: {result['least_cosine']:.7f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
