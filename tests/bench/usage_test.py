# SPDX-License-Identifier: Apache-2.0
"""What the programs of bench/ say to a wrong command line: usage_test.py BUILD_FOLDER"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path()


def run(*command: object) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


class UsageTest(unittest.TestCase):
    def suite(self, *options: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            return run(BUILD / "gpu_suite", "--checkout", ROOT, "--output", f"{folder}/r.json", *options)

    def test_gpu_suite_refuses_an_unknown_scale(self):
        code, errors = self.suite("--device", "host-simt:32", "--scale", "huge")
        self.assertEqual(code, 2)
        self.assertIn("--scale: 'huge' is neither full nor tiny", errors)

    def test_a_device_that_is_not_there_is_open_devices_error(self):
        wanted = "device: 'gpu:9' is not one of auto, cpu, cuda:N, hip:N"
        for command in (
            [BUILD / "ops_bench", "--device=gpu:9"],
            [BUILD / "limits", "--device", "gpu:9"],
            [BUILD / "engine_bench", "--device", "gpu:9", "-m", ROOT / "bench/models/tiny", "--load-format", "dummy"],
        ):
            code, errors = run(*command)
            self.assertEqual((code, errors.count(wanted)), (1, 1), f"{command}: {errors}")
        code, errors = self.suite("--device", "gpu:9", "--scale", "tiny")
        self.assertEqual((code, errors.count(wanted)), (1, 1), errors)

    def test_gpu_suite_wants_the_file_that_it_measures(self):
        code, errors = self.suite("--device", "host-simt:32", "--model", "no-such-file.gguf")
        self.assertEqual(code, 2)
        self.assertIn("no-such-file.gguf", errors)

    def test_ops_bench_lists_its_options(self):
        for option in ("--scale=huge", "--numerics=exact", "--threads=0", "--what", "--scale"):
            code, errors = run(BUILD / "ops_bench", option)
            self.assertEqual(code, 2)
            self.assertIn(f"error: {option}: besides", errors)

    def test_roofline_names_what_is_wrong(self):
        model = ("-m", ROOT / "bench/models/llama-8b")
        for options, wanted in (
            (("--device", "h900"), "--device: 'h900' is none of h100-sxm, h200, mi300x, l4, rtx4090"),
            (("--weights", "bf16,q9"), "--weights: 'q9' is no dtype"),
            (("--weights", "f8_e4m3"), "--weights: no weights are of f8_e4m3"),
            (("--measured", "x.json"), "--measured needs --device"),
            (("-b", "0"), "-b: '0' is not a whole number"),
        ):
            code, errors = run(BUILD / "roofline", *model, *options)
            self.assertEqual(code, 2)
            self.assertIn(wanted, errors)
        code, errors = run(BUILD / "roofline", "-m", "/nowhere")
        self.assertEqual(code, 1)

    def test_run_sh_refuses_before_it_builds(self):
        script = ROOT / "bench" / "run.sh"
        for options, wanted in (
            (("gpu", "--scale", "huge"), "--scale: 'huge' is neither full nor tiny"),
            (("gpu", "--device"), "--device needs a value"),
            (("cpu", "--device", "cuda:0"), "--device is of bench/run.sh gpu"),
            (("gpu", "--rounds", "3"), "--rounds is of bench/run.sh cpu"),
            (("cpu", "--step", "speed"), "--step is of bench/run.sh fidelity"),
        ):
            code, errors = run(script, *options)
            self.assertEqual(code, 2, errors)
            self.assertIn(wanted, errors)


if __name__ == "__main__":
    BUILD = Path(sys.argv.pop())
    unittest.main()
