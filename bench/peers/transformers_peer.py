#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""HF transformers as a peer: bench/run.sh gpu --peer-transformers PYTHON, an interpreter with torch and transformers.

  transformers_peer.py version                                     one line
  transformers_peer.py bench -m FOLDER --device D -p P -n N -b B -r R   llama-bench's JSON lines, "batch" besides
  transformers_peer.py matmul --device D --product N,K,TOKENS ...       JSON lines of one bf16 product each, in torch's library

Random bf16 weights of FOLDER's config.json, made on the device. A static cache, and on a GPU a compiled decode step
(mode reduce-overhead, which captures graphs); where that fails, the plain one, and a line on stderr.
"""

import argparse
import json
import os
import sys
import time
from typing import TextIO


def numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def own_stdout() -> TextIO:
    """The stream of the results: whatever else this process writes to stdout (a compiler of kernels may) goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


class Runner:
    def __init__(self, folder: str, device: str) -> None:
        import torch
        import transformers

        self.torch, self.transformers, self.device = torch, transformers, torch.device(device)
        self.config = transformers.AutoConfig.from_pretrained(folder)
        with self.device:
            self.model = transformers.AutoModelForCausalLM.from_config(self.config, dtype=torch.bfloat16).eval()
        self.step = self.model.forward
        if self.device.type == "cuda":
            self.step = torch.compile(self.model.forward, mode="reduce-overhead", fullgraph=True)

    def wait(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def ids(self, batch: int, count: int):
        return self.torch.randint(0, self.config.vocab_size, (batch, count), device=self.device)

    def cache(self, batch: int, length: int):
        return self.transformers.StaticCache(config=self.config, max_batch_size=batch, max_cache_len=length,
                                             device=self.device, dtype=self.torch.bfloat16)

    def forward(self, step, ids, cache, first: int):
        position = self.torch.arange(first, first + ids.shape[1], device=self.device)
        logits = step(input_ids=ids, past_key_values=cache, cache_position=position, use_cache=True).logits
        return logits[:, -1:].argmax(-1)

    def prefill(self, prompt: int) -> float:
        """Seconds to the first token."""
        cache, ids = self.cache(1, prompt + 1), self.ids(1, prompt)
        self.wait()
        begin = time.perf_counter()
        self.forward(self.model.forward, ids, cache, 0)
        self.wait()
        return time.perf_counter() - begin

    def decode(self, batch: int, count: int) -> float:
        """Seconds of `count` steps after the first."""
        cache = self.cache(batch, count + 2)
        token = self.forward(self.model.forward, self.ids(batch, 1), cache, 0)
        try:
            token = self.forward(self.step, token.clone(), cache, 1)
        except Exception as error:  # whatever the compiler raises
            print(f"the compiled step failed, the plain one is measured: {error}", file=sys.stderr)
            self.step = self.model.forward
            token = self.forward(self.step, token.clone(), cache, 1)
        self.wait()
        begin = time.perf_counter()
        for position in range(2, count + 2):
            token = self.forward(self.step, token.clone(), cache, position)
        self.wait()
        return time.perf_counter() - begin


def bench(options, out: TextIO) -> None:
    runner = Runner(options.model, options.device)

    def report(prompt: int, generate: int, batch: int, tokens: int, seconds: list[float]) -> None:
        rates = [tokens / second for second in seconds[1:]]  # the first is a warm-up
        print(json.dumps({"n_prompt": prompt, "n_gen": generate, "n_depth": 0, "batch": batch, "samples_ts": rates}), file=out, flush=True)

    with runner.torch.inference_mode():
        runs = range(options.repetitions + 1)
        for batch in options.batch:
            report(0, options.generate, batch, batch * options.generate, [runner.decode(batch, options.generate) for _ in runs])
        for prompt in options.prompt:
            report(prompt, 0, 1, prompt, [runner.prefill(prompt) for _ in runs])


def matmul(options, out: TextIO) -> None:
    """Of matrices that take turns, as many as no cache holds; launches are enqueued, then waited for."""
    import torch

    device = torch.device(options.device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    weights, shape = [], None
    for n, k, tokens in options.product:
        if shape != (n, k):
            shape, weights = (n, k), []
            copies = min(64, max(1, options.matrix_bytes // (2 * n * k)))
            weights = [torch.randn(n, k, device=device, dtype=torch.bfloat16) for _ in range(copies)]
        x = torch.randn(tokens, k, device=device, dtype=torch.bfloat16)

        def run(launches: int) -> float:
            wait()
            begin = time.perf_counter()
            for i in range(launches):
                torch.nn.functional.linear(x, weights[i % len(weights)])
            wait()
            return (time.perf_counter() - begin) / launches

        run(len(weights))
        launches = min(1000, max(len(weights), int(0.008 / run(1)) + 1))
        print(json.dumps({"n": n, "k": k, "tokens": tokens, "microseconds": [run(launches) * 1e6 for _ in range(3)]}), file=out, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["version", "bench", "matmul"])
    parser.add_argument("-m", dest="model")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("-p", dest="prompt", type=numbers, default=[])
    parser.add_argument("-n", dest="generate", type=int, default=32)
    parser.add_argument("-b", dest="batch", type=numbers, default=[1])
    parser.add_argument("-r", dest="repetitions", type=int, default=2)
    parser.add_argument("--product", type=numbers, nargs="*", default=[])
    parser.add_argument("--matrix-bytes", type=int, default=1)
    options = parser.parse_args()
    out = own_stdout()
    if options.action == "matmul":
        matmul(options, out)
        return 0
    if options.action == "version":
        import torch
        import transformers

        print("transformers", transformers.__version__, "torch", torch.__version__, file=out, flush=True)
        return 0
    bench(options, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
