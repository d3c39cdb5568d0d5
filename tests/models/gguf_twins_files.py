# SPDX-License-Identifier: Apache-2.0
"""Writes the GGUF twins of golden/models and proves that they are, byte for byte, the files that llama.cpp computed.
Usage: python gguf_twins_files.py tests/golden OUT_DIR"""
import hashlib
import json
import pathlib
import sys

golden, out = (pathlib.Path(argument) for argument in sys.argv[1:])
sys.path.insert(0, str(golden / "make"))
import make_family_gguf  # noqa: E402

oracle = json.loads((golden / "models/gguf_oracle.json").read_text(encoding="utf-8"))
out.mkdir(parents=True, exist_ok=True)
folders = {folder.name: folder for folder in make_family_gguf.twins(golden / "models")}
if folders.keys() != oracle["files"].keys():
    sys.exit(f"golden/models and gguf_oracle.json differ: {sorted(folders.keys() ^ oracle['files'].keys())}")
wrong = []
for name, folder in folders.items():
    path = out / f"{name}.gguf"
    make_family_gguf.write(folder, path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != oracle["files"][name]["sha256"]:
        wrong.append(name)
if wrong:
    sys.exit(f"not the files that llama.cpp computed: {', '.join(wrong)}")
print(f"{len(folders)} files, as in gguf_oracle.json")
