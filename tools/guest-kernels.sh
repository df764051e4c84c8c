#!/bin/bash
# Takes stock Debian kernels out of their packages, without installing anything.
#
#   tools/guest-kernels.sh [FLAVOUR...]     flavours: amd64 cloud-amd64 686-pae 686 (default: all)
#
# For each flavour build/guests/FLAVOUR/ then holds `vmlinuz`, `config`, `release` (what uname -r will say) and
# `modules/` (the few modules that guests here use; `modules/order` names those that a guest loads, in this order, and
# `modules/order.pc` those that it loads besides on a PC with old-fashioned disks). The
# 686 flavours (686 is the one without PAE and SMP) come with `busybox`, a 32-bit one.
# A flavour that cannot be had leaves `unavailable` with the reason in its folder; the exit code is 1 then.
#
# apt works on lists of its own below build/guests/apt, so neither root nor a foreign architecture in the system's dpkg
# is needed, and the system's package state stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
guests=$PWD/build/guests
apt_state=$guests/apt

declare -A meta_package=(
    [amd64]=linux-image-amd64
    [cloud-amd64]=linux-image-cloud-amd64
    [686-pae]=linux-image-686-pae:i386
    [686]=linux-image-686:i386
)
# What guests load, each after what it needs: the power button, virtio and its devices. Flavours build some of them in.
guest_modules=(
    evdev button
    virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci
    virtio_blk failover net_failover virtio_net rng-core virtio-rng virtio_balloon virtio_console
)
# Disks and CDs on IDE and SATA, UEFI's variables, and a tablet on USB.
pc_modules=(
    scsi_common scsi_mod libata ata_piix ata_generic libahci ahci
    efivarfs
    crct10dif_common crct10dif_generic crc-t10dif crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi sd_mod cdrom sr_mod isofs
    usb-common usbcore xhci-hcd xhci-pci hid hid-generic usbhid
)
# What only some tests load.
other_modules=(floppy e1000 pvpanic pvpanic-mmio)
# The nested machine's (tools/nested-kvm.py).
nested_modules=(irqbypass kvm ccp kvm-amd kvm-intel)
wanted_modules="${guest_modules[*]} ${pc_modules[*]} ${other_modules[*]} ${nested_modules[*]}"

apt_options=(
    -qq
    -o "Dir::State::Lists=$apt_state/lists"
    -o "Dir::Cache=$apt_state/cache"
    -o "Dir::State::status=$apt_state/status"
    -o "APT::Sandbox::User=$(id -un)"
    -o "APT::Architecture=amd64"
    -o "APT::Architectures::=amd64"
    -o "APT::Architectures::=i386"
    -o "Acquire::Languages=none"
    -o "Acquire::Retries=3"
)

lists_fresh=no
# Gets the package lists once a run. Mirrors are replaced while they are read ("File has unexpected size"): try again, and
# go on with what did come; what is missing shows when the package is looked for.
refresh_lists() {
    [[ $lists_fresh == no ]] || return 0
    lists_fresh=yes
    mkdir -p "$apt_state/lists/partial" "$apt_state/cache/archives/partial"
    : >"$apt_state/status"
    local attempt
    for attempt in 1 2 3; do
        apt-get "${apt_options[@]}" update >"$apt_state/log" 2>&1 && return 0
        sleep $((attempt * 3))
    done
    return 0
}

# The versions of a package, newest first: the security suite's comes before the release's own.
versions_of() { apt-cache "${apt_options[@]}" madison "$1" 2>/dev/null | awk -F'|' '{ gsub(/ /, "", $2); print $2 }' | uniq; }

