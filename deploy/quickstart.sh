#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a checkout to an answer: packages, build, model, server, one chat. Leaves the server running until Ctrl-C.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/quickstart.sh [--check] [--http HOST:PORT] [--grpc HOST:PORT]
  --check           stop the server after the answer; exit 0 if there was one and the server stopped cleanly.
                    Takes free ports unless told otherwise.
  --http, --grpc    where to listen (default 127.0.0.1:8000 and 127.0.0.1:8001; port 0 takes a free one)
TEXT
}

readonly kQuestion='What is the capital of France?'

log() { printf '[quickstart %3ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'error: quickstart: %s\n' "$*" >&2; exit 1; }

# Reads one field of the JSON object in $1.
json_field() { python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$1" "$2"; }

# Starts the server in a process group of its own, so that Ctrl-C reaches this script alone and the server gets one
# SIGTERM from it. Sets server_pid; the server's stdout is fd 3.
start_server() {
  mkfifo "$scratch/stdout"
  set -m
  build/release/fairlead serve --model "$1" --http "$http" --grpc "$grpc" >"$scratch/stdout" 2>"$server_log" &
  server_pid=$!
  set +m
  exec 3<"$scratch/stdout"
}

# Waits for the ready line, which the server prints when it can serve. Sets ready; fails when the server ends first.
wait_until_ready() {
  local line
  while IFS= read -r -u 3 line; do
    case $line in *'"event":"ready"'*) ready=$line; return 0 ;; esac
  done
  wait "$server_pid" || true
  server_pid=
  sed 's/^/  server: /' "$server_log" | tail -n 15 >&2
  if grep -qi 'address already in use' "$server_log"; then
    fail "the port of $http or $grpc is taken; name others with --http and --grpc (port 0 takes a free one)"
  fi
  fail "the server stopped before it was ready; its last lines stand above, all of them in $server_log"
}

# Stops the server; returns its exit code.
stop_server() {
  local pid=$server_pid
  server_pid=
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid"
}

# Prints the answer as it streams in, and writes it to $2. $1 is the server's URL.
ask() {
  curl -sS -N --fail-with-body "$1/v1/chat/completions" -H 'Content-Type: application/json' -d '{
      "messages": [{"role": "user", "content": "'"$kQuestion"'"}],
      "temperature": 0, "max_tokens": 64, "stream": true}' |
    python3 -c '
import json, sys
answer = open(sys.argv[1], "w", encoding="utf-8")
for line in sys.stdin:
    if not line.startswith("data:"):
        sys.stderr.write(line if line.strip() else "")
        continue
    data = line[len("data:"):].strip()
    if data == "[DONE]":
        break
    for choice in json.loads(data).get("choices", []):
        text = choice["delta"].get("content") or ""
        answer.write(text)
        print(text, end="", flush=True)
print()' "$2"
}

check=0
http=
grpc=
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=1 ;;
    --http) [ $# -gt 1 ] || fail "--http needs HOST:PORT"; http=$2; shift ;;
    --grpc) [ $# -gt 1 ] || fail "--grpc needs HOST:PORT"; grpc=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
if [ "$check" -eq 1 ]; then
  http=${http:-127.0.0.1:0} grpc=${grpc:-127.0.0.1:0}
else
  http=${http:-127.0.0.1:8000} grpc=${grpc:-127.0.0.1:8001}
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d)
server_pid=
ready=
# A server that is still there when this script ends, for whatever reason, ends with it.
trap 'if [ -n "$server_pid" ]; then stop_server || true; fi; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

log "1/5 packages"
deploy/install-deps.sh
mkdir -p build
server_log=$PWD/build/quickstart.log

log "2/5 build (minutes the first time, seconds after that)"
# A warning of some other compiler is for us to mend; tests/run.sh treats it as an error, a first build does not.
cmake --preset release -DFAIRLEAD_WARNINGS_AS_ERRORS=OFF >build/configure-release.log 2>&1 ||
  { cat build/configure-release.log >&2; fail "CMake could not configure build/release"; }
cmake --build --preset release --target fairlead || fail "the build failed; its messages stand above"

log "3/5 model"
model=$(deploy/get-model.sh | tail -n 1)

log "4/5 server"
start_server "$model"
wait_until_ready
url=http://$(json_field "$ready" http)
log "ready in $(json_field "$ready" startup_ms) ms: HTTP at $url, gRPC at $(json_field "$ready" grpc); log in $server_log"

log "5/5 one chat"
printf '\n> %s\n' "$kQuestion"
ask "$url" "$scratch/answer" || fail "the chat failed; the server's log is in $server_log"
echo
[ -s "$scratch/answer" ] || fail "the answer is empty; the server's log is in $server_log"

if [ "$check" -eq 1 ]; then
  stop_server || fail "the server did not stop cleanly (exit code $?); its log is in $server_log"
  log "checked: answered and stopped cleanly"
else
  log "the server keeps running; Ctrl-C stops it"
  trap 'echo; log "stopping"; stop_server || fail "the server did not stop cleanly; its log is in $server_log"; exit 0' INT
  # A signal ends the wait and runs its trap.
  if wait "$server_pid"; then server_pid=; else server_pid=; fail "the server stopped; its log is in $server_log"; fi
fi
