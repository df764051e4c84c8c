"""The PC with firmware: SeaBIOS, GRUB and stock kernels from CDs and disks that know nothing of Lodge."""
import contextlib
import hashlib
import os
import struct
import subprocess

from debian_cases import Debian, log_in
from debian_cases import power_off as power_off_debian
from device_cases import MIB, check_digest, disc, free_port, image_tool, namespaces, network_works, no_complaints, noise, read_file, web_server
from harness import (BOOT_SECONDS, COMMAND_SECONDS, PROMPT, READY, Console, ConsoleError, Skip, answer, case, check, ended, grub_cd,
                     guest_image, lodge, power_off, reach_prompt)
from grub_cd import BIOS, UEFI

OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
E1000_ROM, VIRTIO_ROM = "/usr/lib/ipxe/qemu/efi-e1000.rom", "/usr/lib/ipxe/qemu/efi-virtio.rom"


def make_cd(make):
    """What make() returns, one of the functions that make a CD."""
    try:
        return make()
    except grub_cd.CannotMake as error:
        if error.missing:
            raise Skip(str(error)) from error
        raise ConsoleError(str(error)) from error


def boot_cd(bench, kernel, initrd, append, files=(), platform=BIOS, folder=None):
    return make_cd(lambda: grub_cd.make(folder or bench.folder, kernel, initrd, append, files, platform))


# Where a machine's controller for disks and CDs is, and the kernel's driver for it.
CONTROLLERS = {"pc": ("0000:00:01.1", "ata_piix"), "q35": ("0000:00:1f.2", "ahci")}
# Debian's kernel for clouds has no driver for SATA.
FLAVOURS = {"pc": "cloud-amd64", "q35": "amd64"}


def pc_command(bench, *arguments, cpus=1, memory="512M"):
    machine = [] if "--machine" in arguments else ["--machine", bench.options.machine]
    return [bench.options.lodge, "run", *machine, "-m", memory, "-c", str(cpus), "--engine", bench.options.engine, "--name", "pc-test",
            "--net", "none", *arguments]


def wait_for_drives(guest, drives=("/dev/sda", "/dev/sr0")):
    """The kernel looks for them beside everything else."""
    answer(guest, f"until {' && '.join(f'[ -b {drive} ]' for drive in drives)}; do sleep 0.1; done")


@contextlib.contextmanager
def booted(command):
    with Console(command) as guest:
        guest.expect("SeaBIOS", BOOT_SECONDS)
        reach_prompt(guest)
        yield guest


