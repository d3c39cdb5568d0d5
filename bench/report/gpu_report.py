#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One HTML file from a result of bench/run.sh gpu, readable offline.

  bench/report/gpu_report.py --result bench/results/NAME.json --output bench/results/report-gpu.html
"""

import argparse
import html
import json
import sys
from pathlib import Path

import plotly.graph_objects as go

import charts
import results
from report import STYLE, Page, spread, table

COLOURS = ["#1d4ed8", "#38bdf8", "#0f766e", "#f97316", "#a16207", "#be123c"]
number = results.number


def small(value: float | None) -> str:
    """Milliseconds from microseconds to minutes."""
    if value is None:
        return ""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else number(value)


def engine_rows(result: dict) -> list[tuple[str, str, dict]]:
    """(title, who, test) of ours and of peers."""
    ours = [(setup["title"], "fairlead", test) for setup in result["engine"] for test in setup["tests"]]
    return ours + [(row["title"], row["who"], row) for row in result.get("peer_engine") or []]


def engine_tables(result: dict) -> str:
    rows, text = engine_rows(result), ""
    for setup in result["engine"]:
        title = setup["title"]
        mine = [row for row in rows if row[0] == title]
        everyone = list(dict.fromkeys(["fairlead", *(who for _, who, _ in mine)]))
        lines = []
        for test in dict.fromkeys(test["test"] for _, _, test in mine):
            found = {who: row for _, who, row in mine if row["test"] == test}
            rates = [spread(found.get(who)) for who in everyone]
            ratios = [f"{found['fairlead']['median'] / found[who]['median']:.2f}" if "fairlead" in found and found.get(who, {}).get("median") else ""
                      for who in everyone[1:]]
            lines.append([test, *rates, *ratios])
        head = ["tokens/s: median <small>min-max</small>", *everyone, *(f"ours : {who}" for who in everyone[1:])]
        note = f"loaded in {setup['load_ms'] / 1e3:.1f} s, {setup['weight_bytes'] / 1e9:.2f} GB of weights, first token {small(setup['first_token_ms'])} ms later"
        if setup["left_out"]:
            note += "; left out for time: " + ", ".join(setup["left_out"])
        text += f"<p><b>{html.escape(title)}</b> <small>{html.escape(note)}</small></p>" + table(head, lines)
    return text


def graphs_table(result: dict) -> str:
    lines = [[f"{html.escape(row['title'])}: {row['test']}", spread(row["on"]), spread(row["off"]), f"{row['ratio']:.2f}",
              f"{row['on']['graph_steps']:,} of {row['on']['steps']:,}",
              *(small(row[mode].get("idle_us")) for mode in ("on", "off"))] for row in result.get("graphs") or []]
    return table(["tokens/s: median <small>min-max</small>", "graphs", "single launches", "graphs : single", "steps that were graphs",
                  "idle between steps, us: graphs", "single launches"], lines)


def invariance_table(result: dict) -> str:
    rows = result.get("invariance") or []
    torch = ["torch, us", "ours : torch"] if any("torch" in row for row in rows) else []
    lines = []
    for row in rows:
        limit, price = row.get("limit_%"), row.get("price_%")
        bits = {True: "the same", False: "<b class='down'>others</b>", None: ""}[row.get("same_bits")]
        cells = [f"{html.escape(row['matrix'])} {row['n']} x {row['k']}, {row['dtype']}, rows: {row['tokens']}",
                 bits, spread(row), f"{limit:.1f}" if limit else "", f"{price:.0f} % <small>{row['price_by']}</small>" if price is not None else ""]
        other = row.get("torch")
        lines.append(cells + [spread(other) if other else "", f"{row['median'] / other['median']:.2f}" if other else ""][:len(torch)])
    return table(["product", "bits of its rows alone", "us: median <small>min-max</small>", "% of limit", "price at most", *torch], lines)


def against_table(result: dict) -> str:
    lines = []
    for row in result.get("against") or []:
        sheet = row["sheet_ms"]
        lines.append([
            f"{html.escape(row['title'])}: {row['test']}", small(row["measured_ms"]), small(row["floor_ms"]), small(row["kernels_ms"]),
            f"{row['measured_ms'] / row['floor_ms']:.2f}", f"{row['measured_ms'] / row['kernels_ms']:.2f}",
            f"{sheet / row['measured_ms']:.0%}" if sheet else "",
        ])
    return table(["a step, ms", "measured", "floor", "kernels", "measured : floor", "measured : kernels", "% of the data sheet's speed"], lines)


def against_chart(result: dict) -> go.Figure | None:
    rows = result.get("against") or []
    if not rows:
        return None
    figure = go.Figure()
    for title, colour in zip(dict.fromkeys(row["title"] for row in rows), COLOURS * 4, strict=False):
        mine = [row for row in rows if row["title"] == title]
        figure.add_scatter(x=[row["floor_ms"] for row in mine], y=[row["measured_ms"] for row in mine], mode="markers", name=title,
                           text=[row["test"] for row in mine], marker={"size": 10, "color": colour},
                           hovertemplate="%{text}<br>%{y:.3f} ms, floor %{x:.3f}<extra>" + title + "</extra>")
    ends = [min(row["floor_ms"] for row in rows), max(row["measured_ms"] for row in rows)]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": "#9ca3af", "dash": "dot"}, name="as predicted", hoverinfo="skip")
    charts.styled(figure, "floor by the limits measured in this run, ms", "measured, ms", height=420)
    figure.update_xaxes(type="log", exponentformat="none")
    figure.update_yaxes(type="log", rangemode="normal", exponentformat="none")
    return figure


def predicted_tables(result: dict) -> str:
    text = ""
    entries = result.get("predicted") or []
    for title in dict.fromkeys(entry["title"] for entry in entries):
        chips = {entry["device"]: entry for entry in entries if entry["title"] == title}
        first = next(iter(chips.values()))
        lines = [["weights, GB; room for tokens of KV", *(f"{c['weight_gb']:.2f}; {c['kv_tokens']:,}" if c["kv_tokens"] else "does not fit" for c in chips.values())]]
        for kind, name in (("decode", "decode b{batch} @ {context}"), ("prefill", "prefill {prompt}")):
            for index, row in enumerate(first[kind]):
                cells = [f"{small(c[kind][index]['floor_ms'])} <small>{small(c[kind][index]['kernels_ms'])}</small>" if c["kv_tokens"] else ""
                         for c in chips.values()]
                lines.append([name.format(**row), *cells])
        text += f"<details><summary>{html.escape(title)}</summary>" + table(["ms: floor <small>kernels</small>", *chips], lines) + "</details>"
    if entries:
        sources = {entry["device"]: entry["source"] for entry in entries}
        text += "<p class='note'>" + "; ".join(f"{html.escape(d)}: {html.escape(s)}" for d, s in sources.items()) + ".</p>"
    return text


def limits_table(result: dict) -> str:
    limits = result.get("limits") or {}
    after = {(e["name"], e["isa"]): e for e in limits.get("after", [])}
    lines = []
    for entry in limits.get("before", []):
        later = after.get((entry["name"], entry["isa"]))
        moved = f"{later['median'] / entry['median'] - 1:+.1%}" if later and entry["median"] else ""
        lines.append([f"{entry['name'].replace('_', ' ')} {entry['isa']}", spread(entry), spread(later), moved, entry["unit"]])
    return table(["", "before", "after", "moved", ""], lines)


def serving_tables(result: dict) -> str:
    text = ""
    for part in result["serving"]:
        for key, first, label in (("rows", "load", "closed loop"), ("rates", "requests_per_s", "open loop, requests/s")):
            lines = []
            for row in part[key]:
                what = row[first] if key == "rows" else number(row[first])
                times = [f"{small(row[k]['p50'])} / {small(row[k]['p99'])}" if row.get(k) else "" for k in ("ttft_ms", "tpot_ms", "e2el_ms")]
                lines.append([f"{html.escape(row['who'])}: {what}", number(row["output_tokens_per_s"]), *times])
            text += table([f"{html.escape(part['title'])}, {label}", "output tokens/s", "TTFT ms, p50 / p99", "TPOT ms, p50 / p99", "whole request ms"], lines)
    return text


def ops_table(result: dict) -> str:
    lines = []
    for row in result.get("ops") or []:
        values = [number(row[key]) if row.get(key) else "" for key in ("GB/s", "GFLOP/s", "limit_%")]
        lines.append([row["name"].removesuffix("/real_time"), number(row["microseconds"]), *values])
    body = table(["op / dtype / matrix / rows", "microseconds", "GB/s", "GFLOP/s", "% of limit"], lines)
    return f"<details open><summary>{len(lines)} ops</summary>{body}</details>" if lines else ""


def tests_text(result: dict) -> str:
    tests = result.get("tests")
    if tests is None:
        return "<p>not run</p>"
    chosen = f" (those that match <code>{html.escape(tests['filter'])}</code>)" if tests["filter"] else ""
    failed = ", ".join(html.escape(name) for name in tests["failed"])
    return f"<p>{tests['tests']} run{chosen}, " + (f"<b class='down'>failed: {failed}</b>" if failed else "all passed") + "</p>"


def facts(result: dict) -> str:
    machine, build = result["machine"], result["build"]
    entries = {
        "Device": f"{result['device']}: {result['description']}, {result['device_memory_bytes'] / 2**30:.1f} GiB",
        "Dtypes": f"weights {', '.join(result['weight_dtypes'])}; activations {result['activation_dtype']}; KV {result['kv_dtype']}",
        "Host": f"{machine['cpu']}, {machine['cores']} cores used, {machine['memory_bytes'] / 2**30:.1f} GiB, {machine['system']}",
        "Commit": f"{result['commit']}" + (", with uncommitted changes" if result["dirty"] else ""),
        "Build": f"{build['compiler']}, {build['type']}, {build['flags']}", "Peers": ", ".join(result["peers"]) or "none", "Date": result["date"],
    }
    body = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in entries.items())
    return f"<dl>{body}<dt>Command</dt><dd><code>{html.escape(result['command'])}</code></dd></dl>"


def write(result: dict) -> str:
    page = Page()
    title = f"Fairlead on {result['description']}"
    rehearsal = " - a rehearsal in tiny shapes: its figures mean nothing" if result["scale"] == "tiny" else ""
    page.parts.append(f"<h1>{html.escape(title)}</h1><p class='note'>commit {result['commit']} - {result['date'][:16].replace('T', ' ')} UTC{rehearsal}</p>")
    limits = result.get("limits") or {}
    if limits.get("void"):
        page.parts.append(f'<section class="void"><b>Void.</b> The device changed while it was measured: {html.escape(limits["reason"])}.</section>')
    for failure in result["failed"]:
        page.parts.append(f'<section class="void"><b>Failed: {html.escape(failure["part"])}.</b> {html.escape(failure["why"])}</section>')
    page.section("Tests", tests_text(result), note="ctest -L gpu, before anything is measured.")
    page.section("Engine", engine_tables(result), note="In process, without sockets. tgN: N tokens of each of b sequences after d tokens; ppN: N prompt tokens.")
    page.section("Graphs", graphs_table(result), note="The same decode of one sequence with its steps launched as captured graphs and kernel by kernel, each by a process of its own. "
                 "Idle: the median of what lay, by the device's events, between the end of a step and the first copy of the next; with single launches the gaps between kernels come on top.")
    page.section("Batch invariance", invariance_table(result),
                 note="Our kernels have one mode, in which a row's bits do not depend on the rows beside it, so there is no other of ours to compare with. Measured: the bits of the first and the "
                      "last row in a batch against each alone, and the time. % of limit: of what this device's copies and our own matmuls reached, which are batch-invariant, too, so it bounds no price. "
                      "Price: what a kernel with a free choice of order could save at most, whatever the reason; memory: it reads the weights no faster than copies were; sheet: it multiplies no faster than "
                      "the data sheet's bf16 rate; torch: no sheet is known, and this is what torch saves, no bound; empty: none of them is known. torch: the same bf16 product by its own library, whose order does depend on the batch; the ratio holds every difference of the kernels, not invariance alone.")
    page.section("Measured against predicted", page.plot(against_chart(result)), against_table(result),
                 note="Floor: weights and KV are read once and every product is made, at the limits measured in this run. Kernels: every kernel "
                      "also reads what the one before wrote, and costs a launch. The last column is by the chip's data sheet, where we know it.")
    page.section("Predicted for other chips", predicted_tables(result), note="By their data sheets, with bf16 matmuls; bench/roofline/devices.json.")
    page.section("Serving", serving_tables(result), note="By serve_bench. TTFT: from sending to the first token; TPOT: time per output token after it.")
    page.section("Ops", ops_table(result), note="Single calls, on up to 64 copies of a matrix in turn: a cache may hold small matrices and the keys of attention, which then pass the limit. It is the larger of the memory's and the "
                                                "arithmetic's time, at the best that this device's own copies and matmuls reached.")
    page.section("Limits of the device", limits_table(result), note="Before and after everything else: median and range.")
    page.section("Not measured", table(["what", "why"], [[html.escape(m["what"]), html.escape(m["why"])] for m in result["missing"]]))
    page.section("Time", table(["part", "budget, s", "took, s"], [[html.escape(b["part"]), str(b["budget_s"]), f"{b['took_s']:.1f}"] for b in result["budget"]]))
    page.section("Device, host and command", facts(result))
    return (f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
            f"<style>{STYLE}</style></head><body><main>{''.join(page.parts)}</main></body></html>\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.write_text(write(json.loads(options.result.read_text(encoding="utf-8"))), encoding="utf-8")
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
