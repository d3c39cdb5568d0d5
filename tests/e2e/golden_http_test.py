# SPDX-License-Identifier: Apache-2.0
"""Answers of Hugging Face transformers, asked for through the whole server."""

import array
import json
import math
import unittest

import harness

TINY = ["llama-gqa", "llama-tied-mqa", "llama-bias-sharded", "llama-bf16", "llama-rope-llama3", "llama-rope-linear"]


def log_softmax(row):
    largest = max(row)
    total = math.log(math.fsum(math.exp(x - largest) for x in row)) + largest
    return [x - total for x in row]


class GreedyChatsTest(unittest.TestCase):
    """smollm2/greedy.json: the prompt's text, its ids, and the tokens as far as they can be compared."""

    def test_all_conversations(self):
        with open(harness.golden("smollm2", "greedy.json"), encoding="utf-8") as f:
            chats = json.load(f)["chats"]
        rendered = harness.run("render", "--model", harness.MODEL, stdin="".join(
            json.dumps({"messages": c["messages"], "add_generation_prompt": True}) + "\n" for c in chats))
        self.assertEqual(rendered.returncode, 0, rendered.stderr)
        self.assertEqual([json.loads(line) for line in rendered.stdout.splitlines()], [c["prompt"] for c in chats])
        with harness.Server() as server:
            for i, chat in enumerate(chats):
                tokenized = server.post("/tokenize", {"messages": chat["messages"]}).json()
                self.assertEqual(tokenized["tokens"], chat["ids"], chat["name"])
                answer = server.post("/v1/chat/completions", {
                    "messages": chat["messages"], "temperature": 0, "max_tokens": len(chat["tokens"]),
                    "return_token_ids": True}).json()
                self.assertEqual(answer["prompt_token_ids"], chat["ids"])
                steps = len(chat["tokens"])
                if i > 0:  # the first one whole, the others up to the first near-tie
                    steps = next((s for s, margin in enumerate(chat["margins"]) if margin < 0.1), steps)
                self.assertEqual(answer["choices"][0]["token_ids"][:steps], chat["tokens"][:steps], chat["name"])
            self.assertLess(server.wait_until_idle(), 1)


class TinyCheckpointsTest(unittest.TestCase):
    """models/*: every next-token distribution of every prompt position, by prompt_logprobs over the whole vocabulary."""

    def compare(self, name, numerics, largest_allowed, rms_allowed):
        folder = harness.golden("models", name)
        with open(f"{folder}/golden.json", encoding="utf-8") as f:
            golden = json.load(f)
        values = array.array("f")
        with open(f"{folder}/golden.f32", "rb") as f:
            values.frombytes(f.read())
        vocab = golden["vocab_size"]
        with harness.Server("--skip-tokenizer", "--numerics", numerics, "--max-logprobs", str(vocab), model=folder) as server:
            for sequence in golden["sequences"]:
                ids, offset = sequence["ids"], sequence["logits"]["offset"]
                answer = server.post("/v1/completions", {"prompt": ids, "max_tokens": 1, "temperature": 0,
                                                         "prompt_logprobs": vocab, "logprobs": vocab})
                self.assertEqual(answer.status_code, 200, answer.text)
                got = answer.json()["choices"][0]["prompt_logprobs"]
                self.assertEqual(len(got), len(ids))
                self.assertIsNone(got[0])
                largest = squares = count = 0
                for position in range(1, len(ids)):
                    want = log_softmax(values[offset + (position - 1) * vocab:offset + position * vocab])
                    entry = got[position]
                    self.assertEqual(len(entry), vocab)
                    for token in range(vocab):
                        difference = abs(entry[str(token)]["logprob"] - want[token])
                        largest = max(largest, difference)
                        squares += difference * difference
                        count += 1
                self.assertLessEqual(largest, largest_allowed, f"{name}, length {len(ids)}")
                self.assertLessEqual(math.sqrt(squares / max(count, 1)), rms_allowed)

    def test_float32(self):
        for name in TINY:
            with self.subTest(name):
                self.compare(name, "float32", 1e-3, 1e-3)

    def test_default(self):
        for name in TINY:
            with self.subTest(name):
                self.compare(name, "precise", 1.0, 0.15)

    def test_greedy(self):
        for name in TINY:
            with self.subTest(name):
                folder = harness.golden("models", name)
                with open(f"{folder}/golden.json", encoding="utf-8") as f:
                    golden = json.load(f)
                with harness.Server("--skip-tokenizer", "--numerics", "float32", model=folder) as server:
                    for sequence in golden["sequences"]:
                        answer = server.post("/v1/completions", {"prompt": sequence["ids"], "max_tokens": 16, "temperature": 0,
                                                                 "ignore_eos": True, "return_token_ids": True}).json()
                        steps = sequence["comparable_steps"]
                        self.assertEqual(answer["choices"][0]["token_ids"][:steps], sequence["greedy"][:steps])
                        self.assertEqual(answer["choices"][0]["text"], "")


if __name__ == "__main__":
    harness.main()
