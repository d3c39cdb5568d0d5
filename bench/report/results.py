# SPDX-License-Identifier: Apache-2.0
"""Result files of bench/run.sh, and what follows from their figures. Standard library alone."""

import json
from pathlib import Path

# Test names of the result, in the order and words of tables.
ENGINE_TESTS = {
    "pp128": "prefill, 128 tokens",
    "pp512": "prefill, 512 tokens",
    "tg64": "decode",
    "tg64 @ d1024": "decode after 1,024 tokens",
    "pp128+tg64 b16": "16 at once in process, 128 in, 64 out",
}


def load_all(folder: Path) -> list[dict]:
    """Those of bench/run.sh cpu, oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted((result for result in found if "limits" in result and "machine" in result and "kind" not in result), key=lambda result: result["date"])


def newest(results: list[dict]) -> dict | None:
    """The one to quote: whole runs before quick ones, with a peer before without, then by date."""
    return max(results, key=lambda r: (not r["quick"], bool(r["peers"]), r["date"]), default=None)


def previous(results: list[dict], result: dict) -> dict | None:
    """The last one before `result` on the same CPU, model file and number of threads."""

    def key(r: dict) -> tuple:
        return r["machine"]["cpu"], r["model"].get("sha256"), r["threads"]

    older = [r for r in results if r["date"] < result["date"] and key(r) == key(result)]
    return older[-1] if older else None


def is_ours(who: str) -> bool:
    return who.startswith("fairlead")


def engine(result: dict) -> dict[tuple[str, str], dict]:
    """(who, test): row."""
    return {(row["who"], row["test"]): row for row in result["engine"] or []}


def serving(result: dict) -> dict[tuple[str, str], dict]:
    """(who and protocol, load): row."""
    return {(row["who"], row["load"]): row for row in (result["serving"] or {}).get("rows", [])}


def names(rows: dict[tuple[str, str], dict]) -> list[str]:
    """Who is in the rows, ours first."""
    seen = dict.fromkeys(who for who, _ in rows)
    return sorted(seen, key=lambda who: not is_ours(who))


def best_limit(result: dict, kinds: tuple[str, ...], which: str = "before") -> float:
    """The best sample of these limits with all threads, 0 without one."""
    entries = result["limits"][which]
    threads = max((entry["threads"] for entry in entries), default=1)
    return max((e["max"] for e in entries if e["name"] in kinds and e["threads"] == threads), default=0.0)


def decode_limit(result: dict) -> float:
    """Tokens/s when a step costs no more than reading its weights once."""
    return best_limit(result, ("memory_read",)) * 1e9 / result["model"]["decode_weight_bytes"]


def number(value: float) -> str:
    """Three significant digits, no more than people read."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
