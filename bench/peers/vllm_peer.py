#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vLLM as a peer: bench/run.sh gpu --peer-vllm PYTHON, an interpreter with vllm.

  vllm_peer.py version                                          one line
  vllm_peer.py bench -m FOLDER --device D -p P -n N -b B -r R   llama-bench's JSON lines, "batch" besides

Random bf16 weights of FOLDER's config.json, its defaults else (captured graphs among them), in process, no prefix cache.
D: cuda:N or hip:N, as of fairlead serve.
"""

import argparse
import json
import os
import random
import time
from typing import TextIO


def numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def own_stdout() -> TextIO:
    """The stream of the results: whatever else this process writes to stdout (vLLM logs there) goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def show_only(device: str) -> None:
    """vLLM takes the first GPU it sees. N counts those that the environment leaves, as it does for us."""
    kind, _, index = device.partition(":")
    names = {"cuda": ["CUDA_VISIBLE_DEVICES"], "hip": ["HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"]}[kind]
    visible = next((os.environ[name] for name in names if name in os.environ), None)
    chosen = visible.split(",")[int(index)].strip() if visible else index
    os.environ.update(dict.fromkeys(names, chosen))


class Runner:
    def __init__(self, options) -> None:
        import vllm

        longest = max([*options.prompt, options.generate + 16]) + 16
        self.vllm = vllm
        self.model = vllm.LLM(model=options.model, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", seed=0,
                              max_model_len=longest, max_num_seqs=max(options.batch), enable_prefix_caching=False)
        with open(f"{options.model}/config.json", encoding="utf-8") as file:
            self.vocabulary = json.load(file)["vocab_size"]

    def seconds(self, batch: int, prompt: int, output: int) -> float:
        prompts = [{"prompt_token_ids": [random.randrange(self.vocabulary) for _ in range(prompt)]} for _ in range(batch)]
        sampling = self.vllm.SamplingParams(temperature=0, max_tokens=output, ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        self.model.generate(prompts, sampling, use_tqdm=False)
        return time.perf_counter() - begin


def bench(options, out: TextIO) -> None:
    runner = Runner(options)

    def report(prompt: int, generate: int, batch: int, rates: list[float]) -> None:
        print(json.dumps({"n_prompt": prompt, "n_gen": generate, "n_depth": 0, "batch": batch, "samples_ts": rates}), file=out, flush=True)

    for batch in options.batch:
        runner.seconds(batch, 1, options.generate + 1)
        # The steps after the first token, as ours are timed.
        rates = [batch * options.generate / (runner.seconds(batch, 1, options.generate + 1) - runner.seconds(batch, 1, 1))
                 for _ in range(options.repetitions)]
        report(0, options.generate, batch, rates)
    for prompt in options.prompt:
        runner.seconds(1, prompt, 1)
        report(prompt, 0, 1, [prompt / runner.seconds(1, prompt, 1) for _ in range(options.repetitions)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["version", "bench"])
    parser.add_argument("-m", dest="model")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("-p", dest="prompt", type=numbers, default=[])
    parser.add_argument("-n", dest="generate", type=int, default=32)
    parser.add_argument("-b", dest="batch", type=numbers, default=[1])
    parser.add_argument("-r", dest="repetitions", type=int, default=2)
    options = parser.parse_args()
    out = own_stdout()
    show_only(options.device)  # before it is imported
    if options.action == "version":
        import vllm

        print("vllm", vllm.__version__, file=out, flush=True)
        return
    bench(options, out)


if __name__ == "__main__":
    main()
