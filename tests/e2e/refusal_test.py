# SPDX-License-Identifier: Apache-2.0
"""What refusing a corrupted model may cost: no more memory than the file's size and a constant, no more time than a second per
100 MB (models/README.md). Each case is a file that lies about one thing, as large as that takes to hurt."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import harness

MIB = 1 << 20
# Beyond the size of the file that is refused. models/README.md says what it is for.
MEMORY = 256 * MIB
# Of the program's own start; of 100 MB of file. Other tests may run beside this one, so processor time is what counts.
START_SECONDS, SECONDS_PER_BYTE = 1, 1 / 100e6

# Runs a program and prints its exit code, peak memory in bytes and seconds of processor time.
MEASURE = """
import json, os, resource, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime]))
"""


def text(raw):
    raw = raw if isinstance(raw, bytes) else raw.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(entries=(), tensors=b"", tensor_count=0, metadata_count=None):
    """entries: (key, number of the type, bytes)."""
    count = len(entries) + 1 if metadata_count is None else metadata_count
    out = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count)
    for key, number, raw in (("general.architecture", 8, text("llama")), *entries):
        out += text(key) + struct.pack("<I", number) + raw
    return out + tensors


def array(number, count, raw):
    return struct.pack("<IQ", number, count) + raw


STRING, ARRAY, U8 = 8, 9, 0
BPE = [("tokenizer.ggml.model", STRING, text("gpt2"))]
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 64, "vocab_size": 8, "max_position_embeddings": 64}


def safetensors(header, size=None):
    return struct.pack("<Q", len(header) if size is None else size) + header


def tokenizer(vocabulary="{}", merges="[]", rest=""):
    return (f'{{"version":"1.0",{rest}"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,'
            f'"use_regex":true}},"decoder":{{"type":"ByteLevel"}},"model":{{"type":"BPE","vocab":{vocabulary},'
            f'"merges":{merges}}}}}')


GGUF_CASES = {
    "tensor count of 2^60": lambda: gguf(tensor_count=1 << 60),
    "metadata count of 2^60": lambda: gguf(metadata_count=1 << 60),
    "array of 2^31 strings": lambda: gguf([("tokenizer.ggml.tokens", ARRAY, array(STRING, 1 << 31, bytes(1000)))]),
    "array of 2^60 bytes": lambda: gguf([("a", ARRAY, array(U8, 1 << 60, bytes(1000)))]),
    "2^22 bytes": lambda: gguf([("a", ARRAY, array(U8, 1 << 22, bytes(1 << 22)))]),
    "2^24 bytes": lambda: gguf([("a", ARRAY, array(U8, 1 << 24, bytes(1 << 24)))]),
    "2^21 empty strings": lambda: gguf([("a", ARRAY, array(STRING, 1 << 21, bytes(8 << 21)))]),
    "2^22 empty strings": lambda: gguf([("a", ARRAY, array(STRING, 1 << 22, bytes(8 << 22)))]),
    "2^24 empty strings": lambda: gguf([("a", ARRAY, array(STRING, 1 << 24, bytes(8 << 24)))]),
    "2^21 empty tokens": lambda: gguf(BPE + [
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, 1 << 21, bytes(8 << 21))),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, 0, b""))]),
    "2^21 times the same token": lambda: gguf(BPE + [
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, 1 << 21, text("a") * (1 << 21))),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, 0, b""))]),
    "2^20 tokens, one of them twice": lambda: gguf(BPE + [
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, 1 << 20, b"".join(text(f"{i:07}") for i in range(1, 1 << 20)) +
                                               text("0000001"))),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, 0, b""))]),
    "2^21 merges of nothing": lambda: gguf(BPE + [
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, 1, text("a"))),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, 1 << 21, text(" ") * (1 << 21)))]),
    "three texts of 60 MB": lambda: gguf([(f"a{i}", STRING, text(b"x" * 60_000_000)) for i in range(3)]),
    "60000 keys": lambda: gguf([(str(i), U8, b"\0") for i in range(60000)]),
    "2^18 tensors": lambda: gguf(tensor_count=1 << 18, tensors=b"".join(
        text(str(i)) + struct.pack("<IQIQ", 1, 1, 0, 32 * i) for i in range(1 << 18))),
}
SAFETENSORS_CASES = {
    "a header of 8 EiB": lambda: safetensors(b"{}", (1 << 63) - 1),
    "a header of nothing but [": lambda: safetensors(b"[" * (30 * MIB)),
    "a million tensors that are null": lambda: safetensors(
        b"{" + b",".join(b'"%d":0' % i for i in range(1_000_000)) + b"}"),
    "a shape of 10 million": lambda: safetensors(b'{"a":{"dtype":"F32","shape":[' + b"1," * 10_000_000 + b"1]}}"),
    "metadata of 3 million keys": lambda: safetensors(
        b'{"__metadata__":{' + b",".join(b'"%d":0' % i for i in range(3_000_000)) + b"}}"),
    "a name of 90 MB": lambda: safetensors(b'{"' + b"x" * 90_000_000 + b'":0}'),
    "names of 5 MB": lambda: safetensors(
        b"{" + b",".join(b'"%c%s":0' % (97 + i, b"x" * 5_000_000) for i in range(12)) + b"}"),
    "90 MB of white space": lambda: safetensors(b" " * 90_000_000 + b"{}"),
    "300000 empty tensors, and one past the end": lambda: safetensors(
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(300_000)) +
        b',"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
}
CONFIG_CASES = {
    "nothing but [": lambda: "[" * (15 * MIB),
    "7 million numbers": lambda: json.dumps(CONFIG)[:-1] + ',"a":[' + "0," * 7_000_000 + "0]}",
    "a million keys": lambda: json.dumps(CONFIG)[:-1] + "," + ",".join(f'"{i}":0' for i in range(1_000_000)) + "}",
    "4 million empty lists": lambda: '{"a":[' + "[]," * 4_000_000 + "0]}",
}
TOKENIZER_CASES = {
    "nothing but [": lambda: "[" * (30 * MIB),
    "10 million numbers": lambda: tokenizer(rest='"x":[' + "0," * 10_000_000 + "0],"),
    "a million keys": lambda: tokenizer(rest='"x":{' + ",".join(f'"{i}":0' for i in range(1_000_000)) + "},"),
    "10 million empty lists": lambda: tokenizer(rest='"x":[' + "[]," * 10_000_000 + "0],"),
    "a vocabulary of 4 million times the same": lambda: tokenizer("{" + '"":0,' * (1 << 22) + '"b":1}'),
    "2^20 tokens, one of them twice": lambda: tokenizer(
        "{" + ",".join(f'"{i:07}":{i}' for i in range((1 << 20) - 1)) + ',"0000001":1048575}'),
    "2^20 merges, the last of unknown tokens": lambda: tokenizer('{"a":0,"aa":1}', "[" + '"a a",' * ((1 << 20) - 1) + '"b b"]'),
    "objects of 128 keys": lambda: tokenizer(
        rest='"x":[' + ("{" + ",".join(f'"{i:03}":0' for i in range(128)) + "},") * 8000 + "0],"),
    "a string of 50 MB": lambda: tokenizer(rest='"x":"' + "x" * 50_000_000 + '",'),
    "a string of 50 MB without end": lambda: '{"a":"' + "x" * 50_000_000,
    "tokens of 2 MB": lambda: tokenizer("{" + ",".join('"' + chr(97 + i) * 2_000_000 + f'":{i}' for i in range(24)) + "}"),
    "a vocabulary with ids of 2^60": lambda: tokenizer('{"a":' + str(1 << 60) + "}"),
    "2 million tokens of one id": lambda: tokenizer("{" + ",".join(f'"{i}":7' for i in range(2_000_000)) + "}"),
    "4 million merges of nothing": lambda: tokenizer('{"a":0}', "[" + '" ",' * (1 << 22) + '" "]'),
    "merges that are pairs of lists": lambda: tokenizer('{"a":0}', "[" + '["",""],' * (1 << 22) + "0]"),
    "a million added tokens": lambda: tokenizer('{"a":0}', rest='"added_tokens":[' + '{"id":0,"content":"x"},' * 1_000_000 + "0],"),
}


class RefusalTest(unittest.TestCase):
    def refused(self, path, file, name, file_is_read=True):
        """Runs the program on `path` and compares what it took with what `file` allows."""
        with tempfile.TemporaryFile() as output:
            # A process starts with its parent's peak, and this one has made the file.
            command = [sys.executable, "-S", "-c", MEASURE, harness.BINARY, "inspect", "--model", str(path)]
            measured = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, check=True)
            output.seek(0)
            said = output.read().decode(errors="replace")
        code, peak, seconds = json.loads(measured.stdout)
        size = file.stat().st_size
        memory = peak - (size if file_is_read else 0)
        allowed = START_SECONDS + size * SECONDS_PER_BYTE
        if os.environ.get("REFUSAL_FIGURES"):
            print(f"{name}: {size / MIB:.1f} MiB, {memory / MIB:+.0f} MiB, {seconds:.2f} s of {allowed:.2f}: "
                  f"{code} {said.strip()[:150]!r}")
        if harness.SANITIZED:  # its own memory and time are larger
            return
        with self.subTest(name):
            self.assertIn(code, (0, 1), said)
            self.assertLessEqual(memory, MEMORY, said[:200])
            self.assertLessEqual(seconds, allowed, said[:200])

    def in_folder(self, cases, write):
        for name, content in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                path, file = write(pathlib.Path(folder), content())
                self.refused(path, file, name)

    def test_gguf(self):
        def write(folder, content):
            file = folder / "model.gguf"
            file.write_bytes(content)
            return file, file
        self.in_folder(GGUF_CASES, write)

    def test_sparse_gguf(self):
        broken = text("a") + struct.pack("<IQIQ", 1, 1 << 60, 0, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "model.gguf"
            file.write_bytes(gguf(tensor_count=1, tensors=broken))
            os.truncate(file, 1 << 30)
            # Its pages are never read, so its size is nothing that it may take.
            self.refused(file, file, "1 GiB", file_is_read=False)

    def test_safetensors(self):
        def write(folder, content):
            (folder / "config.json").write_text(json.dumps(CONFIG))
            (folder / "model.safetensors").write_bytes(content)
            return folder, folder / "model.safetensors"
        self.in_folder(SAFETENSORS_CASES, write)

    def test_config(self):
        def write(folder, content):
            (folder / "config.json").write_text(content)
            (folder / "model.safetensors").write_bytes(safetensors(b"{}"))
            return folder, folder / "config.json"
        self.in_folder(CONFIG_CASES, write)

    def test_tokenizer(self):
        def write(folder, content):
            (folder / "config.json").write_text(json.dumps(CONFIG))
            (folder / "model.safetensors").write_bytes(safetensors(b"{}"))
            (folder / "tokenizer.json").write_text(content)
            return folder, folder / "tokenizer.json"
        self.in_folder(TOKENIZER_CASES, write)

    def test_sparse_texts(self):
        for name in ("chat_template.jinja", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json",
                     "config.json", "tokenizer.json", "tokenizer.model", "modules.json", "sentence_bert_config.json"):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                (folder / "config.json").write_text(json.dumps(CONFIG))
                (folder / "model.safetensors").write_bytes(safetensors(b"{}"))
                if name != "tokenizer.model":
                    (folder / "tokenizer.json").write_text(tokenizer())
                (folder / name).touch()
                os.truncate(folder / name, 2 << 30)
                self.refused(folder, folder / name, f"2 GiB of {name}", file_is_read=False)

    def test_weights_that_are_no_numbers(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(harness.golden("models", "qwen3"), folder, dirs_exist_ok=True)
            path = os.path.join(folder, "model.safetensors")
            with open(path, "rb") as f:
                data = f.read()
            start = 8 + struct.unpack_from("<Q", data)[0]
            with open(path, "wb") as f:
                f.write(data[:start] + b"\xff" * (len(data) - start))
            refused = harness.run("serve", "--model", folder, "--skip-tokenizer", "--http", "127.0.0.1:0", "--grpc", "off")
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"{folder}: the model's logits were not finite", refused.stderr)


if __name__ == "__main__":
    unittest.main()
