#!/bin/bash
# Takes what boots by itself out of Debian's packages, for the long tests: memtest86+, iPXE, U-Boot, the Xen hypervisor, and syslinux, which
# makes others boot. Nothing of it is installed.
#
#   tools/guest-programs.sh
#
# build/guests/programs/ then holds the packages' files, such as boot/memtest86+x64.bin. What cannot be had leaves its name in `unavailable`
# there; its test is skipped then.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/build/guests/programs
packages=(memtest86+ ipxe u-boot-qemu xen-hypervisor-4.17-amd64 syslinux)

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
[[ $(cat "$folder/complete" 2>/dev/null) != "${packages[*]}" ]] || exit 0
: >"$folder/unavailable"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# apt's own user cannot write into the folder; it says so, and goes on as root.
for package in "${packages[@]}"; do
    if (cd "$scratch" && apt-get -qq -o Acquire::Retries=3 download "$package") >"$scratch/log" 2>&1; then
        dpkg-deb -x "$scratch/$package"_*.deb "$folder"
        rm -f "$scratch"/*.deb
    else
        echo "$package: $(tail -n 1 "$scratch/log")" >>"$folder/unavailable"
    fi
done
[[ -s $folder/unavailable ]] || echo "${packages[*]}" >"$folder/complete"
