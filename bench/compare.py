#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Side by side with another OpenAI-compatible server on the same machine and file: the same requests, through the same
client, in turns (A B A B ...), medians. Both servers are started by the caller, with the same number of threads.

  bench/compare.py --ours http://127.0.0.1:8000 --peer http://127.0.0.1:8080 [--rounds 5] [--json FILE]

Prompts are random token ids, so that no prefix cache helps either side. Measured at the client:
  prefill N   N / time to the first token of an N-token prompt
  decode at C tokens after the first / time from the first to the last, with a prompt of C tokens (0: one token)
  16 at once  output tokens / wall time of 16 requests of 128 in and 64 out that start together
"""

import argparse
import json
import random
import statistics
import threading
import time

import httpx

VOCABULARY = 40000
CASES = ["prefill 128", "prefill 512", "decode at 0", "decode at 1024", "16 at once"]


def stream(url, prompt_tokens, max_tokens, seed):
    """Times of the first and the last token after sending, and how many tokens came."""
    rng = random.Random(seed)
    body = {"prompt": [rng.randrange(100, VOCABULARY) for _ in range(prompt_tokens)], "max_tokens": max_tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    begin = time.perf_counter()
    first = last = None
    tokens = 0
    with httpx.Client(timeout=600) as client, client.stream("POST", url + "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            now = time.perf_counter() - begin
            if event.get("choices") and not event["choices"][0].get("finish_reason"):
                first = first or now
                last = now
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return first or last or now, last or now, tokens


def measure(url, case, seed):
    if case.startswith("prefill"):
        prompt = int(case.split()[1])
        return prompt / stream(url, prompt, 1, seed)[0]
    if case.startswith("decode"):
        first, last, tokens = stream(url, max(1, int(case.split()[2])), 64, seed)
        return (tokens - 1) / (last - first)
    counts = []
    threads = [threading.Thread(target=lambda i=i: counts.append(stream(url, 128, 64, seed * 100 + i)[2])) for i in range(16)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    urls = {"ours": options.ours, **({"peer": options.peer} if options.peer else {})}
    results = {case: {name: [] for name in urls} for case in CASES}
    for name, url in urls.items():
        measure(url, "prefill 128", 0)  # warm-up
    for round_number in range(1, options.rounds + 1):
        for case in CASES:
            for name, url in urls.items():
                results[case][name].append(measure(url, case, round_number))
    print(f"{'tokens/s, median of ' + str(options.rounds):32}" + "".join(f"{name:>12}" for name in urls) + ("       ratio" if options.peer else ""))
    for case in CASES:
        medians = [statistics.median(results[case][name]) for name in urls]
        ratio = f"{medians[0] / medians[1]:12.2f}" if options.peer else ""
        print(f"{case:32}" + "".join(f"{m:12.1f}" for m in medians) + ratio)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump({"rounds": options.rounds, "unit": "tokens/s", "results": results}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
