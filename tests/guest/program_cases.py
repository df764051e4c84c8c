"""What boots on a PC and is no Linux: memtest86+, iPXE, U-Boot, syslinux and the Xen hypervisor, out of Debian's packages."""
import os
import shutil
import subprocess

from harness import BOOT_SECONDS, COMMAND_SECONDS, HERE, Console, Skip, case, check, guest_image, power_off, reach_prompt
from pc_cases import boot_cd, pc_command
from screen import Remote

NAME = "pc-test"
MEMTEST_SECONDS = 1800


def program(bench, path):
    subprocess.run([os.path.join(HERE, "..", "..", "tools", "guest-programs.sh")], check=False, timeout=COMMAND_SECONDS)
    found = os.path.join(bench.options.guests, "programs", path)
    if not os.path.exists(found):
        raise Skip(f"no {path}: its package could not be had (tools/guest-programs.sh)")
    return found


def configured_cd(bench, configuration, *files):
    """A CD with GRUB and a menu entry of one's own; files are copied to /boot."""
    kernel = files[0]
    return boot_cd(bench, kernel, kernel, "", [(f"boot/{os.path.basename(path)}", open(path, "rb").read()) for path in files]
                   + [("boot/grub/grub.cfg", configuration.encode())])


@case
def memtest(bench):
    """memtest86+ finishes a pass on a small guest, without errors, and says so on its screen."""
    image = program(bench, "boot/memtest86+x64.bin")
    cd = configured_cd(bench, f"set timeout=0\nmenuentry memtest {{ linux /boot/{os.path.basename(image)} }}\n", image)
    with Console(pc_command(bench, "--cdrom", cd, memory="32M")) as machine:
        machine.expect("SeaBIOS", BOOT_SECONDS)
        remote = Remote(bench, NAME)
        remote.wait_for_text(r"Memtest86\+ v", COMMAND_SECONDS)
        shown = remote.wait_for_text(r"Pass:\s+1 +Errors: +\d+", MEMTEST_SECONDS).group()
        check(shown.split()[-1] == "0", f"memory is broken: {shown}")
        remote.command("kill")


@case
def ipxe(bench):
    """iPXE, started by ISOLINUX, gets an address from the user network with its own driver for virtio."""
    cd = program(bench, "usr/lib/ipxe/ipxe.iso")
    command = pc_command(bench, "--cdrom", cd, "--net", "user", memory="256M")
    command.remove("none")
    command.remove("--net")
    with Console(command) as machine:
        machine.expect("SeaBIOS", BOOT_SECONDS)
        remote = Remote(bench, NAME)
        remote.wait_for_text(r"ISOLINUX(?s:.*)iPXE initialising devices", COMMAND_SECONDS)
        remote.wait_for_text(r"net0: 10\.0\.2\.15/255\.255\.255\.0 gw 10\.0\.2\.2", COMMAND_SECONDS)
        remote.command("kill")


@case
def u_boot(bench):
    """U-Boot in the place of the firmware, to its prompt and through a command."""
    image = program(bench, "usr/lib/u-boot/qemu-x86_64/u-boot.rom")
    with Console(pc_command(bench, "--machine", "pc", "--firmware", image, "--vga", "none", memory="256M")) as machine:
        machine.expect("Hit any key to stop autoboot", BOOT_SECONDS)
        machine.type(" ")
        machine.expect("=> ", COMMAND_SECONDS)
        machine.type("setenv sum 42; echo the sum is ${sum}\n")
        machine.expect("the sum is 42", COMMAND_SECONDS)


@case
def syslinux(bench):
    """A floppy disk made by syslinux starts iPXE, which it reads from there."""
    installer, loaded = program(bench, "usr/bin/syslinux"), program(bench, "boot/ipxe.lkrn")
    if not shutil.which("mformat"):
        raise Skip("no mtools: install the package mtools")
    floppy, configuration = bench.path("floppy.img"), bench.path("syslinux.cfg", b"DEFAULT ipxe\nSAY from the floppy disk\nLABEL ipxe\nKERNEL ipxe.krn\n")
    for command in (["mformat", "-C", "-f", "1440", "-i", floppy, "::"], ["mcopy", "-i", floppy, loaded, "::ipxe.krn"],
                    ["mcopy", "-i", floppy, configuration, "::syslinux.cfg"], [installer, "--install", floppy]):
        subprocess.run(command, check=True, timeout=COMMAND_SECONDS, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
    with Console(pc_command(bench, "--floppy", floppy, memory="256M")) as machine:
        machine.expect("Booting from Floppy", BOOT_SECONDS)
        remote = Remote(bench, NAME)
        remote.wait_for_text(r"from the floppy disk(?s:.*)iPXE initialising devices", COMMAND_SECONDS)
        remote.command("kill")


@case
def xen(bench):
    """The Xen hypervisor by multiboot, with Linux as its first domain: paravirtualised on Lodge's processor."""
    hypervisor = program(bench, "boot/xen-4.17-amd64.gz")
    folder = bench.flavour_folder("amd64")
    initrd = bench.path("xen-initrd")
    guest_image.flavour_image(folder).write(initrd)
    kernel = bench.path("xen-vmlinuz")
    shutil.copy(os.path.join(folder, "vmlinuz"), kernel)
    cd = configured_cd(bench, "set timeout=0\nmenuentry xen {\n"
                              f"  multiboot2 /boot/{os.path.basename(hypervisor)} com1=115200,8n1 console=com1 dom0_mem=256M\n"
                              "  module2 /boot/xen-vmlinuz console=hvc0\n  module2 /boot/xen-initrd\n}\n", hypervisor, kernel, initrd)
    with Console(pc_command(bench, "--cdrom", cd, memory="512M", cpus=2)) as guest:
        guest.expect(r"\(XEN\) Xen version 4\.17", BOOT_SECONDS)
        reach_prompt(guest)
        power_off(guest)
    check("(XEN) Entering ACPI S5 state" in guest.output, "Xen did not switch off")
    # Without a loader in between, by the first multiboot.
    with Console(pc_command(bench, "--kernel", hypervisor, "--initrd", f"{kernel} console=hvc0,{initrd}", "--append",
                            "com1=115200,8n1 console=com1 dom0_mem=256M", memory="512M", cpus=2)) as guest:
        guest.expect(r"\(XEN\) Bootloader: Lodge", BOOT_SECONDS)
        reach_prompt(guest)
        power_off(guest)
