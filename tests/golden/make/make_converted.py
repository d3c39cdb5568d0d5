# SPDX-License-Identifier: Apache-2.0
"""What gguf's Python package makes of float32 values in the block formats of --weight-dtype.

Usage: python make_converted.py --out ../converted     (needs numpy and gguf)
"""
import argparse
import os

import gguf
import numpy as np


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    random = np.random.default_rng(1)
    rows = random.standard_normal((16, 128)) * 10.0 ** random.uniform(-4, 1, (16, 1))
    rows[1, :32] = 0
    rows[2, :32] = 0.75  # equal values: no range for the formats with a minimum
    rows[3, :32] = np.tile([1, -1], 16)  # a tie for the largest
    rows[4, :32] = np.abs(rows[4, :32])
    values = rows.astype("<f4")
    values.tofile(os.path.join(args.out, "values.f32"))
    for name in ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16"):
        made = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
        made.tofile(os.path.join(args.out, name + ".bin"))


if __name__ == "__main__":
    main()