@case
def pc_cd(bench):
    """A CD with GRUB boots a stock kernel, with two processors, a disk on IDE or SATA and the CD itself; it goes through the firmware once more when
    it reboots."""
    folder = bench.flavour_folder(bench.options.flavour)
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    content, disk = noise(MIB, 3), bench.path("disk", noise(8 * MIB, 4))
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0", [("content", content)])
    place, driver = CONTROLLERS[bench.options.machine]
    with booted(pc_command(bench, "--cdrom", cd, "--drive", f"file={disk},format=raw", cpus=2)) as guest:
        check(answer(guest, "nproc") == "2", "both processors are there")
        # The firmware's tables make all of them go when they read hot-plug registers that are not there.
        check(answer(guest, f"ls -d /sys/bus/pci/devices/{place}"), "the controller is gone")
        # The HPET counts, and its first timer ticks in the place of the 8254.
        clocks = "/sys/devices/system/clocksource/clocksource0"
        check("hpet" in answer(guest, f"cat {clocks}/available_clocksource"), "no HPET")
        answer(guest, f"echo hpet >{clocks}/current_clocksource; sleep 1; cat {clocks}/current_clocksource | grep hpet; dmesg | grep -i hpet")
        wait_for_drives(guest)
        check_digest(guest, "cat /dev/sda", noise(8 * MIB, 4), "the disk reads otherwise")
        answer(guest, "mkdir /cd && mount -t iso9660 -o ro /dev/sr0 /cd")
        check_digest(guest, "cat /cd/content", content, "a file of the CD reads otherwise")
        answer(guest, "umount /cd")
        check_digest(guest, f"head -c {os.path.getsize(cd)} /dev/sr0", read_file(cd, 0, -1), "the CD reads otherwise")
        # What is written is there after a reset, in the guest and on the host.
        answer(guest, "yes lodge | dd of=/dev/sda bs=64k count=16 seek=8 iflag=fullblock conv=fsync")
        guest.type("reboot\n")
        guest.expect("SeaBIOS", BOOT_SECONDS)
        reach_prompt(guest)
        wait_for_drives(guest)
        written = (b"lodge\n" * (MIB // 6 + 1))[:MIB]
        check_digest(guest, "dd if=/dev/sda bs=64k count=16 skip=8", written, "the disk lost what was written")
        answer(guest, f"grep {driver} /proc/interrupts")
        no_complaints(guest)
        power_off(guest)
    check(hashlib.md5(read_file(disk, MIB // 2, MIB)).digest() == hashlib.md5(written).digest(), "the image lost what was written")


@case
def pc_disk(bench):
    """A disk with GRUB in its master boot record boots a whole Debian whose root is on IDE or SATA, and another on virtio beside it."""
    system = Debian(bench, FLAVOURS[bench.options.machine])
    # By its serial number: which of two disks is found first is up to the kernel.
    root = "/dev/disk/by-id/ata-LODGE_HARDDISK_ROOT1"
    cd = boot_cd(bench, os.path.join(system.folder, "vmlinuz"), os.path.join(system.folder, "initrd"), f"console=ttyS0 root={root} quiet")
    # Such a CD is a disk as well: it begins with a master boot record.
    loader, data = bench.path("loader.qcow2"), bench.path("data", noise(2 * MIB, 5))
    image_tool(bench, "convert", "-q", "-f", "raw", "-O", "qcow2", cd, loader)
    with Console(pc_command(bench, loader, "--drive", f"file={system.overlay},serial=ROOT1", "--drive", f"file={data},format=raw,if=virtio", cpus=2, memory="1G")) as guest:
        guest.expect("SeaBIOS", BOOT_SECONDS)
        log_in(guest)
        disk = os.path.basename(answer(guest, f"readlink -f {root}"))
        check(f"/dev/{disk} on / " in answer(guest, "mount | grep ' / '"), "the root is somewhere else")
        check_digest(guest, "cat /dev/vda", noise(2 * MIB, 5), "the virtio disk reads otherwise")
        answer(guest, "dd if=/dev/urandom of=/root/file bs=1M count=32 conv=fsync && md5sum /root/file >/root/sum")
        answer(guest, "echo 3 >/proc/sys/vm/drop_caches && md5sum -c /root/sum")
        # What the disk says of itself, through the kernel's eyes.
        check("LODGE HARDDISK" in answer(guest, f"cat /sys/block/{disk}/device/model"), "another model")
        answer(guest, "fstrim -v /")
        no_complaints(guest)
        power_off_debian(guest)
    image_tool(bench, "check", system.overlay)


@case
def pc_uefi(bench):
    """A CD with GRUB for UEFI, two processors; what the guest writes into a variable is there in the next run, beside its disk."""
    if not os.path.exists(OVMF):
        raise Skip("no UEFI firmware: install the package ovmf")
    folder = bench.flavour_folder("cloud-amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0", platform=UEFI)
    disk = bench.path("disk", bytes(MIB))
    variable = "/sys/firmware/efi/efivars/Lodge-01234567-89ab-cdef-0123-456789abcdef"
    command = pc_command(bench, "--firmware", "uefi", "--cdrom", cd, "--drive", f"file={disk},format=raw", cpus=2)
    for run in range(2):
        with Console(command) as guest:
            reach_prompt(guest)
            check(answer(guest, "nproc") == "2", "both processors are there")
            answer(guest, "mount -t efivarfs none /sys/firmware/efi/efivars")
            if run == 0:
                answer(guest, f"printf '\\007\\000\\000\\000kept' >{variable}")
            check(answer(guest, f"tail -c 4 {variable}") == "kept", "the variable is not there")
            no_complaints(guest)
            power_off(guest)
    check(os.path.getsize(disk + ".uefi-vars") > 0, "there is no store beside the disk")


@case
def uefi_kernel(bench):
    """UEFI firmware starts a kernel that it is handed, with its initrd and command line; SMBIOS tells the guest what it runs on."""
    if not os.path.exists(OVMF):
        raise Skip("no UEFI firmware: install the package ovmf")
    folder = bench.flavour_folder("cloud-amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    kernel = os.path.join(folder, "vmlinuz")
    with Console(pc_command(bench, "--firmware", "uefi", "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0 handed=over",
                            cpus=2)) as guest:
        reach_prompt(guest)
        check("handed=over" in answer(guest, "cat /proc/cmdline"), "another command line")
        check(answer(guest, "test -d /sys/firmware/efi && echo uefi") == "uefi", "no UEFI")
        said = answer(guest, "cd /sys/class/dmi/id; cat sys_vendor product_name chassis_vendor; ls product_uuid")
        check(said.split("\n")[0].strip() == "Lodge" and "PC (" in said, f"SMBIOS says {said}")
        no_complaints(guest)
        power_off(guest)
    no_program = ended(pc_command(bench, "--firmware", "uefi", "--kernel", initrd))
    check(no_program.returncode == 2 and "no EFI program" in no_program.stderr, f"{no_program.returncode} {no_program.stderr}")


@case
def boot_order(bench):
    """--boot: of two CDs and the network, firmware takes what is named first, BIOS and UEFI, on IDE and SATA."""
    folder = bench.flavour_folder("cloud-amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    for platform, arguments in ((BIOS, []), (BIOS, ["--machine", "q35"]), (UEFI, ["--firmware", "uefi", "--machine", "q35"])):
        if platform == UEFI and not os.path.exists(OVMF):
            continue
        cds = []
        for number in range(2):
            made = bench.path(f"{platform}{len(arguments)}{number}")
            cds += ["--cdrom", boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, f"console=ttyS0 lodge_cd={number}", platform=platform, folder=made)]
        for order, number in (("cd0", 0), ("cd1", 1)):
            with Console(pc_command(bench, *arguments, *cds, "--boot", order)) as guest:
                guest.expect(rf"ommand line: .*lodge_cd={number}", BOOT_SECONDS)
    if os.path.exists(VIRTIO_ROM):
        command = pc_command(bench, *cds, "--boot", "network,cd")
        command[command.index("--net") + 1] = "user"
        with Console(command) as guest:
            guest.expect(r"iPXE (?s:.*)10\.0\.2\.15", BOOT_SECONDS)
    with Console(pc_command(bench, *cds, "--boot", "menu")) as guest:
        guest.expect("ESC for boot menu", BOOT_SECONDS)
    refused = ended(pc_command(bench, *cds, "--boot", "cd2"))
    check(refused.returncode == 2 and "cd2" in refused.stderr, f"{refused.returncode} {refused.stderr}")


@case
def processor_resets(bench):
    """Linux restarts the machine by the keyboard controller and by a triple fault, which reset the processors alone: firmware does the rest."""
    folder = bench.flavour_folder("cloud-amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0")
    with booted(pc_command(bench, "--cdrom", cd, cpus=2)) as guest:
        for way in ("kbd", "triple"):
            answer(guest, f"echo {way} >/sys/kernel/reboot/type")
            guest.type("reboot\n")
            guest.expect("SeaBIOS", BOOT_SECONDS)
            reach_prompt(guest)
            check(answer(guest, "nproc") == "2", "both processors are there")
        no_complaints(guest)
        power_off(guest)


@case
def bios_kernel(bench):
    """A BIOS starts a kernel that it is handed, before everything else, and again after a reset."""
    folder = bench.flavour_folder("cloud-amd64")
    initrd, kernel = bench.path("initrd"), os.path.join(folder, "vmlinuz")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    disk = bench.path("disk", bytes(MIB))
    with booted(pc_command(bench, "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0 handed=over", "--boot", "disk", "--drive",
                           f"file={disk},format=raw", cpus=2)) as guest:
        check("handed=over" in answer(guest, "cat /proc/cmdline"), "another command line")
        check(answer(guest, "test -d /sys/firmware/efi || echo bios") == "bios", "UEFI")
        guest.type("reboot\n")
        reach_prompt(guest)
        check(answer(guest, "nproc") == "2", "both processors are there")
        no_complaints(guest)
        power_off(guest)
    for arguments, words in (("--kernel", disk), "neither"), (("--kernel", kernel, "--initrd", bench.path("none")), "none"), \
            (("--kernel", kernel, "--append", "x" * 5000), "--append"):
        run = ended(pc_command(bench, *arguments))
        check(run.returncode == 2 and words in run.stderr, f"{arguments}: {run.returncode} {run.stderr}")


# A multiboot kernel that writes what it finds to the debug console: EAX, the information that EBX points to, the memory map, its first module,
# and the command line; then it ends the machine.
MULTIBOOT_KERNEL = """
        .text
        .long 0x1badb002, 3, -(0x1badb002 + 3)
        .global _start
_start: movl $0x80000, %esp
        pushl %eax
        movw $0x402, %dx
        cld
        movl %esp, %esi
        movl $4, %ecx
        rep outsb
        movl %ebx, %esi
        movl $116, %ecx
        rep outsb
        movl 48(%ebx), %esi
        movl 44(%ebx), %ecx
        rep outsb
        movl 24(%ebx), %eax
        movl (%eax), %esi
        movl 4(%eax), %ecx
        subl %esi, %ecx
        rep outsb
        movl 16(%ebx), %esi
        movl $64, %ecx
        rep outsb
        movl $0x501, %edx
        movb $0x2a, %al
        outb %al, %dx
1:      hlt
        jmp 1b
"""


@case
def multiboot(bench):
    """A multiboot kernel, as an ELF file packed by gzip, with a module."""
    made = bench.path("kernel")
    source = bench.path("kernel.s", MULTIBOOT_KERNEL.encode())
    for command in (["as", "--32", "-o", f"{made}.o", source], ["ld", "-m", "elf_i386", "-n", "-Ttext", "0x100000", "-o", made, f"{made}.o"],
                    ["gzip", "-kf", made]):
        subprocess.run(command, check=True, timeout=COMMAND_SECONDS)
    module, said = bench.path("module", noise(MIB, 11)), bench.path("said")
    run = ended(pc_command(bench, "--kernel", f"{made}.gz", "--initrd", f"{module} with words", "--append", "some words", "--serial", "null",
                           "--debug-exit", "--debug-console", f"file:{said}", memory="64M"), BOOT_SECONDS)
    check(run.returncode == 2 * 0x2a + 1, f"exit code {run.returncode}\n{run.stderr}")
    answers = read_file(said, 0, -1)
    answers = answers[answers.index(struct.pack("<I", 0x2badb002)) + 4:]  # behind SeaBIOS's own words
    info, rest = struct.unpack_from("<29I", answers), answers[116:]
    check(info[0] & 0x4d == 0x4d, f"flags {info[0]:#x}")
    check(600 <= info[1] <= 640 and 60 << 10 <= info[2] <= 63 << 10, f"memory below {info[1]} KiB, above {info[2]} KiB")
    ranges = [struct.unpack_from("<IQQI", rest, at) for at in range(0, info[11], 24)]
    check(all(entry[0] == 20 for entry in ranges), f"memory map {ranges}")
    check((0x100000, info[2] << 10, 1) in [entry[1:] for entry in ranges], f"no high memory of {info[2]} KiB in {ranges}")
    rest = rest[info[11]:]
    check(rest[:MIB] == noise(MIB, 11), "the module reads otherwise")
    words = rest[MIB:].split(b"\0")[0].decode()
    check(words == f"{made}.gz some words", f"the command line is {words}")


@case
def root_ports(bench):
    """A disk and a card behind PCI Express root ports, found and set up by either firmware; the BIOS boots from the network over one."""
    folder = bench.flavour_folder("cloud-amd64")
    initrd, kernel, content = bench.path("initrd"), os.path.join(folder, "vmlinuz"), noise(8 * MIB, 12)
    guest_image.flavour_image(folder, pc=True).write(initrd)
    disk = bench.path("disk", content)
    for firmware in ("bios", "uefi"):
        if firmware == "uefi" and not os.path.exists(OVMF):
            continue
        variables = ["--uefi-vars", "none"] if firmware == "uefi" else []
        command = pc_command(bench, "--machine", "q35", "--firmware", firmware, *variables, "--kernel", kernel, "--initrd", initrd, "--append",
                             "console=ttyS0", "--drive", f"file={disk},format=raw,if=virtio,port=1", cpus=2)
        command[command.index("--net") + 1] = "user,port=3"
        with Console(command) as guest:
            reach_prompt(guest)
            for port, driver in ((0, "virtio-pci"), (2, "virtio-pci")):
                found = answer(guest, f"cd /sys/devices/pci0000:00/0000:00:1c.{port}/0000:*:00.0 && readlink driver && cat current_link_width")
                check(driver in found and found.split()[-1] == "1", f"behind port {port + 1}: {found}")
            check_digest(guest, "cat /dev/vda", content, "the disk reads otherwise")
            answer(guest, "udhcpc -n -q -i $(ls /sys/class/net | grep -v lo) >/dev/null 2>&1; ip route | grep 10.0.2")
            no_complaints(guest)
            power_off(guest)
    if os.path.exists(VIRTIO_ROM):
        command = pc_command(bench, "--machine", "q35", "--cdrom", "none", "--boot", "network")
        command[command.index("--net") + 1] = "user,port=2"
        with Console(command) as guest:
            guest.expect(r"iPXE (?s:.*)10\.0\.2\.15", BOOT_SECONDS)
    for arguments, words in ((["--drive", f"file={disk},if=virtio,port=7"], "1 to 6"), (["--drive", f"file={disk},port=1"], "if=virtio"),
                             (["--machine", "pc", "--drive", f"file={disk},if=virtio,port=1"], "q35")):
        machine = [] if "--machine" in arguments else ["--machine", "q35"]
        refused = ended(pc_command(bench, *machine, *arguments))
        check(refused.returncode == 2 and words in refused.stderr, f"{arguments}: {refused.returncode} {refused.stderr}")


@case
def virtio_legacy(bench):
    """Linux's driver in its mode for virtio before 1.0 works on a disk and a card that are transitional; the BIOS and UEFI boot on."""
    folder = bench.flavour_folder("cloud-amd64")
    initrd, kernel, content = bench.path("initrd"), os.path.join(folder, "vmlinuz"), noise(8 * MIB, 13)
    guest_image.flavour_image(folder, pc=True, unloaded=["virtio_pci"]).write(initrd)
    bench.path("file", content)
    disk, port = bench.path("disk", content), free_port()
    with web_server(bench.folder) as web:
        command = pc_command(bench, "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0", "--drive",
                             f"file={disk},format=raw,if=virtio,legacy=on", cpus=2)
        command[command.index("--net") + 1] = f"user,legacy=on,loopback=on,hostfwd=tcp::{port}-:7000"
        with Console(command) as guest:
            reach_prompt(guest)
            answer(guest, "rmmod virtio_pci && insmod /virtio_pci.ko force_legacy=1 && until [ -b /dev/vda ] && [ -d /sys/class/net/eth0 ]; do sleep 0.1; done")
            # Bit 32, VERSION_1, is not among what is agreed on.
            check(answer(guest, "cut -c 33 /sys/block/vda/device/features /sys/class/net/eth0/device/features | sort -u") == "0", "it is today's interface")
            check_digest(guest, "cat /dev/vda", content, "the disk reads otherwise")
            answer(guest, "yes lodge | dd of=/dev/vda bs=64k count=16 iflag=fullblock conv=fsync")
            network_works(guest, web, port, content)
            no_complaints(guest)
            power_off(guest)
    check(read_file(disk, 0, MIB) == (b"lodge\n" * MIB)[:MIB], "the image lost what was written")


@case
def floppy(bench):
    """Linux reads and writes a floppy disk by its own driver, and notices when there is another one."""
    folder = bench.flavour_folder("amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True, unloaded=["floppy"]).write(initrd)
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0")
    contents = {size: noise(size, 8) for size in (1440 * 1024, 720 * 1024)}
    disks = {size: bench.path(f"{size}.img", content) for size, content in contents.items()}
    for number, size in enumerate(contents):
        with Console(pc_command(bench, "--cdrom", cd, "--floppy", disks[size])) as guest:
            reach_prompt(guest)
            answer(guest, "insmod /floppy.ko && until [ -b /dev/fd0 ]; do sleep 0.1; done")
            check_digest(guest, "cat /dev/fd0", contents[size], "the disk reads otherwise")
            written = (b"lodge\n" * 4096)[:16384]
            answer(guest, "yes lodge | dd of=/dev/fd0 bs=16k count=1 seek=3 iflag=fullblock conv=fsync")
            check(read_file(disks[size], 3 * 16384, 16384) == written, "the image lost what was written")
            if number == 0:
                other = noise(size, 9)
                out = lodge(bench, "eject", "pc-test", "floppy0")
                check(out.returncode == 0, out.stderr)
                answer(guest, "! head -c 512 /dev/fd0")
                put = lodge(bench, "insert", "pc-test", bench.path("other.img", other), "floppy0")
                check(put.returncode == 0, put.stderr)
                check_digest(guest, "cat /dev/fd0", other, "the other disk reads otherwise")
            no_complaints(guest)
            power_off(guest)


@case
def floppy_without_space(bench):
    """A disk whose image finds no space is taken out of the machine that stands still for it, which then goes on."""
    folder = bench.flavour_folder("amd64")
    initrd, small = bench.path("initrd"), bench.path("small")
    guest_image.flavour_image(folder, pc=True, unloaded=["floppy"]).write(initrd)
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0")
    os.mkdir(small)
    setup = f"mount -t tmpfs -o size=256K none {small} && truncate -s 1440K {small}/disk.img && exec \"$@\""
    with Console([*namespaces("mount"), "sh", "-c", setup, "sh", *pc_command(bench, "--cdrom", cd, "--floppy", f"{small}/disk.img")]) as guest:
        reach_prompt(guest)
        answer(guest, "insmod /floppy.ko && until [ -b /dev/fd0 ]; do sleep 0.1; done")
        guest.type("dd if=/dev/zero of=/dev/fd0 bs=16k count=40 conv=fsync; echo went-on | tr a-z A-Z\n")
        guest.expect(r"lodge: warning: .*disk\.img.*the guest stands still", COMMAND_SECONDS)
        out = lodge(bench, "eject", "pc-test", "floppy0")
        check(out.returncode == 0, out.stderr)
        guest.expect("WENT-ON", COMMAND_SECONDS)
        answer(guest, "! head -c 512 /dev/fd0")
        power_off(guest)


@case
def e1000(bench):
    """Intel's card: firmware boots from the network by iPXE in its ROM, and Linux's own driver takes and gives what is asked for."""
    folder = bench.flavour_folder("amd64")
    initrd, content = bench.path("initrd"), noise(8 * MIB, 10)
    guest_image.flavour_image(folder, pc=True, unloaded=["e1000"]).write(initrd)
    bench.path("file", content)
    port = free_port()
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=ttyS0")
    command = pc_command(bench, "--cdrom", cd)
    where = command.index("--net")
    with web_server(bench.folder) as web:
        command[where + 1] = f"user,model=e1000,loopback=on,hostfwd=tcp::{port}-:7000"
        with Console(command) as guest:
            reach_prompt(guest)
            answer(guest, "insmod /e1000.ko")
            network_works(guest, web, port, content)
            answer(guest, "grep eth0 /proc/interrupts")
            no_complaints(guest)
            power_off(guest)
    # Without a disk there is the network.
    if os.path.exists(E1000_ROM):
        command = pc_command(bench, "--cdrom", "none")
        command[command.index("--net") + 1] = "user,model=e1000"
        with Console(command) as guest:
            guest.expect(r"iPXE (?s:.*)10\.0\.2\.15", BOOT_SECONDS)


@case
def pc_nothing_boots(bench):
    """Disks with nothing to boot, and firmware and CDs that are none: the guest's firmware says the first, Lodge the rest."""
    disk, cd = bench.path("empty", bytes(MIB)), bench.path("nothing.iso", disc(MIB, 11))
    with Console(pc_command(bench, "--drive", f"file={disk},format=raw", "--cdrom", cd)) as guest:
        guest.expect("No bootable device", BOOT_SECONDS)
        check(READY not in guest.output and PROMPT not in guest.output, "something booted")
    page = bench.path("page.iso", b"<!DOCTYPE html>\n<title>404</title>\n")
    for arguments, words in ((["--cdrom", disk], "neither ISO 9660 nor UDF"), (["--cdrom", page], "a web page"),
                             (["--cdrom", bench.path("odd.iso", b"x" * 700)], "only 700 bytes"),
                             (["--firmware", disk, disk], "no code"), (["--firmware", bench.path("none"), disk], "cannot read it"),
                             (["--firmware", bench.path("short", b"x"), disk], "1 bytes")):
        run = ended(pc_command(bench, *arguments))
        check(run.returncode == 2 and words in run.stderr, f"{arguments}: exit code {run.returncode}\n{run.stderr}")
