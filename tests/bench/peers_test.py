# SPDX-License-Identifier: Apache-2.0
"""The adapters in bench/peers beside made-up packages: what they print, and on which GPU they run."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / "bench" / "peers"

# It logs to stdout by Python and by the descriptor, as vLLM and its libraries do.
VLLM = """
import os
print("INFO by Python")
os.write(1, b"INFO by the descriptor\\n")
__version__ = "0, " + " ".join(os.environ.get(name, "-") for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"))

class SamplingParams:
    def __init__(self, **options):
        self.tokens = options["max_tokens"]

class LLM:
    def __init__(self, **options):
        print("INFO engine")
    def generate(self, prompts, sampling, use_tqdm):
        import time
        time.sleep(0.001 * sampling.tokens)
"""


class VllmTest(unittest.TestCase):
    def run_peer(self, *options: str, **environment: str) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "vllm.py").write_text(VLLM, encoding="utf-8")
            Path(folder, "config.json").write_text('{"vocab_size": 9}', encoding="utf-8")
            clean = {name: value for name, value in os.environ.items() if not name.endswith("VISIBLE_DEVICES")}
            return subprocess.run([sys.executable, PEERS / "vllm_peer.py", *options, "-m", folder], capture_output=True, text=True, timeout=60,
                                  check=True, env={**clean, **environment, "PYTHONPATH": folder})

    def test_stdout_has_nothing_but_the_results(self):
        done = self.run_peer("bench", "-p", "8", "-n", "4", "-b", "1,2", "-r", "1")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([(row["n_prompt"], row["n_gen"], row["batch"]) for row in rows], [(0, 4, 1), (0, 4, 2), (8, 0, 1)])
        for line in ("INFO by Python", "INFO by the descriptor", "INFO engine"):
            self.assertIn(line, done.stderr)

    def test_it_sees_the_one_gpu_that_is_measured(self):
        for device, environment, seen in (
            ("cuda:2", {}, "2 -"),
            ("hip:1", {}, "1 1"),
            ("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,GPU-5"}, "GPU-5 -"),
            ("hip:1", {"HIP_VISIBLE_DEVICES": "6,7"}, "7 7"),
        ):
            self.assertEqual(self.run_peer("version", "--device", device, **environment).stdout, f"vllm 0, {seen}\n")


if __name__ == "__main__":
    unittest.main()
