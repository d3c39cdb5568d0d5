#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One HTML file from the newest result of bench/run.sh: tables and plots, everything inside, readable offline.

  bench/report/report.py --results bench/results --output bench/results/report.html [--name NAME]
"""

import argparse
import html
import sys
from pathlib import Path

import charts
import results

AT_ONCE = "16 at once, 128 in, 64 out"
ALONE = "one at a time, 128 in, 16 out"
STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; color: #1f2937; background: #f3f4f6; margin: 0 }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 27px; margin: 0 0 4px } h2 { font-size: 19px; margin: 0 0 6px } p { margin: 4px 0 12px; max-width: 78ch }
section { background: white; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px; margin-top: 18px }
.note { color: #6b7280; font-size: 13.5px } .void { background: #fef2f2; border-color: #fca5a5; color: #991b1b }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin-top: 18px }
.card { background: white; border: 1px solid #e5e7eb; border-radius: 10px; padding: 14px 18px }
.card b { display: block; font-size: 25px; line-height: 1.25 } .card span { color: #6b7280; font-size: 13px }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 6px 0 4px }
th { text-align: right; color: #6b7280; font-weight: 600; border-bottom: 2px solid #e5e7eb; padding: 5px 10px; vertical-align: bottom }
td { text-align: right; border-bottom: 1px solid #f3f4f6; padding: 5px 10px; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; padding-left: 0 } .up { color: #15803d } .down { color: #b91c1c }
small { color: #9ca3af } code { background: #f3f4f6; padding: 1px 5px; border-radius: 4px; font-size: 13px; word-break: break-word }
dl { display: grid; grid-template-columns: 150px 1fr; gap: 4px 16px; font-size: 14px; margin: 6px 0 } dt { color: #6b7280 } dd { margin: 0 }
details summary { cursor: pointer; color: #1d4ed8 }
"""


class Page:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.has_library = False

    def plot(self, figure) -> str:
        """The library goes in with the first plot."""
        if figure is None:
            return ""
        text = figure.to_html(full_html=False, include_plotlyjs=not self.has_library, config={"displayModeBar": False, "responsive": True})
        self.has_library = True
        return text

    def section(self, title: str, *bodies: str, note: str = "") -> None:
        text = "".join(bodies)
        if text:
            self.parts.append(f"<section><h2>{html.escape(title)}</h2>" + (f'<p class="note">{note}</p>' if note else "") + text + "</section>")


def table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<th>{text}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def spread(row: dict | None) -> str:
    if row is None:
        return ""
    return f"{results.number(row['median'])} <small>{results.number(row['min'])}-{results.number(row['max'])}</small>"


def ratio_rows(result: dict) -> list[tuple[str, str, str, float]]:
    found = []
    engine, served = results.engine(result), results.serving(result)
    for rows, tests in ((engine, results.ENGINE_TESTS), (served, {AT_ONCE: AT_ONCE + ", over HTTP"})):
        for test, words in tests.items():
            for mine in [who for who in results.names(rows) if results.is_ours(who) and not who.endswith("grpc")]:
                for peer in [who for who in results.names(rows) if not results.is_ours(who)]:
                    if (mine, test) in rows and (peer, test) in rows:
                        ratio = rows[mine, test]["median"] / rows[peer, test]["median"]
                        found.append((words, mine.removesuffix(" http"), peer.removesuffix(" http"), ratio))
    return found


def cards(result: dict) -> str:
    engine, served = results.engine(result), results.serving(result)
    ours = next((who for who in results.names(engine) if results.is_ours(who)), "")
    shown = []

    def add(row: dict | None, words: str, unit: str = "tokens/s") -> None:
        if row:
            shown.append((f"{results.number(row['median'])} <span>{unit}</span>", words))

    add(engine.get((ours, "pp512")), f"prefill of 512 tokens, {ours}")
    add(engine.get((ours, "tg64")), f"decode, one sequence, {ours}")
    add(served.get((ours + " http", AT_ONCE)), f"16 requests at once over HTTP, {ours}")
    if result["start"]:
        add(result["start"], "process start to the first token", "s")
    if result["busy"]:
        shown.append((f"{result['busy']['share']:.0%}", "of its decode speed beside two busy processes"))
    return '<div class="cards">' + "".join(f'<div class="card"><b>{value}</b><span>{html.escape(words)}</span></div>' for value, words in shown) + "</div>"


