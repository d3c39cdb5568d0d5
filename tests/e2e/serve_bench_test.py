# SPDX-License-Identifier: Apache-2.0
"""serve_bench against the real server, and against a fake one that misbehaves. Counts, consistency and exit codes; no timing."""

import contextlib
import http.server
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
import unittest

import harness



def bench(*args, timeout=120):
    """(exit code, its JSON lines, stdout, stderr)"""
    with tempfile.TemporaryDirectory() as folder:
        lines = os.path.join(folder, "out.jsonl")
        done = subprocess.run([harness.SERVE_BENCH, *args, "--json", lines, "--json-requests"], capture_output=True, text=True,
                              timeout=timeout, check=False)
        parsed = []
        if os.path.exists(lines):
            with open(lines, encoding="utf-8") as f:
                parsed = [json.loads(line) for line in f]
    return done.returncode, parsed, done.stdout, done.stderr


def of_type(lines, kind):
    return [line for line in lines if line["type"] == kind]


class RealServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "2")
        cls.targets = {"http": ["--http", cls.server.url], "grpc": ["--grpc", cls.server.grpc]}

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def run_bench(self, target, *args):
        code, lines, out, err = bench(*self.targets[target], *args)
        self.assertEqual(code, 0, out + err)
        return lines, out

    def check_request(self, request):
        events = request["token_events_ms"]
        self.assertEqual(sorted(events), events)
        self.assertGreaterEqual(events[0], 0)
        self.assertLessEqual(events[-1], request["ended_ms"])
        self.assertAlmostEqual(request["ttft_ms"], events[0], places=6)
        self.assertAlmostEqual(request["e2el_ms"], events[-1], places=6)
        out = request["completion_tokens"]
        self.assertLessEqual(len(events), out)
        if out > 1:
            self.assertAlmostEqual(request["tpot_ms"], (events[-1] - events[0]) / (out - 1), places=6)
        self.assertAlmostEqual(request["ntpot_ms"], events[-1] / out, places=6)

    def test_counts_and_consistency_over_both_protocols_and_all_inputs(self):
        for seed, (target, kind) in enumerate((t, k) for t in self.targets for k in ("tokens", "text", "chat")):
            with self.subTest(target=target, input=kind):
                lines, out = self.run_bench(target, "--input", kind, "--input-tokens", "20", "--output-tokens", "5", "--concurrency", "3",
                                            "--requests", "7", "--warmup", "2", "--seed", str(seed), "--goodput", "ttft:60000",
                                            "--label", "commit=abc")
                requests, (summary,) = of_type(lines, "request"), of_type(lines, "summary")
                self.assertEqual(sorted(r["id"] for r in requests), list(range(7)))
                for request in requests:
                    self.check_request(request)
                    self.assertEqual(request["completion_tokens"], 5)
                    if kind == "tokens":
                        self.assertEqual(request["prompt_tokens"], 20)
                self.assertEqual(summary["requests"], {"sent": 7, "ok": 7, "cancelled": 0, "failed": 0, "errors": {}})
                self.assertEqual(summary["completion_tokens"], 35)
                self.assertEqual(summary["prompt_tokens"], sum(r["prompt_tokens"] for r in requests))
                self.assertAlmostEqual(summary["output_tokens_per_s"], 35 / summary["duration_s"], places=6)
                self.assertEqual(summary["good_share"], 1)
                self.assertLessEqual(summary["peak_concurrency"], 3)
                self.assertEqual(summary["ttft_ms"]["samples"], 7)
                self.assertEqual(summary["labels"], {"commit": "abc"})
                self.assertEqual(summary["server"]["model"], self.server.name)
                self.assertIn("max_num_seqs", json.dumps(summary["server"]["config"]).replace("-", "_"))
                self.assertIn("7 sent, 7 ok", out)

    def test_the_server_counts_the_same(self):
        before = self.server.metrics()
        lines, _ = self.run_bench("grpc", "--input-tokens", "9", "--output-tokens", "4", "--requests", "5", "--seed", "77")
        after = self.server.metrics()
        (summary,) = of_type(lines, "summary")

        def grown(part):
            return sum(after[k] - before.get(k, 0) for k in after if part in k and "_bucket" not in k and not k.endswith("_created"))
        self.assertEqual(summary["completion_tokens"], 20)
        self.assertEqual(grown("fairlead_generation_tokens_total"), 20)
        self.assertEqual(grown("fairlead_prompt_tokens_total"), 45)

    def test_sessions_meet_the_prefix_cache(self):
        for seed, target in enumerate(self.targets):
            with self.subTest(target=target):
                lines, _ = self.run_bench(target, "--workload", "W7", "--scale", "0.125", "--concurrency", "2", "--requests", "16",
                                          "--seed", str(100 + seed))
                (summary,) = of_type(lines, "summary")
                self.assertEqual(summary["requests"]["ok"], 16)
                turns = {(r["session"], r["turn"]): r for r in of_type(lines, "request")}
                self.assertEqual(set(turns), {(s, t) for s in (0, 1) for t in range(8)})
                for (session, turn), request in turns.items():
                    self.assertEqual(request["prompt_tokens"], 128 + 32 + turn * 48)
                    if turn > 0:  # all of the turn before but the cache's last, partial block
                        last = turns[session, turn - 1]
                        self.assertGreater(request["cached_prompt_tokens"], last["prompt_tokens"] - 32)

    def test_agents_hang_up(self):
        for seed, target in enumerate(self.targets):
            with self.subTest(target=target):
                lines, _ = self.run_bench(target, "--workload", "W8", "--scale", "0.1", "--concurrency", "4", "--requests", "60",
                                          "--seed", str(200 + seed))
                requests = of_type(lines, "summary")[0]["requests"]
                self.assertEqual(requests["ok"] + requests["cancelled"], 60)
                self.assertGreater(requests["cancelled"], 0)
                for request in of_type(lines, "request"):
                    if request["outcome"] == "cancelled":
                        self.assertNotIn("ttft_ms", request)
        self.server.wait_until_idle()

    def test_open_loop_offline_and_other_workloads(self):
        for args, requests in (
            (["--rate", "50", "--burstiness", "0.5", "--requests", "10"], [10]),
            (["--rate", "20,40", "--requests", "6"], [6, 6]),
            (["--rate", "inf", "--requests", "12"], [12]),
            (["--workload", "W6", "--concurrency", "4", "--requests", "8"], [8]),
            (["--workload", "W9", "--input", "chat", "--requests", "2"], [2]),
            (["--range-ratio", "0.5", "--duration", "0.2"], None),
        ):
            with self.subTest(args=args):
                lines, _ = self.run_bench("http", "--scale", "0.05", "--seed", "300", *args)
                sent = [s["requests"]["ok"] for s in of_type(lines, "summary")]
                if requests is None:
                    self.assertGreater(sent[0], 0)
                else:
                    self.assertEqual(sent, requests)

    def test_long_prefill_beside_chats(self):
        lines, out = self.run_bench("grpc", "--workload", "W10", "--scale", "0.02", "--concurrency", "4", "--duration", "6", "--seed", "400")
        (summary,) = of_type(lines, "summary")
        self.assertGreaterEqual(summary["injected"]["requests"]["ok"], 1)
        self.assertEqual(summary["injected"]["prompt_tokens"], 655 * summary["injected"]["requests"]["ok"])
        self.assertEqual(summary["ttft_ms"]["samples"], summary["requests"]["ok"])
        self.assertIn("beside it", out)

    def test_knee(self):
        lines, out = self.run_bench("http", "--scale", "0.05", "--find-knee", "--rate", "4", "--requests", "6", "--knee-points", "2",
                                    "--goodput", "ttft:60000", "e2el:60000", "--seed", "500")
        (knee,) = of_type(lines, "knee")
        self.assertEqual([s["load"]["rate"] for s in of_type(lines, "summary")], [4, 8])
        self.assertEqual((knee["rate"], knee["bounded"]), (8, False))
        self.assertIn("knee: 8.000", out)
        code, lines, _, err = bench("--http", self.server.url, "--scale", "0.05", "--find-knee", "--requests", "2", "--knee-points", "2",
                                    "--goodput", "ttft:0.001")
        self.assertEqual(code, 1)
        self.assertEqual(of_type(lines, "knee")[0]["rate"], None)
        self.assertIn("error: no knee", err)

    def test_prompts_the_server_refuses(self):
        for target, kind in (("http", "http_400"), ("grpc", "grpc_INVALID_ARGUMENT")):
            code, lines, out, err = bench(*self.targets[target], "--vocabulary", "900000:900001", "--requests", "3")
            self.assertEqual(code, 1)
            self.assertEqual(of_type(lines, "summary")[0]["requests"]["errors"], {kind: 3})
            self.assertIn(f"{kind}: 3", out)
            self.assertIn("error: no request was answered", err)
            self.assertRegex(of_type(lines, "request")[0]["error"]["message"], "90000[01]")


    def test_workloads_beyond_the_context(self):
        for target in self.targets.values():
            code, lines, _, err = bench(*target, "--workload", "W5")
            self.assertEqual((code, lines), (1, []))
            self.assertRegex(err, r"^error: W5 needs a context of 22000 tokens, the server has \d+: .*--scale 0\.\d+")


