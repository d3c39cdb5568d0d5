# SPDX-License-Identifier: Apache-2.0
"""Streams of the real model over HTTP: the deltas are the whole text, whatever stop strings there are, and logprobs have the
place and the bytes of their tokens. At a high temperature the model draws tokens of all scripts, cut within characters."""

import concurrent.futures
import random
import unittest

import harness

SCRIPTS = {"latin": (0x61, 0x7a), "cyrillic": (0x430, 0x44f), "greek": (0x3b1, 0x3c9), "arabic": (0x621, 0x64a), "hebrew": (0x5d0, 0x5ea),
           "devanagari": (0x905, 0x939), "thai": (0xe01, 0xe30), "han": (0x4e00, 0x9fa0), "hangul": (0xac00, 0xd7a3)}
EMOJI = ["😀", "👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇳🇴", "❤️"]
TEXTS = 200
RUNS = 16


def random_text(rng, script):
    letter = (lambda: rng.choice(EMOJI)) if script == "emoji" else (lambda: chr(rng.randint(*SCRIPTS[script])))
    return " ".join("".join(letter() for _ in range(rng.randint(1, 7))) for _ in range(rng.randint(1, 6)))


class StreamTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server()
        cls.http = cls.server.client()

    @classmethod
    def tearDownClass(cls):
        cls.http.close()
        cls.server.__exit__()

    def whole(self, path, body):
        answer = self.http.post(path, json=body)
        self.assertEqual(answer.status_code, 200, answer.text)
        return answer.json()["choices"][0]

    def streamed(self, path, body):
        """The choice as the chunks have it, put together; each chunk is one valid JSON text in UTF-8."""
        choice = {"text": "", "logprobs": {}, "finish_reason": None}
        with self.http.stream("POST", path, json={**body, "stream": True}) as response:
            self.assertEqual(response.status_code, 200)
            for chunk in harness.sse(response):
                if chunk == "[DONE]":
                    break
                one = chunk["choices"][0]
                text = one["text"] if "text" in one else one["delta"].get("content") or ""
                text.encode("utf-8")  # no half of a pair of surrogates
                choice["text"] += text
                for key, values in (one["logprobs"] or {}).items():
                    if values is not None:
                        choice["logprobs"].setdefault(key, []).extend(values)
                choice["finish_reason"] = one["finish_reason"] or choice["finish_reason"]
                choice["stop_reason"] = one.get("stop_reason")
        return choice

    def in_parallel(self, jobs):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda job: job(), jobs))

    def expect_offsets(self, logprobs, text):
        """Tokens of whole characters stand at their offsets; offsets go on from 0 to the end."""
        before = 0
        for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
            self.assertGreaterEqual(offset, before)
            if "\N{REPLACEMENT CHARACTER}" not in token:
                self.assertEqual(text[offset:offset + len(token)], token)
            before = offset
        self.assertEqual(logprobs["text_offset"][0], 0)
        self.assertLess(before, len(text))

    def test_echoed_texts_of_all_scripts(self):
        rng = random.Random(1)
        texts = [random_text(rng, script) for _ in range(TEXTS // 10) for script in [*SCRIPTS, "emoji"]]
        body = {"max_tokens": 0, "echo": True, "logprobs": 0, "temperature": 0}
        choices = self.http.post("/v1/completions", json={"prompt": texts, **body}).json()["choices"]
        self.assertEqual([c["text"] for c in choices], texts)
        for text, choice in zip(texts, choices, strict=True):
            with self.subTest(text=text):
                self.expect_offsets(choice["logprobs"], text)
        for text in texts[:10]:
            got = self.streamed("/v1/completions", {"prompt": text, **body, "max_tokens": 4})
            self.assertTrue(got["text"].startswith(text))
            self.expect_offsets(got["logprobs"], got["text"])

    def test_deltas_are_the_text(self):
        def job(i, path, body):
            body = {**body, "temperature": 2, "seed": i, "max_tokens": 24, "ignore_eos": True}
            return self.whole(path, body), self.streamed(path, body)

        rng = random.Random(2)
        chats = [{"messages": [{"role": "user", "content": random_text(rng, rng.choice([*SCRIPTS, "emoji"]))}], "logprobs": True} for _ in range(RUNS)]
        for whole, got in self.in_parallel([lambda i=i, c=c: job(i, "/v1/chat/completions", c) for i, c in enumerate(chats)]):
            self.assertEqual(got["text"], whole["message"]["content"])
            self.assertEqual(got["logprobs"]["content"], whole["logprobs"]["content"])
            # The bytes of all tokens, special ones left out of the text apart.
            data = bytes(b for entry in whole["logprobs"]["content"] if not entry["token"].startswith("<|") for b in entry["bytes"])
            self.assertEqual(data.decode("utf-8", "replace"), got["text"])
        prompts = [{"prompt": random_text(rng, rng.choice([*SCRIPTS, "emoji"])), "logprobs": 1, "skip_special_tokens": False} for _ in range(RUNS)]
        for whole, got in self.in_parallel([lambda i=i, p=p: job(i, "/v1/completions", p) for i, p in enumerate(prompts)]):
            self.assertEqual(got["text"], whole["text"])
            self.assertEqual(got["logprobs"]["text_offset"], whole["logprobs"]["text_offset"])
            self.expect_offsets(got["logprobs"], got["text"])
            self.assertLessEqual(max(got["logprobs"]["text_offset"]), len(got["text"]))

    def test_stop_strings_span_tokens(self):
        rng = random.Random(3)

        def job(i):
            body = {"prompt": random_text(rng, "emoji"), "temperature": 2, "seed": i, "max_tokens": 24, "ignore_eos": True}
            text = self.whole("/v1/completions", body)["text"]
            # Any part of it: it begins and ends within tokens, mostly.
            begin = rng.randrange(max(len(text) - 1, 1))
            stop = text[begin:begin + rng.randint(1, 12)]
            return text, stop, [ask("/v1/completions", {**body, "stop": ["\x01", stop]}) for ask in (self.whole, self.streamed)]

        for text, stop, answers in self.in_parallel([lambda i=i: job(i) for i in range(RUNS)]):
            for answer in answers:
                self.assertEqual(answer["text"], text[:text.index(stop)])
                self.assertEqual((answer["finish_reason"], answer["stop_reason"]), ("stop", stop))


if __name__ == "__main__":
    harness.main()
