# SPDX-License-Identifier: Apache-2.0
"""Inverse RoPE frequencies in numpy float32, written from the formulas of transformers' modeling_rope_utils.py and
modeling_llama.py (5.23), for tests/models/rope_test.cc. Usage: python make_rope.py > ../rope/frequencies.json"""
import json

import numpy as np

f32 = np.float32


def default(theta, dim):
    exponent = np.arange(0, dim, 2).astype(f32) / f32(dim)
    return f32(1) / np.power(f32(theta), exponent, dtype=f32)


def linear(theta, dim, factor):
    return default(theta, dim) / f32(factor)


def llama3(theta, dim, factor, low, high, original):
    inv = default(theta, dim)
    wavelength = f32(2 * np.pi) / inv
    smooth = (f32(original) / wavelength - f32(low)) / f32(high - low)
    mixed = (f32(1) - smooth) * inv / f32(factor) + smooth * inv
    result = np.where(wavelength > f32(original / low), inv / f32(factor), inv)
    is_medium = ~(wavelength < f32(original / high)) & ~(wavelength > f32(original / low))
    return np.where(is_medium, mixed, result)


CASES = [
    ("default", {"rope_theta": 10000.0}, 64, default(10000.0, 64)),
    ("default-100k", {"rope_theta": 100000.0}, 64, default(100000.0, 64)),
    ("default-500k-128", {"rope_theta": 500000.0}, 128, default(500000.0, 128)),
    ("linear-4", {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16,
     linear(10000.0, 16, 4.0)),
    ("llama3.1", {"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}}, 128, llama3(500000.0, 128, 8.0, 1.0, 4.0, 8192)),
    ("llama3.2", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}, 64,
     llama3(500000.0, 64, 32.0, 1.0, 4.0, 8192)),
    ("llama3-tiny", {"rope_theta": 10000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}, 32, llama3(10000.0, 32, 8.0, 1.0, 4.0, 64)),
]

print("[")
for i, (name, config, head_dim, values) in enumerate(CASES):
    assert values.dtype == f32
    case = {"name": name, "config": config, "head_dim": head_dim, "frequencies": [float(v) for v in values]}
    print(json.dumps(case) + ("," if i + 1 < len(CASES) else ""))
print("]")
