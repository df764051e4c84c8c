#!/bin/bash
# Makes a Debian 12 system out of Debian's packages, as a disk for guests; nothing of it is changed to please Lodge.
#
#   tools/debian-image.sh [cloud-amd64|amd64]
#
# The argument is the kernel's flavour; without one it is cloud-amd64, whose drivers are few. build/guests/debian/, or
# build/guests/debian-amd64/, then holds `base.qcow2`, its kernel and initial RAM disk `vmlinuz` and `initrd`, and `release` (what uname -r will
# say). root has no password; the serial line has a login prompt; the network card asks for its address by DHCP.
#
# mmdebstrap takes the host's own package sources. What cannot be had leaves `unavailable` with the reason in the folder; the exit code is
# 1 then.
set -euo pipefail
cd "$(dirname "$0")/.."
flavour=${1:-cloud-amd64}
case $flavour in
    cloud-amd64) folder=$PWD/build/guests/debian ;;
    amd64) folder=$PWD/build/guests/debian-amd64 ;;
    *) echo "lodge: there is no kernel flavour '$flavour': use cloud-amd64 or amd64" >&2; exit 2 ;;
esac
disk_size=3G

# What a server has, and what the tests and benchmarks run in the guest.
packages=(
    "linux-image-$flavour" initramfs-tools zstd
    systemd-sysv udev dbus login passwd e2fsprogs util-linux kmod procps
    ifupdown isc-dhcp-client iproute2 iputils-ping ca-certificates
    fio iperf3 socat
)

# The recipe: an image of another one is made again.
recipe=$(sha256sum "$0" | cut -c1-64)

unavailable() {
    echo "no Debian system could be made: $1" >"$folder/unavailable"
    echo "lodge: $(cat "$folder/unavailable")" >&2
    exit 1
}

# Configuration that a system's owner writes, in the tree of packages $1.
configure() {
    local tree=$1
    echo debian >"$tree/etc/hostname"
    printf '127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n' >"$tree/etc/hosts"
    echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$tree/etc/fstab"
    # As Debian's installer writes it. The first card is device 1 of the bus.
    printf 'auto lo\niface lo inet loopback\n\nallow-hotplug enp0s1\niface enp0s1 inet dhcp\n' >"$tree/etc/network/interfaces"
    chroot "$tree" passwd -d root >/dev/null
    rm -f "$tree/etc/machine-id" "$tree/var/lib/dbus/machine-id"
    : >"$tree/etc/machine-id"
}

make_tree() {
    mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
        --aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        bookworm "$1" >"$folder/log" 2>&1
}

# The packages' tree $1 as an ext4 file system, in the raw image $2. mke2fs fills it by itself: nothing is mounted.
make_disk() {
    cp "$1"/boot/initrd.img-* "$folder/initrd"
    cp "$1"/boot/vmlinuz-* "$folder/vmlinuz.new"
    basename "$1"/boot/vmlinuz-* | sed 's/^vmlinuz-//' >"$folder/release"
    truncate -s "$disk_size" "$2"
    mke2fs -q -F -t ext4 -L debian -d "$1" "$2" >>"$folder/log" 2>&1
}

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
if [[ -s $folder/vmlinuz && $(cat "$folder/recipe" 2>/dev/null) == "$recipe" ]]; then
    exit 0
fi
# The demo's overlay goes with the base that it stands on.
rm -f "$folder"/{vmlinuz,initrd,base.qcow2,demo.qcow2,release,recipe,unavailable}
[[ $(id -u) == 0 ]] || unavailable "owners of files can be kept by root only (or run this once with sudo)"
command -v mmdebstrap >/dev/null || unavailable "there is no mmdebstrap"
echo "making a Debian system of packages (a minute or two)"
tree=$folder/tree
trap 'rm -rf "$tree" "$folder/base.raw"' EXIT
rm -rf "$tree"
make_tree "$tree" || unavailable "mmdebstrap: $(grep -E '^E:|error' "$folder/log" | head -n 1)"
configure "$tree"
make_disk "$tree" "$folder/base.raw" || unavailable "$(tail -n 1 "$folder/log")"
build/lodge image convert -q -f raw -O qcow2 "$folder/base.raw" "$folder/base.qcow2"
echo "$recipe" >"$folder/recipe"
# Last, so that its presence says that the folder is complete.
mv "$folder/vmlinuz.new" "$folder/vmlinuz"
