# SPDX-License-Identifier: Apache-2.0
"""The same request gives the same tokens and the same logprob bits whatever else happens: 200 random requests, alone and
in six other situations. JSON prints a double so that it reads back as the same bits."""

import concurrent.futures
import random
import unittest

import harness

NUM_REQUESTS = 30 if harness.SANITIZED else 200
WORDS = ("the of and to in a is that for it as was with be by on not he I this are or his from at which but have an had they "
         "you were their one all we can her has there been if more when will would who so no out up into do any your what").split()


def random_requests(seed=20):
    """Short and long prompts, greedy and drawn, with penalties and shared beginnings."""
    rng = random.Random(seed)
    beginnings = [" ".join(rng.choices(WORDS, k=40)) for _ in range(4)]
    requests = []
    for i in range(NUM_REQUESTS):
        prompt = " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))
        if rng.random() < 0.3:
            prompt = rng.choice(beginnings) + " " + prompt
        body = {"prompt": prompt, "max_tokens": rng.randint(1, 14), "logprobs": rng.choice([0, 2]), "seed": i,
                "return_token_ids": True, "ignore_eos": True, "temperature": rng.choice([0, 0.7, 1.3])}
        if rng.random() < 0.3:
            body.update(top_p=0.9, top_k=rng.choice([0, 20]))
        if rng.random() < 0.2:
            body.update(repetition_penalty=1.2, frequency_penalty=0.5, min_p=0.02)
        if rng.random() < 0.2:
            body.update(prompt=" ".join(rng.choices(WORDS, k=8) * 4), max_tokens=50)  # text that goes on as before
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


class DeterminismTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.requests = random_requests()
        with harness.Server("--no-prefix-cache", "--max-num-seqs", "1") as server:
            cls.alone = ask_all(server, cls.requests, 1)

    def expect_same(self, answers):
        for i, (got, want) in enumerate(zip(answers, self.alone)):
            self.assertEqual(got, want, self.requests[i])

    def test_batched_and_after_a_prefix_hit(self):
        with harness.Server("--max-num-seqs", "32") as server:
            self.expect_same(ask_all(server, self.requests, 32))
            before = server.metrics()["fairlead_prefix_cache_hits_tokens_total"]
            self.expect_same(ask_all(server, self.requests, 32))
            self.assertGreater(server.metrics()["fairlead_prefix_cache_hits_tokens_total"], before + 5 * NUM_REQUESTS)

    def test_chunks_of_7(self):
        with harness.Server("--max-batched-tokens", "7", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 8))

    def test_two_threads_and_chunks_of_512(self):
        with harness.Server("--threads", "2", "--max-batched-tokens", "512", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 32))

    def test_after_preemption(self):
        # Room for few sequences at once, and later requests that go first: others are thrown out and computed again.
        requests = [{**body, "priority": -(i % 3)} for i, body in enumerate(self.requests)]
        with harness.Server("--kv-cache-memory", "5MiB", "--max-model-len", "160", "--no-prefix-cache") as server:
            for _ in range(8):  # how many a round has is a matter of timing
                self.expect_same(ask_all(server, requests, 32))
                preemptions = server.metrics()["fairlead_preemptions_total"]
                if preemptions > NUM_REQUESTS / 20:
                    break
            self.assertGreater(preemptions, NUM_REQUESTS / 20)

    def test_speculation(self):
        with harness.Server("--speculation", "ngram", "--max-num-seqs", "4") as server:
            for concurrency in (1, 8):
                self.expect_same(ask_all(server, self.requests, concurrency))
            self.assertGreater(server.metrics()["fairlead_spec_decode_num_accepted_tokens_total"], 0)

    def test_one_thread(self):
        with harness.Server("--threads", "1", "--no-prefix-cache") as server:
            self.expect_same(ask_all(server, self.requests, 32))


if __name__ == "__main__":
    harness.main()
