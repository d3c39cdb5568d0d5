#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vLLM as a peer: bench/run.sh gpu --peer-vllm PYTHON, an interpreter with vllm.

  vllm_peer.py version                                     one line
  vllm_peer.py bench -m FOLDER -p P -n N -b B -r R         llama-bench's JSON lines, "batch" besides

Random bf16 weights of FOLDER's config.json, its defaults else (captured graphs among them), in process, no prefix cache.
"""

import argparse
import json
import random
import time


def numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


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


def bench(options) -> None:
    runner = Runner(options)

    def report(prompt: int, generate: int, batch: int, rates: list[float]) -> None:
        print(json.dumps({"n_prompt": prompt, "n_gen": generate, "n_depth": 0, "batch": batch, "samples_ts": rates}), flush=True)

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
    parser.add_argument("-p", dest="prompt", type=numbers, default=[])
    parser.add_argument("-n", dest="generate", type=int, default=32)
    parser.add_argument("-b", dest="batch", type=numbers, default=[1])
    parser.add_argument("-r", dest="repetitions", type=int, default=2)
    options = parser.parse_args()
    if options.action == "version":
        import vllm

        print("vllm", vllm.__version__)
        return
    bench(options)


if __name__ == "__main__":
    main()
