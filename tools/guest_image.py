#!/usr/bin/env python3
"""Makes an initramfs for a guest on the spot: busybox, an /init and what else is asked for.

    tools/guest_image.py --output build/guests/amd64/initrd [--busybox FILE] [--modules FOLDER]
                         [--program FILE]... [--file HOST:GUEST]... [--run SCRIPT]

The archive is written directly in cpio's "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst),
so neither root (device nodes!) nor the cpio program is needed, and the same input gives the same bytes.

The guest prints `lodge-guest ready` and a prompt, or runs a script and powers off: the one given with --run, or the
commands that the kernel's command line carries as lodge.run="uname -a; nproc".
"""
import argparse
import os
import re
import stat
import subprocess
import sys

INIT = r"""#!/bin/busybox sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM=${TERM:-vt100}
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev 2>/dev/null
# A guest without devtmpfs (or an initramfs mounted over it) still needs these two.
[ -c /dev/null ] || busybox mknod /dev/null c 1 3
busybox mkdir -p /dev/pts /tmp /root /run
busybox mount -t devpts devpts /dev/pts 2>/dev/null
busybox --install -s /bin
hostname lodge-guest
ifconfig lo up 2>/dev/null
cd /root
while read -r module; do
    insmod /lib/modules/$module || echo "lodge-guest: $module does not load"
done 2>/dev/null </lib/modules/order
# The power button arrives as an input event; acpid turns it into `poweroff`.
if [ -e /dev/input/event0 ]; then
    acpid -l /dev/null -p /run/acpid.pid 2>/dev/null
fi
# busybox's poweroff, halt and reboot ask PID 1 by a signal. A shell acts on signals while it waits, so what runs in the
# foreground runs as a child that is waited for.
trap 'sync; poweroff -f' USR2
trap 'sync; halt -f' USR1
trap 'sync; reboot -f' TERM
script=/lodge-run
command=$(sed -n 's/.*lodge\.run="\([^"]*\)".*/\1/p' /proc/cmdline)
[ -n "$command" ] || command=$(sed -n 's/.*lodge\.run=\([^" ]*\).*/\1/p' /proc/cmdline)
if [ -n "$command" ]; then
    echo "$command" >/tmp/lodge-run
    script=/tmp/lodge-run
fi
if [ -e "$script" ]; then
    echo "lodge-guest runs $script"
    sh "$script" </dev/console &
    wait $!
    echo "lodge-guest done: $?"
    sync
    poweroff -f
fi
echo
echo "lodge-guest ready: $(uname -sr) on $(nproc) processors. 'poweroff' ends it."
# PID 1 must not end: a shell that was left is started again.
while :; do
    setsid cttyhack sh -l &
    wait $!
done
"""

# What `udhcpc -i eth0` does with what it got.
DHCP = r"""#!/bin/sh
case $1 in
    deconfig) ifconfig "$interface" 0.0.0.0 up ;;
    bound | renew)
        ifconfig "$interface" "$ip" netmask "$subnet" up
        for gateway in $router; do route add default gw "$gateway" dev "$interface"; done
        for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
        ;;
esac
"""

PROFILE = "PS1='lodge-guest:\\w# '\n"
ACPI_POWER = "#!/bin/sh\necho lodge-guest: power button >/dev/console\nexec poweroff\n"


