#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The one command for an accelerator: builds what is missing, measures the machine's limits, the ops, the engine, the
# servers, peers in turns with ours, fidelity beside speed, and writes bench/results/NAME.json and results/report.html.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bench/run.sh [cpu|gpu] [options]
  --peer PEER       who takes turns with us; may come several times. Without one its columns are empty.
                      llama:PREFIX     llama.cpp; PREFIX is put before llama-bench and llama-server, "llama:" takes them
                                       from the PATH (bench/peers/llama.sh)
                      openvino:PYTHON  OpenVINO GenAI of this interpreter (bench/peers/openvino_peer.py)
                      http://...       a running OpenAI server; serving only
                      COMMAND          anything that takes llama-bench's options and prints its JSON lines
  --model PATH      a GGUF file or model folder (default: deploy/get-model.sh); a folder with a config.json alone gets
                    random weights, which are written as a GGUF file for the peers (--dummy-dtype q4_0)
  --quick           two rounds, fewer points: a look, not a result
  --threads N, --numerics precise,fast, --rounds N, --only PHASES, --name NAME
                    as build/release/bench_suite --help says
  --no-report       no HTML, so no Python
Exit code 0: measured (a void run says so in its result and here), 1: failed, 2: wrong usage, or no such backend.
TEXT
}

log() { printf '[bench %4ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: bench/run.sh: %s\n' "$1" >&2; exit "${2:-1}"; }

# The Python of the report alone.
make_venv() {
  local venv=$root/build/bench-venv stamp
  stamp=$(cat "$root/bench/report/requirements.txt" <(python3 --version) | sha256sum)
  [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  log "making $venv with the packages of bench/report/requirements.txt"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
    -r "$root/bench/report/requirements.txt" || fail "the report's Python packages could not be installed"
  printf '%s\n' "$stamp" >"$venv/.stamp"
}

build() {
  log "building (a few minutes the first time)"
  "$root/deploy/install-deps.sh" >&2
  mkdir -p build
  cmake --preset release -DFAIRLEAD_BUILD_TESTS=ON -DFAIRLEAD_BUILD_BENCH=ON >build/configure-bench.log 2>&1 ||
    { cat build/configure-bench.log >&2; fail "CMake could not configure build/release"; }
  cmake --build --preset release --target fairlead bench_suite engine_bench ops_bench serve_bench fidelity dummy_gguf \
    >build/build-bench.log 2>&1 || { tail -n 30 build/build-bench.log >&2; fail "build/release does not build"; }
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
backend=cpu model='' name='' report=1
arguments=()
printf -v shown ' %q' "$@"
while [ $# -gt 0 ]; do
  case $1 in
    cpu | gpu) backend=$1 ;;
    --quick) arguments+=("$1") ;;
    --no-report) report=0 ;;
    --model | --name) [ $# -gt 1 ] || fail "$1 needs a value" 2; printf -v "${1#--}" '%s' "$2"; shift ;;
    --peer | --threads | --numerics | --rounds | --only | --dummy-dtype)
      [ $# -gt 1 ] || fail "$1 needs a value" 2
      arguments+=("$1" "$2")
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[ "$backend" = cpu ] || fail "this build has no GPU backend: there is 'bench/run.sh cpu' only" 2
[ -z "$model" ] || model=$(realpath -e -- "$model") || fail "--model: there is no such file or folder" 2

cd "$root"
build
[ -n "$model" ] || model=$(deploy/get-model.sh | tail -n 1)
[ -n "$name" ] || name=cpu-$(date -u +%Y%m%d-%H%M)-$(git rev-parse --short=7 HEAD 2>/dev/null || echo nocommit)
mkdir -p bench/results
build/release/bench_suite --checkout "$root" --model "$model" --name "$name" --output "bench/results/$name.json" \
  --command "bench/run.sh$shown" "${arguments[@]}"
if [ "$report" -eq 1 ]; then
  make_venv
  build/bench-venv/bin/python bench/report/report.py --results bench/results --output bench/results/report.html
fi
log "done: bench/results/$name.json"
