# SPDX-License-Identifier: Apache-2.0
"""Starts the real binary for a test and talks to it. Every test program of this folder takes --binary, --model, --golden."""

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import httpx

_parser = argparse.ArgumentParser(add_help=False)
_parser.add_argument("--binary", required=True)
_parser.add_argument("--model", required=True)
_parser.add_argument("--golden", required=True)
_parser.add_argument("--serve-bench")
_parser.add_argument("--decoder-test")
_parser.add_argument("--seconds", type=float, default=15)
_parser.add_argument("--sanitized", action="store_true", help="the binary is a sanitizer's, some 20 times slower")
_options, _rest = _parser.parse_known_args()
sys.argv[1:] = _rest

# The servers' weight cache: filled by the first start of a test program, used by the others, gone with it.
_cache = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _cache.name
# Read once: a client that reads the system's certificates itself takes longer for them than for most requests.
_CERTIFICATES = ssl.create_default_context()

BINARY, MODEL, GOLDEN, SECONDS = _options.binary, _options.model, _options.golden, _options.seconds
SERVE_BENCH, DECODER_TEST = _options.serve_bench, _options.decoder_test
SANITIZED = _options.sanitized
START_TIMEOUT = 120


def golden(*parts):
    return os.path.join(GOLDEN, *parts)


class Server:
    """`fairlead serve` on free ports; a context manager. `log` is what it wrote to stderr."""

    def __init__(self, *args, model=MODEL, key=None, tls=None, env=None):
        self.key, self.tls = key, tls
        self.log_file = tempfile.NamedTemporaryFile(mode="w+", suffix=".log", delete=False)
        command = [BINARY, "serve", "--model", model, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log_file, text=True,
                                        env={**os.environ, **(env or {})})
        watchdog = threading.Timer(START_TIMEOUT, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line:
            self.process.wait()
            raise RuntimeError(f"{command} ended with {self.process.returncode} before it was ready:\n{self.log}")
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready", self.ready
        self.url = ("https://" if tls else "http://") + self.ready["http"]
        self.grpc = self.ready["grpc"]
        self.name = self.ready["model"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        os.unlink(self.log_file.name)

    @property
    def log(self):
        with open(self.log_file.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def client(self, **kwargs):
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, **{"verify": _CERTIFICATES, **kwargs})

    def post(self, path, body, **kwargs):
        with self.client() as client:
            return client.post(path, json=body, **kwargs)

    def get(self, path):
        with self.client() as client:
            return client.get(path)

    def metrics(self):
        """{'name{labels}': value}"""
        values = {}
        for line in self.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def kv_used(self):
        return self.metrics()['fairlead_kv_cache_blocks{state="used"}']

    def wait_until_idle(self, seconds=10):
        """Polls the gauges; returns the time it took."""
        begin = time.monotonic()
        while True:
            m = self.metrics()
            if m["fairlead_requests_running"] == 0 and m["fairlead_requests_waiting"] == 0 and \
                    m['fairlead_kv_cache_blocks{state="used"}'] == 0:
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise AssertionError(f"not idle after {seconds} s: {m}")
            time.sleep(0.01)

    def terminate(self, timeout=60):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def sse(response):
    """The JSON objects of a stream of events; the last is the string '[DONE]'."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line[len("data: "):]
            yield data if data == "[DONE]" else json.loads(data)


def run(*args, stdin=None, timeout=300):
    """Runs the binary to its end."""
    return subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=True, timeout=timeout, check=False)


def main():
    unittest.main(verbosity=2)
