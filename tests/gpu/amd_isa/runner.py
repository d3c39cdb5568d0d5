#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs kernels of AMD code objects on the CPU, one instruction after another: what hip_runtime.cc asks for (see there).

The emulator is tinygrad's (MIT; test/mockgpu/amd of its repository, not of its packages). --emulator names a checkout,
--objdump an llvm-objdump that knows AMD's instructions. Also needed: numpy and clang. It runs a wave from barrier to
barrier, so it finds wrong code, not every race, and nothing of a GPU's timing or cache.
"""
import argparse
import contextlib
import ctypes
import os
import re
import struct
import subprocess
import sys
import time
import types

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import code_object  # noqa: E402  (tests/gpu/code_object.py)

NO_OP = 0xBF800000  # s_nop
# They mean nothing here, and the emulator lacks them.
CACHE_CONTROL = re.compile(r"buffer_gl[01]_inv|global_(inv|wb|wbinv)|buffer_(inv|wbl2|invl2|wbinvl1|wbinvl1_vol)")
MAP_SHARED_FIXED, MAP_PRIVATE_LAZY = 0x11, 0x4022  # with MAP_ANONYMOUS and MAP_NORESERVE

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def load_emulator(folder, family):
    """The emulator's module for GPUs of one family, with gaps closed: LDS accesses of inactive lanes, the bit that makes an
    atomic return, denormals; on CDNA, that registers from v128 on are no halves of others in 16-bit operations, and the signs
    and absolute values of SDWA's operands."""
    sys.path.insert(0, folder)
    os.environ.setdefault("DEV", "CPU")
    path = os.path.join(folder, "test/mockgpu/amd/emu.py")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    if family == "cdna":
        modifiers = "1 if _iattr(inst, 'src{0}_abs') else 0, 1 if _iattr(inst, 'src{0}_neg') else 0, inst.canonical_op_bits['s{0}']"
        changes = [(">= _c(128)", ">= _c(65536)", 3), (">= _c(384)", ">= _c(65536)", 2)]
        for i in (0, 1):
            select = f"_sdwa_select(s{i}_raw, src{i}_sel, src{i}_sext)"
            changes.append((select, f"_apply_src_mods({select}, 0, {modifiers.format(i)})", 2))
        for old, new, times in changes:
            if source.count(old) != times:
                raise ValueError(f"{path} is of another version than this runner knows: '{old}'")
            source = source.replace(old, new)
    emu = sys.modules["test.mockgpu.amd.emu"] = types.ModuleType("test.mockgpu.amd.emu")
    emu.__file__ = path
    exec(compile(source, path, "exec"), emu.__dict__)

    lds = libc.mmap(None, (1 << 32) + 65536, 3, MAP_PRIVATE_LAZY, -1, 0)  # all that a 32-bit LDS address can reach
    plain_buffer, plain_attribute = emu.Buffer, emu._iattr

    class LdsBuffer:
        def __new__(cls, device, size, dtype, *args, **kwargs):
            if dtype == emu.dtypes.uint32 and "options" not in kwargs and sys._getframe(1).f_code.co_name == "run_asm":
                return plain_buffer(device, 1 << 30, dtype, options=emu.BufferSpec(external_ptr=lds)).ensure_allocated()
            return plain_buffer(device, size, dtype, *args, **kwargs)

    def attribute(instruction, name, default=0):
        value = plain_attribute(instruction, name, default)
        if name == "glc" and not value:
            value = plain_attribute(instruction, "sc0", 0) or (plain_attribute(instruction, "th", 0) & 1)
        return value

    emu.Buffer, emu._iattr, emu._MXCSRContext = LdsBuffer, attribute, contextlib.nullcontext
    return emu


