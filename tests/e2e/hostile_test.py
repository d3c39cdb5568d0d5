# SPDX-License-Identifier: Apache-2.0
"""Bad requests and bad clients get a clear answer, and disturb nobody."""

import concurrent.futures
import json
import socket
import struct
import subprocess
import tempfile
import unittest

import harness

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def nested(depth):
    return "[" * depth + "]" * depth


class BadRequestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def expect(self, status, path, body, param=None, words=()):
        with self.server.client() as client:
            content = body if isinstance(body, (bytes, str)) else json.dumps(body)
            answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        self.assertEqual(answer.status_code, status, (str(body)[:200], answer.text))
        error = answer.json()["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        if param is not None:
            self.assertEqual(error["param"], param, error)
        for word in words:
            self.assertIn(word, error["message"])
        return error

    def tearDown(self):
        answer = self.server.post(CHAT, {"messages": MESSAGES, "temperature": 0, "max_tokens": 16})
        self.assertEqual(answer.json()["choices"][0]["message"]["content"], "The capital of France is Paris.")

    def test_json(self):
        for body in ["", "{", "{}}", "nul", '{"a":1', b"\xff\xfe", b'{"prompt":"\xff"}', "[" * 100000, nested(100), "1e999999"]:
            self.expect(400, COMPLETE, body)
        for body in ["[]", "1", '"x"', "null"]:
            self.expect(400, COMPLETE, body, words=["object"])

    def test_too_large(self):
        with self.server.client() as client:
            answer = client.post(COMPLETE, content=b" " * (33 << 20))
        self.assertEqual(answer.status_code, 413)
        self.assertIn("error", answer.json())

    def test_wrong_types(self):
        for field, value in [("temperature", "hot"), ("max_tokens", 1.5), ("max_tokens", "ten"), ("stream", 1), ("n", None.__class__.__name__),
                             ("stop", 3), ("stop", [1]), ("logit_bias", []), ("logit_bias", {"a": 1}), ("seed", 1.5), ("top_k", 2**40),
                             ("logprobs", "x"), ("echo", "yes"), ("model", 3), ("priority", "high"), ("stop_token_ids", ["x"])]:
            self.expect(400, COMPLETE, {"prompt": "x", field: value}, param=field)

    def test_out_of_range(self):
        for field, value in [("temperature", -0.1), ("temperature", 2.1), ("top_p", 0), ("top_p", 1.01), ("min_p", -1), ("min_p", 2),
                             ("top_k", -2), ("repetition_penalty", 0), ("presence_penalty", 2.5), ("frequency_penalty", -3), ("n", 0),
                             ("n", 129), ("max_tokens", -1), ("logprobs", 21), ("logprobs", -1), ("prompt_logprobs", 21), ("min_tokens", 99),
                             ("stop", ["s"] * 17), ("stop_token_ids", [10**6]), ("logit_bias", {"1": 101}), ("logit_bias", {"10000000": 1})]:
            self.expect(400, COMPLETE, {"prompt": "x", field: value}, param=field)
        for text in ["NaN", "Infinity", "1e400"]:
            self.expect(400, COMPLETE, '{"prompt":"x","temperature":' + text + "}")

    def test_prompts(self):
        self.expect(400, COMPLETE, {}, param="prompt")
        for prompt in ["", [], [""], [[]], {}, 3, [1.5], ["a", 1], [True], [-1], [49152], [[10**12]]]:
            self.expect(400, COMPLETE, {"prompt": prompt}, param="prompt")

    def test_messages(self):
        self.expect(400, CHAT, {}, param="messages")
        for messages in [[], "hi", [1], [{}], [{"role": "user"}], [{"role": 1, "content": "x"}], [{"role": "", "content": "x"}],
                         [{"role": "user", "content": 1}], [{"role": "user", "content": [{"type": "video"}]}]]:
            self.expect(400, CHAT, {"messages": messages})

    def test_context_length(self):
        error = self.expect(400, COMPLETE, {"prompt": [1] * 9000}, param="prompt", words=["9000", "8192"])
        self.assertEqual(error["code"], "context_length_exceeded")
        error = self.expect(400, COMPLETE, {"prompt": [1] * 8000, "max_tokens": 193}, param="max_tokens", words=["8000", "193", "8192"])
        self.assertEqual(error["code"], "context_length_exceeded")
        self.expect(400, COMPLETE, {"prompt": [1] * 8192}, words=["8192"])
        self.expect(400, COMPLETE, {"prompt": [1] * 100000}, param="prompt", words=["100000", "8192"])
        self.expect(400, COMPLETE, {"prompt": "ab" * 10**7}, param="prompt", words=["20000000 bytes", "at least", "8192"])
        self.expect(400, CHAT, {"messages": [{"role": "user", "content": "word " * 10**6}]}, param="messages", words=["8192"])
        self.expect(400, COMPLETE, {"prompt": "\u00ad" * 10**6}, param="prompt", words=["8192"])
        self.expect(400, CHAT, {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9000},
                    param="max_completion_tokens", words=["9000", "8192"])

    def test_more_choices_than_the_server_holds(self):
        self.expect(400, COMPLETE, {"prompt": ["x"] * 600, "max_tokens": 1}, param="prompt", words=["600", "576"])
        self.expect(400, COMPLETE, {"prompt": ["x"] * 5, "n": 128, "max_tokens": 1}, param="prompt", words=["640", "576"])

    def test_unknown_things(self):
        self.assertEqual(self.expect(404, COMPLETE, {"prompt": "x", "model": "nobody"})["code"], "model_not_found")
        self.expect(404, "/v1/nothing", {})
        with self.server.client() as client:
            answer = client.get(COMPLETE)
            self.assertEqual(answer.status_code, 405)
            self.assertEqual(answer.headers["allow"], "POST")
            self.assertEqual(client.get("/v1/models/nobody").status_code, 404)

    def test_unsupported_is_refused_by_name(self):
        for field, value in [("response_format", {"type": "json_object"}), ("suffix", "x"), ("guided_json", {"type": "object"}), ("best_of", 3)]:
            self.expect(400, COMPLETE, {"prompt": "x", field: value}, param=field, words=[field])

    def test_stream_options_without_stream(self):
        self.expect(400, COMPLETE, {"prompt": "x", "stream_options": {"include_usage": True}}, param="stream_options")

    def test_hostile_text(self):
        for prompt in ["\x00", "\ufffd" * 100, "a" * 4000, " " * 3000, "\u202e", "<|im_start|>" * 50, "\U0001f468\u200d" * 200]:
            answer = self.server.post(COMPLETE, {"prompt": prompt, "max_tokens": 2})
            self.assertEqual(answer.status_code, 200, answer.text)


class BadClientTest(unittest.TestCase):
    def connect(self, server):
        host, port = server.ready["http"].rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=30)

    def start_stream(self, server, **fields):
        body = json.dumps({"prompt": "Once", "stream": True, "ignore_eos": True, "max_tokens": 4000, **fields}).encode()
        s = self.connect(server)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return s

    def test_disconnects_cancel_within_a_second(self):
        with harness.Server() as server:
            for reset in (False, True):
                s = self.start_stream(server)
                self.assertIn(b"200 OK", s.recv(100))
                if reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
                self.assertLess(server.wait_until_idle(), 1.0)
            # Not streaming: nobody reads yet, and still the leaving is noticed.
            body = json.dumps({"prompt": "Once", "ignore_eos": True, "max_tokens": 4000}).encode()
            s = self.connect(server)
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while server.kv_used() == 0:
                pass
            s.close()
            self.assertLess(server.wait_until_idle(), 1.0)

    def test_slow_clients_do_not_slow_others(self):
        with harness.Server() as server:
            readers = [self.start_stream(server, max_tokens=200) for _ in range(4)]   # they never read
            writers = [self.connect(server) for _ in range(4)]
            for w in writers:
                w.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Le")              # they never finish
            answer = server.post(CHAT, {"messages": MESSAGES, "temperature": 0, "max_tokens": 16})
            self.assertEqual(answer.json()["choices"][0]["message"]["content"], "The capital of France is Paris.")
            server.wait_until_idle(60)
            for s in readers + writers:
                s.close()

    def test_full_queue(self):
        with harness.Server("--max-queue", "2", "--max-num-seqs", "1") as server:
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda _: server.post(COMPLETE, {"prompt": "Once", "max_tokens": 100, "ignore_eos": True}), range(12)))
            statuses = [a.status_code for a in answers]
            self.assertEqual(set(statuses), {200, 429})
            for answer in answers:
                if answer.status_code == 429:
                    self.assertIn("retry-after", answer.headers)
                    self.assertEqual(answer.json()["error"]["type"], "rate_limit_error")
                else:
                    self.assertEqual(answer.json()["usage"]["completion_tokens"], 100)
            server.wait_until_idle()

    def test_connection_limit(self):
        with harness.Server("--max-connections", "4") as server:
            open_sockets = [self.connect(server) for _ in range(4)]
            with self.connect(server) as extra:
                self.assertIn(extra.recv(100)[:12], (b"HTTP/1.1 503", b""))
            for s in open_sockets:
                s.close()


    def ask_raw(self, server, data):
        with self.connect(server) as s:
            s.sendall(data)
            received = b""
            while part := s.recv(65536):
                received += part
            return received

    def test_too_many_choices_make_no_room(self):
        with harness.Server() as server:
            for n in (2**31 - 1, 50_000_000, 0, -1):
                answer = server.post(COMPLETE, {"prompt": [1], "max_tokens": 1, "n": n})
                self.assertEqual((answer.status_code, answer.json()["error"]["param"]), (400, "n"))
            self.assertEqual(server.get("/ready").status_code, 200)

    def test_pipelined_requests_are_answered_once_each(self):
        with harness.Server() as server, self.connect(server) as s:
            body = json.dumps({"prompt": "Once", "max_tokens": 20, "ignore_eos": True}).encode()
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while server.kv_used() == 0:
                pass
            for name in (b"AAAA", b"BBBB", b"CCCC"):
                s.sendall(b"GET /v1/models/" + name + b" HTTP/1.1\r\n\r\n")
            received = b""
            while received.count(b"HTTP/1.1 ") < 4 or not received.endswith(b"}"):
                received += s.recv(65536)
            self.assertEqual([received.count(b"'" + n + b"'") for n in (b"AAAA", b"BBBB", b"CCCC")], [1, 1, 1])
            self.assertEqual(received.count(b"HTTP/1.1 200"), 1)

    def test_framing_cannot_hide_a_request(self):
        with harness.Server() as server:
            for field in (b"chunked, identity", b"xchunked", b"identity"):
                received = self.ask_raw(server, b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: " + field +
                                        b"\r\n\r\nGET /version HTTP/1.1\r\n\r\n")
                self.assertTrue(received.startswith(b"HTTP/1.1 400"), received)
                self.assertEqual(received.count(b"HTTP/1.1 "), 1)

    def test_public_paths_take_no_bodies(self):
        with harness.Server() as server:
            received = self.ask_raw(server, b"POST /health HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n")
            self.assertTrue(received.startswith(b"HTTP/1.1 413"), received)

    def test_a_request_id_makes_no_headers(self):
        with harness.Server() as server:
            answer = server.post(COMPLETE, {"prompt": "x", "max_tokens": 1, "request_id": "a\r\nSet-Cookie: evil=1"})
            self.assertEqual((answer.status_code, answer.json()["error"]["param"]), (400, "request_id"))
            self.assertNotIn("set-cookie", answer.headers)

    def test_many_keys_are_refused(self):
        with harness.Server() as server:
            keys = {str(i): 1 for i in range(300_000)}
            for body in ({"prompt": "x", "logit_bias": keys}, {"messages": [{"role": "user", "content": "x", **keys}]}):
                answer = server.post(COMPLETE if "prompt" in body else CHAT, body)
                self.assertEqual(answer.status_code, 400)


