# SPDX-License-Identifier: Apache-2.0
"""What README.md says is so: its snippets run, its flags and defaults are those of --help, its folders are there."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

import harness

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HTTP, GRPC = "127.0.0.1:8000", "127.0.0.1:8001"
ANSWER = "The capital of France is Paris."
SNIPPET = re.compile(r"^```(\w+) run=([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class ReadmeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
            cls.text = f.read()
        cls.snippets = {name: (language, code) for language, name, code in SNIPPET.findall(cls.text)}
        cls.server = harness.Server()
        # A stand-in for the checkout, where the snippets may write to build/.
        cls.checkout = tempfile.TemporaryDirectory()
        os.symlink(os.path.join(ROOT, "proto"), os.path.join(cls.checkout.name, "proto"))

    @classmethod
    def tearDownClass(cls):
        cls.checkout.cleanup()
        cls.server.__exit__()

    def run_snippet(self, name):
        language, code = self.snippets[name]
        code = code.replace(HTTP, self.server.ready["http"]).replace(GRPC, self.server.grpc)
        command = {"bash": ["bash", "-euo", "pipefail", "-c", code], "python": [sys.executable, "-c", code]}[language]
        environment = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
        result = subprocess.run(command, cwd=self.checkout.name, env=environment, capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_every_snippet_is_run(self):
        self.assertEqual(set(self.snippets), {"curl", "openai", "grpc-stubs", "grpc"})
        for language, rest in re.findall(r"^```(\w+)(.*)$", self.text, re.MULTILINE):
            if language == "python":
                self.assertIn("run=", rest)
        for line in re.findall(r"^curl .*$", self.text, re.MULTILINE):
            self.assertIn(line, self.snippets["curl"][1])

    def test_curl(self):
        events = [line[len("data: "):] for line in self.run_snippet("curl").splitlines() if line]
        self.assertEqual(events.pop(), "[DONE]")
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        self.assertGreater(len(deltas), 2)
        self.assertEqual("".join(delta.get("content") or "" for delta in deltas), ANSWER)

    def test_openai(self):
        self.assertEqual(self.run_snippet("openai"), ANSWER + "\n")

    def test_grpc(self):
        self.run_snippet("grpc-stubs")
        self.assertEqual(self.run_snippet("grpc"), ANSWER + "\n")

    def table(self, heading):
        """The rows of the table under a heading's columns, cells without backquotes and escapes."""
        body = self.text[self.text.index(heading) + len(heading):].split("\n\n", 1)[0]
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line.startswith("|") and "---" not in line]
        self.assertGreater(len(rows), 2, heading)
        return [[cell.replace("`", "").replace("\\|", "|").strip() for cell in row] for row in rows]

    def test_flags_are_those_of_help(self):
        flags = dict(re.findall(r"(?m)^  --([a-z-]+)(?: ([A-Zaf][^\s=]*))?", harness.run("serve", "--help").stdout))
        told = {}
        for names, *_ in self.table("| flag | default | |"):
            value = names.split(" ")[-1] if not names.split(" ")[-1].startswith("--") else ""
            for name in re.findall(r"--([a-z-]+)", names):
                told[name] = value
        self.assertEqual(set(told), set(flags) - {"config", "help"})

    def test_defaults_are_those_of_config(self):
        with harness.Server("--served-model-name", "x") as server:
            config = server.get("/config").json()
        resolved = {"tokenizer": "", "kv-cache-memory": None, "max-model-len": None, "gpu-layers": None, "threads": 0,
                    "served-model-name": None, "task": "generate",
                    "http": None, "grpc": None, "device": None, "max-body-size": 32 << 20}  # no plain value in the table
        for names, default, _ in self.table("| flag | default | |"):
            for name in re.findall(r"--([a-z-]+)", names):
                if name == "model":
                    continue
                if name in resolved:
                    if resolved[name] is not None:
                        self.assertEqual(config[name], resolved[name], name)
                elif default == "":
                    self.assertIn(config[name], (False, ""), name)
                else:
                    value = str(config[name]).removesuffix(".0").replace(os.environ["XDG_CACHE_HOME"], "~/.cache")
                    self.assertEqual(value, default, name)

    def test_commands(self):
        for command, rest in re.findall(r"(?m)^fairlead (\w+)(.*)$", self.text):
            text = harness.run(command, "--help").stdout
            for flag in re.findall(r"--[a-z-]+", rest):
                self.assertIn(f"  {flag} ", text, command)

    def test_paths_are_there(self):
        for folder in [row[0] for row in self.table("| folder | what happens there |")]:
            self.assertTrue(os.path.isdir(os.path.join(ROOT, folder)), folder)
        for path in set(re.findall(r"(?:\./)?((?:deploy|tests|proto|bench)/[\w./-]+\.\w+)", self.text)):
            self.assertTrue(os.path.isfile(os.path.join(ROOT, path)), path)

    def test_routes(self):
        rows = self.table("| HTTP | |")
        for cell in [row[0] for row in rows]:
            method = cell.split(" ")[0]
            for path in re.findall(r"/[\w/]+", cell):
                path = path.replace("NAME", self.server.name)
                with self.server.client() as client:
                    status = client.request(method, path, content=b"{}").status_code
                self.assertEqual(status, 200 if method == "GET" else 400, (method, path))


if __name__ == "__main__":
    harness.main()
