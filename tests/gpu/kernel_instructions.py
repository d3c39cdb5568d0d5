#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What machine code each kernel of a backend library is made of: tensor-core products, loads of 16 bytes, local memory.

Reads libfairlead_cuda.so by `cuobjdump -sass`, libfairlead_hip.so by `llvm-objdump -d`. It is an error when a kernel has
fewer of them than EXPECTED says, when a kernel stands in none of its lines, and when one that must not spill (NO_SPILLS of
kernel_resources.py) has an instruction that reads or writes local memory.
"""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from code_object import code_objects  # noqa: E402
from kernel_resources import NO_SPILLS, demangle  # noqa: E402

# A kernel's name, and at least how many instructions it has: products of tiles by tensor cores, and reads of 16 bytes a lane
# from global memory. Counted as they stand in the code, a loop's once. The first line that matches counts.
Expected = collections.namedtuple("Expected", "name tensor wide what")
EXPECTED = (
    # Chunks of 2-bit dtypes are read with 8 bytes a lane.
    Expected(r"MatmulSlices<Integers<2, .*, true, (true|false)>", 2, 1, "activations"),
    Expected(r"MatmulMany<Integers<2, .*>", 0, 1, "activations"),
    Expected(r"EmbedRows<Integers<2, .*>", 0, 0, ""),
    Expected(r"MatmulSlices<.*, true, (true|false)>", 2, 9, "8 chunks of weights under way, and activations"),
    Expected(r"MatmulSlices<.*, false, (true|false)>", 2, 4, "4 or 8 chunks of weights under way"),
    Expected(r"MatmulTiles<.*>", 4, 6, "chunks of weights, rounded activations"),
    Expected(r"MatmulFew<.*>", 0, 5, "a chunk of each of 4 rows, activations"),
    Expected(r"MatmulMany<.*>", 0, 5, "a chunk of each of 4 rows, activations"),
    Expected(r"AttendFewRows<.*>", 0, 12, "keys and values"),
    Expected(r"AttendTiles<.*>", 0, 4, "keys and values"),
    Expected(r"EmbedRows<.*>", 0, 1, "a chunk of weights"),
    Expected(r"RoundTokens<.*>", 0, 2, "activations"),
    # Their lanes read neighbouring words: a warp has its 128 bytes all the same.
    Expected(r"\w+Kernel(<.*>)?|MergeSplits|RopeAndWriteKv<.*>|Sample<.*>|Logprobs|RouteTokens|OrderPairs|CombineRows", 0, 0, ""),
)

KINDS = {
    "tensor": r"[A-Z]G?MMA\.|UTC[A-Z]*MMA|v_(mfma|smfmac|wmma|swmmac)_",
    "wide": r"LDG\.(\S+\.)?128|LDGSTS\.(\S+\.)?128|UBLKCP|UTMALDG|(global|buffer)_load_(lds_)?(dwordx4|b128)\b",
    "local": r"LDL\b|STL\b|scratch_(load|store)_",
}
PATTERNS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}
# Of a kernel: instructions of each kind, and all.
Counts = collections.namedtuple("Counts", "tensor wide local all")

SASS = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)")


class Counter:
    """Counts the instructions of one kernel after another."""

    def __init__(self):
        self.counts = {}
        self._seen = None

    def begin(self, name):
        self._seen = self.counts.setdefault(name, collections.Counter())

    def end(self):
        self._seen = None

    def add(self, instruction):
        if self._seen is None:
            return
        self._seen["all"] += 1
        for kind, pattern in PATTERNS.items():
            if pattern.match(instruction):
                self._seen[kind] += 1

    def by_name(self):
        names = demangle(list(self.counts))
        return {name: Counts(*(seen[field] for field in Counts._fields)) for name, seen in zip(names, self.counts.values())}


def parse_sass(lines):
    """{architecture: {kernel: Counts}} of `cuobjdump -sass`."""
    found = collections.defaultdict(Counter)
    architecture = None
    for line in lines:
        if match := SASS.match(line):
            found[architecture].add(match[1])
        elif match := re.match(r"\s*code for (sm_\w+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            found[architecture].begin(match[1])
    return {a: counter.by_name() for a, counter in found.items() if counter.counts}


def parse_objdump(lines, kernels):
    """A Counter of `llvm-objdump -d`; other functions than `kernels` are left out."""
    counter = Counter()
    for line in lines:
        if match := re.match(r"[0-9a-f]+ <(.+)>:", line):
            counter.begin(match[1]) if match[1] in kernels else counter.end()
        elif match := re.match(r"\t(\w+)", line):
            counter.add(match[1])
    return counter


def output_of(command):
    """Lines, one at a time: a library's listing has 100 MB an architecture."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from process.stdout
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def read_amd(library, objdump):
    found = collections.defaultdict(dict)
    with open(library, "rb") as file:
        objects = code_objects(file.read())
    for code in objects:
        with tempfile.NamedTemporaryFile() as file:
            file.write(code.data)
            file.flush()
            found[code.architecture].update(parse_objdump(output_of([objdump, "-d", file.name]), code.kernels).by_name())
    return dict(found)


