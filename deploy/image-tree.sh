#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a Dockerfile of this folder gives, as a folder, where no container engine is: its instructions run by chroot in trees
# of debootstrap, less documentation and translations as in Debian's slim images. Prints what the image's tree takes.
set -euo pipefail

log() { printf '[image-tree %4ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: image-tree: %s\n' "$*" >&2; exit 1; }

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  cat >&2 <<'TEXT'
usage: deploy/image-tree.sh DOCKERFILE DIR [BUILT]        as root, with debootstrap; DIR is a new folder
  DIR/build and DIR/image are the trees of the two stages. ARGs are taken from the environment, the sources from HEAD.
  BUILT: a folder to take in place of the first stage's /image, which is not built then
TEXT
  exit 2
fi
dockerfile=$(realpath -e "$1") dir=$(realpath -m "$2") built=${3:-}
[ ! -e "$dir" ] || fail "$dir exists"
[ -z "$built" ] || built=$(realpath -e "$built")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unmount() { for root in "$dir"/*/proc; do ! mountpoint -q "$root" || umount "$root"; done; }
trap unmount EXIT

# base TREE SUITE
base() {
  local mirror
  # shellcheck disable=SC2016  # apt-get's
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sed '/-security/d' | head -n 1)
  mkdir -p "$1/etc/dpkg/dpkg.cfg.d" "$1/etc/apt/apt.conf.d"
  printf 'path-exclude=/usr/share/%s/*\n' doc man locale info lintian >"$1/etc/dpkg/dpkg.cfg.d/slim"
  echo 'path-include=/usr/share/doc/*/copyright' >>"$1/etc/dpkg/dpkg.cfg.d/slim"
  debootstrap --variant=minbase "$2" "$1" "$mirror" >"$dir/debootstrap.log" || fail "debootstrap: see $dir/debootstrap.log"
  find "$1/usr/share/doc" ! -type d ! -name copyright -delete
  rm -rf "$1"/usr/share/{man,locale,info,lintian}/* "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
  # As in Debian's images: apt keeps neither packages nor caches.
  printf '%s\n' 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' \
    'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; }; DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };' \
    >"$1/etc/apt/apt.conf.d/docker-clean"
  # This machine's ways to its registries, which are no part of the image.
  cp /etc/apt/apt.conf.d/99* "$1/etc/apt/apt.conf.d/" 2>/dev/null || true
  cp /etc/pip.conf /etc/resolv.conf /etc/hosts "$1/etc/" 2>/dev/null || true
  mount -t proc proc "$1/proc"
}

# stage NUMBER TREE: the instructions behind the NUMBERth FROM; what is only said of a container is passed over.
stage() {
  local line folder=/ variables=()
  sed '/^#/d' "$dockerfile" | sed -e ':a' -e '/\\$/N' -e 's/\\\n//' -e 'ta' | awk -v n="$1" '$1 == "FROM" { i++ } i == n' >"$dir/stage$1"
  while IFS= read -r line <&3; do
    case $line in
      'FROM debian:12-slim'*) base "$2" bookworm ;;
      'FROM debian:13-slim'*) base "$2" trixie ;;
      FROM*) fail "another base than Debian's: $line" ;;
      'WORKDIR '*) folder=${line#* }; mkdir -p "$2$folder" ;;
      'ARG '*)
        line=${line#* }
        variables+=("${line%%=*}=$(bash -c "echo ${line#*=}")")
        if [ -v "${line%%=*}" ]; then variables+=("${line%%=*}=${!line%%=*}"); fi
        ;;
      'COPY --from=build /image/ /') cp -a "${built:-$dir/build/image}/." "$2/" ;;
      'COPY '*) sed -n 's/^!//p' "$dockerfile.dockerignore" | xargs git archive HEAD -- | tar -x -C "$2$folder" ;;
      'RUN '*)
        log "$(cut -c -90 <<<"$line")"
        chroot "$2" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
          "${variables[@]}" bash -o pipefail -c "cd $folder && ${line#RUN }" >>"$dir/log" 2>&1 || { tail -n 20 "$dir/log" >&2; fail "$line"; }
        ;;
    esac
  done 3<"$dir/stage$1"
}

mkdir -p "$dir"
[ -n "$built" ] || stage 1 "$dir/build"
stage 2 "$dir/image"
unmount
rm -f "$dir"/image/etc/apt/apt.conf.d/99* "$dir"/image/etc/{pip.conf,resolv.conf,hosts}
printf '%s: %s bytes, as one layer by gzip -6 %s\n' "$(basename "$dockerfile")" \
  "$(du -sbx "$dir/image" | cut -f 1 | numfmt --to=si --format=%.1f)" "$(tar -c -C "$dir/image" . | gzip -6 | wc -c | numfmt --to=si --format=%.1f)"