class Loaded:
    """A code object at its place in memory, relocated."""

    def __init__(self, path, objdump):
        with open(path, "rb") as file:
            data = file.read()
        self.object = code_object.CodeObject(data)
        segments = self.object.segments()
        self._memory = np.zeros(max(address + size for _, address, _, size in segments) + 0x4000, np.uint8)
        self.base = (self._memory.ctypes.data + 4095) & ~4095
        for offset, address, file_size, _ in segments:
            ctypes.memmove(self.base + address, data[offset:offset + file_size], file_size)
        for offset, addend in self.object.relocations():
            ctypes.c_uint64.from_address(self.base + offset).value = self.base + addend
        gfx = self.object.architecture
        self.family = "cdna" if gfx.startswith("gfx9") else "rdna4" if gfx.startswith("gfx12") else "rdna3"
        listing = subprocess.run([objdump, "-d", path], capture_output=True, text=True, check=True).stdout
        for mnemonic, address, words in re.findall(r"^\t(\S+)[^\n]*// ([0-9A-F]{12}): ([0-9A-F ]+)", listing, re.M):
            word = [ctypes.c_uint32.from_address(self.base + int(address, 16) + 4 * i) for i in range(len(words.split()))]
            if CACHE_CONTROL.fullmatch(mnemonic):
                for w in word:
                    w.value = NO_OP
            elif self.family == "cdna" and mnemonic.startswith("flat_"):
                word[1].value |= 0x7F << 16  # it has no scalar base; the emulator takes the 0 that stands there for s0

    def argument_bytes(self, name):
        """Of a kernel whose one argument is a struct by value."""
        explicit = [a for a in self.object.kernels[name][".args"] if not a[".value_kind"].startswith("hidden")]
        if [a[".value_kind"] for a in explicit] != ["by_value"] or explicit[0][".offset"] != 0:
            raise ValueError(f"{name} takes more than one struct by value")
        return explicit[0][".size"]

    def run(self, emu, name, grid, threads, dynamic_lds, arguments):
        kernel = self.object.kernels[name]
        static_lds, scratch, kernarg_bytes, rsrc2, properties = self._descriptor(name)
        kernarg = np.zeros(max(kernarg_bytes, 8) + 64, np.uint8)
        kernarg[:len(arguments)] = np.frombuffer(arguments, np.uint8)
        hidden = {"hidden_grid_dims": ("<H", 3 if grid[2] > 1 else 2 if grid[1] > 1 else 1),
                  "hidden_dynamic_lds_size": ("<I", dynamic_lds)}
        for axis, blocks, size in zip("xyz", grid, (threads, 1, 1)):
            hidden[f"hidden_block_count_{axis}"], hidden[f"hidden_group_size_{axis}"] = ("<I", blocks), ("<H", size)
        for a in kernel[".args"]:
            if a[".value_kind"] in hidden:
                form, value = hidden[a[".value_kind"]]
                struct.pack_into(form, kernarg, a[".offset"], value)
        dispatch = np.zeros(64, np.uint8)
        struct.pack_into("<HHHHHHIII", dispatch, 0, 0, 1, threads, 1, 1, 0, grid[0] * threads, grid[1], grid[2])

        def pair(value):
            return [value & 0xFFFFFFFF, value >> 32]
        # The user registers in the order of the ABI: what the descriptor's property bits ask for.
        registers = (([0] * 4 if properties & 1 else []) + (pair(dispatch.ctypes.data) if properties & 2 else []) +
                     ([0, 0] if properties & 4 else []) + (pair(kernarg.ctypes.data) if properties & 8 else []) +
                     ([0, 0] if properties & 16 else []) + ([0, 0] if properties & 32 else []) +
                     ([scratch] if properties & 64 else []))
        registers += [0] * (((rsrc2 >> 1) & 31) - len(registers))
        rsrc2 = (rsrc2 & ~(0x1FF << 15)) | (((static_lds + dynamic_lds + 511) // 512) << 15)
        address, size = self.object.symbols[name]
        emu.run_asm(self.base + address, size, *grid, threads, 1, 1, kernarg.ctypes.data, rsrc2, scratch, self.family, registers)

    def _descriptor(self, name):
        descriptor = ctypes.string_at(self.base + self.object.symbols[name + ".kd"][0], 64)
        return struct.unpack_from("<III", descriptor, 0) + struct.unpack_from("<I", descriptor, 52) + struct.unpack_from("<H", descriptor, 56)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--objdump", default="llvm-objdump")
    parser.add_argument("arena", nargs=3, metavar=("FD", "ADDRESS", "BYTES"), help="given by the test")
    options = parser.parse_args()
    descriptor, address, size = map(int, options.arena)
    if libc.mmap(address, size, 3, MAP_SHARED_FIXED, descriptor, 0) != address:
        sys.exit(f"error: cannot map the GPU's memory at {address:#x}: {os.strerror(ctypes.get_errno())}")
    emu = None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the emulator prints is no answer
    loaded = {}
    for line in sys.stdin:
        word, path, name, *rest = line.split()
        try:
            if path not in loaded:
                loaded[path] = Loaded(path, options.objdump)
            if word == "size":
                answer = f"ok {loaded[path].argument_bytes(name)}"
            else:
                x, y, z, threads, lds = map(int, rest[:5])
                if emu is None:  # all code of one test is for one GPU
                    emu = load_emulator(options.emulator, loaded[path].family)
                start = time.monotonic()
                loaded[path].run(emu, name, (x, y, z), threads, lds, bytes.fromhex(rest[5]))
                answer = f"ok {time.monotonic() - start:.3f}"
        except Exception as error:  # of the emulator, of any kind: the test reports it
            answer = f"error {type(error).__name__}: {error}".replace("\n", " ")[:400]
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
