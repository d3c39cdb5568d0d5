#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of every case of instruction_cases under valgrind's callgrind and compares them with golden.json.

  bench/instructions/check.py build/release/instruction_cases             fails when a case takes > 5 % more
  bench/instructions/check.py build/release/instruction_cases --update    writes golden.json for this compiler

Valgrind knows no AVX-512, so every machine with AVX2 runs the same path. The counts are those of one compiler version: with
another one the comparison is printed and nothing fails.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden.json")
ALLOWED_PERCENT = 5


def count(program: str, cases: list[str]) -> dict[str, int]:
    """One run of all cases, since starting a program under valgrind takes longer than any of them: each return from
    MeasuredCase writes a part with what was counted since the last, numbered from 1."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--toggle-collect=MeasuredCase",
                   "--dump-after=MeasuredCase", program, *cases]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: {' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return {case: count_of_part(Path(folder, f"out.{i}"), case) for i, case in enumerate(cases, 1)}


def count_of_part(part: Path, case: str) -> int:
    match = re.search(r"^(?:summary|totals): (\d+)", part.read_text(encoding="utf-8") if part.exists() else "", re.MULTILINE)
    if match is None or int(match[1]) == 0:
        raise SystemExit(f"error: {case}: callgrind counted nothing inside MeasuredCase")
    return int(match[1])


def compiler_of(program: str) -> str:
    """As the program's own ELF comment says: "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0"."""
    comment = subprocess.run(["readelf", "-p", ".comment", program], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"\]\s+((?:GCC|clang|Debian clang)\b.*)", comment)
    return " and ".join(sorted(set(names))) or "unknown"


def cpu_vendor() -> str:
    """The C library picks its string functions by it, under valgrind too."""
    match = re.search(r"^vendor_id\s*:\s*(\S+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "another CPU"


def compare(counts: dict[str, int], golden: dict[str, int]) -> list[str]:
    """Prints the table; what is more than allowed above golden, or not in both."""
    wrong = []
    for case in sorted({*counts, *golden}):
        if case not in counts or case not in golden:
            wrong.append(f"{case} is only in {'the program' if case in counts else 'golden.json'}")
            continue
        change = counts[case] / golden[case] - 1 if golden[case] else float("inf")
        print(f"{case:32} {counts[case]:14,} {golden[case]:14,} {change:+8.1%}")
        if counts[case] * 100 > golden[case] * (100 + ALLOWED_PERCENT):
            wrong.append(f"{case} takes {change:.1%} more instructions than golden.json says")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    cases = subprocess.run([options.program], capture_output=True, text=True, check=True).stdout.split()
    counts = count(options.program, cases)
    compiler = f"{compiler_of(options.program)}, {cpu_vendor()}"
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if options.update:
        golden[compiler] = counts
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{GOLDEN}: {len(counts)} cases for {compiler}")
        return 0
    print(f"{compiler}\n{'case':32} {'instructions':>14} {'golden':>14} {'change':>8}")
    known = compiler in golden
    wrong = compare(counts, golden[compiler] if known else next(iter(golden.values()), {}))
    for line in wrong:
        print(("error: " if known else "not judged, another compiler or CPU: ") + line)
    if wrong and known:
        print("where it is meant: bench/instructions/check.py PROGRAM --update")
    return 1 if wrong and known else 0


if __name__ == "__main__":
    sys.exit(main())
