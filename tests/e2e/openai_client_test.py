# SPDX-License-Identifier: Apache-2.0
"""OpenAI's own Python client against the real server."""

import unittest

import openai

import harness

MODEL = "org/tiny model:v1"  # names are escaped in paths
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


class OpenAiClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--served-model-name", MODEL)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def chat(self, **kwargs):
        return self.client.chat.completions.create(model=MODEL, messages=QUESTION, **{"temperature": 0, "max_tokens": 16, **kwargs})

    def complete(self, prompt, **kwargs):
        return self.client.completions.create(model=MODEL, prompt=prompt, **{"temperature": 0, "max_tokens": 8, **kwargs})

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual([m.id for m in models], [MODEL])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_chat(self):
        answer = self.chat()
        choice = answer.choices[0]
        self.assertEqual(choice.message.content, "The capital of France is Paris.")
        self.assertEqual(choice.message.role, "assistant")
        self.assertEqual(choice.finish_reason, "stop")
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.usage.prompt_tokens, 37)
        self.assertEqual(answer.usage.completion_tokens, 8)
        self.assertEqual(answer.usage.total_tokens, 45)

    def test_chat_stream_equals_chat(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(len({c.id for c in chunks}), 1)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, "The capital of France is Paris.")
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop")
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, 8)
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_content_parts_and_developer_role(self):
        parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]
        answer = self.client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=4)
        self.assertGreater(len(answer.choices[0].message.content), 0)
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(model=MODEL, messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}])

    def test_chat_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=5).choices[0].logprobs.content
        self.assertEqual("".join(t.token for t in content[:-1]), "The capital of France is Paris.")
        for entry in content:
            self.assertEqual(len(entry.top_logprobs), 5)
            self.assertEqual(entry.top_logprobs[0].logprob, entry.logprob)  # greedy: the best is the chosen one
            self.assertEqual(sorted((t.logprob for t in entry.top_logprobs), reverse=True),
                             [t.logprob for t in entry.top_logprobs])
            self.assertEqual(bytes(entry.bytes).decode("utf-8"), entry.token)

    def test_chat_logprobs_stream(self):
        chunks = list(self.chat(stream=True, logprobs=True, top_logprobs=2))
        streamed = [t for c in chunks if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content]
        whole = self.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        self.assertEqual([(t.token, t.logprob) for t in streamed], [(t.token, t.logprob) for t in whole])

    def test_completion_forms(self):
        by_text = self.complete("The sky is").choices[0].text
        ids = self.server.post("/tokenize", {"prompt": "The sky is"}).json()["tokens"]
        self.assertEqual(self.complete(ids).choices[0].text, by_text)
        several = self.complete(["The sky is", "Water is"], n=2)
        self.assertEqual([c.index for c in several.choices], [0, 1, 2, 3])
        self.assertEqual([c.text for c in several.choices[:2]], [by_text, by_text])
        lists = self.complete([ids, ids])
        self.assertEqual([c.text for c in lists.choices], [by_text, by_text])

    def test_completion_default_is_16_tokens(self):
        answer = self.client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0)
        self.assertEqual(answer.usage.completion_tokens, 16)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_echo_and_legacy_logprobs(self):
        answer = self.complete("The sky is", echo=True, logprobs=2, max_tokens=3)
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith("The sky is"))
        lp = choice.logprobs
        self.assertEqual("".join(lp.tokens), choice.text)
        self.assertIsNone(lp.token_logprobs[0])
        self.assertEqual(lp.text_offset, [sum(len(t) for t in lp.tokens[:i]) for i in range(len(lp.tokens))])
        self.assertTrue(all(len(top) in (2, 3) for top in lp.top_logprobs[1:]))

    def test_prompt_scoring(self):
        choice = self.complete("The sky is blue", echo=True, logprobs=0, max_tokens=0).choices[0]
        self.assertEqual(choice.text, "The sky is blue")
        self.assertEqual(choice.finish_reason, "length")
        self.assertTrue(all(lp < 0 for lp in choice.logprobs.token_logprobs[1:]))

    def test_extensions(self):
        answer = self.complete("The sky is", max_tokens=4, extra_body={
            "return_token_ids": True, "prompt_logprobs": 3, "ignore_eos": True, "top_k": 5, "min_p": 0.1})
        choice = answer.choices[0].model_dump()
        self.assertEqual(len(choice["token_ids"]), 4)
        self.assertEqual(len(choice["prompt_logprobs"]), len(choice["prompt_token_ids"]))
        self.assertIsNone(choice["prompt_logprobs"][0])
        for token, entry in zip(choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:]):
            self.assertIn(str(token), entry)
            self.assertIn(len(entry), (3, 4))
            self.assertEqual(set(entry[str(token)]), {"logprob", "rank", "decoded_token"})

    def test_tokens_as_ids(self):
        choice = self.complete("The sky is", logprobs=1, extra_body={"return_tokens_as_token_ids": True,
                                                                     "return_token_ids": True}).choices[0]
        self.assertEqual(choice.logprobs.tokens, [f"token_id:{t}" for t in choice.model_dump()["token_ids"]])

    def test_seed_repeats_and_choices_differ(self):
        draw = lambda seed, n=1: [c.message.content for c in self.chat(temperature=1.5, seed=seed, n=n).choices]
        self.assertEqual(draw(7), draw(7))
        several = draw(7, n=4)
        self.assertEqual(several[0], draw(7)[0])
        self.assertEqual(several[1], draw(8)[0])
        self.assertGreater(len(set(several)), 1)

    def test_stop_strings(self):
        answer = self.chat(stop=["France", "zzz"])
        self.assertEqual(answer.choices[0].message.content, "The capital of ")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        streamed = "".join(c.choices[0].delta.content or "" for c in self.chat(stop=" is Par", stream=True) if c.choices)
        self.assertEqual(streamed, "The capital of France")

    def test_errors(self):
        for kwargs, param in [({"temperature": 3}, "temperature"), ({"top_p": 0}, "top_p"), ({"n": 129}, "n"),
                              ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 9000}, "max_tokens"),
                              ({"stop": [str(i) for i in range(17)]}, "stop"),
                              ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"), ({"max_completion_tokens": -7}, "max_completion_tokens"),
                              ({"logit_bias": {"99999999": 1}}, "logit_bias"), ({"presence_penalty": 5}, "presence_penalty")]:
            with self.assertRaises(openai.BadRequestError, msg=kwargs) as caught:
                self.chat(**kwargs)
            self.assertEqual(caught.exception.param, param)
            self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="other", messages=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_logit_bias_bans_and_forces(self):
        free = self.complete("The sky is", max_tokens=1, extra_body={"return_token_ids": True}).choices[0].model_dump()["token_ids"][0]
        banned = self.complete("The sky is", max_tokens=1, logit_bias={str(free): -100}, extra_body={"return_token_ids": True})
        self.assertNotEqual(banned.choices[0].model_dump()["token_ids"][0], free)
        forced = self.complete("The sky is", max_tokens=3, logit_bias={"100": 100}, extra_body={"return_token_ids": True})
        self.assertEqual(forced.choices[0].model_dump()["token_ids"], [100, 100, 100])

    def test_cancellation_frees_the_sequence(self):
        stream = self.chat(stream=True, max_tokens=4000, temperature=1, extra_body={"ignore_eos": True})
        next(iter(stream))
        self.assertGreater(self.server.kv_used(), 0)
        stream.close()
        self.assertLess(self.server.wait_until_idle(), 1.0)

    def test_cached_tokens_are_reported(self):
        prompt = "The prefix cache finds whole blocks of tokens that an earlier request has computed already, and " * 2
        self.complete(prompt)
        self.assertGreaterEqual(self.complete(prompt).usage.prompt_tokens_details.cached_tokens, 16)


if __name__ == "__main__":
    harness.main()
