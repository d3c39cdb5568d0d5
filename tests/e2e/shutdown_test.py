# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: what runs is finished, nothing new begins, exit 0; a second one ends at once."""

import signal
import threading
import time
import unittest

import grpc
import httpx

import harness
from grpc_client_test import Client


class ShutdownTest(unittest.TestCase):
    def open_streams(self, server, count, tokens):
        """Streams that have begun, and what they will have given in the end."""
        results, begun = [None] * count, threading.Barrier(count + 1)

        def read(i):
            try:
                with server.client() as client, client.stream("POST", "/v1/completions", json={
                        "prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True,
                        "stream_options": {"include_usage": True}}) as answer:
                    events = harness.sse(answer)
                    first = next(events)
                    begun.wait()
                    results[i] = [first, *events]
            except httpx.HTTPError as error:
                results[i] = error

        threads = [threading.Thread(target=read, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        begun.wait(60)
        return results, threads

    def test_streams_finish(self):
        with harness.Server() as server:
            results, threads = self.open_streams(server, 8, 150)
            self.assertEqual(server.terminate(), 0)
            for thread in threads:
                thread.join()
            for result in results:
                self.assertIsInstance(result, list, result)
                self.assertEqual(result[-1], "[DONE]")
                self.assertEqual(result[-2]["usage"]["completion_tokens"], 150)

    def test_second_signal_ends_at_once(self):
        with harness.Server("--drain-timeout", "600") as server:
            results, threads = self.open_streams(server, 2, 5000)
            server.process.send_signal(signal.SIGTERM)
            while True:  # the first one has been noticed: the port is closed
                try:
                    httpx.get(server.url + "/ready", timeout=5)
                except httpx.HTTPError:
                    break
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertNotEqual(server.process.wait(10), 0)
            self.assertLess(time.monotonic() - begin, 2)
            for thread in threads:
                thread.join()

    def test_drain_timeout_cuts_off(self):
        with harness.Server("--drain-timeout", "0.5") as server:
            results, threads = self.open_streams(server, 2, 7000)
            begin = time.monotonic()
            self.assertEqual(server.terminate(), 0)
            self.assertLess(time.monotonic() - begin, 10)
            for thread in threads:
                thread.join()
            for result in results:  # told why, rather than cut off
                self.assertIsInstance(result, list, result)
                self.assertTrue(any(isinstance(e, dict) and e.get("error", {}).get("type") == "unavailable_error" for e in result), result[-3:])

    def test_grpc_stream_finishes(self):
        with harness.Server() as server, grpc.insecure_channel(server.grpc) as channel:
            client = Client(channel)
            request = client.message("GenerateRequest")(prompt="Once")
            request.stop.max_tokens, request.stop.ignore_eos = 150, True
            call = client.call("Generate", request)
            next(e for e in call if e.WhichOneof("event") == "delta")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(list(call)[-1].usage.completion_tokens, 150)
            self.assertEqual(server.process.wait(30), 0)

    def test_idle_server_exits_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with harness.Server() as server:
                begin = time.monotonic()
                server.process.send_signal(number)
                self.assertEqual(server.process.wait(20), 0)
                self.assertLess(time.monotonic() - begin, 5)


if __name__ == "__main__":
    harness.main()
