# SPDX-License-Identifier: Apache-2.0
"""The table of models/README.md: how far each checkpoint of golden/models is from transformers, by format and device.
Usage: python fidelity_table.py MODELS_DIR REPORT... [--check README]
REPORT: of decoder_test, gguf_twins_test and encoder_test, made with --gtest_output=json:REPORT (shards may have one each).
Prints the table; with --check, fails unless README's has the same rows."""
import argparse
import json
import pathlib
import re
import sys

DEVICES = ("cpu", "host-simt:32", "host-simt:64")
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I32": 4, "I8": 1, "U8": 1}
KEY = re.compile(r"(float32|precise) (\S+)$")


def stored(folder):
    """What most of a folder's weights are, by bytes; by the method's name where they are quantised."""
    quantised = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    if method := quantised.get("quant_method"):
        return method + "".join(f" int{quantised[key]}" for key in ("bits",) if key in quantised)
    total = {}
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                total[tensor["dtype"]] = total.get(tensor["dtype"], 0) + end - begin
    return max(total, key=total.get).lower()


def measured(reports):
    """{(format, checkpoint): {(numerics, device): difference}}"""
    cells = {}
    for report in reports:
        for suite in json.loads(report.read_text(encoding="utf-8"))["testsuites"]:
            form = "GGUF" if "Twin" in suite["name"] else "safetensors"
            for test in suite["testsuite"]:
                if "value_param" not in test:
                    continue
                # A string's, or a pointer's with the string behind it.
                row = cells.setdefault((form, re.search(r'"([^"]*)"$', test["value_param"]).group(1)), {})
                for key, value in test.items():
                    if match := KEY.match(key):
                        row[match.groups()] = float(value)
    return {key: row for key, row in cells.items() if row}


def table(models, cells):
    yield "| checkpoint | architecture | format | stored as | " + " | ".join(f"`{device}`" for device in DEVICES) + " |"
    yield "|---|---|---|---|" + "---|" * len(DEVICES)
    for form, name in sorted(cells, key=lambda key: (key[1], key[0] == "GGUF")):
        folder = models / name
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = stored(folder)
        if form == "GGUF":
            kind = "f32, mxfp4" if kind == "mxfp4" else "f32"
        values = []
        for device in DEVICES:
            row = cells[form, name]
            found = [f"{row[numerics, device]:.1g}" for numerics in ("float32", "precise") if (numerics, device) in row]
            values.append("; ".join(found) or "-")
        yield f"| {name} | {config['architectures'][0]} | {form} | {kind} | " + " | ".join(values) + " |"


def rows(text):
    return {tuple(cell.strip() for cell in line.split("|")[1:5]) for line in text if line.count("|") == 5 + len(DEVICES)}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("models", type=pathlib.Path)
    ap.add_argument("reports", type=pathlib.Path, nargs="+")
    ap.add_argument("--check", type=pathlib.Path)
    args = ap.parse_args()
    lines = list(table(args.models, measured(args.reports)))
    print("\n".join(lines))
    if args.check:
        written = rows(args.check.read_text(encoding="utf-8").splitlines())
        if difference := rows(lines) ^ written:
            sys.exit(f"{args.check}: its table and the tests differ in the rows {sorted(difference)}")


if __name__ == "__main__":
    main()
