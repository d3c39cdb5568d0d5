# SPDX-License-Identifier: Apache-2.0
"""Embedding models behind the real server, asked by OpenAI's client, over gRPC and by hand, against transformers' vectors."""

import base64
import concurrent.futures
import json
import math
import os
import shutil
import socket
import struct
import tempfile
import unittest

import grpc
import openai

import harness
from grpc_client_test import Client

PAD, FIRST, LAST = 256, 257, 258  # [PAD], [CLS] and [SEP] of the tokenizer that write_tokenizer makes


def golden(name):
    """The ids and vectors of a model of tests/golden/models."""
    folder = harness.golden("models", name)
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as f:
        sequences = json.load(f)["sequences"]
    with open(os.path.join(folder, "golden.f32"), "rb") as f:
        data = f.read()
    values = struct.unpack(f"<{len(data) // 4}f", data)
    vector = lambda entry: list(values[entry["offset"]:entry["offset"] + entry["shape"][0]])
    return [({key: vector(entry) for key, entry in s.items() if key != "ids" and len(entry["shape"]) == 1}, s["ids"]) for s in sequences]


def write_tokenizer(path):
    """A byte-level tokenizer without merges, which frames texts with [CLS] and [SEP] and asks for padding and truncation."""
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    spelling = {b: chr(b) for b in visible}
    for i, b in enumerate(b for b in range(256) if b not in spelling):
        spelling[b] = chr(256 + i)
    added = [{"id": i, "content": t, "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
             for i, t in ((PAD, "[PAD]"), (FIRST, "[CLS]"), (LAST, "[SEP]"))]
    special = lambda t, i: {t: {"id": t, "ids": [i], "tokens": [t]}}
    pair = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    tokenizer = {
        "version": "1.0", "added_tokens": added, "normalizer": None,
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": PAD, "pad_type_id": 0,
                    "pad_token": "[PAD]"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "TemplateProcessing", "single": pair, "pair": pair,
                           "special_tokens": {**special("[CLS]", FIRST), **special("[SEP]", LAST)}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": {spelling[b]: b for b in range(256)}, "merges": []},
    }
    with open(path, "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


class EmbeddingsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        tokenizer = os.path.join(cls.folder.name, "tokenizer.json")
        write_tokenizer(tokenizer)
        cls.server = harness.Server("--numerics", "float32", "--tokenizer", tokenizer, model=harness.golden("models", "bert"))
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)
        cls.golden = golden("bert")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.folder.cleanup()

    def embed(self, texts, **kwargs):
        return self.client.embeddings.create(model="bert", input=texts, **kwargs)

    def vectors(self, texts, **kwargs):
        return [entry.embedding for entry in self.embed(texts, **kwargs).data]

    def near(self, got, want, tolerance=1e-5):
        self.assertEqual(len(got), len(want))
        self.assertLess(max(abs(a - b) for a, b in zip(got, want)), tolerance)

    def test_openai_client(self):
        ids = [ids for _, ids in self.golden]
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):  # the client's default is base64
            answer = self.embed(ids, **options)
            self.assertEqual([entry.index for entry in answer.data], [0, 1, 2])
            self.assertEqual(answer.usage.prompt_tokens, sum(map(len, ids)))
            self.assertEqual(answer.usage.total_tokens, sum(map(len, ids)))
            self.assertEqual(answer.model, "bert")
            for entry, (want, _) in zip(answer.data, self.golden):
                vector = entry.embedding
                if isinstance(vector, str):
                    vector = struct.unpack("<64f", base64.b64decode(vector))
                self.near(vector, want["mean_normalized"])

    def test_both_formats_are_the_same_floats(self):
        self.assertEqual(self.vectors("some text"), [list(struct.unpack("<64f", struct.pack("<64f", *v)))
                                                     for v in self.vectors("some text", encoding_format="float")])

    def test_a_decoder_that_embeds(self):
        with harness.Server("--numerics", "float32", "--skip-tokenizer", model=harness.golden("models", "qwen3-embedding")) as server:
            self.assertEqual(server.ready["task"], "embed")
            cases = golden("qwen3-embedding")
            answer = server.post("/v1/embeddings", {"input": [ids for _, ids in cases]}).json()
            for entry, (want, _) in zip(answer["data"], cases):
                self.near(entry["embedding"], want["last_normalized"])

    def test_texts_are_framed_and_not_padded_or_cut(self):
        for text in ("a", "hello", "A longer text than the five tokens of tokenizer.json."):
            ids = [FIRST, *text.encode(), LAST]
            self.assertEqual(self.server.post("/tokenize", {"prompt": text}).json()["tokens"], ids)
            answer = self.embed(text)
            self.assertEqual(answer.usage.prompt_tokens, len(ids))
            self.assertEqual(answer.data[0].embedding, self.vectors([ids])[0])

    def test_special_tokens(self):
        plain = lambda **options: self.vectors("a[SEP]", extra_body=options)[0]
        self.assertEqual(plain(), self.vectors([FIRST, 97, LAST, LAST])[0])
        self.assertEqual(plain(parse_special=False), self.vectors([FIRST, *b"a[SEP]", LAST])[0])
        self.assertEqual(plain(add_special_tokens=False), self.vectors([97, LAST])[0])

    def test_length_limit_and_truncation(self):
        text = "x" * 200
        with self.assertRaises(openai.BadRequestError) as caught:
            self.embed(["a", text])
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        for part in ("input[1]", "202", "128"):
            self.assertIn(part, caught.exception.body["message"])
        self.assertEqual(self.vectors(text, extra_body={"truncate_prompt_tokens": -1})[0], self.vectors([FIRST, *text[:126].encode(), LAST])[0])
        self.assertEqual(self.vectors("abcdef", extra_body={"truncate_prompt_tokens": 4})[0], self.vectors([FIRST, *b"ab", LAST])[0])

    def test_dimensions(self):
        whole, cut = self.vectors("matryoshka")[0], self.vectors("matryoshka", dimensions=10)[0]
        self.near(cut, [x / length(whole[:10]) for x in whole[:10]], 1e-6)
        self.assertEqual(self.vectors("matryoshka", dimensions=64)[0], whole)
        plain = self.vectors("matryoshka", extra_body={"normalize": False})[0]
        self.assertGreater(abs(length(plain) - 1), 0.1)
        self.near([x / length(plain) for x in plain], whole, 1e-6)

    def test_bad_requests(self):
        for body, param in (({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": [""]}, "input"),
                            ({"input": [[]]}, "input"), ({"input": 1}, "input"), ({"input": ["a"] * 2049}, "input"),
                            ({"input": [512]}, "input"), ({"input": "a", "dimensions": 65}, "dimensions"),
                            ({"input": "a", "dimensions": 0}, "dimensions"), ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
                            ({"input": "a", "truncate_prompt_tokens": 129}, "truncate_prompt_tokens")):
            answer = self.server.post("/v1/embeddings", body)
            self.assertEqual((answer.status_code, answer.json()["error"]["param"]), (400, param), body)
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="other", input="a")

    def test_bits_depend_on_the_text_alone(self):
        texts = ["".join(chr(97 + (i * j) % 26) for j in range(1 + (i * 37) % 120)) for i in range(60)]
        alone = [self.vectors(text)[0] for text in texts]
        self.assertEqual(self.vectors(texts), alone)
        self.assertEqual(self.vectors(texts[::-1]), alone[::-1])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertEqual(list(pool.map(lambda text: self.vectors(text)[0], texts)), alone)

    def test_small_requests_beside_a_large_one(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            large = pool.submit(self.vectors, ["some words of a longer text " * 4] * 2048)
            small = 0
            while not large.done():
                self.vectors("small")
                small += 1
            self.assertEqual(len(large.result()), 2048)
        self.assertGreater(small, 5)

    def test_a_client_that_leaves_frees_its_place(self):
        body = json.dumps({"input": ["y" * 120] * 2048}).encode()
        running = lambda: self.server.metrics()["fairlead_requests_running"]
        host, port = self.server.ready["http"].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while running() == 0:
                pass
        while self.server.metrics().get('fairlead_requests_finished_total{reason="cancelled"}', 0) == 0:
            pass
        self.assertEqual(running(), 0)

    def test_scores_and_reranking(self):
        vectors = dict(zip("abc", self.vectors(["a", "bb", "ccc"])))
        dot = lambda x, y: sum(p * q for p, q in zip(vectors[x], vectors[y]))
        score = self.server.post("/v1/score", {"text_1": "a", "text_2": ["bb", "ccc"]}).json()
        self.assertEqual([entry["index"] for entry in score["data"]], [0, 1])
        self.near([entry["score"] for entry in score["data"]], [dot("a", "b"), dot("a", "c")], 1e-6)
        rerank = self.server.post("/v1/rerank", {"query": "a", "documents": ["bb", "ccc", "a"], "top_n": 1}).json()
        self.assertEqual(len(rerank["results"]), 1)
        self.assertEqual(rerank["results"][0]["document"], {"text": "a"})
        self.assertAlmostEqual(rerank["results"][0]["relevance_score"], 1, 6)

    def test_grpc(self):
        with grpc.insecure_channel(self.server.grpc) as channel:
            client = Client(channel)
            request = client.message("EmbedRequest")()
            request.inputs.add(text="hello")
            for _, ids in self.golden:
                request.inputs.add().tokens.ids.extend(ids)
            answer = client.call("Embed", request)
            self.assertEqual([list(e.values) for e in answer.embeddings],
                             self.vectors("hello") + self.vectors([ids for _, ids in self.golden]))
            self.assertEqual(answer.prompt_tokens, 7 + sum(len(ids) for _, ids in self.golden))
            request.dimensions = 1000
            with self.assertRaises(grpc.RpcError) as caught:
                client.call("Embed", request)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            generate = client.message("GenerateRequest")(prompt="x")
            with self.assertRaises(grpc.RpcError) as caught:
                client.call("GenerateOnce", generate)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)

    def test_what_it_says_of_itself(self):
        self.assertEqual(self.server.ready["task"], "embed")
        model = self.server.get("/v1/models").json()["data"][0]
        self.assertEqual((model["id"], model["task"], model["max_model_len"]), ("bert", "embed", 128))
        self.assertEqual(self.server.get("/config").json()["task"], "embed")
        self.assertEqual(self.server.get("/ready").status_code, 200)
        before = self.server.metrics()["fairlead_embedding_texts_total"]
        self.embed(["a", "b"])
        self.assertEqual(self.server.metrics()["fairlead_embedding_texts_total"], before + 2)
        answer = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (400, "wrong_task"))
        self.assertIn("makes embeddings", answer.json()["error"]["message"])

    def test_a_drain_finishes_what_runs(self):
        with harness.Server("--skip-tokenizer", model=harness.golden("models", "bert")) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.post, "/v1/embeddings", {"input": [[5] * 128] * 1000})
                while server.metrics()["fairlead_requests_running"] == 0 and not answer.done():
                    pass
                self.assertEqual(server.terminate(), 0)
                self.assertEqual(len(answer.result().json()["data"]), 1000)

    def test_which_models_embed(self):
        refused = harness.run("serve", "--model", harness.golden("models", "bert"), "--skip-tokenizer", "--task", "generate")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is an encoder", refused.stderr)
        refused = harness.run("generate", "--model", harness.golden("models", "bert"), "--prompt-tokens", "1")
        self.assertIn("is an encoder", refused.stderr)
        generator = harness.golden("models", "qwen3-embedding")
        with harness.Server("--skip-tokenizer", "--task", "generate", model=generator) as server:
            answer = server.post("/v1/completions", {"prompt": [1, 2], "max_tokens": 2})
            self.assertEqual(answer.status_code, 200, answer.text)
            answer = server.post("/v1/embeddings", {"input": [1]})
            self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (400, "wrong_task"))
        with harness.Server("--skip-tokenizer", "--task", "embed", "--speculation", "ngram", model=harness.golden("models", "qwen3")) as server:
            self.assertIn("the last token is taken, normalized", server.log)
            self.assertIn("--speculation changes nothing for embeddings", server.log)
            self.assertNotIn("--max-logprobs changes", server.log)
            answer = server.post("/v1/embeddings", {"input": [1, 2, 3]}).json()
            self.assertAlmostEqual(length(answer["data"][0]["embedding"]), 1, 5)

    def test_files_of_sentence_transformers(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(harness.golden("models", "bert"), folder, dirs_exist_ok=True)
            write_tokenizer(os.path.join(folder, "tokenizer.json"))
            for name, content in (("sentence_bert_config", {"do_lower_case": True}), ("tokenizer_config", {"model_max_length": 40}),
                                  ("config_sentence_transformers", {"prompts": {"query": "query: "}, "default_prompt_name": "query"})):
                with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
                    json.dump(content, f)
            with harness.Server("--numerics", "float32", model=folder) as server:
                self.assertIn('default prompt "query" is not put before texts', server.log)
                vector = lambda text: server.post("/v1/embeddings", {"input": text}).json()["data"][0]["embedding"]
                self.assertEqual(vector("Hello World"), self.vectors("hello world", encoding_format="float")[0])
                self.assertEqual(vector([FIRST, *b"Hello", LAST]), self.vectors("Hello", encoding_format="float")[0])
                answer = server.post("/v1/embeddings", {"input": "x" * 39})
                self.assertEqual(answer.status_code, 400)
                self.assertIn("the model takes 40", answer.json()["error"]["message"])

    def test_inspect(self):
        report = json.loads(harness.run("inspect", "--model", harness.golden("models", "bert"), "--json").stdout)
        self.assertTrue(report["supported"])
        self.assertEqual(report["pooling"], {"mode": "mean", "normalize": True, "max_tokens": None})
        self.assertEqual(report["shape"]["hidden"], 64)


if __name__ == "__main__":
    harness.main()
