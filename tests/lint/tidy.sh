#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy with the checks of .clang-tidy. Apart from the other lint because it reads every header of every file:
# seconds a file, half an hour for all of them on two cores.
# usage: tests/lint/tidy.sh            the .cc files that differ from the last commit, or are new
#        tests/lint/tidy.sh all        every .cc file of the product and the tests
#        tests/lint/tidy.sh FILE...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build/release
command -v clang-tidy >/dev/null || { echo "error: no clang-tidy: run deploy/install-deps.sh --lint" >&2; exit 1; }
if [ ! -e "$build/compile_commands.json" ]; then
  echo "error: no $build/compile_commands.json: run cmake --preset release and build first (it needs the generated headers)" >&2
  exit 1
fi

case ${1:-} in
  '')
    # Assigned first: a failure of git inside mapfile's <(...) would read as "nothing has changed".
    changed=$(git diff --name-only --diff-filter=d HEAD && git ls-files -o --exclude-standard) ||
      { echo "error: git cannot tell what has changed: name the files, or pass all" >&2; exit 1; }
    mapfile -t files < <(grep '\.cc$' <<<"$changed" | sort -u)
    ;;
  all) mapfile -t files < <(find server runtime models kernels tests -name '*.cc' | sort) ;;
  *) files=("$@") ;;
esac
if [ "${#files[@]}" -eq 0 ]; then
  echo "tidy: nothing has changed since the last commit"
  exit 0
fi
echo "tidy: ${#files[@]} files"
# GCC's own flags are unknown to clang; its warnings are the compiler's business, not ours.
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" clang-tidy -p "$build" --quiet --extra-arg=-Wno-everything
echo "tidy: clean"
