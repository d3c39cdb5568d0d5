#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each kernel of a backend library takes of its GPU: registers, spills, shared memory, and the warps that fit.

Reads libfairlead_hip.so by itself (the notes of its code objects), and libfairlead_cuda.so by `cuobjdump -res-usage`.
A kernel that spills on sm_90a or gfx942 is an error, and so is one that an architecture lacks. The rest is compared with
a golden file, which holds one compiler's figures: what another one gives is reported, and no error.
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from code_object import code_objects  # noqa: E402

NO_SPILLS = ("sm_90a", "gfx942")

# registers: vector registers of a thread, AMD's accumulation registers included; spills: bytes of a thread;
# shared: bytes of a block that are known when it is compiled; warps: that fit one SIMD unit or multiprocessor by these.
Resources = collections.namedtuple("Resources", "registers spills shared warps")


def round_up(value, unit):
    return -(-value // unit) * unit


def nvidia_warps(registers):
    """Of a multiprocessor, by registers alone: 65,536 in portions of 256 a warp, at most 64 warps (sm_12x: 48)."""
    return min(64, 65536 // max(256, round_up(registers * 32, 256)))


def amd_warps(architecture, registers):
    """Of a SIMD unit, by vector registers alone: LLVM's AMDGPU usage guide, "Register Mapping"; AMD's ISA documents."""
    if architecture.startswith(("gfx90a", "gfx94", "gfx95")):
        return min(8, 512 // max(8, round_up(registers, 8)))
    if architecture.startswith("gfx9"):
        return min(10, 256 // max(4, round_up(registers, 4)))
    return min(16, 1536 // max(24, round_up(registers, 24)))  # gfx11, gfx12 with warps of 32


def has_wide_warps(architecture):
    """Of 64 lanes. Tiles depend on it, so the kernels of both kinds are not the same ones."""
    return architecture.startswith("gfx9")


def demangle(names):
    if not names:
        return []
    out = subprocess.run(["c++filt"], input="\n".join(names) + "\n", capture_output=True, text=True, check=True).stdout
    return [short_name(line) for line in out.splitlines()]


def short_name(text):
    """"MatmulFew<F32Chunk, 1>" of "void fairlead::gpu_hip64::(anonymous namespace)::MatmulFew<...>(...)"."""
    text = re.sub(r"fairlead::|gpu_(cuda|hip)\d*::|\(anonymous namespace\)::|_GLOBAL__N__\w+::", "", text)
    text = re.sub(r"^void |^static ", "", text)
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return text[:i]
    return text


def read_amd(library):
    """{architecture: {kernel: Resources}}"""
    with open(library, "rb") as file:
        objects = code_objects(file.read())
    out = collections.defaultdict(dict)
    for code in objects:
        for name, kernel in zip(demangle(list(code.kernels)), code.kernels.values()):
            registers = kernel[".vgpr_count"] + kernel.get(".agpr_count", 0)
            if code.architecture.startswith(("gfx90a", "gfx94", "gfx95")):
                registers = kernel[".vgpr_count"]  # both kinds together
            # Scalar registers spill to lanes of vector registers, which are counted, not to memory; if they did, it would be private.
            spills = max(4 * kernel.get(".vgpr_spill_count", 0), kernel[".private_segment_fixed_size"])
            out[code.architecture][name] = Resources(registers, spills, kernel[".group_segment_fixed_size"],
                                                     amd_warps(code.architecture, registers))
    return dict(out)


def parse_cuobjdump(text):
    """Of `cuobjdump -res-usage`: a line names the architecture, then two lines a kernel."""
    out = collections.defaultdict(dict)
    architecture, names, values = None, [], []

    def flush():
        for name, value in zip(demangle(names), values):
            out[architecture][name] = value
    for line in text.splitlines():
        if match := re.match(r"arch = (sm_\w+)", line):
            flush()
            architecture, names, values = match[1], [], []
        elif match := re.match(r"\s*Function (\S+):$", line):
            names.append(match[1])
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            values.append(Resources(registers, stack + local, shared, nvidia_warps(registers)))
    flush()
    return dict(out)


def problems(found, architectures):
    """Lines; none if all is right. `architectures`: those that the library was compiled for."""
    out = [f"no kernels for {a}" for a in architectures if not found.get(a)]
    for architecture, kernels in sorted(found.items()):
        alike = [k for a, k in found.items() if has_wide_warps(a) == has_wide_warps(architecture)]
        out += [f"{architecture} lacks {name}" for name in sorted(set().union(*alike)) if name not in kernels]
        if architecture in NO_SPILLS:
            out += [f"{architecture}: {name} spills {r.spills} bytes a thread" for name, r in sorted(kernels.items()) if r.spills]
    return out


def changes(found, golden):
    """Lines: what differs from the golden figures of the architectures that both have."""
    out = []
    for architecture in sorted(found.keys() & golden.keys()):
        now, then = found[architecture], golden[architecture]
        for name in sorted(now.keys() | then.keys()):
            was, is_now = then.get(name), list(now[name]) if name in now else None
            if was != is_now:
                out.append(f"{architecture}: {name}: {was} is now {is_now}")
    return out


def table(found):
    lines = []
    for architecture, kernels in sorted(found.items()):
        lines.append(f"{architecture}: {len(kernels)} kernels")
        lines.append(f"  {'registers':>9} {'spills':>6} {'shared':>7} {'warps':>5}  kernel")
        lines += [f"  {r.registers:9} {r.spills:6} {r.shared:7} {r.warps:5}  {name}" for name, r in sorted(kernels.items())]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--architectures", required=True, help="comma-separated: what it was compiled for")
    parser.add_argument("--compiler", required=True, help="name and version, as the golden file knows it")
    parser.add_argument("--golden", required=True)
    parser.add_argument("--cuobjdump", help="of the CUDA toolkit; for an NVIDIA library")
    parser.add_argument("--update", action="store_true", help="write this compiler's figures into the golden file")
    options = parser.parse_args()
    if options.cuobjdump:
        found = parse_cuobjdump(subprocess.run([options.cuobjdump, "-res-usage", options.library], capture_output=True,
                                               text=True, check=True).stdout)
    else:
        found = read_amd(options.library)
    print(table(found))
    golden = {}
    if os.path.exists(options.golden):
        with open(options.golden, encoding="utf-8") as file:
            golden = json.load(file)
    wrong = problems(found, options.architectures.split(","))
    if options.update:
        golden[options.compiler] = {a: {n: list(r) for n, r in sorted(k.items())} for a, k in sorted(found.items())}
        write_golden(options.golden, golden)
    elif options.compiler in golden:
        wrong += changes(found, golden[options.compiler])
    else:
        print(f"{options.compiler} is not in {options.golden}: figures reported only")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


def write_golden(path, golden):
    """A kernel a line."""
    parts = []
    for compiler, architectures in sorted(golden.items()):
        inner = []
        for architecture, kernels in sorted(architectures.items()):
            lines = ",\n".join(f"   {json.dumps(n)}: {json.dumps(r)}" for n, r in sorted(kernels.items()))
            inner.append(f"  {json.dumps(architecture)}: {{\n{lines}\n  }}")
        parts.append(f" {json.dumps(compiler)}: {{\n" + ",\n".join(inner) + "\n }")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
