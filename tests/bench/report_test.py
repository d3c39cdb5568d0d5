# SPDX-License-Identifier: Apache-2.0
"""What the report and README's table make of results, and how instruction counts are judged."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench" / "report"), str(ROOT / "bench" / "instructions")]

import check  # noqa: E402
import readme_table  # noqa: E402
import results  # noqa: E402


def row(who: str, test: str, median: float) -> dict:
    return {"who": who, "test": test, "unit": "tokens/s", "median": median, "min": median, "max": median, "samples": [median]}


def result(**changes) -> dict:
    limit = {"name": "memory_read", "isa": "", "unit": "GB/s", "threads": 2, "median": 9.0, "min": 8.0, "max": 10.0}
    base = {
        "name": "a", "date": "2026-01-02T00:00:00Z", "quick": False, "commit": "abc", "dirty": False, "command": "bench/run.sh cpu",
        "threads": 2, "rounds": 5, "device": "cpu, avx2", "machine": {"cpu": "C", "system": "S"}, "build": {"compiler": "GNU 12"},
        "model": {"file": "m.gguf", "sha256": "1", "decode_weight_bytes": 100_000_000},
        "peers": [{"name": "peer", "version": "peer 1"}], "limits": {"void": False, "reason": None, "before": [limit], "after": [limit]},
        "engine": [row("fairlead precise", "pp512", 3000), row("peer", "pp512", 1000), row("fairlead precise", "tg64", 50)],
        "serving": None, "fidelity": None,
    }
    return {**base, **changes}


class ResultsTest(unittest.TestCase):
    def test_a_gpu_result_is_no_result_of_the_cpu(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, changes in (("cpu", {}), ("gpu", {"kind": "gpu"})):
                Path(folder, f"{name}.json").write_text(json.dumps(result(name=name, **changes)), encoding="utf-8")
            self.assertEqual([found["name"] for found in results.load_all(Path(folder))], ["cpu"])

    def test_newest_prefers_whole_runs_then_peers_then_dates(self):
        quick = result(name="quick", quick=True, date="2026-09-09T00:00:00Z")
        alone = result(name="alone", peers=[], date="2026-08-08T00:00:00Z")
        old, new = result(name="old"), result(name="new", date="2026-03-03T00:00:00Z")
        self.assertEqual(results.newest([quick, alone, old, new])["name"], "new")
        self.assertEqual(results.newest([quick, alone])["name"], "alone")
        self.assertIsNone(results.newest([]))

    def test_previous_is_of_the_same_machine_file_and_threads(self):
        now = result(date="2026-05-05T00:00:00Z")
        other_file = result(name="other", date="2026-04-04T00:00:00Z", model={"file": "m", "sha256": "2"})
        before = result(name="before", date="2026-03-03T00:00:00Z")
        self.assertEqual(results.previous([before, other_file, now], now)["name"], "before")
        self.assertIsNone(results.previous([other_file, now], now))

    def test_decode_limit_is_the_best_bandwidth_over_the_bytes_of_a_step(self):
        self.assertAlmostEqual(results.decode_limit(result()), 100)

    def test_numbers_have_three_digits(self):
        self.assertEqual([results.number(x) for x in (12345.6, 99.95, 9.876, 0.5)], ["12,346", "100.0", "9.88", "0.50"])


class ReadmeTableTest(unittest.TestCase):
    def test_columns_ratios_and_gaps(self):
        self.assertEqual(
            readme_table.table_of(result()),
            [
                "| tokens/s | fairlead precise | peer | precise : peer |",
                "|---|---|---|---|",
                "| prefill, 512 tokens | 3,000 | 1,000 | 3.0 |",
                "| decode | 50.0 |  |  |",
            ],
        )

    def test_a_void_run_says_so(self):
        void = result(limits={**result()["limits"], "void": True, "reason": "memory_read fell"})
        self.assertIn("Void by our own rule", readme_table.text_of(void))
        self.assertIn("memory_read fell", readme_table.text_of(void))
        self.assertNotIn("Void", readme_table.text_of(result()))


    def test_the_readme_is_in_step(self):
        with unittest.mock.patch.object(sys, "argv", ["readme_table.py", "--check"]):
            self.assertEqual(readme_table.main(), 0)


class InstructionCountsTest(unittest.TestCase):
    def compare(self, counts, golden):
        with contextlib.redirect_stdout(io.StringIO()):
            return check.compare(counts, golden)

    def test_five_percent_more_passes_and_less_passes(self):
        self.assertEqual(self.compare({"a": 105, "b": 10}, {"a": 100, "b": 100}), [])

    def test_more_fails_by_name(self):
        (line,) = self.compare({"a": 106, "b": 100}, {"a": 100, "b": 100})
        self.assertIn("a takes 6.0% more", line)

    def test_a_case_without_golden_or_program_fails(self):
        self.assertEqual(len(self.compare({"new": 1}, {"old": 1})), 2)


if __name__ == "__main__":
    unittest.main()
