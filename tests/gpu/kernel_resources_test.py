# SPDX-License-Identifier: Apache-2.0
"""The readers of kernel_resources.py on output as the tools give it, and what it calls an error."""
import json
import struct
import tempfile
import unittest
from pathlib import Path

import code_object
import kernel_resources
from kernel_resources import Resources

CUOBJDUMP = """
Fatbin elf code:
================
arch = sm_90a
code version = [1,8]
compressed

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN8fairlead8gpu_cuda39_GLOBAL__N__9c530820_7_rows_cu_8c4ed3c77RmsNormENS1_11RmsNormCallE:
  REG:32 STACK:0 SHARED:1056 LOCAL:0 CONSTANT[0]:560 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z5TwiceILi2EEvPf:
  REG:168 STACK:24 SHARED:0 LOCAL:8 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_80

Resource usage:
 Common:
  GLOBAL:0
 Function _Z5TwiceILi2EEvPf:
  REG:12 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


def pack(value):
    """MessagePack of strings, small integers, lists and maps."""
    if isinstance(value, str):
        return bytes([0xD9, len(value)]) + value.encode()
    if isinstance(value, int):
        return bytes([value]) if value < 128 else b"\xCE" + value.to_bytes(4, "big")
    if isinstance(value, list):
        return b"\xDC" + len(value).to_bytes(2, "big") + b"".join(map(pack, value))
    return b"\xDE" + len(value).to_bytes(2, "big") + b"".join(pack(k) + pack(v) for k, v in value.items())


def code_object_bytes(architecture, kernels):
    """An ELF file with nothing but the notes."""
    metadata = pack({"amdhsa.target": f"amdgcn-amd-amdhsa--{architecture}", "amdhsa.kernels": kernels})
    note = struct.pack("<III", 7, len(metadata), 32) + b"AMDGPU\0\0" + metadata
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    struct.pack_into("<Q", header, 40, 64 + len(note))  # where sections are listed
    struct.pack_into("<H", header, 60, 1)
    return bytes(header) + note + struct.pack("<IIQQQQIIQQ", 0, 7, 0, 0, 64, len(note), 0, 0, 4, 0)


def kernel(name, vector, spilled=0, private=0, shared=0, scalar=0):
    return {".name": name, ".vgpr_count": vector, ".agpr_count": 0, ".vgpr_spill_count": spilled, ".sgpr_spill_count": scalar,
            ".private_segment_fixed_size": private, ".group_segment_fixed_size": shared}


def bundle(objects):
    """{"gfx942": bytes} as hipcc puts them into a library; it has an empty entry of the host."""
    names = [("host-x86_64-unknown-linux-gnu-", b"")] + [(f"hipv4-amdgcn-amd-amdhsa--{a}", b) for a, b in objects.items()]
    at = 32 + sum(24 + len(n) for n, _ in names)
    header, body = code_object.BUNDLE + struct.pack("<Q", len(names)), b""
    for name, data in names:
        header += struct.pack("<QQQ", at + len(body), len(data), len(name)) + name.encode()
        body += data
    return header + body


class KernelResourcesTest(unittest.TestCase):
    def test_reads_cuobjdump(self):
        found = kernel_resources.parse_cuobjdump(CUOBJDUMP)
        self.assertEqual(found, {
            # 32 registers of 32 lanes: 1,024 a warp of 65,536. 168: 5,376, so 12.
            "sm_90a": {"RmsNorm": Resources(32, 0, 1056, 64), "Twice<2>": Resources(168, 32, 0, 12)},
            "sm_80": {"Twice<2>": Resources(12, 0, 0, 64)}})

    def test_reads_code_objects_of_a_library(self):
        wide = code_object_bytes("gfx942", [kernel("_Z3OnePf", 12, shared=300), kernel("_Z3TwoPf", 136, spilled=2, private=4)])
        narrow = code_object_bytes("gfx1100", [kernel("_Z3OnePf", 97, scalar=9)])
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "lib.so")
            library.write_bytes(b"before" + bundle({"gfx942": wide}) + b"between" + bundle({"gfx1100": narrow}))
            found = kernel_resources.read_amd(library)
        self.assertEqual(found, {
            # 512 registers a lane of a SIMD unit: 8 waves at most; 136 a wave: 3. gfx1100: 1,536 in portions of 24.
            "gfx942": {"One": Resources(12, 0, 300, 8), "Two": Resources(136, 8, 0, 3)},
            "gfx1100": {"One": Resources(97, 0, 0, 12)}})

    def test_refuses_what_is_no_code_object(self):
        with self.assertRaisesRegex(ValueError, "no ELF"):
            code_object.CodeObject(b"text")
        with self.assertRaisesRegex(ValueError, "no AMD metadata"):
            code_object.CodeObject(b"\x7fELF" + bytes(60))

    def test_names_what_spills_and_what_is_missing(self):
        fine, spills = Resources(10, 0, 0, 8), Resources(10, 4, 0, 8)
        self.assertEqual(kernel_resources.problems({"gfx942": {"A": fine}, "gfx90a": {"A": spills}}, ["gfx942", "gfx90a"]), [])
        self.assertEqual(kernel_resources.problems({"gfx942": {"A": spills}, "sm_90a": {"A": spills}}, ["gfx942", "sm_90a"]),
                         ["gfx942: A spills 4 bytes a thread", "sm_90a: A spills 4 bytes a thread"])
        self.assertEqual(kernel_resources.problems({"gfx942": {"A": fine, "B": fine}, "gfx90a": {"A": fine}}, ["gfx942", "gfx950"]),
                         ["no kernels for gfx950", "gfx90a lacks B"])
        # Tiles of the other warp size are other kernels.
        self.assertEqual(kernel_resources.problems({"gfx942": {"A": fine}, "gfx1100": {"A": fine, "B": fine}}, ["gfx942", "gfx1100"]), [])

    def test_compares_with_the_golden_figures(self):
        found = {"gfx942": {"A": Resources(10, 0, 0, 8), "B": Resources(1, 0, 0, 8)}}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "golden.json")
            kernel_resources.write_golden(path, {"clang": {"gfx942": {"A": [10, 0, 0, 8], "B": [1, 0, 0, 8]}}})
            golden = json.loads(path.read_text())["clang"]
        self.assertEqual(kernel_resources.changes(found, golden), [])
        found["gfx942"]["A"] = Resources(11, 0, 0, 8)
        del found["gfx942"]["B"]
        self.assertEqual(kernel_resources.changes(found, golden),
                         ["gfx942: A: [10, 0, 0, 8] is now [11, 0, 0, 8]", "gfx942: B: [1, 0, 0, 8] is now None"])


if __name__ == "__main__":
    unittest.main()
