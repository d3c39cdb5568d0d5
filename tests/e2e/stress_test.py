# SPDX-License-Identifier: Apache-2.0
"""64 clients at once for --seconds: good requests, cancels, slow readers, over-long prompts and malformed bodies in the mix."""

import collections
import json
import random
import socket
import threading
import time
import unittest

import httpx

import harness

CLIENTS = 64
PROMPT = "The quick brown fox jumps over the lazy dog and "


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


class StressTest(unittest.TestCase):
    def setUp(self):
        self.server = harness.Server()
        self.expected = {n: self.ask(n).json()["choices"][0]["token_ids"] for n in range(1, 13)}
        self.outcomes, self.failures, self.lock = collections.Counter(), [], threading.Lock()

    def tearDown(self):
        self.server.__exit__()

    def body(self, n, **fields):
        return {"prompt": PROMPT * n, "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True, **fields}

    def ask(self, n):
        return self.server.post("/v1/completions", self.body(n))

    def good(self, client, rng):
        n = rng.randint(1, 12)
        answer = client.post("/v1/completions", json=self.body(n))
        if answer.status_code == 200:
            assert answer.json()["choices"][0]["token_ids"] == self.expected[n], "another answer under load"
            return "good"
        assert answer.status_code == 429 and "retry-after" in answer.headers, answer.text
        return "refused"

    def cancelled(self, client, rng):
        with client.stream("POST", "/v1/completions", json=self.body(rng.randint(1, 12), stream=True, max_tokens=500)) as answer:
            events = harness.sse(answer)
            for _ in range(rng.randint(0, 5)):
                next(events, None)
        return "cancelled"

    def slow_reader(self, client, rng):
        host, port = self.server.ready["http"].rsplit(":", 1)
        body = json.dumps(self.body(2, stream=True, max_tokens=30)).encode()
        with socket.create_connection((host, int(port)), timeout=120) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            received = b""
            while data := s.recv(rng.randint(1, 64)):
                received += data
        assert b"[DONE]" in received or b" 429 " in received[:20], received[-200:]
        return "slow reader"

    def too_long(self, client, rng):
        answer = client.post("/v1/completions", json=self.body(1, prompt=[1] * rng.randint(8200, 20000)))
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded", answer.text
        return "too long"

    def malformed(self, client, rng):
        content = rng.choice([b"{", b"\xff" * 50, b'{"prompt": 3}', b'{"prompt": "x", "n": 1000}', b"[" * 5000])
        answer = client.post("/v1/completions", content=content)
        assert answer.status_code == 400 and "error" in answer.json(), answer.text
        return "malformed"

    def garbage(self, client, rng):
        host, port = self.server.ready["http"].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as s:
            s.sendall(rng.randbytes(rng.randint(1, 300)) + b"\r\n\r\n")
            if rng.random() < 0.5:
                answer = s.recv(100)
                assert answer[:12] in (b"HTTP/1.1 400", b""), answer
        return "garbage"

    def one_client(self, seed, deadline):
        rng = random.Random(seed)
        kinds = [self.good] * 5 + [self.cancelled] * 2 + [self.slow_reader, self.too_long, self.malformed, self.garbage]
        client = self.server.client()
        while time.monotonic() < deadline:
            kind = rng.choice(kinds)
            try:
                outcome = kind(client, rng)
            except (AssertionError, OSError, httpx.HTTPError) as error:
                with self.lock:
                    self.failures.append(f"{kind.__name__}: {error!r}")
                return
            with self.lock:
                self.outcomes[outcome] += 1
        client.close()

    def round(self, first_seed, seconds):
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self.one_client, args=(first_seed + i, deadline)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.failures, [], self.server.log[-2000:])
        self.server.wait_until_idle(30)

    def test_mix(self):
        self.round(0, harness.SECONDS / 3)
        after_warm_up = resident_bytes(self.server.process.pid)
        self.round(1000, harness.SECONDS * 2 / 3)
        grown = resident_bytes(self.server.process.pid) - after_warm_up
        print(dict(self.outcomes), f"memory grew by {grown / 2**20:.1f} MiB")
        self.assertEqual(len(self.outcomes.keys() - {"refused"}), 6)
        # Allocators keep some of a peak; a leak of one request's state would be far above this.
        self.assertLess(grown, 64 << 20)
        self.assertEqual(self.ask(3).json()["choices"][0]["token_ids"], self.expected[3])
        self.assertEqual(self.server.terminate(), 0, self.server.log[-3000:])


if __name__ == "__main__":
    harness.main()