def engine_table(result: dict) -> str:
    rows = results.engine(result)
    everyone = results.names(rows)
    limit = results.decode_limit(result)
    lines = []
    for test, words in results.ENGINE_TESTS.items():
        if any((who, test) in rows for who in everyone):
            cells = [spread(rows.get((who, test))) for who in everyone]
            lines.append([words, *cells, results.number(limit) if test == "tg64" else ""])
    return table(["tokens/s: median <small>min-max</small>", *everyone, "memory limit"], lines)


def serving_table(result: dict) -> str:
    rows = results.serving(result)
    text = ""
    for load in (AT_ONCE, ALONE):
        lines = []
        for who in results.names(rows):
            row = rows.get((who, load))
            if row:
                times = [f"{results.number(row[k]['p50'])} / {results.number(row[k]['p99'])}" if row.get(k) else "" for k in ("ttft_ms", "tpot_ms", "e2el_ms")]
                lines.append([who, spread(row), *times])
        if lines:
            text += f"<p><b>{load}</b></p>" + table(["", "output tokens/s", "TTFT ms, p50 / p99", "TPOT ms, p50 / p99", "whole request ms, p50 / p99"], lines)
    return text


def change_table(result: dict, before: dict | None) -> str:
    if before is None:
        return ""
    lines = []
    for new, old in ((results.engine(result), results.engine(before)), (results.serving(result), results.serving(before))):
        for key in [key for key in new if key in old]:
            change = new[key]["median"] / old[key]["median"] - 1
            mark = "up" if change > 0.03 else "down" if change < -0.03 else ""
            lines.append([f"{key[0]}: {key[1]}", results.number(old[key]["median"]), results.number(new[key]["median"]), f'<span class="{mark}">{change:+.1%}</span>'])
    return table(["tokens/s", f"{before['date'][:10]}, {before['commit']}", f"{result['date'][:10]}, {result['commit']}", "change"], lines)


def ops_table(result: dict) -> str:
    lines = []
    for row in result["ops"] or []:
        values = [results.number(row[key]) if row.get(key) else "" for key in ("GB/s", "GFLOP/s", "limit_%")]
        lines.append([row["name"].removesuffix("/real_time"), results.number(row["microseconds"]), *values])
    body = table(["op / dtype / matrix / rows", "microseconds", "GB/s", "GFLOP/s", "% of limit"], lines)
    return f"<details><summary>{len(lines)} ops</summary>{body}</details>" if lines else ""


def limits_table(result: dict) -> str:
    after = {(e["name"], e["isa"], e["threads"]): e for e in result["limits"]["after"]}
    lines = []
    for entry in result["limits"]["before"]:
        later = after.get((entry["name"], entry["isa"], entry["threads"]))
        moved = f"{later['median'] / entry['median'] - 1:+.1%}" if later and entry["median"] else ""
        lines.append([f"{entry['name'].replace('_', ' ')} {entry['isa']}", str(entry["threads"]), spread(entry), spread(later), moved, entry["unit"]])
    return table(["", "threads", "before", "after", "moved", ""], lines)


def facts(result: dict) -> str:
    machine, build, model = result["machine"], result["build"], result["model"]
    commit = f"{result['commit']}" + (", with uncommitted changes" if result["dirty"] else "")
    entries = {
        "Processor": f"{machine['cpu']}, {machine['cores']} cores used; {result['device']}", "Instruction sets": machine["cpu_flags"],
        "Memory": f"{machine['memory_bytes'] / 2**30:.1f} GiB", "System": f"{machine['system']}, {machine['kernel']}",
        "Clock": f"governor {machine['governor'] or 'not told'}, {machine['mhz'] or 'not told'} MHz",
        "Model": f"{model['file']}, {model.get('bytes', 0):,} bytes, sha256 {model.get('sha256', '-')}",
        "Commit": commit, "Build": f"{build['compiler']}, {build['type']}, {build['flags']}",
        "Peers": "; ".join(f"{peer['name']} {peer['version']}" for peer in result["peers"]) or "none",
        "Threads": str(result["threads"]), "Date": result["date"],
    }
    body = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in entries.items())
    return f"<dl>{body}<dt>Command</dt><dd><code>{html.escape(result['command'])}</code></dd></dl>"