class BadStartTest(unittest.TestCase):
    """The program refuses with one line and the right exit code."""

    def expect(self, code, *args, words=()):
        result = harness.run(*args)
        self.assertEqual(result.returncode, code, (args, result.stderr))
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(errors), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_usage(self):
        for args in [["serve"], ["serve", "--model"], ["nothing"], ["serve", "--model", "x", "--no-such-flag"],
                     ["serve", "--model", harness.MODEL, "--numerics", "float64"], ["serve", "--model", harness.MODEL, "--max-queue", "-1"],
                     ["serve", "--model", harness.MODEL, "--http", "nowhere"]]:
            self.assertEqual(harness.run(*args).returncode, 2, args)

    def test_open_address_needs_keys(self):
        self.expect(2, "serve", "--model", harness.MODEL, "--http", "0.0.0.0:0", "--grpc", "127.0.0.1:0", words=["--allow-anonymous"])
        self.expect(2, "serve", "--model", harness.MODEL, "--grpc", "0.0.0.0:0", "--http", "127.0.0.1:0", words=["--allow-anonymous"])

    def test_models(self):
        self.expect(1, "serve", "--model", "/no/such/model", words=["/no/such/model"])
        with open(harness.MODEL, "rb") as f:
            start = f.read(1 << 20)
        for content in [b"", b"GGUF", start, b"GGUF" + b"\xff" * 100, b"not a model at all"]:
            with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
                f.write(content)
                f.flush()
                self.expect(1, "serve", "--model", f.name, words=[f.name])

    def test_address_in_use(self):
        with harness.Server() as server:
            self.expect(1, "serve", "--model", harness.MODEL, "--http", server.ready["http"], "--grpc", "127.0.0.1:0",
                        words=[server.ready["http"].rsplit(":", 1)[1]])


if __name__ == "__main__":
    harness.main()
