#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lints the checkout. usage: check.py [--root DIR] CHECK...

CHECK is `rules` (the repository's own, in rules.py), one of those by name, or a tool: format, spelling, shell, dockerfile,
units. The tools come with tests/requirements.txt, so every machine runs the same version. Prints path:line: message and
exits with 1 when there is a finding, with 2 when a tool is missing.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import rules
from rules import Finding, Tree

# What codespell takes for mistakes in this code base.
KNOWN_WORDS = "ue,indention,te,nd,ot,ser,fo,afterall,inout,thi,hel,wor,lo,assertIn,caf,ans,mis,tre,doub,seperator"


class MissingTool(Exception):
    pass


def tool(name: str) -> str:
    """The tool beside the Python that runs this: the one that tests/requirements.txt pins."""
    # Not resolved: in a virtual environment the interpreter is a link, and the tools stand beside the link.
    pinned = Path(sys.executable).parent / name
    if not pinned.exists():
        raise MissingTool(f"no {pinned}: run this with the Python that tests/run.sh makes (build/venv/bin/python)")
    return str(pinned)


def run(command: list[str], root: Path) -> list[str]:
    """The lines a tool printed when it found something, none when it found nothing."""
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        return []
    lines = done.stdout.splitlines()
    return lines or [f"{command[0]} exited with {done.returncode} and said nothing"]


def findings(lines: list[str], pattern: str) -> Iterator[Finding]:
    """Findings from lines like path:line...message; anything else a tool says counts as one, too."""
    matched = False
    for line in lines:
        if match := re.match(pattern, line):
            matched = True
            yield Finding(match["path"].removeprefix("./"), int(match["line"]), match["message"])
    if lines and not matched:
        yield Finding(".", 0, "\n".join(lines))


def format_check(tree: Tree) -> Iterator[Finding]:
    paths = [file.path for file in tree.cpp]
    if paths:
        lines = run([tool("clang-format"), "--dry-run", "-Werror", *paths], tree.root)
        seen = set()
        for finding in findings(lines, r"(?P<path>[^:]+):(?P<line>\d+):\d+: error: (?P<message>.*)"):
            if finding.path not in seen:  # one a file: clang-format -i mends them all
                seen.add(finding.path)
                yield finding


def spelling(tree: Tree) -> Iterator[Finding]:
    paths = [file.path for file in tree.files if file.name != "LICENSE"]
    # Mixed case is a name in code, not a word.
    command = [tool("codespell"), "-L", KNOWN_WORDS, "--ignore-regex", r"\b\w*[a-z][A-Z]\w*\b", *paths]
    lines = run(command, tree.root)
    yield from findings(lines, r"(?P<path>[^:]+):(?P<line>\d+): (?P<message>.*)")


def shell(tree: Tree) -> Iterator[Finding]:
    paths = [file.path for file in tree.files if re.match(r"#!.*\b(?:ba|da)?sh\b", file.text)]
    if paths:
        lines = run([tool("shellcheck"), "-x", "-f", "gcc", *paths], tree.root)
        yield from findings(lines, r"(?P<path>[^:]+):(?P<line>\d+):\d+: (?P<message>.*)")


def dockerfile(tree: Tree) -> Iterator[Finding]:
    paths = [file.path for file in tree.files if re.fullmatch(r"Dockerfile\.\w+", file.name)]
    if paths:
        lines = run([tool("hadolint"), "--no-color", *paths], tree.root)
        yield from findings(lines, r"(?P<path>[^:]+):(?P<line>\d+) (?P<message>.*)")


def units(tree: Tree) -> Iterator[Finding]:
    """systemd's own reading of the unit files, where systemd is installed; that the binary is not is no finding."""
    analyze = shutil.which("systemd-analyze")
    paths = [file.path for file in tree.files if file.absolute.suffix == ".service"]
    if analyze is None:
        print(f"units: not checked, no systemd-analyze here: {' '.join(paths)}")
        return
    for path in paths:
        # It warns of unknown keys with exit code 0, and fails where the binary is not installed: read what it says.
        done = subprocess.run([analyze, "verify", "--man=no", path], cwd=tree.root, capture_output=True, text=True)
        for line in (done.stdout + done.stderr).splitlines():
            if Path(path).name in line and "is not executable" not in line:
                yield Finding(path, 1, line)


TOOLS = {
    "format": format_check,
    "spelling": spelling,
    "shell": shell,
    "dockerfile": dockerfile,
    "units": units,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Lints the checkout.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("checks", nargs="+", choices=["rules", *rules.ALL, *TOOLS], metavar="CHECK")
    arguments = parser.parse_args()
    checks = {**rules.ALL, **TOOLS}
    names = [name for check in arguments.checks for name in (rules.ALL if check == "rules" else [check])]
    tree = Tree(arguments.root)
    count = 0
    for name in names:
        try:
            for finding in checks[name](tree):
                count += 1
                print(f"{finding} [{name}]")
        except MissingTool as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
    print(f"{len(tree.files)} files, {count} findings: {' '.join(names)}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