# The kernel package that version $2 of the meta package $1 depends on.
real_package() {
    local arch=${1##*:}
    [[ $arch != "$1" ]] || arch=amd64
    apt-cache "${apt_options[@]}" show "$1=$2" 2>/dev/null |
        sed -n 's/^Depends: .*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1 | sed "s/\$/:$arch/"
}

# download PACKAGE FOLDER: leaves the package as FOLDER/package.deb.
download() {
    local attempt
    for attempt in 1 2; do
        rm -f "$2"/*.deb
        if (cd "$2" && apt-get "${apt_options[@]}" download "$1" >>"$apt_state/log" 2>&1); then
            mv "$2"/*.deb "$2/package.deb"
            return 0
        fi
        sleep 2
    done
    return 1
}

# list_modules FOLDER MODULE...: the files of those that are there; the others are built in.
list_modules() {
    local folder=$1 module
    shift
    for module in "$@"; do
        [[ ! -e $folder/$module.ko ]] || echo "$module.ko"
    done
}

# unpack_kernel FOLDER: takes kernel, configuration and modules out of FOLDER/package.deb.
unpack_kernel() {
    local folder=$1 tree=$1/tree
    rm -rf "$tree"
    mkdir -p "$tree" "$folder/modules"
    dpkg-deb --fsys-tarfile "$folder/package.deb" | tar -x -C "$tree" --wildcards './boot/vmlinuz-*' './boot/config-*' './lib/modules/*/kernel/*.ko*'
    find "$tree/lib/modules" -regextype posix-extended -regex ".*/(${wanted_modules// /|})\.ko(\.xz)?" -exec cp -t "$folder/modules" {} +
    find "$folder/modules" -name '*.xz' -exec xz -d -f {} +
    list_modules "$folder/modules" "${guest_modules[@]}" >"$folder/modules/order"
    list_modules "$folder/modules" "${pc_modules[@]}" >"$folder/modules/order.pc"
    echo "$wanted_modules" >"$folder/modules/wanted"
    mv "$tree"/boot/config-* "$folder/config"
    basename "$tree"/boot/vmlinuz-* | sed 's/^vmlinuz-//' >"$folder/release"
    mv "$tree"/boot/vmlinuz-* "$folder/vmlinuz.new"
    rm -rf "$tree" "$folder/package.deb"
}

fetch_kernel() {
    local flavour=$1 folder=$guests/$1 meta=${meta_package[$1]} version package
    mkdir -p "$folder"
    refresh_lists
    for version in $(versions_of "$meta"); do
        package=$(real_package "$meta" "$version")
        [[ -n $package ]] || continue
        echo "taking the $flavour guest kernel from $package"
        if download "$package" "$folder" && unpack_kernel "$folder"; then
            return 0
        fi
    done
    echo "no package of $meta could be downloaded: $(tail -n 1 "$apt_state/log" 2>/dev/null || true)" >"$folder/unavailable"
    return 1
}

fetch_busybox_i386() {
    local folder=$guests/$1
    refresh_lists
    if download busybox-static:i386 "$folder"; then
        dpkg-deb --fsys-tarfile "$folder/package.deb" | tar -x -O ./bin/busybox >"$folder/busybox"
        chmod +x "$folder/busybox"
        rm "$folder/package.deb"
        return 0
    fi
    echo "busybox-static:i386 could not be downloaded: $(tail -n 1 "$apt_state/log" 2>/dev/null || true)" >"$folder/unavailable"
    return 1
}

# `vmlinuz` appears last, so that its presence says that the folder is complete. A folder of an earlier list of modules is
# made again.
provide() {
    local folder=$guests/$1
    [[ ! -s $folder/vmlinuz || $(cat "$folder/modules/wanted" 2>/dev/null) != "$wanted_modules" ]] || return 0
    rm -rf "$folder"
    fetch_kernel "$1" || return 1
    if [[ $1 == 686* ]]; then
        fetch_busybox_i386 "$1" || return 1
    fi
    mv "$folder/vmlinuz.new" "$folder/vmlinuz"
}

[[ $# -gt 0 ]] || set -- amd64 cloud-amd64 686-pae 686
result=0
for flavour in "$@"; do
    [[ -n ${meta_package[$flavour]:-} ]] || { echo "usage: tools/guest-kernels.sh [${!meta_package[*]}]..." >&2; exit 2; }
    mkdir -p "$guests"
    # Two builds at once (./demo and ./test) must not unpack into the same folder.
    exec 9>"$guests/lock"
    flock 9
    if ! provide "$flavour"; then
        echo "lodge: $(cat "$guests/$flavour/unavailable")" >&2
        result=1
    fi
    exec 9>&-
done
exit $result
