# SPDX-License-Identifier: Apache-2.0
"""The rules that need nothing but the text of the repository. Each takes a Tree and yields a Finding for every breach."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cpp

MAX_FILE_LINES = 800
MAX_FUNCTION_LINES = 70

# The include line: a folder may include itself and what stands to its right.
INCLUDE_LINE = ("server", "runtime", "models", "kernels")
CPP = {".h", ".cc", ".cu"}
CODE = CPP | {".py", ".sh", ".proto", ".cmake"}
# Data and build outputs: nobody reads them as source.
NOT_SOURCE = ("build", "tests/golden", "tests/fuzz/corpus", "bench/results")


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class File:
    def __init__(self, root: Path, path: Path) -> None:
        self.absolute = path
        self.path = path.relative_to(root).as_posix()
        self.folder = self.path.split("/")[0]
        self.name = path.name

    @cached_property
    def text(self) -> str:
        return self.absolute.read_text(encoding="utf-8", errors="replace")

    @cached_property
    def code(self) -> str:
        return cpp.strip(self.text)

    @property
    def is_cpp(self) -> bool:
        return self.absolute.suffix in CPP

    @property
    def is_script(self) -> bool:
        return self.text.startswith("#!")

    def matches(self, pattern: str, text: str | None = None, flags: int = 0) -> Iterator[tuple[int, str]]:
        """(line, what matched) of each match in `text`, by default in the whole file."""
        text = self.text if text is None else text
        for match in re.finditer(pattern, text, flags | re.MULTILINE):
            yield text.count("\n", 0, match.start()) + 1, match.group().strip()


class Tree:
    """Every source file of a checkout, committed or not."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @cached_property
    def files(self) -> list[File]:
        return [File(self.root, path) for path in self._walk(self.root)]

    def _walk(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            relative = path.relative_to(self.root).as_posix()
            hidden = path.name.startswith(".") and path.name not in (".ci", ".clang-format", ".clang-tidy", ".gitignore")
            if path.is_symlink() or hidden or path.name == "__pycache__" or relative in NOT_SOURCE:
                continue
            if path.is_dir():
                yield from self._walk(path)
            elif b"\0" not in path.read_bytes()[:4096]:
                yield path

    @property
    def cpp(self) -> list[File]:
        return [file for file in self.files if file.is_cpp]


def file_length(tree: Tree) -> Iterator[Finding]:
    for file in tree.files:
        lines = file.text.count("\n")
        if lines > MAX_FILE_LINES and file.name != "LICENSE":
            yield Finding(file.path, lines, f"{lines} lines; at most {MAX_FILE_LINES}")


def _python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def function_length(tree: Tree) -> Iterator[Finding]:
    for file in tree.files:
        try:
            if file.is_cpp:
                found = [(f.name, f.first_line, f.lines) for f in cpp.functions(file.text)]
            elif file.absolute.suffix == ".py":
                found = list(_python_functions(file.text))
            else:
                continue
        except (cpp.UnbalancedBraces, SyntaxError) as error:
            yield Finding(file.path, 1, f"cannot be read: {error}")
            continue
        for name, line, lines in found:
            if lines > MAX_FUNCTION_LINES:
                yield Finding(file.path, line, f"{name} has {lines} lines; at most {MAX_FUNCTION_LINES}")


_VENDOR_IF = r"^[ \t]*#[ \t]*(?:el)?if\w*\b.*(?:CUDA|NVCC|NVIDIA|HIP|ROCM|AMD|__AVX|__SSE|__ARM|__aarch64__|__x86_64__).*"
_VENDOR_NAME = r"\b(?:cuda|hip|cublas|cudnn|hipblas|rocblas|nccl|rccl|nvml|rocm|dnnl)_?[A-Za-z]\w*|\b(?:dnnl|hwy)::"
_VENDOR_HEADER = re.compile(r"^(?:cuda|hip/|cublas|cudnn|nccl|rccl|nvml|rocm|dnnl|oneapi/dnnl|hwy/|immintrin|arm_neon|omp\.h)")


def vendors(tree: Tree) -> Iterator[Finding]:
    """No vendor above kernels/, and inside it: vendor #ifs in gpu/, Highway and oneDNN in cpu/."""
    for file in tree.cpp:
        if file.folder in INCLUDE_LINE[:-1]:
            for line, found in file.matches(_VENDOR_IF, file.code):
                yield Finding(file.path, line, f"vendor #if above kernels/: {found}")
            for line, found in file.matches(_VENDOR_NAME, file.code):
                yield Finding(file.path, line, f"vendor name above kernels/: {found}")
        elif file.folder == "kernels" and not file.path.startswith("kernels/gpu/"):
            for line, found in file.matches(r"^[ \t]*#[ \t]*(?:el)?if\w*\b.*(?:CUDA|NVCC|HIP|ROCM).*", file.code):
                yield Finding(file.path, line, f"vendor #if outside kernels/gpu/: {found}")
        if file.folder in INCLUDE_LINE and not file.path.startswith(("kernels/cpu/", "kernels/gpu/")):
            for line, header in cpp.includes(file.text):
                if _VENDOR_HEADER.match(header):
                    yield Finding(file.path, line, f"vendor header outside kernels/cpu/ and kernels/gpu/: {header}")


def environment(tree: Tree) -> Iterator[Finding]:
    for file in tree.cpp:
        # The made-up drivers are told what to play.
        if not file.path.startswith(("server/config", "tests/gpu/cuda/fake_settings.h", "tests/gpu/amd_isa/hip_")):
            for line, found in file.matches(r"\b(?:secure_)?getenv\b|\benviron\b|\b(?:set|un|put)env\b", file.code):
                yield Finding(file.path, line, f"{found}: the environment is read in server/config* alone")


def include_line(tree: Tree) -> Iterator[Finding]:
    for file in tree.cpp:
        if file.folder not in INCLUDE_LINE:
            continue
        own = INCLUDE_LINE.index(file.folder)
        for line, header in cpp.includes(file.text):
            target = header.split("/")[0]
            if target in INCLUDE_LINE[:own]:
                yield Finding(file.path, line, f"{file.folder}/ must not include {header}: it stands to its left")
            elif target in ("tests", "bench"):
                yield Finding(file.path, line, f"the product must not include {header}")
            elif (target in ("proto", "fairlead") or ".pb.h" in header) and file.folder != "server" and target != "sentencepiece":
                yield Finding(file.path, line, f"{header}: the proto messages end at server/")
            elif ".." in header:
                yield Finding(file.path, line, f"{header}: include from the repository's root")


def in_build(tree: Tree) -> Iterator[Finding]:
    """Every source and every test is named in a CMakeLists.txt of its folder or one above: nothing is forgotten."""
    listed = {}
    for file in tree.files:
        if file.name == "CMakeLists.txt":
            text = re.sub(r"#.*", "", file.text)
            # "${CMAKE_CURRENT_SOURCE_DIR}/x.py" counts as x.py.
            listed[Path(file.path).parent] = {token.lstrip("/") for token in re.findall(r"[\w./+-]+", text)}
    for file in tree.files:
        is_python_test = file.folder == "tests" and re.search(r"(?:^test_.*|_test)\.py$", file.name)
        if not (file.absolute.suffix in (".cc", ".cu") or is_python_test):
            continue
        path = Path(file.path)
        if not any(path.relative_to(above).as_posix() in listed.get(above, ()) for above in path.parents):
            yield Finding(file.path, 1, "is in no CMakeLists.txt of its folder or one above")


def license_line(tree: Tree) -> Iterator[Finding]:
    for file in tree.files:
        if file.absolute.suffix in CODE - {".cmake"} or file.is_script:
            head = file.text.split("\n", 2)
            line = head[1] if file.is_script and len(head) > 1 else head[0]
            if not re.fullmatch(r"(?://|#) SPDX-License-Identifier: Apache-2\.0", line):
                yield Finding(file.path, 1, "does not begin with SPDX-License-Identifier: Apache-2.0")


def pragma_once(tree: Tree) -> Iterator[Finding]:
    for file in tree.cpp:
        if file.absolute.suffix == ".h" and not re.search(r"^#pragma once$|^HWY_BEFORE_NAMESPACE", file.text, re.MULTILINE):
            yield Finding(file.path, 1, "has no #pragma once")


# Written so that this file does not match itself.
_MACHINE_PATH = r"(?<![\w.$}/~-])/(?:home|root|wor[k]|mnt|Users)/[\w.]+|(?<![\w.$}/-])/op[t]/(?!onednn\b)[\w.]+|/tm[p]/\w+"


def machine_paths(tree: Tree) -> Iterator[Finding]:
    for file in tree.files:
        for line, found in file.matches(_MACHINE_PATH):
            yield Finding(file.path, line, f"a path of one machine: {found}")


def unfinished(tree: Tree) -> Iterator[Finding]:
    """A note on unfinished work names the issue and says what is missing."""
    for file in tree.files:
        for line, found in file.matches(r"\b(?:TO[D]O|FI[X]ME)\b(?!\(#\d+\): \w+ \w+).*"):
            yield Finding(file.path, line, f"{found}: write it, or name the issue and the reason: TO" + "DO(#12): why")


ALL = {
    rule.__name__: rule
    for rule in (
        file_length,
        function_length,
        vendors,
        environment,
        include_line,
        in_build,
        license_line,
        pragma_once,
        machine_paths,
        unfinished,
    )
}
