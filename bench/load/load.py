#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a cold start of `fairlead serve` costs: seconds to ready, bytes read from storage, and memory.

  load.py --model FILE_OR_FOLDER [--binary build/release/fairlead] [-- OPTIONS OF SERVE]

Starts it with the model's files off memory: without a weight cache, with an empty one, and with what that start has stored.
Prints a line of JSON each. read: of /proc/PID/io, of which `files` is what the model's files hold. anonymous: the most that
RssAnon was before ready; clean pages of files are not in it. weights, kv: what the log says. Storage that is memory itself
(tmpfs) reads nothing. Nothing but Python is needed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.002
STORE_SECONDS = 300


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def make_cold(path: Path) -> None:
    for file in files_of(path):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def field(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def mib(pattern: str, log: str) -> float | None:
    found = re.search(pattern, log)
    return float(found[1]) if found else None


def start(options: argparse.Namespace, cache: str) -> dict:
    """One start, to ready and until its weight cache is written."""
    with tempfile.NamedTemporaryFile(mode="w+") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(options.binary), "serve", "--model", str(options.model), "--http", "127.0.0.1:0", "--grpc", "off",
             "--weight-cache", cache, "--log-level", "debug", *options.serve], stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        status, anonymous, mapped = f"/proc/{process.pid}/status", 0, 0
        while not process.stdout.readline():
            if process.poll() is not None:
                sys.exit(f"error: fairlead ended with {process.returncode}: {Path(log.name).read_text()}")
            anonymous = max(anonymous, field(status, "RssAnon:") * 1024)
            mapped = max(mapped, field(status, "RssFile:") * 1024)
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        read = field(f"/proc/{process.pid}/io", "read_bytes:")
        deadline = time.monotonic() + STORE_SECONDS
        while cache != "off" and "is mapped" not in Path(log.name).read_text() and time.monotonic() < deadline:
            if re.search(r"weight cache: .* is (not )?written", Path(log.name).read_text()):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait()
        text = Path(log.name).read_text()
    return {"seconds": round(seconds, 2), "read": read, "anonymous": anonymous, "pages_of_files": mapped,
            "weights_mib": mib(r"([\d.]+) MiB of weights", text), "kv_mib": mib(r"KV cache: ([\d.]+) MiB", text),
            "cache": "mapped" if "is mapped" in text else "written" if "is written" in text else "none"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "release" / "fairlead")
    parser.add_argument("--cache-in", default=None, help="a folder on a disk with room for the packed weights")
    parser.add_argument("serve", nargs="*", help="options of fairlead serve, after --")
    options = parser.parse_args()
    total = sum(file.stat().st_size for file in files_of(options.model))
    with tempfile.TemporaryDirectory(dir=options.cache_in) as folder:
        for cache in ("off", folder, folder):
            make_cold(options.model)
            make_cold(Path(folder))
            print(json.dumps({"files": total, **start(options, cache)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
