# SPDX-License-Identifier: Apache-2.0
"""Reads AMD code objects: ELF files with kernels, and the bundles of them that hipcc puts into a library."""
import re
import struct

BUNDLE = b"__CLANG_OFFLOAD_BUNDLE__"


def unpack_msgpack(b, p=0):
    """One value of the metadata, and the offset after it."""
    def size(at, n):
        return int.from_bytes(b[at:at + n], "big")

    def many(n, p, take):
        out = []
        for _ in range(n * take):
            value, p = unpack_msgpack(b, p)
            out.append(value)
        return (dict(zip(out[::2], out[1::2])) if take == 2 else out), p
    c = b[p]
    if c < 0x80:
        return c, p + 1
    if c >= 0xE0:
        return c - 256, p + 1
    if c < 0x90:
        return many(c & 15, p + 1, 2)
    if c < 0xA0:
        return many(c & 15, p + 1, 1)
    if c < 0xC0:
        return b[p + 1:p + 1 + (c & 31)].decode(), p + 1 + (c & 31)
    if c in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[c], p + 1
    if 0xCC <= c <= 0xCF:
        w = 1 << (c - 0xCC)
        return size(p + 1, w), p + 1 + w
    if c in (0xD9, 0xDA, 0xDB):
        w = 1 << (c - 0xD9)
        n = size(p + 1, w)
        return b[p + 1 + w:p + 1 + w + n].decode(), p + 1 + w + n
    if 0xDC <= c <= 0xDF:
        w = 2 if c in (0xDC, 0xDE) else 4
        return many(size(p + 1, w), p + 1 + w, 2 if c >= 0xDE else 1)
    raise ValueError(f"msgpack byte {c:#x}")


class CodeObject:
    """`data`: the file; `kernels`: the metadata of each by name; `symbols`: address and size by name; `architecture`: "gfx942"."""

    def __init__(self, data):
        if data[:4] != b"\x7fELF":
            raise ValueError("no ELF file")
        self.data = data
        offset, = struct.unpack_from("<Q", data, 40)
        count, = struct.unpack_from("<H", data, 60)
        self._sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * 64) for i in range(count)]
        self.symbols = {}
        metadata = None
        for s in self._sections:
            if s[1] in (2, 11):  # symbol tables
                names = self._sections[s[6]][4]
                for i in range(s[5] // 24):
                    name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", data, s[4] + i * 24)
                    self.symbols[data[names + name:data.index(b"\0", names + name)].decode()] = (value, size)
            elif s[1] == 7:  # notes
                name_size, _, kind = struct.unpack_from("<III", data, s[4])
                if kind == 32:
                    metadata, _ = unpack_msgpack(data, s[4] + 12 + ((name_size + 3) & ~3))
        if metadata is None:
            raise ValueError("no AMD metadata")
        self.kernels = {k[".name"]: k for k in metadata["amdhsa.kernels"]}
        self.architecture = re.search(r"gfx\w+", metadata["amdhsa.target"])[0]

    def segments(self):
        """(offset, address, bytes in the file, bytes in memory) of what is loaded."""
        offset, = struct.unpack_from("<Q", self.data, 32)
        count, = struct.unpack_from("<H", self.data, 56)
        headers = (struct.unpack_from("<IIQQQQQQ", self.data, offset + i * 56) for i in range(count))
        return [(h[2], h[3], h[5], h[6]) for h in headers if h[0] == 1]

    def relocations(self):
        """(address, what to add the base to)"""
        out = []
        for s in self._sections:
            if s[1] != 4:
                continue
            for i in range(s[5] // 24):
                offset, info, addend = struct.unpack_from("<QQq", self.data, s[4] + i * 24)
                if info & 0xFFFFFFFF != 13:
                    raise ValueError(f"relocation type {info & 0xFFFFFFFF}; only R_AMDGPU_RELATIVE64 is known")
                out.append((offset, addend))
        return out


def code_objects(library):
    """All that a library's bytes hold."""
    out = []
    at = library.find(BUNDLE)
    while at >= 0:
        count, = struct.unpack_from("<Q", library, at + 24)
        entry = at + 32
        for _ in range(count):
            offset, size, name_size = struct.unpack_from("<QQQ", library, entry)
            name = library[entry + 24:entry + 24 + name_size].decode()
            entry += 24 + name_size
            if name.startswith("hip") and size > 0:
                out.append(CodeObject(library[at + offset:at + offset + size]))
        at = library.find(BUNDLE, entry)
    return out
