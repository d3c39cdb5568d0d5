# SPDX-License-Identifier: Apache-2.0
"""Answers of Hugging Face transformers, asked for through the whole server."""

import array
import concurrent.futures
import json
import math
import os
import re
import subprocess
import unittest

import harness

# The GPU kernels' executor is slow with a sanitizer; decoder_test runs it with one.
DEVICES = ["cpu"] if harness.SANITIZED else ["cpu", "host-simt:32", "host-simt:64"]
GREEDY_STEPS = 16  # that a golden has
# How many of a row's logprobs are asked of a GPU kernel, which passes over the row for each: the whole vocabulary would take
# ten times what the model takes. The CPU gives all.
SOME = 32
# Folders of golden/models that decoder_test does not run, and why.
NOT_HERE = {
    "bert": "an encoder",
    "bert-head7": "an encoder",
    "ministral3": "architecture not supported",
    "nomic-bert": "an encoder",
    "qwen3-embedding": "embeddings, no logits",
    "xlm-roberta": "an encoder",
}


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


class Checkpoint:
    """A folder of golden/models: next-token distributions of some sequences, and greedy tokens."""

    def __init__(self, name):
        self.name, self.folder = name, harness.golden("models", name)
        with open(f"{self.folder}/golden.json", encoding="utf-8") as f:
            golden = json.load(f)
        with open(f"{self.folder}/config.json", encoding="utf-8") as f:
            self.config = json.load(f)
        values = array.array("f")
        with open(f"{self.folder}/golden.f32", "rb") as f:
            values.frombytes(f.read())
        self.vocab, self.sequences = golden["vocab_size"], golden["sequences"]
        self.float32_tolerance = max(1e-3, 20 * golden["float32_vs_float64"])
        self.want = []  # of each sequence, a list of logprobs for each position
        for sequence in self.sequences:
            begin, vocab = sequence["logits"]["offset"], self.vocab
            self.want.append([log_softmax(values[begin + p * vocab:begin + (p + 1) * vocab]) for p in range(len(sequence["ids"]))])

    def servings(self):
        """(indices of sequences, flags of the server that answers them). Transformers chooses LongRoPE's factors by the
        sequence, a server once: long ones if its context is longer than the original one."""
        everything = range(len(self.sequences))
        scaling = self.config.get("rope_scaling") or self.config.get("rope_parameters") or {}
        if "longrope" not in (scaling.get("type"), scaling.get("rope_type")):
            return [(everything, [])]
        original = self.config["original_max_position_embeddings"]
        short = [i for i in everything if len(self.sequences[i]["ids"]) + GREEDY_STEPS - 1 <= original]
        long = [i for i in everything if i not in short]
        return [(short, ["--max-model-len", str(original)])] + ([(long, [])] if long else [])


def decoder_checkpoints():
    """The folders that decoder_test runs."""
    listed = subprocess.run([harness.DECODER_TEST, "--gtest_list_tests"], capture_output=True, text=True, check=True).stdout
    suites = re.findall(r"^\S*/DecoderTest\.\n((?: .*\n)+)", listed, re.M)
    return sorted({name for suite in suites for name in re.findall(r'"([^"]+)"', suite)})


class DecoderCheckpointsTest(unittest.TestCase):
    """models/*, on every kind of device: every prompt position's next-token logprobs by prompt_logprobs, and greedy tokens."""

    def expect(self, checkpoint, numerics, device):
        # In qwen3-moe a router's near tie takes another expert (golden README).
        ties = checkpoint.name.startswith("qwen3-moe")
        largest, rms = (4.0, 0.4) if ties else (1.0, 0.15)
        if numerics == "float32":
            largest = rms = checkpoint.float32_tolerance
        top = checkpoint.vocab if device == "cpu" else SOME
        for indices, flags in checkpoint.servings():
            flags = ["--skip-tokenizer", "--numerics", numerics, "--device", device, "--threads", "1", "--weight-cache", "off",
                     "--max-logprobs", str(top), *flags]
            with harness.Server(*flags, model=checkpoint.folder) as server:
                self.expect_answers(server, checkpoint, indices, top, largest, rms)

    def expect_answers(self, server, checkpoint, indices, top, largest, rms):
        asked = [checkpoint.sequences[i] for i in indices]
        # A token whose logit is ahead by more than two may be off by stays the best.
        steps = [next((s for s, margin in enumerate(q["margins"]) if margin < max(1e-3, 2 * largest)), GREEDY_STEPS) for q in asked]
        context = server.get("/v1/models").json()["data"][0]["max_model_len"]
        room = context - max(len(sequence["ids"]) for sequence in asked)
        answer = server.post("/v1/completions", {
            "prompt": [sequence["ids"] for sequence in asked], "max_tokens": max(1, min(room, max(steps))), "temperature": 0,
            "ignore_eos": True, "prompt_logprobs": top, "logprobs": top, "return_token_ids": True,
            "return_tokens_as_token_ids": True})
        self.assertEqual(answer.status_code, 200, answer.text)
        for index, sequence, count, choice in zip(indices, asked, steps, answer.json()["choices"], strict=True):
            got = [{int(token): entry["logprob"] for token, entry in position.items()} for position in choice["prompt_logprobs"][1:]]
            got.append({int(token.removeprefix("token_id:")): logprob for token, logprob in choice["logprobs"]["top_logprobs"][0].items()})
            self.compare(got, checkpoint.want[index], top, largest, rms)
            tokens = choice["token_ids"][:count]
            self.assertEqual(tokens, sequence["greedy"][:len(tokens)])
            self.assertEqual(choice["text"], "")

    def compare(self, got, want, top, largest, rms):
        self.assertEqual(len(got), len(want))
        differences = []
        for entry, row in zip(got, want):
            self.assertIn(len(entry), (top, top + 1))  # the prompt's token may be beyond the best
            differences += [abs(logprob - row[token]) for token, logprob in entry.items()]
            # No other token may belong to the best.
            worst = sorted(entry.values(), reverse=True)[top - 1]
            self.assertLessEqual(max((row[token] for token in range(len(row)) if token not in entry), default=worst), worst + largest)
        self.assertLessEqual(max(differences), largest)
        self.assertLessEqual(math.sqrt(math.fsum(d * d for d in differences) / len(differences)), rms)

    def test_every_checkpoint(self):
        checkpoints = [Checkpoint(name) for name in decoder_checkpoints()]
        self.assertGreater(len(checkpoints), 40)
        runs = [(c, numerics, device) for device in DEVICES for c in checkpoints for numerics in ("float32", "precise")]
        # Each server computes with one thread.
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            results = [(run, pool.submit(self.expect, *run)) for run in runs]
            for (checkpoint, numerics, device), result in results:
                with self.subTest(checkpoint=checkpoint.name, numerics=numerics, device=device):
                    result.result()

    def test_no_folder_is_forgotten(self):
        folders = {entry.name for entry in os.scandir(harness.golden("models")) if entry.is_dir()}
        self.assertEqual(set(decoder_checkpoints()) & set(NOT_HERE), set(), "tested by now: take it off NOT_HERE")
        self.assertEqual(folders - set(decoder_checkpoints()) - set(NOT_HERE), set(), "in no test")


if __name__ == "__main__":
    harness.main()
