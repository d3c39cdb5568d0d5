#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# llama.cpp as a peer: bench/run.sh cpu --peer llama:PREFIX. PREFIX is a command to which llama-bench and llama-server are
# appended ("enter" of an installation in a folder of its own; it sees the model's folder as $MODELS), or "" when they are
# on the PATH: --peer llama:
#   llama.sh PREFIX version                               one line
#   llama.sh PREFIX bench -m MODEL -t N [llama-bench's options]   llama-bench's JSON lines
#   llama.sh PREFIX serve MODEL THREADS PORT SEQUENCES    an OpenAI server in the foreground
set -euo pipefail

prefix=() action=$2
[ -z "$1" ] || read -r -a prefix <<<"$1"
shift 2

# The options are the peer's best on a CPU: its defaults, and a context for all slots together.
case $action in
  version) "${prefix[@]}" llama-bench --version 2>&1 | grep -v '^load_backend' | tr '\n' ' ' ;;
  bench)
    [ "$1" = -m ] || { echo "error: llama.sh bench needs -m first" >&2; exit 2; }
    MODELS=$(dirname "$2") exec "${prefix[@]}" llama-bench -o jsonl "$@"
    ;;
  serve)
    MODELS=$(dirname "$1") exec "${prefix[@]}" llama-server -m "$1" -t "$2" --host 127.0.0.1 --port "$3" -np "$4" \
      -c $(($4 * 2048)) --no-webui
    ;;
  *) exit 64 ;;  # not offered
esac
