# SPDX-License-Identifier: Apache-2.0
"""The op that kernels/README.md adds by example: its diff applies to today's sources, touches six files, and what it
touches compiles, as do the classes that must have every op. Needs the build folder, for how each file is compiled."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()

# Besides the six files: where backends and stand-ins are made, which fails when an op is missing.
MAKERS = ["kernels/cpu/device_cpu.cc", "kernels/gpu/device_gpu.cc", "tests/reference/reference_device.cc",
          "tests/guarded_device.cc", "tests/runtime/fake_device.cc"]


def example():
    blocks = re.findall(r"^```diff\n(.*?)^```", (ROOT / "kernels/README.md").read_text(), re.M | re.S)
    assert len(blocks) == 1, f"{len(blocks)} diffs in kernels/README.md"
    return blocks[0]


def files_of(diff):
    return re.findall(r"^\+\+\+ b/(\S+)", diff, re.M)


class Copy:
    """The sources, of which kernels/ and tests/ may be changed."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder) / "source"
        self.root.mkdir()
        for name in ("models", "proto", "runtime", "server"):
            (self.root / name).symlink_to(ROOT / name)
        for name in ("kernels", "tests"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("golden", "fuzz", "__pycache__"))

    def apply(self, diff):
        return subprocess.run(["patch", "-p1", "--batch"], input=diff, cwd=self.root, text=True, capture_output=True, check=False)

    def compile(self, file):
        """Looks at `file` as the build compiles it, in its first target; returns what the compiler says if it refuses."""
        entry = next(e for e in json.loads((BUILD / "compile_commands.json").read_text())
                     if pathlib.Path(e["file"]).resolve() == ROOT / file and "nvcc" not in e["command"])
        words = shlex.split(entry["command"])
        out = words.index("-o")
        del words[out:out + 2]
        # The folder of the build lies within that of the sources and stays what it is.
        keep = f"{ROOT}/build/"
        words = [w if keep in w else w.replace(f"{ROOT}/", f"{self.root}/").replace(f"-I{ROOT}", f"-I{self.root}")
                 for w in words]
        words = [str(self.root) if w == str(ROOT) else w for w in words]
        done = subprocess.run(words + ["-fsyntax-only"], cwd=entry["directory"], text=True, capture_output=True, check=False)
        return done.stderr if done.returncode != 0 else ""


class ExampleOp(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.copy = Copy(folder.name)

    def test_touches_six_files_and_compiles(self):
        diff = example()
        self.assertEqual(len(files_of(diff)), 6, files_of(diff))
        applied = self.copy.apply(diff)
        self.assertEqual(applied.returncode, 0, applied.stdout + applied.stderr)
        for file in [f for f in files_of(diff) if not f.endswith(".h")] + MAKERS:
            with self.subTest(file):
                self.assertEqual(self.copy.compile(file), "")

    def test_notices_what_the_example_forgets(self):
        self.assertEqual(self.copy.apply(example()).returncode, 0)
        ops = self.copy.root / "kernels/ops.h"
        shortened = re.sub(r"^  OP\(Clip\) +\\\n", "", ops.read_text(), flags=re.M)
        self.assertNotEqual(shortened, ops.read_text())
        ops.write_text(shortened)
        self.assertIn("Clip", self.copy.compile("kernels/cpu/elementwise.cc"))


if __name__ == "__main__":
    unittest.main()
