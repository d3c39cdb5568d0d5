#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes README.md's measured table from bench/results/*.json, between its two markers.

  bench/report/readme_table.py            writes it, of the newest whole run
  bench/report/readme_table.py --check    exits with 1 when README.md's is not what its result file gives
"""

import argparse
import re
import sys
from pathlib import Path

import results

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- measured: by bench/report/readme_table.py, not by hand -->"
END = "<!-- end of measured -->"
AT_ONCE = "16 at once, 128 in, 64 out"


def rows_of(result: dict) -> list[tuple[str, dict[str, float]]]:
    """(what, who: tokens/s), peers by their own name, ours by numerics."""
    table = []
    engine = results.engine(result)
    for test, words in results.ENGINE_TESTS.items():
        values = {who: row["median"] for (who, name), row in engine.items() if name == test}
        if values:
            table.append((words, values))
    served = {who.removesuffix(" http"): row["median"] for (who, load), row in results.serving(result).items()
              if load == AT_ONCE and who.endswith(" http")}
    if served:
        table.append((f"{AT_ONCE}, over HTTP", served))
    return table


def table_of(result: dict) -> list[str]:
    rows = rows_of(result)
    everyone = dict.fromkeys(who for _, values in rows for who in values)
    ours = [who for who in everyone if results.is_ours(who)]
    peers = [who for who in everyone if not results.is_ours(who)]
    ratios = [(mine, peer) for peer in peers for mine in ours]
    head = ["tokens/s", *ours, *peers, *(f"{mine.removeprefix('fairlead ')} : {peer}" for mine, peer in ratios)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for words, values in rows:
        cells = [results.number(values[who]) if who in values else "" for who in [*ours, *peers]]
        for mine, peer in ratios:
            cells.append(f"{values[mine] / values[peer]:.1f}" if mine in values and values.get(peer) else "")
        lines.append("| " + " | ".join([words, *cells]) + " |")
    return lines


def text_of(result: dict) -> str:
    machine, limits = result["machine"], result["limits"]
    peers = "; ".join(peer["version"] or peer["name"] for peer in result["peers"])
    # Where a peer is installed is that machine's business.
    command = re.sub(r"(--peer \w+):\S+", r"\1:...", result["command"]).replace("\\,", ",")
    commit = (result["commit"] or "unknown") + (" and changes" if result["dirty"] else "")
    lines = [
        f"{machine['cpu']}, {result['threads']} threads ({result['device']}), {machine['system']}, {result['build']['compiler']}, "
        f"commit {commit}, {result['date'][:10]}; {result['model']['file']}; medians of {result['rounds']}.",
        f"`{command}`, `bench/results/{result['name']}.json`." + (f" Peers: {peers}." if peers else ""),
    ]
    if limits["void"]:
        lines.append(f"**Void by our own rule**: the machine changed while it was measured ({limits['reason']}).")
    lines += ["", *table_of(result), ""]
    fidelity = [f"`{row['numerics']}` mean KL {row['kl_mean']:.1e}, top-1 {row['top1']:.1%}" for row in result["fidelity"] or []]
    if fidelity:
        lines.append("Fidelity, against float32 transformers on the same weights: " + "; ".join(fidelity) + ".")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        print(f"error: README.md: the markers {BEGIN} and {END} must stand there once each", file=sys.stderr)
        return 1
    before, rest = text.split(BEGIN)
    measured, after = rest.split(END)
    found = results.load_all(ROOT / "bench" / "results")
    if options.check:
        named = re.search(r"bench/results/([\w.-]+)\.json", measured)
        found = [result for result in found if named and result["name"] == named[1]]
    result = results.newest(found)
    if result is None:
        print("error: the result is not in bench/results: bench/run.sh makes one", file=sys.stderr)
        return 1
    wanted = f"{before}{BEGIN}\n{text_of(result)}\n{END}{after}"
    if wanted == text:
        return 0
    if options.check:
        print(f"README.md:{text[: text.index(BEGIN)].count(chr(10)) + 1}: the measured table is not that of "
              f"bench/results/{result['name']}.json: run bench/report/readme_table.py")
        return 1
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
