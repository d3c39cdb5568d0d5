#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The one command for an accelerator: builds what is missing, measures the machine's limits, the ops, the engine, the
# servers, peers in turns with ours, fidelity beside speed, and writes bench/results/NAME.json and results/report.html.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bench/run.sh [cpu] [options]
       bench/run.sh gpu [--device cuda:N|hip:N|host-simt:32|64] [--scale full|tiny] [options]
       bench/run.sh fidelity --peer llama:PREFIX --python PYTHON [options]
cpu:
  --peer PEER       who takes turns with us; may come several times. Without one its columns are empty.
                      llama:PREFIX     llama.cpp; PREFIX is put before llama-bench and llama-server, "llama:" takes them
                                       from the PATH (bench/peers/llama.sh)
                      openvino:PYTHON  OpenVINO GenAI of this interpreter (bench/peers/openvino_peer.py)
                      http://...       a running OpenAI server; serving only
                      COMMAND          anything that takes llama-bench's options and prints its JSON lines
  --model PATH      a GGUF file or model folder (default: deploy/get-model.sh); a folder with a config.json alone gets
                    random weights, which are written as a GGUF file for the peers (--dummy-dtype q4_0)
  --quick           two rounds, fewer points: a look, not a result
  --threads N, --numerics precise,fast, --rounds N, --only PHASES, --dummy-dtype T
                    as build/release/bench_suite --help says
gpu: the tests of the gpu label, then limits, ops, invariance, engine, graphs, serving and predictions, within 8 minutes
     on an H100
  --device NAME     default: the first GPU whose driver is there
  --scale tiny      every part in tiny shapes, for host-simt: a rehearsal, whose figures mean nothing
  --peer PEER       http://..., or COMMAND
  --peer-transformers PYTHON, --peer-vllm PYTHON
                    an interpreter with torch and transformers, with vllm; default: python3, where it has them
  --model PATH      another file of SmolLM2-135M
  --no-tests        no tests first
fidelity: files of many types made with llama-quantize; of each, what we and llama.cpp say beside float32 transformers on that
     very file, and the speed of both; bench/results/fidelity-files.json and a table in README.md
  --peer llama:PREFIX
                    see above; it makes the files, too
  --python PYTHON   an interpreter with torch, transformers, gguf and numpy; default: python3
  --model PATH      SmolLM2's GGUF file
  --step STEP       make, reference, fidelity, speed (which wants a quiet machine) or table; default: all
  --only NAME       files whose name has this in it; may come several times
  --stride N        every N-th prefix alone: a look
  --threads N, --rounds N
                    as above
cpu and gpu:
  --name NAME       of the result
  --no-report       no HTML, so no Python
Exit code 0: measured (a void run says so in its result and here), 1: failed, or the device is not there, 2: wrong usage.
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

# build PRESET TARGETS...: configures and builds; without targets, everything.
build() {
  local preset=$1
  shift
  log "building build/$preset (a few minutes the first time)"
  mkdir -p build
  local device_test=
  [ "$preset" = release ] || device_test=$device
  cmake --preset "$preset" -DFAIRLEAD_BUILD_TESTS=ON -DFAIRLEAD_BUILD_BENCH=ON -DFAIRLEAD_TEST_DEVICE="$device_test" >build/configure-bench.log 2>&1 ||
    { cat build/configure-bench.log >&2; fail "CMake could not configure build/$preset"; }
  cmake --build --preset "$preset" ${1:+--target "$@"} >build/build-bench.log 2>&1 ||
    { tail -n 30 build/build-bench.log >&2; fail "build/$preset does not build"; }
}

# The library of this device's backend, by the preset of its name, put beside the programs, and the test of that device. Where
# the preset cannot be configured (no toolkit), opening the device says what is missing.
build_backend() {
  local preset=${device%%:*} library
  library=libfairlead_$preset.so
  if ! cmake --preset "$preset" >build/configure-backend.log 2>&1; then
    log "the preset $preset cannot be configured: $(grep -m 1 -A 2 -i error build/configure-backend.log | tr -s '\n ' ' ')"
    return 0
  fi
  build "$preset" "fairlead_$preset" gpu_op_test
  ln -sf "../$preset/$library" build/release/
}

default_device() {
  if [ ! -e /dev/nvidia0 ] && [ -e /dev/kfd ]; then echo hip:0; else echo cuda:0; fi
}

run_cpu() {
  build release fairlead bench_suite engine_bench ops_bench serve_bench fidelity dummy_gguf
  [ -n "$model" ] || model=$(deploy/get-model.sh | tail -n 1)
  build/release/bench_suite --checkout "$root" --model "$model" --name "$name" --output "bench/results/$name.json" \
    --command "bench/run.sh$shown" "${arguments[@]}"
  [ "$report" -eq 0 ] || { make_venv; build/bench-venv/bin/python bench/report/report.py --results bench/results \
    --output bench/results/report.html; }
}

