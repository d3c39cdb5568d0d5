# SPDX-License-Identifier: Apache-2.0
"""The tables of models/iq_grids.cc: what the indices in GGUF's IQ blocks stand for, from the gguf package (0.19).
Usage: python make_iq_grids.py > models/iq_grids.cc, then clang-format   (needs gguf, numpy)"""
from gguf import quants

HEAD = """// SPDX-License-Identifier: Apache-2.0
// Written by tests/golden/make/make_iq_grids.py; the values are part of the GGUF block formats.
#include "models/iq_grids.h"

namespace fairlead {
"""
GRIDS = [("Iq1", "IQ1_S", 2), ("Iq2Xxs", "IQ2_XXS", 2), ("Iq2Xs", "IQ2_XS", 2), ("Iq2S", "IQ2_S", 2),
         ("Iq3Xxs", "IQ3_XXS", 3), ("Iq3S", "IQ3_S", 3)]

print(HEAD)
for name, qtype, bits in GRIDS:
    quant = getattr(quants, qtype)
    quant.init_grid()
    levels = list(quant.grid_map)
    rows = quant.grid.reshape(quant.grid_shape).tolist()
    words = [sum(levels.index(int(value)) << bits * i for i, value in enumerate(row)) for row in rows]
    print(f"const std::array<uint16_t, {len(words)}> k{name}Grid = {{")
    for at in range(0, len(words), 12):
        print("    " + " ".join(f"0x{word:04x}," for word in words[at:at + 12]))
    print("};\n")
print("}  // namespace fairlead")