class AccessTest(unittest.TestCase):
    def test_keys(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("# for the test\nsecret-1\n")
            keys.flush()
            with harness.Server("--api-key-file", keys.name) as server:
                for target in (["--http", server.url], ["--grpc", server.grpc]):
                    code, lines, _, err = bench(*target, "--scale", "0.05", "--requests", "2", "--api-key-file", keys.name)
                    self.assertEqual(code, 0, err)
                    self.assertNotIn("secret-1", json.dumps(lines))
                    code, _, _, err = bench(*target, "--scale", "0.05", "--requests", "2")
                    self.assertEqual(code, 1)
                    self.assertRegex(err, r"^error: .*(401|UNAUTHENTICATED)")

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
                            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
                           check=True, capture_output=True)
            with harness.Server("--tls-cert", cert, "--tls-key", key, tls=True) as server:
                for target in (["--http", server.url], ["--grpc", server.grpc, "--grpc-tls"]):
                    code, _, _, err = bench(*target, "--scale", "0.05", "--requests", "2", "--ca-file", cert)
                    self.assertEqual(code, 0, err)
                code, _, _, err = bench("--http", server.url, "--requests", "1")
                self.assertEqual(code, 1)
                self.assertRegex(err, "^error: .*(certificate|SSL)")


class FakeHandler(http.server.BaseHTTPRequestHandler):
    """Answers /v1/models, and completions as server.behaviour says."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = b'{"data": [{"id": "fake"}]}' if self.path == "/v1/models" else b"null"
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append((self.path, body))
        self.server.behaviour(self, body)

    def start_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def write(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def refuse(self, status, message):
        body = json.dumps({"error": {"message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def event(value):
    return f"data: {json.dumps(value)}\r\n\r\n"


TOKEN = event({"choices": [{"text": "a", "index": 0}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 6}})


def whole(handler, _):
    """Six tokens in two events, cut into chunks of three bytes, with comments between."""
    handler.start_stream()
    text = ": ping\r\n\r\n" + TOKEN + TOKEN + USAGE + "data: [DONE]\r\n\r\n"
    for i in range(0, len(text), 3):
        handler.write(text[i:i + 3])
    handler.wfile.write(b"0\r\n\r\n")


def too_many(handler, _):
    handler.refuse(429, "the queue is full")


def disconnects(handler, _):
    handler.start_stream()
    handler.write(TOKEN)
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def wait_for_hang_up(handler):
    with contextlib.suppress(ConnectionError):  # reset, if it left bytes unread
        while handler.connection.recv(1):
            pass
    handler.close_connection = True


def stalls(handler, _):
    handler.start_stream()
    handler.write(TOKEN)
    handler.wfile.flush()
    wait_for_hang_up(handler)


def without_usage(handler, _):
    handler.start_stream()
    handler.write(TOKEN + "data: [DONE]\n\n")
    handler.wfile.write(b"0\r\n\r\n")


def ends_early(handler, _):
    handler.start_stream()
    handler.write(TOKEN + USAGE)
    handler.wfile.write(b"0\r\n\r\n")


def fails_midway(handler, _):
    handler.start_stream()
    handler.write(TOKEN + event({"error": {"message": "out of memory"}}) + "data: [DONE]\n\n")
    handler.wfile.write(b"0\r\n\r\n")


class FakeServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # a full backlog drops a connection's first packet: a second lost


class FakeServerTest(unittest.TestCase):
    @contextlib.contextmanager
    def fake(self, behaviour):
        server = FakeServer(("127.0.0.1", 0), FakeHandler)
        server.behaviour, server.bodies = behaviour, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            server.url = f"http://127.0.0.1:{server.server_port}"
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def test_tokens_are_counted_by_usage(self):
        with self.fake(whole) as server:
            code, lines, _, err = bench("--http", server.url + "/v1/", "--requests", "5", "--concurrency", "2", "--extra-body",
                                        '{"response_format": {"type": "json_object"}}')
        self.assertEqual(code, 0, err)
        (summary,) = of_type(lines, "summary")
        self.assertEqual((summary["completion_tokens"], summary["prompt_tokens"]), (30, 15))
        self.assertEqual(summary["tokens_per_event"], 3)
        self.assertEqual(summary["itl_ms"]["samples"], 5)
        for path, body in server.bodies:
            self.assertEqual(path, "/v1/completions")
            self.assertEqual((body["model"], len(body["prompt"]), body["stream_options"]), ("fake", 128, {"include_usage": True}))
            self.assertEqual(body["response_format"], {"type": "json_object"})

    def test_errors_have_their_kinds(self):
        for behaviour, kind in ((too_many, "http_429"), (disconnects, "disconnect"), (without_usage, "no_usage"),
                                (ends_early, "incomplete"), (fails_midway, "stream_error")):
            with self.subTest(kind=kind), self.fake(behaviour) as server:
                code, lines, out, err = bench("--http", server.url, "--requests", "4", "--concurrency", "2")
                self.assertEqual(code, 1)
                self.assertRegex(err, r"^error: .*\n$")
                (summary,) = of_type(lines, "summary")
                self.assertEqual(summary["requests"], {"sent": 4, "ok": 0, "cancelled": 0, "failed": 4, "errors": {kind: 4}}, out)
                self.assertIsNone(summary["ttft_ms"])
                self.assertEqual(summary["completion_tokens"], 0)

    def test_a_stalled_answer_times_out(self):
        with self.fake(stalls) as server:
            code, lines, _, _ = bench("--http", server.url, "--requests", "3", "--concurrency", "3", "--timeout", "0.5")
        self.assertEqual(code, 1)
        self.assertEqual(of_type(lines, "summary")[0]["requests"]["errors"], {"timeout": 3})

    def test_some_errors(self):
        def every_third(handler, body):
            (too_many if len(handler.server.bodies) % 3 == 0 else whole)(handler, body)
        with self.fake(every_third) as server:
            code, lines, _, err = bench("--http", server.url, "--requests", "9")
            self.assertEqual((code, err), (1, "error: 3 of 9 requests failed\n"))
            summary = of_type(lines, "summary")[0]
            self.assertEqual((summary["requests"]["ok"], summary["requests"]["errors"]), (6, {"http_429": 3}))
            self.assertEqual(bench("--http", server.url, "--requests", "9", "--allow-errors")[0], 0)
            self.assertEqual(bench("--http", server.url, "--requests", "9", "--rate", "200,300")[0], 0)
        with self.fake(too_many) as server:
            code, lines, _, err = bench("--http", server.url, "--requests", "1000", "--max-errors", "5")
            self.assertEqual(code, 1)
            self.assertEqual(of_type(lines, "summary")[0]["requests"]["sent"], 5)
            code, _, _, err = bench("--http", server.url, "--warmup", "3")
            self.assertEqual(code, 1)
            self.assertIn("http_429: the queue is full", err)

    def test_a_cancelled_request_closes_its_connection(self):
        def finish(handler):
            handler.write(USAGE + "data: [DONE]\n\n")
            handler.wfile.write(b"0\r\n\r\n")

        # Every request is there before one ends: which are cancelled depends on the order in which they start.
        all_there = threading.Barrier(30, timeout=60)

        def tokens_then(wait):
            def behaviour(handler, body):
                all_there.wait()
                try:  # the hang-up may come while it writes
                    handler.start_stream()
                    for _ in range(body["max_tokens"]):
                        handler.write(TOKEN)
                    wait(handler)
                    finish(handler)
                except ConnectionError:
                    hung_up.append(handler)
                    if len(hung_up) == expected:
                        ends.close()
                    handler.close_connection = True
            return behaviour

        def until_all_hung_up(handler):
            if handler.connection in select.select([handler.connection, ended], [], [])[0]:
                raise ConnectionError

        def cancelled(server):
            code, lines, _, _ = bench("--http", server.url, "--workload", "W8", "--requests", "30", "--concurrency", "30", "--timeout", "60")
            requests = of_type(lines, "summary")[0]["requests"]
            self.assertEqual((code, requests["sent"], requests["errors"]), (0, 30, {}))
            return requests["cancelled"]

        hung_up, expected = [], -1
        with self.fake(tokens_then(lambda handler: None)) as server:
            expected = cancelled(server)
        self.assertTrue(0 < expected < 30)

        # No other answer ends before so many clients have hung up: without hang-ups all would time out.
        hung_up = []
        ended, ends = socket.socketpair()
        with ended, ends, self.fake(tokens_then(until_all_hung_up)) as server:
            self.assertEqual(cancelled(server), expected)
            self.assertEqual(len(hung_up), expected)

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            for target in (["--http", f"http://127.0.0.1:{port}"], ["--grpc", f"127.0.0.1:{port}"]):
                code, lines, _, err = bench(*target)
                self.assertEqual((code, lines), (1, []))
                self.assertRegex(err, r"^error: .*\n$")

    def test_usage_and_stdout(self):
        for args in ([], ["--http", "ftp://x"], ["--http", "http://x", "--workload", "W99"], ["--nonsense"]):
            done = subprocess.run([harness.SERVE_BENCH, *args], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 2, args)
            self.assertRegex(done.stderr, r"^error: .*\n$")
            self.assertEqual(done.stdout, "")
        with self.fake(whole) as server:
            done = subprocess.run([harness.SERVE_BENCH, "--http", server.url, "--requests", "2", "--json", "-"], capture_output=True, text=True,
                                  timeout=60, check=True)
        self.assertEqual([json.loads(line)["type"] for line in done.stdout.splitlines()], ["summary"])
        self.assertIn("2 sent, 2 ok", done.stderr)
        done = subprocess.run([harness.SERVE_BENCH, "--help"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("TPOT", done.stdout)


if __name__ == "__main__":
    harness.main()