run_fidelity() {
  build release fairlead engine_bench fidelity
  [ -n "$model" ] || model=$(deploy/get-model.sh | tail -n 1)
  "$python" bench/fidelity/files.py ${step:+"$step"} --model "$model" "${arguments[@]}"
}

# add_python_peer NAME MODULES...: unless it was named, where python3 has them.
add_python_peer() {
  local option=--peer-$1
  shift
  case " ${arguments[*]} " in *" $option "*) return 0 ;; esac
  ! python3 -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' "$@" 2>/dev/null ||
    arguments+=("$option" "$(command -v python3)")
}

# A part that failed is in the result and in the report, too.
run_gpu() {
  local status=0 tests=build/release
  build release fairlead fairlead_host gpu_suite limits invariance engine_bench ops_bench serve_bench
  case $device in
    cuda:* | hip:*) build_backend; [ ! -e "build/${device%%:*}/CTestTestfile.cmake" ] || tests=build/${device%%:*} ;;
  esac
  if [ "$run_tests" -eq 1 ]; then
    # Of the gpu label; a backend's own build has the one of its device.
    if [ "$tests" = build/release ] && [ "$scale" = tiny ]; then
      build release simt_faults_{32,64}_test gpu_sampling_{32,64}_test
    elif [ "$tests" = build/release ]; then
      build release
    fi
    arguments+=(--tests "$tests")
  fi
  [ "$scale" = tiny ] || [ -n "$model" ] || model=$(deploy/get-model.sh | tail -n 1)
  add_python_peer transformers torch transformers
  add_python_peer vllm vllm
  build/release/gpu_suite --checkout "$root" --device "$device" --scale "$scale" --model "$model" --name "$name" \
    --output "bench/results/$name.json" --command "bench/run.sh$shown" "${arguments[@]}" || status=$?
  [ "$status" -le 1 ] && [ -e "bench/results/$name.json" ] || return "$status"
  [ "$report" -eq 0 ] || { make_venv; build/bench-venv/bin/python bench/report/gpu_report.py \
    --result "bench/results/$name.json" --output bench/results/report-gpu.html; }
  return "$status"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
backend=cpu model='' name='' device='' scale='' report=1 run_tests=1 of_cpu='' of_gpu='' of_fidelity='' timed=''
python=python3 step=''
arguments=()
printf -v shown ' %q' "$@"
while [ $# -gt 0 ]; do
  option=$1
  case $option in
    cpu | gpu | fidelity) backend=$option; shift; continue ;;
    --no-report) report=0; shift; continue ;;
    --no-tests) of_gpu=$option; run_tests=0; shift; continue ;;
    --quick) of_cpu=$option; arguments+=("$option"); shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --device | --scale | --peer-transformers | --peer-vllm) of_gpu=$option ;;
    --numerics | --dummy-dtype) of_cpu=$option ;;
    --python | --step | --stride) of_fidelity=$option ;;
    --threads | --rounds | --only) timed=$option ;;
    --peer | --model | --name) ;;
    *) usage >&2; exit 2 ;;
  esac
  [ $# -gt 1 ] || fail "$option needs a value" 2
  case $option in
    --device | --scale | --model | --name | --python | --step) printf -v "${option#--}" '%s' "$2" ;;
    *) arguments+=("$option" "$2") ;;
  esac
  shift 2
done
[ "$backend" = gpu ] || [ -z "$of_gpu" ] || fail "$of_gpu is of bench/run.sh gpu" 2
[ "$backend" = cpu ] || [ -z "$of_cpu" ] || fail "$of_cpu is of bench/run.sh cpu" 2
[ "$backend" = fidelity ] || [ -z "$of_fidelity" ] || fail "$of_fidelity is of bench/run.sh fidelity" 2
[ "$backend" != gpu ] || [ -z "$timed" ] || fail "$timed is of bench/run.sh cpu and fidelity" 2
: "${scale:=full}" "${device:=$(default_device)}"
case $scale in full | tiny) ;; *) fail "--scale: '$scale' is neither full nor tiny" 2 ;; esac
case $device in cuda | hip) device=$device:0 ;; esac
[ -z "$model" ] || model=$(realpath -e -- "$model") || fail "--model: there is no such file or folder" 2
label=$backend
[ "$backend" = cpu ] || label=${device//:/-}
cd "$root"
[ -n "$name" ] || name=$label-$(date -u +%Y%m%d-%H%M)-$(git rev-parse --short=7 HEAD 2>/dev/null || echo nocommit)
mkdir -p bench/results
"$root/deploy/install-deps.sh" >&2
"run_$backend"
[ "$backend" = fidelity ] || log "done: bench/results/$name.json"
