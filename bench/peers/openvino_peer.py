#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI as a peer: bench/run.sh cpu --peer openvino:PYTHON, where PYTHON is an interpreter with openvino_genai.

  openvino_peer.py version                                     one line
  openvino_peer.py bench -m MODEL -t N -p P -n N -d D -r R     llama-bench's JSON lines, as llama.sh gives them
  openvino_peer.py batch -m MODEL -t N -p P -n N -b B -r R     B requests at once in its continuous batching, in process:
                                                          {"output_tokens_per_second": ...}
"""

import argparse
import json
import random
import sys
import time

NOT_OFFERED = 64
VOCABULARY = (100, 40000)


def properties(threads: int) -> dict:
    return {"INFERENCE_NUM_THREADS": threads}


def random_prompt(rng: random.Random, count: int):
    import numpy

    return numpy.array([[rng.randrange(*VOCABULARY) for _ in range(count)]], dtype=numpy.int64)


def config(genai, count: int):
    chosen = genai.GenerationConfig()
    chosen.max_new_tokens, chosen.ignore_eos, chosen.do_sample = count, True, False
    return chosen


def timed(pipeline, genai, prompt, count: int) -> tuple[float, float]:
    """Seconds to the first token and to the last, as its own clock has them."""
    import numpy
    import openvino

    inputs = genai.TokenizedInputs(openvino.Tensor(prompt), openvino.Tensor(numpy.ones_like(prompt)))
    metrics = pipeline.generate(inputs, config(genai, count)).perf_metrics
    first = metrics.get_ttft().mean / 1e3
    return first, first + metrics.get_tpot().mean / 1e3 * (count - 1)


def bench(options) -> None:
    import openvino_genai as genai

    # Every prompt is new, so that its prefix cache cannot answer.
    pipeline = genai.LLMPipeline(options.model, "CPU", **properties(options.threads))
    rng = random.Random(time.time_ns())
    timed(pipeline, genai, random_prompt(rng, 32), 4)
    for prompt_tokens, output_tokens in [(p, 0) for p in options.prompt if p] + [(0, n) for n in options.generate if n]:
        rates = []
        for _ in range(options.repetitions):
            prompt = random_prompt(rng, max(prompt_tokens, options.depth, 1))
            if prompt_tokens:
                rates.append(prompt_tokens / timed(pipeline, genai, prompt, 1)[0])
            else:
                first, last = timed(pipeline, genai, prompt, output_tokens + 1)
                rates.append(output_tokens / (last - first))
        print(json.dumps({"n_prompt": prompt_tokens, "n_gen": output_tokens, "n_depth": options.depth, "samples_ts": rates}))


def batch(options) -> None:
    import openvino
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_batched_tokens = 1, 512
    pipeline = genai.ContinuousBatchingPipeline(options.model, scheduler, "CPU", properties(options.threads))
    rng = random.Random(time.time_ns())
    output_tokens = options.generate[0]
    rates = []
    for _ in range(options.repetitions + 1):  # the first is a warm-up
        prompts = [openvino.Tensor(random_prompt(rng, options.prompt[0])) for _ in range(options.batch)]
        begin = time.perf_counter()
        pipeline.generate(prompts, [config(genai, output_tokens) for _ in prompts])
        rates.append(options.batch * output_tokens / (time.perf_counter() - begin))
    print(json.dumps({"output_tokens_per_second": rates[1:]}))


def numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action")
    parser.add_argument("-m", dest="model")
    parser.add_argument("-t", dest="threads", type=int, default=0)
    parser.add_argument("-p", dest="prompt", type=numbers, default=[0])
    parser.add_argument("-n", dest="generate", type=numbers, default=[0])
    parser.add_argument("-d", dest="depth", type=int, default=0)
    parser.add_argument("-b", dest="batch", type=int, default=1)
    parser.add_argument("-r", dest="repetitions", type=int, default=1)
    options, _ = parser.parse_known_args()
    if options.action == "version":
        import openvino_genai

        print("OpenVINO GenAI", openvino_genai.__version__)
    elif options.action == "bench":
        bench(options)
    elif options.action == "batch":
        batch(options)
    else:
        return NOT_OFFERED
    return 0


if __name__ == "__main__":
    sys.exit(main())
