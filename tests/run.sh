#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to tested: installs what is missing, builds, runs every test. CTest's summary is the last thing printed
# and its exit code is ours.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--preset release|dev|tsan] [CTest arguments...]
  release  (default) everything, optimised
  dev      everything under AddressSanitizer and UndefinedBehaviorSanitizer
  tsan     the kernels, runtime and server tests under ThreadSanitizer
CTest arguments choose tests, e.g.: tests/run.sh -R scheduler    tests/run.sh --preset dev -L e2e
TEXT
}

log() { printf '[tests %4ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'error: tests/run.sh: %s\n' "$*" >&2; exit 1; }

# The Python of the client tests and the lint. Remade when the list of packages or the interpreter changes.
make_venv() {
  local venv=$1 stamp
  stamp=$(cat "$root/tests/requirements.txt" <(python3 --version) | sha256sum)
  [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  log "making $venv with the packages of tests/requirements.txt"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: -r "$root/tests/requirements.txt" ||
    fail "the Python packages of tests/requirements.txt could not be installed"
  printf '%s\n' "$stamp" >"$venv/.stamp"
}

# A hard link where the cache is on the same file system, else a copy.
place_model() {
  local cached placed=$1
  cached=$("$root/deploy/get-model.sh" | tail -n 1)
  [ ! "$placed" -ef "$cached" ] || return 0
  mkdir -p "$(dirname "$placed")"
  ln -f "$cached" "$placed" 2>/dev/null || { cp "$cached" "$placed.partial" && mv -f "$placed.partial" "$placed"; }
}

preset=release
while [ $# -gt 0 ]; do
  case $1 in
    --preset) [ $# -gt 1 ] || { usage >&2; exit 2; }; preset=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) break ;;
  esac
done
selection=()
runner=()
case $preset in
  release | dev) ;;
  tsan)
    selection=(-L '^(kernels|runtime|server)$')
    # ThreadSanitizer's shadow memory has fixed addresses, which a kernel with much address randomisation may give away.
    if setarch "$(uname -m)" -R true 2>/dev/null; then runner=(setarch "$(uname -m)" -R); fi
    ;;
  *) usage >&2; exit 2 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
model=$root/build/models/SmolLM2-135M-Instruct.Q4_1.gguf

deploy/install-deps.sh
make_venv "$root/build/venv"
place_model "$model"

# The checks of the AMD backend want a compiler that Debian 12 and Ubuntu 24.04 do not have; those of the NVIDIA backend, where
# there is an nvcc, a reader of what it compiled, which not every toolkit has.
if [ "$preset" = release ]; then
  deploy/install-hip.sh >/dev/null || log "no HIP compiler could be had"
  if [ -n "$(PATH=$PATH:/usr/local/cuda/bin type -P nvcc)" ] && [ -z "$(PATH=$PATH:/usr/local/cuda/bin type -P cuobjdump)" ]; then
    deploy/install-cuda.sh >/dev/null || log "no cuobjdump could be had"
  fi
fi

# A build folder keeps what it was configured with, so what the tests need is said again, and what depends on the compilers at
# hand is found anew.
log "configuring build/$preset"
cmake --preset "$preset" -U 'FAIRLEAD_*_CHECKS' -DFAIRLEAD_BUILD_TESTS=ON -DFAIRLEAD_WARNINGS_AS_ERRORS=ON -DFAIRLEAD_MODEL="$model" \
  -DFAIRLEAD_PYTHON="$root/build/venv/bin/python" >"build/configure-$preset.log" 2>&1 ||
  { cat "build/configure-$preset.log" >&2; fail "CMake could not configure build/$preset"; }
grep -oE '(NVIDIA|AMD) (checks|instructions): .*' "build/configure-$preset.log" | while read -r line; do log "$line"; done
log "building build/$preset"
cmake --build --preset "$preset" || fail "build/$preset does not build"

# No report may pass as a warning, and the first one ends the program that made it.
# Freed memory is held back for a while; with less of it the stress test sees what a server really keeps.
export ASAN_OPTIONS=quarantine_size_mb=16:detect_leaks=1:strict_string_checks=1:check_initialization_order=1:detect_stack_use_after_return=1
export LSAN_OPTIONS=print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
log "testing build/$preset"
exec "${runner[@]}" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j2 "${selection[@]}" "$@"
