# SPDX-License-Identifier: Apache-2.0
"""The commands without a port, and `chat` with one: what they print, what they refuse, how they exit."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import harness

COMMANDS = ["serve", "generate", "chat", "tokenize", "render", "inspect"]
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
GREEDY = ["--model", harness.MODEL, "--temperature", "0"]


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        with open(harness.golden("smollm2", "greedy.json"), encoding="utf-8") as f:
            cls.chats = json.load(f)["chats"]
        with open(harness.golden("tokenizers", "smollm2", "cases.json"), encoding="utf-8") as f:
            cls.cases = json.load(f)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def succeeds(self, *args, stdin=""):
        """What the command prints; it says nothing else."""
        result = harness.run(*args, stdin=stdin)
        self.assertEqual((result.returncode, result.stderr), (0, ""), args)
        return result.stdout

    def fails(self, code, message, *args, stdin=""):
        """One `error:` line, the last one of stderr, that holds `message`; log lines may precede it."""
        result = harness.run(*args, stdin=stdin)
        written = result.stderr.splitlines()
        self.assertEqual(result.returncode, code, (args, result.stderr))
        self.assertEqual([line for line in written if line.startswith("error: ")], written[-1:], args)
        self.assertIn(message, written[-1], args)
        return result.stdout

    def answers(self, *args, stdin):
        written = self.succeeds(*args, stdin=stdin).split("\n")  # splitlines also splits at U+2028
        self.assertEqual(written.pop(), "")
        return [json.loads(line) for line in written]

    def generate(self, *args):
        return json.loads(self.succeeds("generate", *GREEDY, "--json", *args))

    # --help, --version, exit codes

    def test_help_and_version(self):
        self.assertRegex(self.succeeds("--version"), r"^fairlead \d+\.\d+\.\d+\n$")
        overview = self.succeeds("--help")
        for command in COMMANDS:
            self.assertRegex(overview, rf"(?m)^  {command} ")
            text = self.succeeds(command, "--help")
            self.assertIn(f"Usage: fairlead {command}", text)
            self.assertRegex(text, r"--(model|tokenizer)\b")

    def test_wrong_usage_is_2(self):
        for message, *args in [
                ("subcommand is required",), ("'bogus'", "bogus"), ("--bogus", "serve", "--bogus", "1"),
                ("--model", "serve"), ("--model", "serve", "--model"), ("--model", "generate", "--prompt", "x"),
                ("--prompt", "generate", *GREEDY), ("--prompt", "generate", *GREEDY, "--prompt", "a", "--chat", "b"),
                ("'x' is not a token id", "generate", *GREEDY, "--prompt-tokens", "1,x"),
                ("'' is not a token id", "generate", *GREEDY, "--prompt-tokens", ""),
                ("'3' is not a number from 0 to 2", "generate", "--model", "m", "--prompt", "a", "--temperature", "3"),
                ("'nan'", "generate", "--model", "m", "--prompt", "a", "--temperature", "nan"),
                ("'-1'", "generate", "--model", "m", "--prompt", "a", "--max-tokens", "-1"),
                ("'8' is not a whole number from 16", "generate", "--model", "m", "--prompt", "a", "--block-tokens", "8"),
                ("'24' is not a multiple of 16", "serve", "--model", "m", "--block-tokens", "24"),
                ("'bf16' is not one of float32", "serve", "--model", "m", "--numerics", "bf16"),
                ("'cuda0' is not one of auto", "serve", "--model", "m", "--device", "cuda0"),
                ("'101%'", "serve", "--model", "m", "--kv-cache-memory", "101%"), ("--tokenizer", "tokenize"),
                ("--template or --model", "render"), ("--template or --model", "render", "--model", "m", "--template", "t"),
                ("--model", "inspect"), ("--context", "inspect", "--model", "m", "--context", "0"),
                ("--model or --url", "chat"), ("--model or --url", "chat", "--model", "m", "--url", "http://h"),
                ("'ftp://h' is not a URL", "chat", "--url", "ftp://h"),
                ("'http://h:65536' is not a URL", "chat", "--url", "http://h:65536")]:
            self.assertEqual(self.fails(2, message, *args), "")

    def test_what_cannot_be_read_is_1(self):
        nothing, folder = os.path.join(self.folder.name, "nothing"), self.folder.name
        not_a_model = self.file("not-a-model", "root:x:0:0\n")
        for path in (nothing, folder, not_a_model):
            for command in (["generate", "--prompt", "a", "--model"], ["inspect", "--model"], ["render", "--model"],
                            ["tokenize", "--tokenizer"], ["serve", "--http", "127.0.0.1:0", "--grpc", "off", "--model"]):
                self.assertEqual(self.fails(1, path, *command, path), "")
        for path in (nothing, folder):
            self.fails(1, "cannot be read", "render", "--template", path)
            self.fails(2, "cannot be read", "serve", "--config", path)
        self.fails(1, "line 1", "render", "--template", self.file("bad.jinja", "{% if %}"))

    def test_output_that_cannot_be_written_is_1(self):
        for args, stdin in ((["inspect", "--model", harness.MODEL], ""), (["tokenize", "--tokenizer", harness.MODEL], '"a"\n')):
            with open("/dev/full", "w", encoding="utf-8") as full:
                result = subprocess.run([harness.BINARY, *args], input=stdin, stdout=full, stderr=subprocess.PIPE, text=True,
                                        timeout=300, check=False)
            self.assertEqual((result.returncode, result.stderr), (1, "error: the output cannot be written\n"), args)

    # generate

    def test_generate_forms_agree_with_the_golden_answer(self):
        golden = self.chats[0]
        for args in (["--chat", QUESTION], ["--prompt", golden["prompt"], "--max-tokens", "48"],
                     ["--prompt-tokens", ",".join(map(str, golden["ids"])), "--max-tokens", "48"]):
            answer = self.generate(*args)
            self.assertEqual(answer["text"], ANSWER)
            self.assertEqual(answer["token_ids"], golden["tokens"])
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertEqual(answer["usage"], {"prompt_tokens": len(golden["ids"]), "completion_tokens": len(golden["tokens"]),
                                               "total_tokens": len(golden["ids"]) + len(golden["tokens"])})
            self.assertEqual(set(answer["timings"]), {"first_token_ms", "total_ms", "prompt_tokens_per_second",
                                                      "decode_tokens_per_second"})
            self.assertLessEqual(answer["timings"]["first_token_ms"], answer["timings"]["total_ms"])

    def test_generate_system_message(self):
        golden = self.chats[1]
        self.assertEqual([m["role"] for m in golden["messages"]], ["system", "user"])
        answer = self.generate("--system", golden["messages"][0]["content"], "--chat", golden["messages"][1]["content"],
                               "--max-tokens", "48", "--numerics", "float32")
        self.assertEqual(answer["usage"]["prompt_tokens"], len(golden["ids"]))
        steps = golden["comparable_steps"]
        self.assertEqual(answer["token_ids"][:steps], golden["tokens"][:steps])

    def test_generate_prints_the_text_as_it_comes(self):
        args = ["generate", *GREEDY, "--chat", QUESTION, "--max-tokens", "400", "--ignore-eos"]
        with subprocess.Popen([harness.BINARY, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            first = os.read(process.stdout.fileno(), 1 << 16)
            rest = process.stdout.read()
        self.assertEqual(process.returncode, 0)
        self.assertGreater(len(rest), 0, "all of the text came at once")
        text = (first + rest).decode("utf-8")
        self.assertTrue(text.startswith(ANSWER))
        self.assertEqual(text, self.generate(*args[len(GREEDY) + 1:])["text"] + "\n")

    def test_generate_ends(self):
        golden = self.chats[0]
        longer = self.generate("--chat", QUESTION, "--max-tokens", "12", "--ignore-eos")
        self.assertEqual(longer["token_ids"][:8], golden["tokens"])
        self.assertEqual((len(longer["token_ids"]), longer["finish_reason"]), (12, "length"))
        self.assertEqual(self.succeeds("generate", *GREEDY, "--chat", QUESTION, "--stop", "zzz", "--stop", " is Par"),
                         "The capital of France\n")
        self.assertEqual(self.generate("--prompt", "Once upon a time")["usage"]["completion_tokens"], 16)
        self.assertEqual(self.generate("--prompt", "Once", "--max-tokens", "0")["token_ids"], [])

    def test_generate_without_a_tokenizer(self):
        golden = self.chats[0]
        args = ["--skip-tokenizer", "--prompt-tokens", ",".join(map(str, golden["ids"])), "--max-tokens", "8"]
        self.assertEqual(self.succeeds("generate", *GREEDY, *args), ",".join(map(str, golden["tokens"])) + "\n")
        self.assertEqual(self.generate(*args)["text"], "")
        self.fails(1, "--skip-tokenizer", "generate", *GREEDY, "--skip-tokenizer", "--prompt", "a")

    def test_generate_by_the_gpu_kernels(self):
        for warp in 32, 64:
            answer = self.generate("--device", f"host-simt:{warp}", "--chat", QUESTION, "--max-tokens", "4")
            self.assertEqual(answer["token_ids"], self.chats[0]["tokens"][:4])
        answer = self.generate("--device", "host-simt:32", "--gpu-layers", "29", "--log-level", "error", "--chat", QUESTION, "--max-tokens", "4")
        self.assertEqual(answer["token_ids"], self.chats[0]["tokens"][:4])

    def test_generate_seed_repeats(self):
        def draw(*args):
            return json.loads(self.succeeds("generate", "--model", harness.MODEL, "--prompt", "Once upon a time", "--json",
                                            "--temperature", "1.2", "--max-tokens", "24", *args))
        drawn = draw()
        self.assertEqual(draw("--seed", str(drawn["seed"]))["token_ids"], drawn["token_ids"])
        seven = draw("--seed", "7")
        self.assertEqual(seven["seed"], 7)
        self.assertEqual(draw("--seed", "7", "--threads", "1")["token_ids"], seven["token_ids"])
        self.assertNotEqual(draw("--seed", "8")["token_ids"], seven["token_ids"])

    def test_generate_refuses_what_the_server_refuses(self):
        for message, *args in [("prompt is empty", "--prompt", ""), ("the vocabulary has 0 to 49151", "--prompt-tokens", "1,49152"),
                               ("8192", "--prompt", "hi", "--max-tokens", "9000"), ("top_p", "--prompt", "hi", "--top-p", "0"),
                               ("empty string", "--prompt", "hi", "--stop", ""),
                               ("UTF-8", "--chat", "hi", "--system", b"\xff".decode("utf-8", "surrogateescape"))]:
            self.assertEqual(self.fails(1, message, "generate", *GREEDY, *args), "")

    # tokenize

    def test_tokenize_golden_texts(self):
        cases = self.cases["encode"]
        self.assertGreater(len(cases), 300)
        tokenize = ["tokenize", "--tokenizer", harness.MODEL]
        texts = lines(*(c["text"] for c in cases))
        self.assertEqual(self.answers(*tokenize, stdin=texts), [c["ids_special"] for c in cases])
        self.assertEqual(self.answers(*tokenize, "--no-special-tokens", stdin=texts), [c["ids"] for c in cases])
        ids = lines(*(c["ids_special"] for c in cases))
        self.assertEqual(self.answers(*tokenize, "--decode", stdin=ids), [c["decoded"] for c in cases])
        self.assertEqual(self.answers(*tokenize, "--decode", "--skip-special-tokens", stdin=ids), [c["decoded_skip"] for c in cases])

    def test_tokenize_golden_ids(self):
        cases = self.cases["decode"]
        self.assertGreater(len(cases), 50)
        decode = ["tokenize", "--tokenizer", harness.MODEL, "--decode"]
        ids = lines(*(c["ids"] for c in cases))
        self.assertEqual(self.answers(*decode, stdin=ids), [c["decoded"] for c in cases])
        self.assertEqual(self.answers(*decode, "--skip-special-tokens", stdin=ids), [c["decoded_skip"] for c in cases])

    def test_tokenize_bad_lines_get_an_error_each(self):
        tokenize = ["tokenize", "--tokenizer", harness.MODEL]
        answers = self.answers(*tokenize, stdin='bad\n12\n[1]\n\n"\\ud83d"\n"hello"\n')
        self.assertEqual([type(a) for a in answers], [dict] * 4 + [list])
        self.assertTrue(all(list(a) == ["error"] for a in answers[:4]))
        answers = self.answers(*tokenize, "--decode", stdin='"x"\n[-1]\n["a"]\n[1.5]\n[4294967297]\n[504,3575]\n')
        self.assertTrue(all(list(a) == ["error"] for a in answers[:5]), answers)
        self.assertEqual(answers[5], "The capital")

    # render

    def test_render_golden_chats(self):
        requests = lines(*({"messages": c["messages"], "tools": None, "add_generation_prompt": True} for c in self.chats))
        self.assertEqual(self.answers("render", "--model", harness.MODEL, stdin=requests), [c["prompt"] for c in self.chats])
        template = harness.golden("smollm2", "chat_template.jinja")
        self.assertEqual(self.answers("render", "--template", template, stdin=requests), [c["prompt"] for c in self.chats])

    def test_render_variables_and_errors(self):
        template = self.file("t.jinja", "{% if tools %}{{ tools | length }} tools {% endif %}"
                                        "{% if bad %}{{ raise_exception('roles must alternate') }}{% endif %}{{ extra }}")
        answers = self.answers("render", "--template", template, stdin=lines(
            {"tools": None, "extra": "none"}, {"bad": True}, {"tools": [{}, {}], "extra": "two"}, [], 1) + "{\n")
        self.assertEqual(answers[:3], ["none", {"error": "roles must alternate"}, "2 tools two"])
        self.assertEqual([list(a) for a in answers[3:]], [["error"]] * 3)

    # inspect

    def inspect(self, model, *args):
        return json.loads(self.succeeds("inspect", "--model", model, "--json", *args))

    def test_inspect(self):
        report = self.inspect(harness.MODEL)
        self.assertEqual((report["format"], report["architecture"], report["supported"]), ("gguf", "llama", True))
        self.assertEqual((report["parameters"], report["active_parameters"]), (134515008, 134515008))
        self.assertEqual({name: d["tensors"] for name, d in report["dtypes"].items()}, {"f32": 61, "q4_1": 210, "q8_0": 1})
        self.assertEqual(report["tensors"], 272)
        self.assertEqual((report["shape"]["layers"], report["shape"]["hidden"], report["shape"]["context"]), (30, 576, 8192))
        self.assertEqual(report["tokenizer"], {"model": "gpt2", "name": "smollm", "vocabulary": 49152, "bos": 1,
                                               "stop_tokens": [{"id": 2, "text": "<|im_end|>"}]})
        template = report["chat_template"]
        with open(harness.golden("smollm2", "chat_template.jinja"), encoding="utf-8") as f:
            characters = len(f.read().encode())
        self.assertEqual(template, {"name": "chatml", "source": "tokenizer.chat_template", "characters": characters,
                                    "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
        memory = report["memory"]
        self.assertEqual((memory["kv_dtype"], memory["kv_per_token"]), ("f16", 30 * 2 * 3 * 64 * 2))
        self.assertEqual(memory["kv"], memory["kv_per_token"] * 8192)
        self.assertEqual(memory["total"], memory["weights"] + memory["kv"] + memory["scratch"])
        four = self.inspect(harness.MODEL, "--context", "160", "--concurrency", "4")
        self.assertEqual(four["memory"]["kv"], memory["kv_per_token"] * 160 * 4)
        text = self.succeeds("inspect", "--model", harness.MODEL)
        for line in ("architecture: llama", "  q4_1:", "  layers: 30", "  kv_dtype: f16", "  name: chatml",
                     "unusual:\n  - the head is the embedding table (tied)"):
            self.assertIn(line + "\n", text)

    def test_inspect_folder(self):
        report = self.inspect(harness.golden("models", "llama-bias-sharded"))
        self.assertEqual((report["format"], report["supported"], report["tokenizer"]), ("safetensors", True, None))
        self.assertTrue(any("biases" in note for note in report["unusual"]))

    def test_inspect_windows_and_norms(self):
        folder = harness.golden("models", "gemma3")
        report = self.inspect(folder)
        layer = 64 * 128 + 2 * 64 * 64 + 128 * 64 + 3 * 64 * 112 + 4 * 64 + 2 * 32  # q, k and v, o; MLP; norms, those of heads
        self.assertEqual(report["parameters"], 512 * 64 + 4 * layer + 64)
        self.assertEqual(report["dtypes"], {"f32": {"tensors": 4 * 13 + 2, "bytes": 4 * report["parameters"]}})
        self.assertEqual(report["unusual"], [
            "the head is the embedding table (tied)",
            "embeddings are multiplied by 8",
            "norms before and after attention and MLP",
            "norms multiply by their weights plus 1",
            "q and k are normed, each head by itself",
            "heads x head_dim is not the hidden size",
            "a sliding window of 8 tokens in 2 of 4 layers",
            "RoPE base 1000000 in 2 of 4 layers, scaled: linear, factor 8",
            "RoPE base 10000 in 2 of 4 layers",
            "the MLP's activation is gelu (tanh)",
            f"tokenizer: {folder}: holds no tokenizer.json and no tokenizer.model",
            "there is no chat template"])

    def test_inspect_experts(self):
        folder = harness.golden("models", "mixtral-sharded")
        report = self.inspect(folder, "--context", "100", "--concurrency", "3")
        others = 2 * 512 * 64 + 64 + 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 2 * 64 + 4 * 64)  # with the routers
        expert = 3 * 64 * 80
        self.assertEqual((report["parameters"], report["active_parameters"]), (others + 2 * 4 * expert, others + 2 * 2 * expert))
        self.assertEqual(report["shape"]["experts"], {"count": 4, "per_token": 2, "ffn": 80})
        # A step of 256 tokens, f32: the residual stream, normed; q, k and v; what attention gives; gate and up of two
        # experts, their product; the router's logits, expert and weight of each; down of each. 64 rows for the head.
        scratch = 4 * 256 * (64 + 64 + 8 * 16 + 64 + 2 * 160 + 160 + 4 + 2 + 2 + 2 * 64) + 4 * 64 * (64 + 512)
        kv_per_token = 2 * 2 * 2 * 16 * 2  # layers, K and V, heads, f16
        kv = 3 * 112 * kv_per_token  # seven blocks of 16
        weights = 4 * report["parameters"]
        self.assertEqual(report["memory"], {
            "device": "cpu", "weights": weights, "kv_dtype": "f16", "kv_per_token": kv_per_token, "context": 100,
            "concurrency": 3, "kv": kv, "scratch": scratch, "total": weights + kv + scratch})
        self.assertEqual(report["unusual"][0], "4 experts of 80, 2 for a token, in all 2 layers")
        wide = self.inspect(folder, "--kv-cache-dtype", "f32", "--weight-dtype", "bf16")
        self.assertEqual((wide["memory"]["kv_dtype"], wide["memory"]["kv_per_token"]), ("f32", 2 * kv_per_token))
        self.assertEqual(wide["converted"], {"f32 as bf16": 2 + 2 * (4 + 4 * 3)})  # all matrices but the routers
        self.assertIn("converted weights: 34 tensors of f32 as bf16", wide["unusual"])

    def test_inspect_sinks(self):
        # Each of the experts' three matrices has a bias; so have q, k, v, o and the router.
        expert = 3 * 64 * 96 + 2 * 96 + 64
        attention = 64 * 128 + 128 + 2 * (64 * 64 + 64) + 128 * 64 + 64 + 4
        others = 2 * 512 * 64 + 64 + 2 * (attention + 2 * 64 + 4 * 64 + 4)
        features = [
            "the q, k and v projections have biases",
            "the attention's output has a bias",
            "heads x head_dim is not the hidden size",
            "a sliding window of 8 tokens in 1 of 2 layers",
            "attention has a sink, a learnt logit a head",
            "RoPE is scaled: yarn, factor 32, of a context of 64",
            "the MLP's activation is silu, clamped at 7",
            "4 experts of 96, 2 for a token, in all 2 layers",
            "the router and the experts have biases"]
        for name in ("gpt-oss-bf16", "gpt-oss-mxfp4"):
            report = self.inspect(harness.golden("models", name))
            self.assertEqual((report["parameters"], report["active_parameters"]),
                             (others + 2 * 4 * expert, others + 2 * 2 * expert), name)
            self.assertEqual(report["unusual"][:-2], features, name)
        blocks = 2 * 4 * 3 * 64 * 96 // 32
        self.assertEqual(report["dtypes"]["mxfp4"], {"tensors": 2 * 3, "bytes": 17 * blocks})
        self.assertEqual(report["memory"]["weights"], 17 * blocks + 2 * (report["parameters"] - 32 * blocks))
        self.assertEqual(report["converted"], {})
        half = self.inspect(harness.golden("models", "gpt-oss-bf16"), "--weight-dtype", "q8_0")
        self.assertEqual(half["converted"], {"bf16 as q8_0": 2 + 2 * (4 + 3)})  # all matrices but the routers
        matrices = 2 * 512 * 64 + 2 * (3 * 128 * 64 + 4 * 3 * 64 * 96)
        self.assertEqual(half["memory"]["weights"], matrices * 34 // 32 + 2 * (half["parameters"] - matrices))

    def test_inspect_latent_attention(self):
        # Memory is of what is made: v of 8 elements a head filled up to 16, and rows for the part of k that rotates.
        report = self.inspect(harness.golden("models", "deepseek-v2-lite"))
        made = 32 * 4 * 16 + 2 * 4 * 16 * (16 + 8)
        held = 32 * 4 * 8 + 4 * (8 + 8) * 16
        self.assertEqual(report["memory"]["weights"], 4 * (report["parameters"] + 2 * (made - held)))
        self.assertEqual(report["dtypes"], {"f32": {"tensors": report["tensors"], "bytes": report["memory"]["weights"]}})
        half = self.inspect(harness.golden("models", "deepseek-v2-lite"), "--weight-dtype", "bf16")
        self.assertEqual(half["parameters"], report["parameters"])
        self.assertEqual(half["converted"], {"f32 as bf16": half["dtypes"]["bf16"]["tensors"]})

    def test_inspect_text_of_folders(self):
        folder = self.folder_with_tokenizer()
        report = self.inspect(folder)
        self.assertEqual((report["tokenizer"]["model"], report["tokenizer"]["name"]), ("BPE", "PreTrainedTokenizerFast"))
        self.assertEqual((report["chat_template"]["name"], report["chat_template"]["source"]), ("llama3", "tokenizer_config.json"))
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as f:
            f.write("{{ messages[0].content }}")
        template = self.inspect(folder)["chat_template"]
        self.assertEqual((template["name"], template["source"], template["characters"]), (None, "chat_template.jinja", 25))
        # A kind of tokenizer that we lack has its name all the same.
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            f.write('{"model": {"type": "SomethingElse", "vocab": {}}}')
        report = self.inspect(folder)
        self.assertEqual(report["tokenizer"], {"model": "SomethingElse", "name": "PreTrainedTokenizerFast"})
        self.assertTrue(any(note.startswith("tokenizer: ") and "SomethingElse" in note for note in report["unusual"]))

    def folder_with_tokenizer(self):
        folder = os.path.join(self.folder.name, "llama-with-tokenizer")
        shutil.copytree(harness.golden("models", "llama-gqa"), folder, ignore=shutil.ignore_patterns("golden.*"))
        shutil.copy(harness.golden("tokenizers", "bpe-llama3", "tokenizer.json"), folder)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "<|start_header_id|>user"}, f)
        return folder

    # chat

    def test_chat_local_and_remote_say_the_same(self):
        options = ["--temperature", "0"]
        typed = QUESTION + "\n\nAnd of Italy?\n"
        local = self.succeeds("chat", "--model", harness.MODEL, *options, stdin=typed)
        self.assertEqual(local.splitlines()[0], ANSWER)
        self.assertIn("Rome", local.splitlines()[1])  # it knows what the second question is about
        keys = self.file("keys", "sesame\n")
        with harness.Server("--api-key-file", keys, key="sesame") as server:
            remote = ["chat", "--url", server.url, *options]
            self.assertEqual(self.succeeds(*remote, "--url-key-file", keys, stdin=typed), local)
            self.fails(1, "401", *remote, stdin=typed)
            self.fails(1, "401", *remote, "--url-key-file", self.file("wrong", "open\n"), stdin=typed)
            self.fails(1, "8192", *remote, "--url-key-file", keys, "--max-tokens", "9000", stdin=typed)
            server.process.kill()
            server.process.wait()
            self.fails(1, "refused", *remote, "--url-key-file", keys, stdin=typed)

    def test_chat_refusals(self):
        self.assertEqual(self.succeeds("chat", "--model", harness.MODEL), "")
        self.fails(1, "8192", "chat", "--model", harness.MODEL, "--max-tokens", "9000", stdin="x\n")


if __name__ == "__main__":
    harness.main()
