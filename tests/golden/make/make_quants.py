# SPDX-License-Identifier: Apache-2.0
"""64 blocks of every GGUF type that the gguf package (0.19) dequantises, and their float32 values.
Usage: python make_quants.py ../quants   (writes TYPE.bin, TYPE.f32, manifest.json; needs gguf, numpy)"""
import hashlib
import json
import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Q
from gguf.quants import _type_traits, dequantize, quantize

BLOCKS = 64
# Where a block keeps its f16 scales; the rest of a block may hold any bytes.
F16_AT = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108],
          Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.IQ2_XXS: [0], Q.IQ2_XS: [0],
          Q.IQ2_S: [0], Q.IQ3_XXS: [0], Q.IQ3_S: [0], Q.IQ1_S: [0], Q.TQ1_0: [52], Q.TQ2_0: [64]}


def random_blocks(qtype, rng):
    """Random bytes with small finite scales of both signs."""
    blocks = rng.integers(0, 256, (BLOCKS, GGML_QUANT_SIZES[qtype][1]), dtype=np.uint8)

    def scale():
        return (rng.choice([-1, 1], BLOCKS) * rng.uniform(0.001, 0.05, BLOCKS)).astype("<f2")

    for at in F16_AT.get(qtype, []):
        blocks[:, at:at + 2] = scale().view(np.uint8).reshape(BLOCKS, 2)
    if qtype == Q.IQ1_M:  # the scale's four nibbles sit on top of four 16-bit words of sub-scales
        words = blocks[:, 48:56].copy().view("<u2")
        bits = scale().view("<u2")
        for i in range(4):
            words[:, i] = (words[:, i] & 0x0FFF) | (((bits >> (4 * i)) & 0xF) << 12)
        blocks[:, 48:56] = words.view(np.uint8)
    if qtype == Q.MXFP4:
        blocks[:, 0] = rng.integers(118, 126, BLOCKS)
        blocks[-2:, 0] = [0, 1]  # the smallest exponents: subnormal results must survive
    if qtype == Q.NVFP4:
        blocks[:, :4] = rng.integers(0, 0x7F, (BLOCKS, 4))  # unsigned e4m3 without the NaN code
    return blocks


def make(qtype, rng):
    """The first half from the package's quantiser on normal data where it has one, the rest random bytes."""
    if qtype == Q.F16:
        values = rng.normal(0, 1, BLOCKS * 32).astype("<f2")
        values[:8] = [0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 65504, -65504, 1.0]
        return values.view(np.uint8), values.astype(np.float32)
    if qtype == Q.BF16:
        values = (rng.normal(0, 1, BLOCKS * 32).astype(np.float32).view(np.uint32) >> 16).astype("<u2")
        values[:4] = [0x0000, 0x8000, 0x0001, 0x7F7F]
        return values.view(np.uint8), (values.astype(np.uint32) << 16).view(np.float32)
    blocks = random_blocks(qtype, rng)
    half = BLOCKS // 2
    try:
        data = rng.normal(0, 0.05, (half, GGML_QUANT_SIZES[qtype][0])).astype(np.float32)
        blocks[:half] = quantize(data, qtype).reshape(half, -1)
    except NotImplementedError:
        pass
    return blocks.ravel(), dequantize(blocks, qtype).astype(np.float32).ravel()


out = pathlib.Path(sys.argv[1])
rows = []
for qtype in [Q.F16] + sorted(_type_traits, key=int):
    raw, values = make(qtype, np.random.default_rng([1, int(qtype)]))
    block, size = GGML_QUANT_SIZES[qtype]
    raw.tofile(out / f"{qtype.name}.bin")
    values.astype("<f4").tofile(out / f"{qtype.name}.f32")
    rows.append({"type": qtype.name, "ggml_type": int(qtype), "block_elements": block, "block_bytes": size,
                 "blocks": raw.size // size, "elements": int(values.size),
                 "sha256_bin": hashlib.sha256(raw.tobytes()).hexdigest(), "min": float(values.min()),
                 "max": float(values.max())})
(out / "manifest.json").write_text(json.dumps({"types": rows}, indent=1) + "\n")
