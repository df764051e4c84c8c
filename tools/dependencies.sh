#!/bin/bash
# Installs the Debian packages that Lodge needs and that are missing, with apt; quick and silent when all is there.
#
#   tools/dependencies.sh [GROUP...]     groups: build demo debian test long bench lint (default: build demo debian test)
#
# A package more? Add it to its group below, with what it is for.
set -euo pipefail

build_packages=(
    g++ cmake ninja-build pkg-config        # the tool chain
    libzydis-dev                            # x86 decoder
    liburing-dev                            # disk I/O
    libnbd-dev                              # images on NBD servers
    libpng-dev libvncserver-dev libmicrohttpd-dev  # pictures of the screen, and viewers of it
    libslirp-dev                            # the user network
    libfmt-dev nlohmann-json3-dev libcli11-dev
    zlib1g-dev liblzma-dev libzstd-dev liblz4-dev  # kernels' compressed payloads
    libgtest-dev libgmock-dev libbenchmark-dev
)
demo_packages=(
    busybox-static                          # the demo guest's user space
    python3                                 # makes the guest's image, types at its console
    dpkg                                    # takes kernels out of their packages
    seabios                                 # the firmware of a machine that boots from disks
)
debian_packages=(
    mmdebstrap e2fsprogs                    # a Debian system out of its packages, and its file system
)
test_packages=(
    iperf3                                  # how fast a guest's network is
    qemu-system-x86                         # an emulated AMD processor with SVM, for the nested machine
    acpica-tools                            # iasl takes the ACPI tables apart
    nbdkit                                  # an NBD server, which makes mistakes on request
    qemu-utils                              # qemu-img: images both ways
    iproute2 util-linux                     # namespaces, tap interfaces
    stress-ng                               # verifies itself in guests
    grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools  # CDs that boot
    ovmf                                    # UEFI firmware
    ipxe-qemu                               # the network card's ROM
    clang-19 libclang-rt-19-dev             # sanitizers, libFuzzer
    xz-utils gzip openssl sqlite3 gcc binutils libc6-dev  # programs that run natively and in a guest
)
bench_packages=(
    qemu-system-x86                         # the peer
    xz-utils gzip openssl sqlite3 lua5.4 gcc libc6-dev zstd lz4
    iperf3                                  # the other end of the guest's network
    grub-common grub-pc-bin xorriso mtools ovmf  # CDs that boot, UEFI firmware
)
long_packages=(
    novnc chromium chromium-driver          # the screen in a browser
    debian-installer-12-netboot-amd64 debian-installer-12-netboot-i386  # dialogs
)
lint_packages=(clang-19 clang-tidy-19 clang-format-19)

installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

# Prints the wanted packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        installed "$package" || echo "$package"
    done
}

# Runs a command as root: directly, or through sudo where there is one.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        return 127
    fi
}

apt_quiet() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# Mirrors are replaced while they are read: an update may fail for one index and succeed a moment later. A third party's
# broken source must not stop us either, so a failure here is only noted; the installation decides.
update_lists() {
    local attempt
    for attempt in 1 2 3; do
        apt_quiet update >"$log" 2>&1 && return 0
        sleep $((attempt * 2))
    done
    return 1
}

install_packages() {
    local attempt
    for attempt in 1 2 3; do
        apt_quiet install -y --no-install-recommends "$@" >"$log" 2>&1 && return 0
        update_lists || true
    done
    return 1
}

command -v dpkg-query >/dev/null || {
    echo "lodge: this is not a Debian system; install what docs/testing.md lists (g++ 12+, cmake 3.25+, ninja, zydis 4, fmt, ...) by hand" >&2
    exit 1
}

[[ $# -gt 0 ]] || set -- build demo debian test
wanted=()
for group in "$@"; do
    case $group in
        build) wanted+=("${build_packages[@]}") ;;
        demo) wanted+=("${demo_packages[@]}") ;;
        debian) wanted+=("${debian_packages[@]}") ;;
        test) wanted+=("${test_packages[@]}") ;;
        long) wanted+=("${long_packages[@]}") ;;
        bench) wanted+=("${bench_packages[@]}") ;;
        lint) wanted+=("${lint_packages[@]}") ;;
        *) echo "usage: tools/dependencies.sh [build|demo|debian|test|long|lint|bench]..." >&2; exit 2 ;;
    esac
done

mapfile -t missing < <(missing_packages "${wanted[@]}")
[[ ${#missing[@]} -gt 0 ]] || exit 0

if ! as_root true; then
    echo "lodge: these packages are missing, and installing them needs root:" >&2
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

echo "installing ${#missing[@]} packages with apt: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lists that are a few days old often still do, but name versions that a security update has replaced: refresh first.
update_lists || echo "lodge: warning: apt-get update had errors; going on with the lists that are there" >&2
if ! install_packages "${missing[@]}"; then
    tail -n 20 "$log" >&2
    echo "lodge: apt could not install: ${missing[*]}" >&2
    echo "lodge: is the network up, and does /etc/apt/sources.list name a Debian 12 (bookworm) mirror?" >&2
    exit 1
fi
