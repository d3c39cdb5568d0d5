# SPDX-License-Identifier: Apache-2.0
"""Each rule of the lint is fed what it must refuse and what it must let pass."""

import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import check
import cpp
import rules

LICENSE = "// SPDX-License-Identifier: Apache-2.0\n"
UNFINISHED = "TO" + "DO"
CHECKOUT = Path(__file__).resolve().parents[2]


def body(lines: int) -> str:
    """A function body of so many lines, braces included."""
    return "{\n" + "  Call();\n" * (lines - 2) + "}\n"


# rule: (files it must refuse, files it must let pass). A refused case is one file each, so that none hides another.
CASES = {
    "file_length": (
        {"models/a.cc": "int x;\n" * 801, "deploy/a.sh": "true\n" * 801},
        {"models/a.cc": "int x;\n" * 800, "tests/golden/a.json": "1\n" * 900, "build/a.cc": "int x;\n" * 900},
    ),
    "function_length": (
        {
            "models/free.cc": "void F() " + body(71),
            "models/method.cc": "struct A {\n  int F() const override " + body(71) + "};\n",
            "models/constructor.cc": "A::A(int x) : x_{x}, y_(1) " + body(71),
            "models/macro.cc": "TEST(Suite, Case) " + body(71),
            "models/lambda.cc": "const auto kF = [](int x) " + body(71) + ";\n",
            "models/table.cc": 'const Map kTable = {{"a", [](int x) ' + body(71) + "}};\n",
            "models/inside.cc": "void F() {\n  Run([&] " + body(69) + ");\n}\n",
            "models/template.cc": "template <class T>\nauto F(T t) -> std::vector<T> " + body(71),
            "models/defaulted.cc": "void F(Options o = {}, int n = 1) " + body(71),
            "models/open.cc": "void F() {\n",
            "models/closed.cc": "void F() {}}\n",
            "tests/a.py": "def f():\n" + "    x = 1\n" * 70,
            "tests/broken.py": "def f(:\n",
        },
        {
            "models/free.cc": "void F() " + body(70),
            "models/scope.cc": "MACRO(x)\nnamespace a::b " + body(90) + "class B : public A " + body(90),
            "models/values.cc": "constexpr int kTable[] = {\n" + "  1,\n" * 90 + "};\nconst T kT{\n" + "  1,\n" * 90 + "};\n",
            "models/text.cc": 'const char* k = "{{{";  // {\nchar c = \'{\'; /* { */\nauto r = R"x(}}\n)x";\n',
            "models/digits.cc": "constexpr int kMillion = 1'000'000;\nvoid F() {}\n",
            "models/enum.cc": "enum class E : uint8_t {\n" + "  kA,\n" * 90 + "};\n",
            "models/if.cc": "#define A(x) {\nvoid F() {\n}\n",
            "tests/a.py": "def f():\n" + "    x = 1\n" * 69,
        },
    ),
    "vendors": (
        {
            "server/a.cc": "#ifdef WITH_CUDA\n#endif\n",
            "runtime/a.cc": "#if defined(__HIP_PLATFORM_AMD__)\n#endif\n",
            "models/a.cc": "#if __AVX2__\n#endif\n",
            "models/b.cc": "void F() { cudaMalloc(0); }\n",
            "runtime/b.cc": "dnnl::memory m;\n",
            "kernels/a.cc": "#ifdef __CUDA_ARCH__\n#endif\n",
            "kernels/b.h": "#include <hwy/highway.h>\n",
            "models/c.cc": '#include "dnnl.hpp"\n',
        },
        {
            "server/a.cc": 'const char* k = "cuda:0";  // cudaMalloc\n#ifdef NDEBUG\n#endif\n',
            "kernels/cpu/a.cc": "#include <hwy/highway.h>\n#if __AVX2__\n#endif\n",
            "kernels/gpu/gpu.h": "#ifdef __CUDACC__\n#include <cuda_runtime.h>\n#endif\n",
        },
    ),
    "environment": (
        {"runtime/a.cc": 'auto x = std::getenv("X");\n', "tests/a.cc": 'setenv("X", "1", 1);\n', "server/b.cc": "environ;\n"},
        {"server/config_file.cc": 'auto x = getenv("X");\n', "models/a.cc": "// no getenv here\n"},
    ),
    "include_line": (
        {
            "kernels/a.h": '#include "models/a.h"\n',
            "models/a.cc": '#include "runtime/a.h"\n',
            "runtime/a.cc": '  #  include "server/a.h"\n',
            "models/b.cc": "#include <server/a.h>\n",
            "runtime/b.cc": '#include "fairlead/v1/inference.pb.h"\n',
            "server/a.cc": '#include "tests/reference/ops.h"\n',
            "server/b.cc": '#include "../models/a.h"\n',
        },
        {
            "server/a.cc": '#include "fairlead/v1/inference.pb.h"\n#include "runtime/a.h"\n#include "kernels/a.h"\n',
            "models/a.cc": '#include "models/a.h"\n#include "kernels/a.h"\n#include <vector>\n',
            "tests/models/a_test.cc": '#include "server/a.h"\n',
        },
    ),
    "in_build": (
        {
            "models/a.cc": "",
            "tests/models/a_test.cc": "",
            "tests/fuzz/gguf_fuzz.cc": "",
            "tests/e2e/client_test.py": "",
            "tests/e2e/test_client.py": "",
        },
        {
            "models/CMakeLists.txt": "add_library(m a.cc\n  jinja/b.cc)\n",
            "models/a.cc": "",
            "models/jinja/b.cc": "",
            "tests/CMakeLists.txt": "add_test(NAME x COMMAND ${P} ${CMAKE_CURRENT_SOURCE_DIR}/e2e/client_test.py)\n",
            "tests/e2e/client_test.py": "",
            "tests/e2e/helper.py": "",
        },
    ),
    "license_line": (
        {"models/a.cc": "int x;\n", "tests/a.py": '"""x"""\n', "deploy/a.sh": "#!/bin/sh\ntrue\n", ".ci/run": "#!/bin/sh\n"},
        {"models/a.cc": LICENSE, "deploy/a.sh": "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n", "a.txt": "x\n"},
    ),
    "pragma_once": ({"models/a.h": LICENSE}, {"models/a.h": LICENSE + "#pragma once\n"}),
    "machine_paths": (
        {"models/a.cc": '"/ho' + 'me/ann/x"\n', "deploy/a.sh": "ls /o" + "pt/models\n", "README.md": "in /wo" + "rk/main\n"},
        {"models/a.cc": '"/opt/onednn" "/usr/lib" "/v1/work/x" "$HOME/home/x"\n'},
    ),
    "unfinished": (
        {
            "models/a.cc": f"// {UNFINISHED}: later\n",
            "deploy/a.sh": f"# {UNFINISHED}(me): tidy this up\n",
            "tests/a.py": f"# {UNFINISHED}(#3)\n",
            "models/b.cc": "// FIX" + "ME\n",
        },
        {"models/a.cc": f"// {UNFINISHED}(#12): needs the sliding window of order 4.\n", "b.sh": "mktemp x.XXXXXX\n"},
    ),
    "format": ({"models/a.cc": "int  x ;\n"}, {"models/a.cc": "int x;\n"}),
    "spelling": ({"models/a.cc": "// rec" + "ieve\n"}, {"models/a.cc": "// receive\n"}),
    "shell": ({"a.sh": "#!/bin/sh\nrm $1\n", "run": "#!/usr/bin/env bash\nrm $1\n"}, {"a.sh": '#!/bin/sh\nrm "$1"\n'}),
    "dockerfile": (
        {"deploy/Dockerfile.cpu": "FROM debian:12-slim\nRUN cd /x && sudo y\n"},
        {"deploy/Dockerfile.cpu": "FROM debian:12-slim\nUSER 10001\n"},
    ),
}