def expected_of(kernel):
    return next((e for e in EXPECTED if re.fullmatch(e.name, kernel)), None)


def problems(found, architectures):
    """Lines; none if all is right. `architectures`: those that the library was compiled for."""
    out = [f"no kernels for {a}" for a in architectures if not found.get(a)]
    for architecture, kernels in sorted(found.items()):
        for name, counts in sorted(kernels.items()):
            expected = expected_of(name)
            if expected is None:
                out.append(f"{name} is of no line of EXPECTED in kernel_instructions.py: say what its code must have")
                continue
            if counts.tensor < expected.tensor:
                out.append(f"{architecture}: {name} has {counts.tensor} tensor-core products, not {expected.tensor} or more")
            if counts.wide < expected.wide:
                out.append(f"{architecture}: {name} has {counts.wide} loads of 16 bytes, not {expected.wide} or more ({expected.what})")
            if counts.local and architecture in NO_SPILLS:
                out.append(f"{architecture}: {name} has {counts.local} reads and writes of local memory")
    return list(dict.fromkeys(out))


def table(found):
    """A line a family: the fewest and the most of its kernels."""
    lines = []
    for architecture, kernels in sorted(found.items()):
        lines.append(f"{architecture}: {len(kernels)} kernels")
        lines.append(f"  {'kernels':>7} {'tensor':>8} {'wide':>8} {'local':>8} {'all':>13}  family")
        families = collections.defaultdict(list)
        for name, counts in kernels.items():
            families[name.split("<")[0]].append(counts)
        for family, counts in sorted(families.items()):
            ends = [(min(column), max(column)) for column in zip(*counts)]
            spans = [str(low) if low == high else f"{low}-{high}" for low, high in ends]
            lines.append(f"  {len(counts):7} {spans[0]:>8} {spans[1]:>8} {spans[2]:>8} {spans[3]:>13}  {family}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--architectures", required=True, help="comma-separated: what it was compiled for")
    tool = parser.add_mutually_exclusive_group(required=True)
    tool.add_argument("--cuobjdump", help="of the CUDA toolkit; for an NVIDIA library")
    tool.add_argument("--objdump", help="an llvm-objdump that knows AMD's instructions; for an AMD library")
    options = parser.parse_args()
    if options.cuobjdump:
        # It runs nvdisasm, which stands beside it.
        os.environ["PATH"] = os.path.dirname(os.path.realpath(options.cuobjdump)) + os.pathsep + os.environ["PATH"]
        found = parse_sass(output_of([options.cuobjdump, "-sass", options.library]))
    else:
        found = read_amd(options.library, options.objdump)
    print(table(found))
    wrong = problems(found, options.architectures.split(","))
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
