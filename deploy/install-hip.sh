#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts a HIP compiler into a folder of its own: hipcc's clang, the device libraries, the runtime's headers and library,
# from Debian testing, for systems whose own hipcc is too old or missing (Debian 12's knows gfx90a alone). Nothing is
# installed in the system and no root rights are needed; it runs where the folder is, against the system's own C++
# headers. The last line on stdout is the compiler's path, for CMake's FAIRLEAD_HIPCC; progress goes to stderr.
# A folder that is there and whole is used as it is.
set -euo pipefail

readonly kSuite=forky
readonly kKeyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Of what hipcc depends on: neither run nor read when device code is compiled. Headers and start files are the system's.
readonly kNotNeeded='^(binutils|clang-tools|cpp|debconf|dpkg|g\+\+|gcc|lib32|libasan|libbinutils|libc-gconv|libc6-dev|libc6-i386|libclang-rt|libcrypt-dev|libdb5|libgcc-.*-dev|libgprofng|libhwasan|liblsan|libobjc|libperl|libpython3|libstdc\+\+-.*-dev|libtsan|libubsan|linux-libc-dev|media-types|openssl|perl|python3|tar_|tzdata)'
readonly kTools=(clang clang-offload-bundler lld llvm-objdump llvm-readobj)

log() { printf '[install-hip %3ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: install-hip: %s\n' "$*" >&2; exit 1; }

usage() {
  cat <<'TEXT'
usage: deploy/install-hip.sh [FOLDER]    default: ${XDG_CACHE_HOME:-$HOME/.cache}/fairlead/hip
A HIP compiler (170 MB to fetch, 0.6 GB unpacked) without root rights. On Debian 13, the system's own packages serve, too:
apt-get install hipcc libamdhip64-dev    (gfx90a, gfx942 and gfx1100 at most)
TEXT
}

# apt-get with state, lists and packages of its own in $work.
apt() {
  apt-get -q=2 -y -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
    -o Dir::Etc="$work/etc" -o Dir::Etc::SourceList="$work/etc/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Parts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
    -o Acquire::Languages=none -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)" "$@" >"$work/log" 2>&1 ||
    { tail -n 15 "$work/log" >&2; fail "apt-get could not get hipcc of Debian $kSuite from $mirror; its last lines stand above"; }
}

fetch() {
  # shellcheck disable=SC2016  # $(REPO_URI) is apt-get's
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sed '/-security/d' | head -n 1)
  [ -n "$mirror" ] || fail "this system's package sources name no mirror of Debian; its own hipcc 5.7 or later serves as well"
  mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work/etc"
  : >"$work/status"
  echo "deb [signed-by=$kKeyring] $mirror $kSuite main" >"$work/etc/sources.list"
  log "fetching hipcc of Debian $kSuite and what it needs (170 MB)"
  apt update
  apt install --download-only hipcc patchelf
}

unpack() {
  local package
  mkdir -p "$work/root"
  for package in "$work"/cache/archives/*.deb; do
    [[ $(basename "$package") =~ $kNotNeeded ]] || dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$work/root" --no-same-owner --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='*.a'
  done
  # hipcc needs clang-offload-bundler of the largest package alone.
  dpkg-deb --fsys-tarfile "$work"/cache/archives/clang-tools-*.deb |
    tar -x -C "$work/root" --no-same-owner --wildcards './usr/lib/llvm-*/bin/clang-offload-bundler'
}

# The programs shall use the libraries that came with them, their loader included, wherever the system is older.
bind() {
  local libraries=$folder/usr/lib/x86_64-linux-gnu loader=$folder/usr/lib64/ld-linux-x86-64.so.2 tool file
  for tool in "${kTools[@]}"; do
    file=$(readlink -f "$llvm/bin/$tool")
    "$loader" --library-path "$libraries" "$folder/usr/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$file"
  done
  for file in "$libraries"/libLLVM.so.* "$libraries"/libclang-cpp.so.*; do
    "$loader" --library-path "$libraries" "$folder/usr/bin/patchelf" --force-rpath --set-rpath "$libraries" "$file"
  done
  mkdir -p "$folder/bin"
  # -idirafter: the system's headers first, which the code is linked with.
  cat >"$folder/bin/hipcc" <<TEXT
#!/bin/sh
exec "$llvm/bin/clang++" -idirafter "$folder/usr/include" --hip-path="$folder/usr" \\
  --rocm-device-lib-path="$(dirname "$(find "$llvm" -name ockl.bc)")" "\$@"
TEXT
  chmod +x "$folder/bin/hipcc"
  for tool in ld.lld llvm-objdump llvm-readelf; do ln -sf "$llvm/bin/$tool" "$folder/bin/$tool"; done
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; exit 2 ;;
esac
folder=${1:-${XDG_CACHE_HOME:-${HOME:?set HOME, XDG_CACHE_HOME or name a folder}/.cache}/fairlead/hip}
if [ -e "$folder/complete" ]; then
  readlink -f "$folder/bin/hipcc"
  exit 0
fi
[ "$(uname -m)" = x86_64 ] || fail "only for x86_64, this is $(uname -m); install hipcc >= 5.7 by the system's means"
for command in apt-get dpkg-deb; do
  command -v "$command" >/dev/null || fail "no $command: this script is for Debian; elsewhere install hipcc >= 5.7 and name it by -DFAIRLEAD_HIPCC=PATH"
done
[ -e "$kKeyring" ] || fail "no $kKeyring, which Debian's packages are checked with: apt-get install debian-archive-keyring"
mkdir -p "$folder" || fail "cannot make the folder $folder"
folder=$(cd "$folder" && pwd)
work=$folder/.partial
rm -rf "$work"
mkdir "$work" || fail "cannot write to $folder"
fetch
log "unpacking"
unpack
rm -rf "${folder:?}/usr"
mv "$work/root/usr" "$folder/usr"
llvm=$(dirname "$(dirname "$(find "$folder/usr/lib" -path '*/llvm-*/bin/lld')")")
bind
for tool in hipcc ld.lld llvm-objdump llvm-readelf; do
  "$folder/bin/$tool" --version >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$folder/bin/$tool does not run"; }
done
rm -rf "$work"
touch "$folder/complete"
log "$("$folder/bin/hipcc" --version | head -n 1) is in $folder"
readlink -f "$folder/bin/hipcc"