def fidelity_table(result: dict) -> str:
    lines = [[row["numerics"], f"{row['kl_mean']:.2e}", f"{row['top1']:.1%}", f"{row['largest_logprob_difference']:.2e}"] for row in result["fidelity"] or []]
    return table(["numerics", "mean KL", "top-1 agreement", "largest difference of a log-probability"], lines)


def write(result: dict, before: dict | None) -> str:
    page = Page()
    title = f"Fairlead on {result['machine']['cpu']}, {result['threads']} threads"
    page.parts.append(f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(result['model']['file'])} - commit {result['commit']} - "
                      f"{result['date'][:16].replace('T', ' ')} UTC - medians of {result['rounds']} rounds in turns{' - a quick look, not a result' if result['quick'] else ''}</p>")
    if result["limits"]["void"]:
        page.parts.append(f'<section class="void"><b>Void.</b> The machine itself changed while it was measured: {html.escape(result["limits"]["reason"])}. '
                          "More than 10 % makes a run void: repeat it when the neighbours are quiet.</section>")
    page.parts.append(cards(result))
    page.section("Ratio to the peer", page.plot(charts.ratios(ratio_rows(result))), note="Same file, same threads, taking turns in one run. Above 1 is faster than the peer.")
    page.section("Engine", engine_table(result), note="In process, without sockets. The memory limit is what one sequence could reach if a step cost no more than reading the weights once, by the bandwidth measured in this run.")
    page.section("Fidelity", fidelity_table(result), note="What the speed was bought at: next-token distributions against float32 arithmetic on the same weights.")
    page.section("Batch", page.plot(charts.curve(result, "tg", "b", "sequences at once (logarithmic)", True)), note="Decode of several sequences together.")
    page.section("Depth", page.plot(charts.curve(result, "tg", "d", "tokens of context before", False)), note="Decode of one sequence after so many tokens.")
    page.section("Serving", serving_table(result), note="Closed loop by serve_bench. TTFT: from sending to the first token; TPOT: time per output token after it.")
    page.section("Latency, 16 at once", page.plot(charts.latencies(result, AT_ONCE, "ttft_ms")), note="Time to the first token. Hatched bars are gRPC.")
    page.section("Rate sweep", page.plot(charts.rate_sweep(result)), note="Requests arrive whether or not others are done. Where the lines bend upwards the server is full.")
    page.section("Roofline", page.plot(charts.roofline(result)), note="How far the linear layers are from what memory (the slope) and arithmetic (the flat roofs) allow, both measured in this run. Circles are decode of one sequence, diamonds prefill of 512 tokens; small rings are single matmuls.")
    page.section("Change since the last result", change_table(result, before), note="Same processor, file and threads.")
    page.section("Ops", ops_table(result), note="Single calls on matrices that no cache holds; the limit is the larger of the memory's and the arithmetic's time.")
    page.section("Limits of the machine", limits_table(result), note="Before and after everything else: median and range.")
    page.section("Machine, model and command", facts(result))
    return (f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
            f"<style>{STYLE}</style></head><body><main>{''.join(page.parts)}</main></body></html>\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", help="of the result (default: the newest)")
    options = parser.parse_args()
    found = results.load_all(options.results)
    chosen = next((r for r in found if r["name"] == options.name), None) if options.name else (found[-1] if found else None)
    if chosen is None:
        print(f"error: {options.results}: there is no result {options.name or ''}", file=sys.stderr)
        return 1
    options.output.write_text(write(chosen, results.previous(found, chosen)), encoding="utf-8")
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