class Archive:
    """A cpio archive in the newc format; folders on the way to a file come by themselves."""

    def __init__(self):
        self.entries = {}

    def folder(self, name, mode=0o755):
        name = name.strip("/")
        if name and name not in self.entries:
            self.folder(os.path.dirname(name))
            self.entries[name] = (stat.S_IFDIR | mode, b"", (0, 0))

    def file(self, name, data, mode=0o644):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self.entries[name] = (stat.S_IFREG | mode, data if isinstance(data, bytes) else data.encode(), (0, 0))

    def host_file(self, source, name=None):
        with open(source, "rb") as stream:
            data = stream.read()
        self.file(name or source, data, 0o755 if os.access(source, os.X_OK) else 0o644)

    def link(self, name, target):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self.entries[name] = (stat.S_IFLNK | 0o777, target.encode(), (0, 0))

    def character_device(self, name, major, minor):
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self.entries[name] = (stat.S_IFCHR | 0o600, b"", (major, minor))

    def host_tree(self, source, name=None, skip=()):
        """A folder of the host with all below it, symbolic links kept; `skip` are names of folders to leave out."""
        for parent, folders, files in os.walk(source):
            folders[:] = sorted(folder for folder in folders if folder not in skip)
            target = os.path.normpath(os.path.join(name or source, os.path.relpath(parent, source)))
            self.folder(target)
            for entry in sorted(files):
                path = os.path.join(parent, entry)
                if os.path.islink(path):
                    self.link(os.path.join(target, entry), os.readlink(path))
                elif os.path.isfile(path):
                    self.host_file(path, os.path.join(target, entry))

    def program(self, path):
        """A program of the host with the shared libraries that ldd names, each at the host's own path."""
        self.host_file(path)
        self.libraries(path)

    def libraries(self, path):
        listing = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listing, re.MULTILINE):
            self.host_file(library)

    def records(self):
        for inode, (name, (mode, data, device)) in enumerate(self.entries.items(), start=1):
            yield self.record(inode, name, mode, data, device)
        yield self.record(0, "TRAILER!!!", 0, b"", (0, 0))

    def write(self, path):
        # A temporary name first: an interrupted run leaves no half archive behind.
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as out:
            out.writelines(self.records())
        os.replace(temporary, path)

    @staticmethod
    def record(inode, name, mode, data, device):
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, device[0], device[1], len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        return header + b"\0" * (-len(header) % 4) + data + b"\0" * (-len(data) % 4)


def basic_image(busybox="/bin/busybox", modules=None, script=None, pc=False):
    """The guest's user space: busybox, /init, modules, with those for a PC's old-fashioned disks if asked; `script` is the text of a
    script to run instead of a prompt."""
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "root", "run", "bin", "sbin", "etc", "lib"):
        archive.folder(name)
    # Before devtmpfs is mounted the kernel opens /dev/console for /init.
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3)
    archive.host_file(busybox, "bin/busybox")
    archive.file("init", INIT, 0o755)
    archive.file("etc/profile", PROFILE)
    archive.file("etc/acpi/PWRF/00000080", ACPI_POWER, 0o755)
    archive.file("etc/udhcpc/default.script", DHCP, 0o755)
    archive.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", "root:x:0:\n")
    if modules and os.path.isdir(modules):
        names = []
        for listed in ("order", "order.pc") if pc else ("order",):
            with open(os.path.join(modules, listed), encoding="utf-8") as stream:
                names += stream.read().split()
        for name in names:
            archive.host_file(os.path.join(modules, name), f"lib/modules/{name}")
        archive.file("lib/modules/order", "".join(f"{name}\n" for name in names))
    if script is not None:
        archive.file("lodge-run", script, 0o755)
    return archive


def flavour_image(folder, script=None, pc=False, unloaded=()):
    """The image for the kernel in build/guests/FLAVOUR (see tools/guest-kernels.sh). unloaded: modules that are there as /NAME.ko, for
    whoever wants them."""
    own_busybox = os.path.join(folder, "busybox")
    busybox = own_busybox if os.path.exists(own_busybox) else "/bin/busybox"
    archive = basic_image(busybox, os.path.join(folder, "modules"), script, pc)
    for name in unloaded:
        archive.host_file(os.path.join(folder, f"modules/{name}.ko"), f"{name}.ko")
    return archive


def main():
    parser = argparse.ArgumentParser(description="Makes an initramfs for a guest.")
    parser.add_argument("--output", required=True, help="the initramfs to write")
    parser.add_argument("--busybox", default="/bin/busybox", help="a static busybox (default: the host's)")
    parser.add_argument("--modules", help="a folder with modules of the guest's kernel (see tools/guest-kernels.sh)")
    parser.add_argument("--program", action="append", default=[], help="a program of the host, with its libraries")
    parser.add_argument("--file", action="append", default=[], metavar="HOST:GUEST", help="a file of the host")
    parser.add_argument("--run", help="a script that the guest runs instead of a prompt; then it powers off")
    options = parser.parse_args()
    try:
        script = None
        if options.run:
            with open(options.run, encoding="utf-8") as stream:
                script = stream.read()
        archive = basic_image(options.busybox, options.modules, script)
        for program in options.program:
            archive.program(program)
        for pair in options.file:
            source, _, target = pair.partition(":")
            archive.host_file(source, target or source)
        archive.write(options.output)
    except OSError as error:
        print(f"lodge: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
