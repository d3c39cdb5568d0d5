#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the libFuzzer programs (preset "fuzz") and runs them one after the other. See README.md.
# Usage: tests/fuzz/run.sh [-n EXECUTIONS | -s SECONDS] [TARGET ...]
set -eu
cd "$(dirname "$0")/../.."

limit=-runs=1000000
while getopts n:s: option; do
  case $option in
    n) limit=-runs=$OPTARG ;;
    s) limit=-max_total_time=$OPTARG ;;
    *) sed -n '3,4s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(ls tests/fuzz/corpus)
fi

probe=$(mktemp)
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    clang++ -x c++ -fsanitize=fuzzer,address - -o "$probe" 2> /dev/null; then
  echo "run.sh needs Clang with libFuzzer. Debian: apt-get install clang libclang-rt-14-dev" >&2
  exit 2
fi
rm -f "$probe"

cmake --preset fuzz > build/fuzz.log 2>&1 || { cat build/fuzz.log >&2; exit 2; }
cmake --build --preset fuzz -j "${JOBS:-$(nproc)}" --target "${targets[@]/%/_fuzz}"

export ASAN_OPTIONS=allocator_may_return_null=0:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
found=0
table="| target | executions | seconds | coverage | corpus | findings |
|---|---|---|---|---|---|"
for target in "${targets[@]}"; do
  work=build/fuzz/work/$target
  mkdir -p "$work/corpus" "$work/findings"
  # What is new goes to the first folder. Template and text inputs need no more than a few KB to reach everything.
  build/fuzz/fuzz/"${target}"_fuzz "$limit" -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$work/findings/" "$work/corpus" tests/fuzz/corpus/"$target" \
    > "$work/log" 2>&1 || found=1
  stat() { sed -n "s/^stat::$1: *//p" "$work/log" | tail -1; }
  executions=$(stat number_of_executed_units)
  last=$(grep -E '^#[0-9]+' "$work/log" | tail -1)
  coverage=$(sed -nE 's/.* cov: ([0-9]+).*/\1/p' <<< "$last")
  corpus=$(sed -nE 's/.* corp: ([0-9]+).*/\1/p' <<< "$last")
  seconds=$(sed -nE 's/^Done [0-9]+ runs in ([0-9]+) second.*/\1/p' "$work/log")
  findings=$(find "$work/findings" -type f | wc -l)
  row="| $target | ${executions:-?} | ${seconds:-?} | ${coverage:-?} | ${corpus:-?} | $findings |"
  echo "$row"
  table="$table
$row"
done
echo "$table" | tee build/fuzz/work/table.md
[ $found -eq 0 ] || echo "Findings lie in build/fuzz/work/TARGET/findings, reports in build/fuzz/work/TARGET/log." >&2
exit $found
