# SPDX-License-Identifier: Apache-2.0
"""The real server and CUDA backend on a made-up driver and runtime: what it says when a GPU is missing, unfit, full or lost.

Kernels do nothing there, so every token is 0."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import unittest

import httpx

_parser = argparse.ArgumentParser(add_help=False)
_parser.add_argument("--backend", required=True, help="the folder of libfairlead_cuda.so")
_parser.add_argument("--fakes", required=True, help="the folder of the made-up libraries")
_parser.add_argument("--broken", required=True, help="the folder of a driver that cannot be loaded")
_parser.add_argument("--capability", required=True, help="one that the backend has code for: 90")
_parser.add_argument("--installed", action="store_true", help="the backend stands beside the program")
_options, _rest = _parser.parse_known_args()
sys.argv[1:] = _rest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "e2e"))
import harness  # noqa: E402

CAPABILITY = f"capability={_options.capability}"


def environment(settings="", driver=_options.fakes):
    folders = [driver, _options.fakes, _options.backend]
    return {"LD_LIBRARY_PATH": os.pathsep.join(folders), "FAIRLEAD_FAKE_CUDA": ",".join([settings or "count=1", CAPABILITY])}


def serve(*args, env):
    """Runs a server that cannot start."""
    return subprocess.run([harness.BINARY, "serve", "--model", harness.MODEL, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                           *args], capture_output=True, text=True, timeout=harness.START_TIMEOUT, check=False,
                          env={**os.environ, **env})


class StartTest(unittest.TestCase):
    def expect_error(self, pattern, env, device="cuda:0"):
        ended = serve("--device", device, env=env)
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertEqual(len(errors), 1, ended.stderr)
        self.assertRegex(errors[0], "^error: " + pattern)
        self.assertEqual(ended.stdout, "")

    def test_no_driver(self):
        self.expect_error(r"device cuda:0: the NVIDIA driver cannot be loaded: .*libfairlead_missing\.so",
                          environment(driver=_options.broken))

    def test_driver_too_old(self):
        self.expect_error(r"device cuda:0: the NVIDIA driver is too old: it is for CUDA 11\.8, this build needs CUDA \d+\.0",
                          environment("driver=11080"))

    def test_no_device(self):
        self.expect_error(r"device cuda:0: the NVIDIA driver shows no GPU \(CUDA_VISIBLE_DEVICES", environment("count=0"))
        self.expect_error(r"device cuda:2: the NVIDIA driver shows 2 GPUs, numbered from 0", environment("count=2"), "cuda:2")

    def test_architecture_without_code(self):
        env = environment()
        env["FAIRLEAD_FAKE_CUDA"] = "capability=35"
        self.expect_error(r"device cuda:0: Made-up GPU has compute capability 3\.5, for which this build has no code; it has sm_",
                          env)

    def test_busy(self):
        self.expect_error(r"device cuda:0: Made-up GPU cannot be used: cudaErrorDevicesUnavailable: .*another process",
                          environment("set_device=46"))

    def test_out_of_memory(self):
        self.expect_error(r".*cuda:0: cannot allocate \d+ bytes; \d+ bytes are free", environment("memory=20000000"))

    def test_layers_that_do_not_fit_stay_in_host_memory(self):
        with harness.Server("--device", "cuda:0", "--max-model-len", "64", env=environment("memory=100000000")) as server:
            found = re.search(r"(\d+) of 30 layers stay on cuda:0; the weights of the others, [\d.]+ MiB in the host's memory", server.log)
            self.assertTrue(0 < int(found.group(1)) < 30, server.log)
            self.assertEqual(server.terminate(), 0)
        with harness.Server("--device", "cuda:0", "--max-model-len", "64", "--gpu-layers", "0",
                            env=environment()) as server:
            self.assertIn("0 of 30 layers stay on cuda:0; ", server.log)
            self.assertEqual(server.terminate(), 0)

    if not _options.installed:
        def test_not_installed(self):
            self.expect_error(r"device cuda:0: backend libfairlead_cuda\.so is not installed$", {"LD_LIBRARY_PATH": ""})


class AutoTest(unittest.TestCase):
    def line(self, server):
        return re.search(r"device auto: .*", server.log).group(0)

    def test_takes_the_gpu(self):
        with harness.Server(env=environment()) as server:
            self.assertEqual(server.ready["device"], "cuda:0")
            self.assertEqual(self.line(server), "device auto: cuda:0")
            self.assertRegex(server.log, r"device cuda:0: Made-up GPU, compute capability ")
            with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as maps:
                loaded = {line.split()[-1] for line in maps if re.search(r"/libcuda(rt)?\.so", line)}
            self.assertEqual({os.path.dirname(path) for path in loaded}, {os.path.realpath(_options.fakes)})
            self.assertEqual(len(loaded), 2, loaded)
            metrics = server.metrics()
            self.assertEqual(metrics["fairlead_gpu_power_watts"], 312.5)
            self.assertEqual(metrics['fairlead_gpu_throttled{reason="power_cap"}'], 1)
            self.assertEqual(server.terminate(), 0)

    def test_goes_on_to_the_cpu(self):
        for env, reason in [(environment(driver=_options.broken), "the NVIDIA driver cannot be loaded: "),
                            (environment("count=0"), "the NVIDIA driver shows no GPU ")]:
            with harness.Server(env=env) as server:
                self.assertEqual(server.ready["device"], "cpu")
                self.assertIn(f"device auto: cpu, since cuda: {reason}", self.line(server))
                self.assertIn("; hip: ", self.line(server))


class LostTest(unittest.TestCase):
    """The device is lost while a completion is streamed: the process ends, and so does the stream."""

    def lose(self, settings, message, *args):
        gate = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "gate")
        os.mkfifo(gate)
        with harness.Server("--device", "cuda", "--skip-tokenizer", *args,
                            env=environment(f"{settings},gate={gate}")) as server:
            events = []
            with server.client() as client, self.assertRaises(httpx.HTTPError), client.stream(
                    "POST", "/v1/completions", json={"prompt": [1, 2], "max_tokens": 2000, "ignore_eos": True,
                                                     "stream": True, "return_token_ids": True}) as answer:
                for event in harness.sse(answer):
                    if not events:  # now
                        open(gate, "wb").close()
                    events.append(event)
            self.assertGreater(len(events), 0)
            self.assertNotIn("[DONE]", events)
            self.assertNotEqual(server.process.wait(60), 0)
            errors = [line for line in server.log.splitlines() if line.startswith("error:")]
            self.assertEqual(len(errors), 1, server.log)
            self.assertRegex(errors[0], r"^error: cuda:0 \(Made-up GPU\): " + message +
                             r" failed: cudaErrorIllegalAddress: an illegal memory access was encountered$")

    def test_found_by_a_launch(self):
        self.lose("fail_launch=20000", r"launch of \S.*", "--graphs", "off")

    def test_found_by_a_graph(self):
        self.lose("fail_launch=20000", "cudaGraphLaunch")

    def test_found_by_a_wait(self):
        self.lose("fail_wait=20000", "cudaEventSynchronize")


class GraphTest(unittest.TestCase):
    def test_steps_run_one_by_one_where_there_can_be_none(self):
        for at, call in enumerate([None, "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"]):
            with harness.Server("--device", "cuda", "--skip-tokenizer", env=environment(f"fail_graphs={at}")) as server:
                with server.client() as client:
                    answer = client.post("/v1/completions", json={"prompt": [1, 2], "max_tokens": 20, "ignore_eos": True,
                                                                  "return_token_ids": True})
                self.assertEqual(answer.json()["choices"][0]["token_ids"], [0] * 20)
                self.assertEqual(re.findall(r"warning: cuda:0: a step runs without a graph: (\w+) failed: ", server.log),
                                 [call] if call else [], server.log)
                self.assertEqual(server.terminate(), 0)


if __name__ == "__main__":
    harness.main()
