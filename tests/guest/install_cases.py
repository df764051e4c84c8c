"""A Debian system installed from a CD onto an empty disk, which then boots by itself: with BIOS and with UEFI.

The CD starts a live Debian (tools/debian-image.sh) that installs with Debian's own tools over the virtual network: what Debian's installer
does behind its dialogs. Its own components come as packages that not every mirror has (udebs), so that it itself is driven as far as its
dialogs (screen_cases.py).
"""
import os

from debian_cases import Debian, log_in
from debian_cases import power_off as power_off_debian
from device_cases import image_tool, no_complaints
from grub_cd import BIOS, UEFI
from harness import Console, Skip, answer, case, check
from pc_cases import FLAVOURS, OVMF, boot_cd, pc_command

INSTALL_SECONDS = 3000

PARTITIONS = {
    BIOS: "printf 'label: dos\\ntype=83,bootable\\n' | sfdisk -q /dev/sda && ROOT=/dev/sda1",
    UEFI: "printf 'label: gpt\\nsize=128MiB,type=U\\ntype=L\\n' | sfdisk -q /dev/sda && mkfs.vfat /dev/sda1 && ROOT=/dev/sda2",
}
LOADERS = {
    BIOS: ("grub-pc", "grub-install /dev/sda"),
    UEFI: ("grub-efi-amd64", "grub-install --target=x86_64-efi --efi-directory=/boot/efi --bootloader-id=debian"),
}


def long_step(guest, command):
    output, code = guest.run(command, INSTALL_SECONDS)
    check(code == 0, f"{command!r} returned {code}:\n{output[-3000:]}")
    return output


def install_onto_sda(guest, platform, flavour):
    package, loader = LOADERS[platform]
    apt = "apt-get -qq -o Acquire::Retries=3"
    answer(guest, "dhclient -1 $(ls /sys/class/net | grep -v lo)")
    long_step(guest, f"{apt} update && {apt} install -y mmdebstrap fdisk dosfstools >/dev/null")
    long_step(guest, PARTITIONS[platform])
    long_step(guest, "mkfs.ext4 -q $ROOT && mount $ROOT /mnt")
    packages = f"linux-image-{flavour},initramfs-tools,systemd-sysv,udev,login,passwd,ifupdown,isc-dhcp-client,{package}"
    long_step(guest, "mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Acquire::Retries \"3\"' "
                     f"--skip=check/empty --include={packages} bookworm /mnt >/tmp/log 2>&1 || (tail /tmp/log; false)")
    if platform == UEFI:
        answer(guest, "mkdir -p /mnt/boot/efi && mount /dev/sda1 /mnt/boot/efi")
    answer(guest, "echo UUID=$(blkid -s UUID -o value $ROOT) / ext4 errors=remount-ro 0 1 >/mnt/etc/fstab && echo debian >/mnt/etc/hostname")
    answer(guest, "echo GRUB_CMDLINE_LINUX=console=ttyS0 >>/mnt/etc/default/grub; echo GRUB_TIMEOUT=0 >>/mnt/etc/default/grub")
    answer(guest, "for f in dev proc sys; do mount --bind /$f /mnt/$f; done")
    if platform == UEFI:
        answer(guest, "mount -t efivarfs none /mnt/sys/firmware/efi/efivars")
    long_step(guest, f"chroot /mnt sh -ec 'passwd -d root; {loader}; update-grub' >/tmp/log 2>&1 || (cat /tmp/log; false)")
    answer(guest, "sync; umount -R /mnt")


@case
def install(bench):
    """From an empty disk to a login on the installed system, by --platform's firmware; its own disk is all that the second run has."""
    platform = bench.options.platform
    firmware = ["--firmware", "uefi"] if platform == UEFI else []
    if firmware and not os.path.exists(OVMF):
        raise Skip("no UEFI firmware: install the package ovmf")
    flavour = FLAVOURS[bench.options.machine]
    system = Debian(bench, flavour)
    cd = boot_cd(bench, os.path.join(system.folder, "vmlinuz"), os.path.join(system.folder, "initrd"), "console=ttyS0 root=/dev/vda quiet",
                 platform=platform)
    disk = bench.path("disk.qcow2")
    image_tool(bench, "create", "-q", "-f", "qcow2", disk, "10G")
    live = ["--cdrom", cd, disk, "--drive", f"file={system.overlay},if=virtio", "--net", "user"]
    command = [part for part in pc_command(bench, *firmware, *live, cpus=2, memory="1G")]
    none = command.index("none")
    del command[none - 1:none + 1]
    with Console(command) as guest:
        log_in(guest)
        install_onto_sda(guest, platform, flavour)
        no_complaints(guest)
        power_off_debian(guest)
    with Console(pc_command(bench, *firmware, disk, cpus=2, memory="1G")) as guest:
        log_in(guest)
        check("/dev/sda" in answer(guest, "findmnt -n -o SOURCE /"), "the root is somewhere else")
        check(answer(guest, "test -d /sys/firmware/efi && echo uefi || echo bios") == ("uefi" if firmware else "bios"), "another firmware")
        no_complaints(guest)
        power_off_debian(guest)
    image_tool(bench, "check", "-q", disk)
