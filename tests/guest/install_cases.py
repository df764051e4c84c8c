"""Debian installed by its own installer from a CD onto an empty disk, which then boots by itself: with BIOS and with UEFI."""
import os
import re

from debian_cases import power_off
from device_cases import image_tool, no_complaints
from grub_cd import UEFI
from harness import BOOT_SECONDS, PROMPT, Console, Skip, answer, case, check
import installer_cd
from installer_archive import InstallerArchive, Missing
from pc_cases import OVMF, make_cd, pc_command

INSTALL_SECONDS = 5400


def install_from(command):
    with Console(command) as installer:
        said = installer.expect(f"{installer_cd.ASKS}|{installer_cd.DONE}", INSTALL_SECONDS).group(0)
        check(re.fullmatch(installer_cd.DONE, said), f"the installer asks something; {installer.last_output()}")
        code = installer.finish(BOOT_SECONDS)
        check(code == 0, f"exit code {code} of the installer; {installer.last_output()}")


@case
def install(bench):
    """From an empty disk to a login on the installed system, by --platform's firmware and on --interface's controller; its own disk is all
    that the second run has."""
    uefi = bench.options.platform == UEFI
    firmware = ["--firmware", "uefi"] if uefi else []
    if uefi and not os.path.exists(OVMF):
        raise Skip("no UEFI firmware: install the package ovmf")
    image = bench.path("disk.qcow2")
    image_tool(bench, "create", "-q", "-f", "qcow2", image, "10G")
    virtio = bench.options.interface == "virtio"
    disk = ["--drive", f"file={image},if=virtio"] if virtio else [image]
    machine = pc_command(bench, *firmware, cpus=2, memory="1G")
    with_network = list(machine)
    with_network[machine.index("--net") + 1] = "user,loopback=on"
    try:
        archive = InstallerArchive(os.path.join(bench.options.guests, "installer"))
    except Missing as reason:
        raise Skip(str(reason)) from reason
    with archive:
        cd = make_cd(lambda: installer_cd.make(bench.folder, archive, bench.options.platform))
        install_from(with_network + ["--cdrom", cd, *disk])
    with Console([*machine, *disk]) as guest:
        guest.answer_greeting((("debian login: ", "root\n"), ("Password: ", installer_cd.PASSWORD + "\n"),
                               (r"root@debian:\S*# ", "bind 'set enable-bracketed-paste off'; PS1=$(printf 'lodge-%s:# ' guest)\n"),
                               (PROMPT, "stty columns 1000\n"), (PROMPT, None)), BOOT_SECONDS)
        root = "/dev/vda" if virtio else "/dev/sda"
        check(root in answer(guest, "findmnt -n -o SOURCE /"), "the root is somewhere else")
        check(answer(guest, "test -d /sys/firmware/efi && echo uefi || echo bios") == ("uefi" if uefi else "bios"), "another firmware")
        check(answer(guest, "systemctl --failed --no-legend | wc -l") == "0", "some service failed:\n" + answer(guest, "systemctl --failed"))
        check(answer(guest, "dpkg --audit") == "", "some package is not whole")
        no_complaints(guest)
        power_off(guest)
    image_tool(bench, "check", "-q", image)
