#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the build and the tests need: Debian 12, Debian 13, Ubuntu 24.04. Only what is missing is fetched, so a
# second run needs neither rights nor network.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/install-deps.sh [--lint] [--onednn-prefix DIR]
  --lint               also clang-tidy and clang-format, which tests/lint/tidy.sh and editors use
  --onednn-prefix DIR  where oneDNN goes if the distribution's is older than 3.2 (default /opt/onednn, or
                       build/deps/onednn of this checkout without root rights); pass another DIR to CMake as ONEDNN_ROOT
TEXT
}

readonly kPackages=(
  cmake ninja-build g++ ccache pkg-config
  protobuf-compiler protobuf-compiler-grpc libgrpc++-dev libprotobuf-dev libabsl-dev
  libssl-dev libboost-dev nlohmann-json3-dev libspdlog-dev libyaml-cpp-dev libcli11-dev
  prometheus-cpp-dev libcurl4-openssl-dev zlib1g-dev
  libpcre2-dev libxxhash-dev libhwy-dev libutf8proc-dev libgtest-dev libgmock-dev libbenchmark-dev valgrind
  python3 python3-venv python3-pip openssl curl patch unzip ca-certificates
)
readonly kLintPackages=(clang-format clang-tidy)
readonly kOnednnMinimum=3.2
readonly kDefaultOnednnPrefix=/opt/onednn

# The wheels carry oneDNN 3.2 built for libgomp; pip checks these sha256 sums.
readonly kOnednnRequirements="\
onednn-cpu-gomp==2023.2.0 --hash=sha256:2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb
onednn-devel-cpu-gomp==2023.2.0 --hash=sha256:9763c69e8c907e119056bd52ad918ca84ac9ba939d130a99dfa95ccca3e5e284"

log() { printf '[install-deps %3ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'error: install-deps: %s\n' "$*" >&2; exit 1; }

# Runs a command with root rights, or says which one needs them.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    fail "root rights are needed for: $*
run this script as root, or install sudo"
  fi
}

can_be_root() { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }

# Prints the installed version of a package, nothing if it is not (fully) installed.
installed_version() {
  dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p' | head -n 1
}

# Prints those of the arguments that are not installed, one a line.
missing_packages() {
  comm -23 <(printf '%s\n' "$@" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

index_updated=0
update_index() {
  [ "$index_updated" -eq 0 ] || return 0
  log "fetching the package lists"
  as_root apt-get update -q=2 || fail "apt-get update failed: check the network and /etc/apt/sources.list"
  index_updated=1
}

# sudo drops the environment, hence env.
apt_install() {
  log "installing $# packages and what they need: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q=2 -y --no-install-recommends \
    -o Dpkg::Use-Pty=0 -o APT::Install-Suggests=false "$@" >"$log_file" 2>&1 ||
    { tail -n 25 "$log_file" >&2; fail "apt-get install failed; its last lines stand above"; }
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  update_index
  apt_install "${missing[@]}"
}

new_enough() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$kOnednnMinimum"; }

# Unpacks both wheels into one prefix with include/ and lib/. $1 is the prefix; it appears whole or not at all.
install_onednn_wheels() {
  local prefix=$1 work tree tool=as_root
  work=$(mktemp -d "$scratch/onednn.XXXXXX")
  log "fetching oneDNN 3.2 (39 MB) from the Python package index: this system has no libdnnl-dev >= $kOnednnMinimum"
  printf '%s\n' "$kOnednnRequirements" >"$work/requirements.txt"
  python3 -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$work/requirements.txt" -d "$work/wheels" ||
    fail "oneDNN could not be fetched; without it, configure with -DWITH_ONEDNN=OFF"
  tree=$work/tree
  mkdir -p "$tree"
  local wheel
  for wheel in "$work"/wheels/*.whl; do
    unzip -q -o "$wheel" '*.data/data/*' '*.dist-info/LICENSE.txt' -d "$work/unpacked"
  done
  cp -a "$work"/unpacked/*.data/data/lib "$tree/"
  cp -a "$work"/unpacked/*.data/data/include "$tree/"
  cp "$work"/unpacked/onednn_cpu_gomp-*.dist-info/LICENSE.txt "$tree/LICENSE.txt"
  # A wheel has no symbolic links, so the library is in it three times.
  ln -sf libdnnl.so.3.2 "$tree/lib/libdnnl.so.3"
  ln -sf libdnnl.so.3 "$tree/lib/libdnnl.so"
  chmod -R u=rwX,go=rX "$tree"

  if mkdir -p "$(dirname "$prefix")" 2>/dev/null && [ -w "$(dirname "$prefix")" ]; then tool="env"; fi
  "$tool" mkdir -p "$prefix"
  "$tool" rm -rf "$prefix/lib" "$prefix/include"
  "$tool" cp -a "$tree/include" "$tree/LICENSE.txt" "$prefix/"
  "$tool" cp -a "$tree/lib" "$prefix/lib.partial"
  "$tool" mv "$prefix/lib.partial" "$prefix/lib"  # the CMake config is in lib: its presence means all is there
  log "oneDNN 3.2 is in $prefix"
}

onednn_in() { [ -e "$1/lib/cmake/dnnl/dnnl-config.cmake" ]; }

install_onednn() {
  new_enough "$(installed_version libdnnl-dev)" && return 0
  if [ -n "$onednn_prefix" ]; then
    onednn_in "$onednn_prefix" && return 0
  else
    onednn_in "$kDefaultOnednnPrefix" && return 0
    onednn_in "$root/build/deps/onednn" && return 0
  fi
  if can_be_root; then
    update_index
    local candidate
    candidate=$(apt-cache policy libdnnl-dev | sed -n 's/^ *Candidate: *//p')
    if new_enough "${candidate/#(none)/}"; then
      apt_install libdnnl-dev
      return 0
    fi
  fi
  if [ "$(uname -m)" != x86_64 ]; then
    log "no oneDNN >= $kOnednnMinimum for $(uname -m) on this system: building without it"
    return 0
  fi
  if [ -z "$onednn_prefix" ]; then
    onednn_prefix=$kDefaultOnednnPrefix
    can_be_root || onednn_prefix=$root/build/deps/onednn
  fi
  install_onednn_wheels "$onednn_prefix"
}

lint=0
onednn_prefix=
while [ $# -gt 0 ]; do
  case $1 in
    --lint) lint=1 ;;
    --onednn-prefix) [ $# -gt 1 ] || fail "--onednn-prefix needs a folder"; onednn_prefix=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v apt-get >/dev/null || fail "no apt-get: this script knows Debian 12, Debian 13 and Ubuntu 24.04.
Elsewhere install by hand: ${kPackages[*]} and oneDNN >= $kOnednnMinimum"
# shellcheck source=/dev/null
distribution=$(. /etc/os-release && echo "$ID $VERSION_ID")
case $distribution in
  'debian 12' | 'debian 13' | 'ubuntu 24.04') ;;
  *) log "warning: $distribution is untried; Debian 12, Debian 13 and Ubuntu 24.04 are known" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log_file=$scratch/apt.log

packages=("${kPackages[@]}")
if [ "$lint" -eq 1 ]; then packages+=("${kLintPackages[@]}"); fi
install_packages "${packages[@]}"
install_onednn
log "all build needs are installed"
