# SPDX-License-Identifier: Apache-2.0
"""The same request gives the same tokens and the same logprob bits whatever else happens: 200 random requests, alone and
in six other situations. JSON prints a double so that it reads back as the same bits."""

import concurrent.futures
import json
import random
import unittest

import harness

NUM_REQUESTS = 30 if harness.SANITIZED else 200
WORDS = ("the of and to in a is that for it as was with be by on not he I this are or his from at which but have an had they "
         "you were their one all we can her has there been if more when will would who so no out up into do any your what").split()
KV_TOKENS = 224  # of a KV cache that few sequences fit


class Texts:
    """Requests to the default model."""

    flags = []
    words = WORDS
    most_tokens = 14
    common = {}
    repeating = {}

    @staticmethod
    def prompt(words):
        return " ".join(words)


class Ids:
    """Requests to a tiny checkpoint without a tokenizer: it answers so fast that only long answers meet others."""

    flags = ["--skip-tokenizer"]
    words = range(256)
    most_tokens = 60
    common = {"return_tokens_as_token_ids": True}
    repeating = {"logit_bias": {"1": 100, "2": 100}}  # random weights repeat nothing by themselves

    @staticmethod
    def prompt(words):
        return words


def random_requests(kind, seed=20):
    """Short and long prompts, greedy and drawn, with penalties and shared beginnings."""
    rng = random.Random(seed)
    beginnings = [rng.choices(kind.words, k=40) for _ in range(4)]
    requests = []
    for i in range(NUM_REQUESTS):
        prompt = rng.choices(kind.words, k=rng.randint(1, 60))
        if rng.random() < 0.3:
            prompt = rng.choice(beginnings) + prompt
        body = {"prompt": kind.prompt(prompt), "max_tokens": rng.randint(1, kind.most_tokens), "logprobs": rng.choice([0, 2]),
                "seed": i, "return_token_ids": True, "ignore_eos": True, "temperature": rng.choice([0, 0.7, 1.3]), **kind.common}
        if rng.random() < 0.3:
            body.update(top_p=0.9, top_k=rng.choice([0, 20]))
        if rng.random() < 0.2:
            body.update(repetition_penalty=1.2, frequency_penalty=0.5, min_p=0.02)
        if rng.random() < 0.2:  # text that goes on as before
            body.update(prompt=kind.prompt(rng.choices(kind.words, k=8) * 4), max_tokens=50, **kind.repeating)
        requests.append(body)
    return requests


def ask(server, body):
    answer = server.post("/v1/completions", body)
    if answer.status_code != 200:
        raise AssertionError(answer.text)
    choice = answer.json()["choices"][0]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]


def ask_all(server, requests, concurrency):
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(lambda body: ask(server, body), requests))


class Situations:
    """Of a class with a model and the kind of its requests."""

    @classmethod
    def setUpClass(cls):
        cls.requests = random_requests(cls.kind)
        with cls.server("--no-prefix-cache", "--max-num-seqs", "1") as server:
            cls.alone = ask_all(server, cls.requests, 1)

    @classmethod
    def server(cls, *flags):
        return harness.Server(*cls.kind.flags, *flags, model=cls.model)

    def expect_same(self, answers):
        for i, (got, want) in enumerate(zip(answers, self.alone)):
            self.assertEqual(got, want, self.requests[i])

    def test_batched_and_after_a_prefix_hit(self):
        with self.server("--max-num-seqs", "32") as server:
            self.expect_same(ask_all(server, self.requests, 32))
            before = server.metrics()["fairlead_prefix_cache_hits_tokens_total"]
            self.expect_same(ask_all(server, self.requests, 32))
            self.assertGreater(server.metrics()["fairlead_prefix_cache_hits_tokens_total"], before + 5 * NUM_REQUESTS)

    def test_chunks_of_7(self):
        with self.server("--max-batched-tokens", "7", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 8))

    def test_two_threads_and_chunks_of_512(self):
        with self.server("--threads", "2", "--max-batched-tokens", "512", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 32))

    def test_after_preemption(self):
        # Room for few sequences at once, and later requests that go first: others are thrown out and computed again.
        requests = [{**body, "priority": -(i % 3)} for i, body in enumerate(self.requests)]
        report = json.loads(harness.run("inspect", "--model", self.model, "--json").stdout)
        memory = str(KV_TOKENS * report["memory"]["kv_per_token"])
        with self.server("--kv-cache-memory", memory, "--max-model-len", "160", "--no-prefix-cache") as server:
            for _ in range(8):  # how many a round has is a matter of timing
                self.expect_same(ask_all(server, requests, 32))
                preemptions = server.metrics()["fairlead_preemptions_total"]
                if preemptions > NUM_REQUESTS / 20:
                    break
            self.assertGreater(preemptions, NUM_REQUESTS / 20)

    def test_speculation(self):
        with self.server("--speculation", "ngram", "--max-num-seqs", "4") as server:
            for concurrency in (1, 8):
                self.expect_same(ask_all(server, self.requests, concurrency))
            self.assertGreater(server.metrics()["fairlead_spec_decode_num_accepted_tokens_total"], 0)

    def test_one_thread(self):
        with self.server("--threads", "1", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 32))


class DefaultModelTest(Situations, unittest.TestCase):
    model, kind = harness.MODEL, Texts


class WindowTest(Situations, unittest.TestCase):
    model, kind = harness.golden("models", "mistral-window8"), Ids


class ExpertsTest(Situations, unittest.TestCase):
    model, kind = harness.golden("models", "qwen3-moe"), Ids


class AlternatingWindowsTest(Situations, unittest.TestCase):
    model, kind = harness.golden("models", "gemma3-7layers"), Ids


class SinksTest(Situations, unittest.TestCase):
    model, kind = harness.golden("models", "gpt-oss-3layers"), Ids


if __name__ == "__main__":
    harness.main()