class LintTest(unittest.TestCase):
    def lint(self, checks: list[str], files: dict[str, str]) -> tuple[int, str]:
        """The exit code and output of check.py on a checkout that holds these files."""
        with tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            output = io.StringIO()
            with mock.patch.object(sys, "argv", ["check.py", "--root", folder, *checks]):
                with contextlib.redirect_stdout(output):
                    return check.main(), output.getvalue()

    def test_every_rule_has_cases(self):
        # units is systemd's own judgement: test_units below.
        self.assertEqual(set(CASES), {*rules.ALL, *check.TOOLS} - {"units"})

    def test_refuses(self):
        for rule, (bad, _) in CASES.items():
            for path, text in bad.items():
                with self.subTest(rule=rule, path=path):
                    code, output = self.lint([rule], {path: text})
                    self.assertEqual(code, 1, output)
                    self.assertIn(f"{path}:", output)
                    self.assertIn(f"[{rule}]", output)

    def test_lets_pass(self):
        for rule, (_, good) in CASES.items():
            with self.subTest(rule=rule):
                code, output = self.lint([rule], good)
                self.assertEqual(code, 0, output)

    def test_rules_means_all_of_them(self):
        code, output = self.lint(["rules"], {"models/a.h": "int x;\n" * 801})
        self.assertEqual(code, 1)
        for rule in ("file_length", "license_line", "pragma_once"):
            self.assertIn(f"[{rule}]", output)

    def test_missing_tool_is_an_error(self):
        with mock.patch.object(sys, "executable", str(CHECKOUT / "python")), contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(self.lint(["format"], {"models/a.cc": "int x;\n"})[0], 2)

    def test_units(self):
        unit = "[Service]\nExecStart=/bin/true\nUser=10001\nNoSuchKey=1\n"
        code, output = self.lint(["units"], {"deploy/a.service": unit})
        self.assertTrue(code == 1 or "no systemd-analyze here" in output, output)

    def test_function_names_and_lines(self):
        text = 'A::A() : x_{1} {\n}\nbool operator==(A a) {\n}\nTEST(S, "x") {\n  auto f = [] {};\n}\nauto k = [] {};\n'
        found = [(f.name, f.first_line, f.lines) for f in cpp.functions(text)]
        self.assertEqual(found, [("A::A", 1, 2), ("operator==", 3, 2), ('TEST(S, " ")', 5, 3), ("lambda", 8, 1)])

    def test_strip_keeps_lines_and_columns(self):
        text = 'a /* x\ny */ "b" // c\n R"(d\n)" \'e\' f\n'
        stripped = cpp.strip(text)
        self.assertEqual([len(line) for line in stripped.split("\n")], [len(line) for line in text.split("\n")])
        self.assertEqual("".join(stripped.split()), 'a""""' + "''" + "f")


if __name__ == "__main__":
    unittest.main()
