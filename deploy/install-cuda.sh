#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts a CUDA compiler with its headers and the CUDA runtime into a folder of its own, from NVIDIA's Python packages, for
# systems without a CUDA toolkit. Needs no root rights and no GPU. The last line on stdout is the folder, for CMake's
# -DCMAKE_CUDA_COMPILER=FOLDER/bin/nvcc; progress goes to stderr. A folder that is there and whole is used as it is.
set -euo pipefail

# One release; the reader of compiled code is newer, as none older is packaged, and reads older code. The sums are those
# of the wheels for x86-64 and aarch64.
readonly kRequirements="\
nvidia-cuda-nvcc==13.0.88 \\
  --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03 \\
  --hash=sha256:c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f
nvidia-cuda-crt==13.0.88 \\
  --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4 \\
  --hash=sha256:ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003
nvidia-nvvm==13.0.88 \\
  --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0 \\
  --hash=sha256:c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1
nvidia-cuda-runtime==13.0.96 \\
  --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 \\
  --hash=sha256:ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55
nvidia-cuda-cccl==13.0.85 \\
  --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649 \\
  --hash=sha256:6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c
nvidia-cuda-cuobjdump==13.5.37 \\
  --hash=sha256:38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58 \\
  --hash=sha256:f48e3148535365161a268547b285fd01d92c80e4b457275375933825b5fc26b2
nvidia-cuda-nvdisasm==13.5.37 \\
  --hash=sha256:d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca \\
  --hash=sha256:a3a8248074edb9fba63b74c38a5416b712a91ab09e70b8ab37186c3d293fc605"

log() { printf '[install-cuda %3ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: install-cuda: %s\n' "$*" >&2; exit 1; }

case ${1:-} in
  -h | --help)
    echo "usage: deploy/install-cuda.sh [FOLDER]    default: \${XDG_CACHE_HOME:-\$HOME/.cache}/fairlead/cuda-13.0"
    echo "A CUDA compiler (100 MB to fetch, 300 MB unpacked) without root rights; its use is subject to NVIDIA's licence."
    exit 0
    ;;
  -*) echo "usage: deploy/install-cuda.sh [FOLDER]" >&2; exit 2 ;;
esac
folder=${1:-${XDG_CACHE_HOME:-${HOME:?set HOME, XDG_CACHE_HOME or name a folder}/.cache}/fairlead/cuda-13.0}
stamp=$(sha256sum <<<"$kRequirements")

if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
  log "using $folder"
else
  parent=$(dirname "$folder")
  mkdir -p "$parent" || fail "cannot make the folder $parent"
  # Beside the folder, so that the last step is a rename and no half toolkit ever has the final name.
  work=$(mktemp -d "$parent/.partial.XXXXXX") || fail "cannot write to $parent"
  trap 'rm -rf "$work"' EXIT
  log "fetching NVIDIA's packages (100 MB) from the Python package index"
  printf '%s\n' "$kRequirements" >"$work/requirements.txt"
  python3 -m pip download -q --no-deps --only-binary :all: --require-hashes --disable-pip-version-check \
    -d "$work/wheels" -r "$work/requirements.txt" >&2 ||
    fail "pip could not fetch the packages; a CUDA toolkit 12.8 or newer from elsewhere serves as well (CMAKE_CUDA_COMPILER)"
  for wheel in "$work"/wheels/*.whl; do
    unzip -q -o -d "$work/tree" "$wheel" || fail "$(basename "$wheel") cannot be unpacked"
  done
  tree=$work/tree/nvidia/cu13
  [ -f "$tree/bin/nvcc" ] || fail "the packages hold no bin/nvcc"
  chmod +x "$tree"/bin/* "$tree"/nvvm/bin/*
  # Linkers look for the name without a version, and CMake for lib64.
  ln -sf libcudart.so.13 "$tree/lib/libcudart.so"
  ln -sfn lib "$tree/lib64"
  for licence in "$work"/tree/*.dist-info; do
    mkdir -p "$tree/licences/$(basename "$licence" .dist-info)"
    find "$licence" -iname '*licen*' -type f -exec cp {} "$tree/licences/$(basename "$licence" .dist-info)/" \;
  done
  printf '%s\n' "$stamp" >"$tree/.stamp"
  rm -rf "$folder"
  mv "$tree" "$folder"
  log "$("$folder/bin/nvcc" --version | sed -n 's/^Cuda compilation tools, //p') in $folder"
fi
printf '%s\n' "$folder"
