"""Disks and networks in guests that are a kernel and busybox: virtio's devices against the drivers of stock kernels."""
import contextlib
import fcntl
import functools
import hashlib
import http.server
import os
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

from harness import BOOT_SECONDS, COMMAND_SECONDS, END_SECONDS, PROMPT, Console, Skip, answer, case, check, guest_image, kernel_complaints, power_off, \
    reach_prompt

MIB = 1 << 20


def image_tool(bench, *arguments, code=0):
    """lodge image; returns what it printed."""
    run = subprocess.run([bench.options.lodge, "image", *arguments], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    check(run.returncode == code, f"lodge image {' '.join(arguments)}: exit code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def noise(size, seed):
    """Bytes that are always the same and never come in pairs."""
    return b"".join(hashlib.sha512(f"{seed} {block}".encode()).digest() for block in range(size // 64))


def disc(size, seed):
    """The same as the image of a CD: by the first volume descriptor, which says nothing but that it is one (ECMA-119, 8.1)."""
    content = noise(size, seed)
    return content[:16 * 2048] + b"\1CD001\1".ljust(2048, b"\0") + content[17 * 2048:]


def read_file(path, offset, size):
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def check_digest(guest, command, content, message):
    """What the command prints in the guest is the content."""
    printed = answer(guest, f"{command} | md5sum")
    check(hashlib.md5(content).hexdigest() in printed, f"{message}:\n{printed}")


def no_complaints(guest):
    check(not kernel_complaints(guest), "the guest's kernel complained:\n" + "\n".join(kernel_complaints(guest)))


@case
def disk(bench):
    """Three disks: raw with packed rings and two queues; an overlay on an image that stays as it was; one that can only be read."""
    flavour = bench.options.flavour
    raw, base, overlay = bench.path("raw", bytes(64 * MIB)), bench.path("base.qcow2"), bench.path("overlay.qcow2")
    content = noise(4 * MIB, 1)
    image_tool(bench, "convert", "-q", "-f", "raw", "-O", "qcow2", bench.path("content", content), base)
    image_tool(bench, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay, "100M")
    base_before = read_file(base, 0, -1)
    only = bench.path("only", content)
    with bench.booted("--drive", f"file={raw},format=raw,queues=2,packed=on,serial=serial-1", overlay,
                      "--drive", f"file={only},format=raw,readonly=on", flavour=flavour, cpus=2) as guest:
        check(answer(guest, "cat /sys/block/vda/serial") == "serial-1", "another serial number")
        check(answer(guest, "ls /sys/block/vda/mq | wc -l") == "2", "not two queues")
        sizes = answer(guest, "cat /sys/block/vd?/size").split()
        check([int(size) * 512 for size in sizes] == [64 * MIB, 100 * MIB, 4 * MIB], f"sizes {sizes}")
        # Through the page cache and back from the disk.
        answer(guest, "dd if=/dev/vdc of=/dev/vda bs=64k seek=16 conv=fsync")
        answer(guest, "dd if=/dev/vdc of=/dev/vdb bs=4k seek=512 conv=fsync")
        answer(guest, "sync; echo 3 >/proc/sys/vm/drop_caches")
        check_digest(guest, "dd if=/dev/vda bs=64k skip=16 count=64", content, "the raw disk does not read back")
        check_digest(guest, "dd if=/dev/vdb bs=4k skip=512 count=1024", content, "the overlay does not read back")
        # Two at once, one on each processor and queue.
        answer(guest, "(taskset 1 dd if=/dev/vdc of=/dev/vda bs=4k seek=8192 conv=fsync) & "
                      "(taskset 2 dd if=/dev/vdc of=/dev/vda bs=4k seek=12288 conv=fsync) & wait")
        answer(guest, "blkdiscard -o 1M -l 2M /dev/vda")
        check(answer(guest, "dd if=/dev/vda bs=1M skip=1 count=2 | tr -d '\\0' | wc -c").split()[-1] == "0", "discarded, and not zero")
        _, code = guest.run("dd if=/dev/zero of=/dev/vdc bs=4k count=1 conv=fsync", COMMAND_SECONDS)
        check(code != 0, "a disk that can only be read was written")
        power_off(guest)
        no_complaints(guest)
    check(read_file(raw, 3 * MIB, 2 * MIB) == content[2 * MIB:], "the raw image does not hold what was written")
    check(read_file(raw, 1 * MIB, 2 * MIB) == bytes(2 * MIB), "the raw image holds what was discarded")
    for block in (8192, 12288):
        check(read_file(raw, block * 4096, 4 * MIB) == content, f"the raw image does not hold what was written at block {block}")
    check(read_file(base, 0, -1) == base_before, "the overlay's base has changed")
    check(read_file(only, 0, -1) == content, "the image to be read has changed")
    image_tool(bench, "check", "-q", overlay)
    image_tool(bench, "convert", "-q", "-O", "raw", overlay, bench.path("flat"))
    check(read_file(bench.path("flat"), 0, 6 * MIB) == content[:2 * MIB] + content, "the overlay does not hold what was written")


@case
def snapshot(bench):
    """--snapshot: the guest writes, also over a reboot, and nothing of it is left."""
    image = bench.path("disk.qcow2")
    image_tool(bench, "create", "-q", "-f", "qcow2", image, "10M")
    before = read_file(image, 0, -1)
    with bench.booted("--snapshot", image) as guest:
        answer(guest, "echo something | dd of=/dev/vda conv=fsync")
        guest.type("reboot\n")
        reach_prompt(guest)
        check(answer(guest, "head -c 9 /dev/vda") == "something", "what was written did not outlive the reboot")
        power_off(guest)
    check(read_file(image, 0, -1) == before, "the image has changed")


@case
def two_writers(bench):
    """An image in use by one machine is refused to a second, which says so; the first goes on."""
    image = bench.path("disk.qcow2")
    image_tool(bench, "create", "-q", "-f", "qcow2", image, "10M")
    with bench.booted(image) as guest:
        second = subprocess.run(bench.command(image, "--name", "second"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS,
                                check=False)
        check(second.returncode == 2, f"the second machine: exit code {second.returncode}\n{second.stderr}")
        check(image in second.stderr and "use" in second.stderr, f"the message names no image in use:\n{second.stderr}")
        answer(guest, "echo something | dd of=/dev/vda conv=fsync")
        power_off(guest)
    image_tool(bench, "check", "-q", image)


def namespaces(*kinds):
    """The beginning of a command that runs the rest in namespaces of its own."""
    flags = [f"--{kind}" for kind in kinds]
    command = ["unshare", *flags] if os.geteuid() == 0 else ["unshare", "--map-root-user", *flags]
    run = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Skip(f"no namespaces of one's own here: {run.stderr.strip()}")
    return command


@case
def no_space(bench):
    """A write that finds no space stops the machine, says so, and goes on when there is space; nothing is lost."""
    small = bench.path("small")
    os.mkdir(small)
    mount = namespaces("mount")
    setup = f"mount -t tmpfs -o size=6M none {small} && {bench.options.lodge} image create -q -f qcow2 {small}/disk.qcow2 64M && exec \"$@\""
    content = noise(16 * MIB, 2)
    source = bench.path("source", content)
    command = [*mount, "sh", "-c", setup, "sh",
               *bench.command(os.path.join(small, "disk.qcow2"), "--drive", f"file={source},format=raw,readonly=on")]
    with Console(command) as guest:
        reach_prompt(guest)
        guest.type("dd if=/dev/vdb of=/dev/vda bs=1M conv=fsync && echo went-on | tr a-z A-Z\n")
        guest.expect(r"lodge: warning: .*disk\.qcow2.*the guest stands still", COMMAND_SECONDS)
        enter = ["nsenter", "-t", str(guest.process.pid), *(["-U", "--preserve-credentials"] if os.geteuid() else []), "-m"]
        subprocess.run([*enter, "mount", "-o", "remount,size=64M", small], check=True)
        guest.expect("WENT-ON", COMMAND_SECONDS)
        answer(guest, "sync; echo 3 >/proc/sys/vm/drop_caches")
        check_digest(guest, "dd if=/dev/vda bs=1M count=16", content, "the disk does not read back")
        no_complaints(guest)
        power_off(guest)


@case
def no_space_reported(bench):
    """werror=report: the guest sees the error, and the machine goes on."""
    small = bench.path("small")
    os.mkdir(small)
    setup = f"mount -t tmpfs -o size=6M none {small} && {bench.options.lodge} image create -q -f qcow2 {small}/disk.qcow2 64M && exec \"$@\""
    command = [*namespaces("mount"), "sh", "-c", setup, "sh",
               *bench.command("--drive", f"file={small}/disk.qcow2,werror=report")]
    with Console(command) as guest:
        reach_prompt(guest)
        output, code = guest.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync", COMMAND_SECONDS)
        check(code != 0, f"dd found space:\n{output}")
        check(answer(guest, "echo still here") == "still here", "the guest did not go on")
        power_off(guest)


@case
def server_gone(bench):
    """An NBD server that goes away in mid-write: the guest sees I/O errors, the machine lives."""
    if not shutil.which("nbdkit"):
        raise Skip("there is no nbdkit")
    path = bench.path("nbd")
    with subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "-U", path, "memory", "256M"], stderr=subprocess.PIPE) as server:
        deadline = time.monotonic() + COMMAND_SECONDS
        while not os.path.exists(path):
            check(server.poll() is None and time.monotonic() < deadline, "nbdkit does not start")
            time.sleep(0.01)
        try:
            with bench.booted(f"nbd+unix:///?socket={path}") as guest:
                answer(guest, "echo something | dd of=/dev/vda conv=fsync")
                # Writes one block after the other until there is an error; the server goes away under it.
                guest.type("i=0; while dd if=/dev/urandom of=/dev/vda bs=64k seek=$i count=1 conv=fsync 2>/dev/null; do i=$(((i + 1) % 4000)); "
                           "[ $i != 20 ] || echo under-way | tr a-z A-Z; done; echo failed-now | tr a-z A-Z\n")
                guest.expect("UNDER-WAY", COMMAND_SECONDS)
                server.kill()
                guest.expect("FAILED-NOW", COMMAND_SECONDS)
                check("I/O error" in answer(guest, "dmesg | grep vda"), "the guest's kernel saw no I/O error")
                power_off(guest)
        finally:
            server.kill()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Says nothing."""


@contextlib.contextmanager
def web_server(folder, address="127.0.0.1"):
    """Serves the folder; its port."""
    with http.server.ThreadingHTTPServer((address, 0), functools.partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def echoed(port, data):
    """What comes back of the data from an echo server on the port."""
    with socket.create_connection(("127.0.0.1", port), timeout=COMMAND_SECONDS) as peer:
        def feed():
            peer.sendall(data)
        feeder = threading.Thread(target=feed)
        feeder.start()
        back = bytearray()
        while len(back) < len(data):
            part = peer.recv(65536)
            if not part:
                break
            back += part
        feeder.join()
    return bytes(back)


def network_works(guest, web, tcp, content):
    """DHCP, a download of /file from the host's port `web`, and an echo through the port `tcp`, which leads to the guest's 7000."""
    answer(guest, "udhcpc -q -n -i eth0")
    check("10.0.2.15" in answer(guest, "ifconfig eth0"), "another address")
    check_digest(guest, f"wget -q -O - http://10.0.2.2:{web}/file", content, "the download is not the file")
    answer(guest, "{ nc -ll -p 7000 -e cat >/dev/null 2>&1 & }")
    answer(guest, "until netstat -ln | grep -q :7000; do :; done")
    check(echoed(tcp, content) == content, "the echo through a forwarded TCP port is not what was sent")


@case
def network_user(bench):
    """The user network: DHCP, a download, ports that lead to the guest, and no way to the host's loopback unless asked for."""
    flavour = bench.options.flavour
    content = noise(8 * MIB, 3)
    bench.path("file", content)
    tcp = free_port()
    with web_server(bench.folder) as web:
        with bench.booted("--net", f"user,loopback=on,packed=on,hostfwd=tcp::{tcp}-:7000", flavour=flavour, append="quiet") as guest:
            network_works(guest, web, tcp, content)
            # A restart of the guest: the network goes on.
            guest.type("reboot\n")
            reach_prompt(guest)
            answer(guest, "udhcpc -q -n -i eth0")
            check_digest(guest, f"wget -q -O - http://10.0.2.2:{web}/file", content, "the download after a reboot is not the file")
            power_off(guest)
            no_complaints(guest)
        with bench.booted(flavour=flavour, append="quiet") as guest:
            answer(guest, "udhcpc -q -n -i eth0")
            for address in ("10.0.2.2", "10.0.2.3"):
                output, code = guest.run(f"wget -O /dev/null http://{address}:{web}/file", COMMAND_SECONDS)
                check(code != 0 and "refused" in output, f"{address} is the host's loopback:\n{output}")
            power_off(guest)


@case
def panic(bench):
    """A kernel that panics says so by pvpanic: the machine ends with --no-reboot, by the exit code of a crash."""
    folder = bench.flavour_folder("amd64")
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, unloaded=["pvpanic", "pvpanic-mmio"]).write(initrd)
    command = [bench.options.lodge, "run", "--kernel", os.path.join(folder, "vmlinuz"), "--initrd", initrd, "--append", "console=ttyS0 quiet",
               "-m", "256M", "--engine", bench.options.engine, "--no-reboot"]
    with Console(command) as guest:
        reach_prompt(guest)
        answer(guest, "insmod /pvpanic.ko && insmod /pvpanic-mmio.ko")
        guest.type("echo c >/proc/sysrq-trigger\n")
        code = guest.finish(END_SECONDS)
        check(code == 3 and "the guest's kernel has panicked" in guest.output, f"exit code {code}; {guest.last_output()}")


@case
def random_numbers(bench):
    """virtio-rng: the guest's generator is the host's, and it does not run dry."""
    with bench.booted(flavour=bench.options.flavour) as guest:
        check(answer(guest, "cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0", "another generator")
        digests = {answer(guest, "dd if=/dev/hwrng bs=4k count=64 2>/dev/null | md5sum") for _ in range(2)}
        check(len(digests) == 2, "twice the same random numbers")
        # Of 256 values a 256th each: 262144 bytes have about 1024 zeros.
        rest = int(answer(guest, "dd if=/dev/hwrng bs=4k count=64 2>/dev/null | tr -d '\\0' | wc -c"))
        check(260000 < rest < 262144 - 512, f"of 262144 random bytes {rest} are not zero")
        power_off(guest)
        no_complaints(guest)


def resident_mib(guest):
    """Anonymous memory of the guest's process."""
    with open(f"/proc/{guest.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024


def wait_until(condition, message):
    deadline = time.monotonic() + COMMAND_SECONDS
    while not condition():
        check(time.monotonic() < deadline, message())
        time.sleep(0.05)


@case
def balloon(bench):
    """The balloon: memory freed in the guest comes back to the host by itself; a target is kept; statistics are told when asked for."""
    flavour = bench.options.flavour
    with bench.booted(flavour=flavour) as guest:
        before = resident_mib(guest)
        answer(guest, "mount -t tmpfs none /tmp && dd if=/dev/zero of=/tmp/file bs=1M count=200")
        check(resident_mib(guest) > before + 150, "the file in the guest took no memory")
        answer(guest, "rm /tmp/file")
        wait_until(lambda: resident_mib(guest) < before + 50,
                   lambda: f"freed memory does not come back: {before} MiB before, {resident_mib(guest)} MiB now")
        # And into use again.
        answer(guest, "dd if=/dev/urandom of=/tmp/file bs=1M count=200 && md5sum </tmp/file >/tmp/sum && md5sum -c /tmp/sum </tmp/file")
        guest.signal(signal.SIGUSR1)
        told = guest.expect(r"lodge: the guest's memory: (\d+) MiB in all, (\d+) MiB free", COMMAND_SECONDS)
        total = int(answer(guest, "grep MemTotal /proc/meminfo").split()[1]) // 1024
        check(abs(int(told.group(1)) - total) <= 1, f"the guest has {total} MiB, and not {told.group(1)}")
        power_off(guest)
        no_complaints(guest)
    with bench.booted("--balloon", "192M", flavour=flavour) as guest:
        wait_until(lambda: int(answer(guest, "grep MemFree /proc/meminfo").split()[1]) < 192 * 1024, lambda: "the guest keeps its memory")
        check(resident_mib(guest) < 300, f"the process has {resident_mib(guest)} MiB")
        # Rather than to end programs, the guest takes back what it needs.
        answer(guest, "mount -t tmpfs -o size=100% none /tmp && dd if=/dev/zero of=/tmp/file bs=1M count=300")
        power_off(guest)
        check("Out of memory" not in guest.output, "the guest ended a program for want of memory")
        no_complaints(guest)
    with bench.booted("--balloon", "off", flavour=flavour) as guest:
        check(answer(guest, "cat /sys/bus/virtio/devices/*/device | grep -c 0x0005 || true") == "0", "there is a balloon")
        guest.signal(signal.SIGUSR1)
        guest.expect("lodge: warning: the guest has no balloon", COMMAND_SECONDS)
        power_off(guest)


def set_window(guest, rows, columns):
    fcntl.ioctl(guest.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    guest.signal(signal.SIGWINCH)


@case
def virtio_console(bench):
    """A virtio console as the guest's own: long input and output, the window's size and its change, a reboot, Ctrl-A x; and on a socket."""
    flavour = bench.options.flavour
    with Console(bench.command("--console", "stdio", append="console=hvc0", flavour=flavour), terminal=True) as guest:
        set_window(guest, 40, 111)
        guest.expect(PROMPT, BOOT_SECONDS)
        check(answer(guest, "tty") == "/dev/hvc0", "the prompt is somewhere else")
        # The size is read when the driver starts, which may have been before.
        wait_until(lambda: answer(guest, "stty size") == "40 111", lambda: "the guest has another window")
        set_window(guest, 25, 99)
        wait_until(lambda: answer(guest, "stty size") == "25 99", lambda: "the guest's window does not follow")
        check(answer(guest, "seq 20000 | md5sum") == answer(guest, "seq 20000 >/tmp/seq; cat /tmp/seq; md5sum </tmp/seq").split("\n")[-1],
              "output is lost")
        lines = answer(guest, "seq 20000").split()
        check(lines == [str(i) for i in range(1, 20001)], "long output comes changed")
        guest.type("cat >/tmp/typed <<END\n")
        for line in range(300):
            guest.type(f"{line} {'x' * 50}\n")
        guest.type("END\n")
        typed = "".join(f"{line} {'x' * 50}\n" for line in range(300)).encode()
        check_digest(guest, "cat /tmp/typed", typed, "long input comes changed")
        guest.type("reboot\n")
        guest.expect("BusyBox v", BOOT_SECONDS)  # the old shell may still show its prompt
        guest.expect(PROMPT, COMMAND_SECONDS)
        check(answer(guest, "stty size") == "25 99", "the window's size did not outlive the reboot")
        guest.type("\x01x")
        check(guest.finish(END_SECONDS) == 0, "Ctrl-A x on the console")
        no_complaints(guest)
    path = bench.path("console")
    with bench.booted("--console", f"unix:{path}", flavour=flavour) as guest:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(COMMAND_SECONDS)
            peer.connect(path)
            guest.type("read line </dev/hvc0; echo \"it is $line\" >/dev/hvc0\n")
            peer.sendall(b"something\n")
            said = b""
            while b"it is something" not in said:
                part = peer.recv(4096)
                check(part, f"the console ended after {said}")
                said += part
        power_off(guest)
    check(not os.path.exists(path), "the socket is left behind")


@case
def network_none(bench):
    """--net none: no card. link=off: a card without a cable."""
    with bench.booted("--net", "none") as guest:
        check(answer(guest, "ls /sys/class/net").split() == ["lo"], "there is a card")
        power_off(guest)
    with bench.booted("--net", "user,link=off,mac=52:54:00:00:00:99") as guest:
        answer(guest, "ifconfig eth0 up")
        check(answer(guest, "cat /sys/class/net/eth0/carrier") == "0", "the card has a link")
        check(answer(guest, "cat /sys/class/net/eth0/address") == "52:54:00:00:00:99", "the card has another address")
        power_off(guest)


# In a network namespace of its own: addresses on the interface, a web server and an echo server, then Lodge.
TAP_SETUP = r"""
set -e
ip link set lo up
if [ "$QUEUES" -gt 1 ]; then ip tuntap add dev tap0 mode tap multi_queue; else ip tuntap add dev tap0 mode tap; fi
ip address add 10.9.0.1/24 dev tap0
ip link set tap0 up
python3 -m http.server --bind 10.9.0.1 --directory "$FOLDER" 8080 >/dev/null 2>&1 &
echo $! >"$FOLDER/server.pid"
"$@"
"""


@case
def network_tap(bench):
    """A tap interface in a network namespace: downloads and uploads with offloads, on one queue pair and on two."""
    if not os.path.exists("/dev/net/tun"):
        raise Skip("there is no /dev/net/tun")
    if not shutil.which("ip"):
        raise Skip("there is no ip (iproute2)")
    content = noise(8 * MIB, 4)
    bench.path("file", content)
    digest = hashlib.md5(content).hexdigest()
    inside = namespaces("net", "pid", "fork", "kill-child")
    for queues in (1, 2):
        os.environ["QUEUES"], os.environ["FOLDER"] = str(queues), bench.folder
        command = [*inside, "sh", "-c", TAP_SETUP, "sh",
                   *bench.command("--net", f"tap,ifname=tap0,queues={queues}", flavour=bench.options.flavour, cpus=2, append="quiet")]
        with Console(command) as guest:
            reach_prompt(guest)
            answer(guest, "ifconfig eth0 10.9.0.2 netmask 255.255.255.0 up")
            check(len(answer(guest, "ls -d /sys/class/net/eth0/queues/rx-*").split()) == queues, "another number of queues")
            answer(guest, "until wget -q -O /dev/null http://10.9.0.1:8080/; do :; done")
            check_digest(guest, "wget -q -O - http://10.9.0.1:8080/file", content, "the download is not the file")
            check(answer(guest, "ping -c 2 -s 1400 10.9.0.1").count("bytes from") == 2, "no answers to pings")
            # Two at once.
            answer(guest, "for i in 1 2 3 4; do wget -q -O - http://10.9.0.1:8080/file | md5sum >/tmp/sum.$i & done; wait")
            check(answer(guest, f"cat /tmp/sum.* | grep -c {digest}") == "4", "downloads side by side are not the file")
            power_off(guest)
            no_complaints(guest)


@case
def bad_devices(bench):
    """Disks and networks that cannot be: exit code 2, and a message that names what is wrong."""
    text = bench.path("text", b"This is no image.\n" * 1000)
    cut = bench.path("cut.qcow2", b"QFI\xfb\0\0\0\3" + bytes(50))
    missing = bench.path("missing")
    orphan = bench.path("orphan.qcow2")
    image_tool(bench, "create", "-q", "-u", "-f", "qcow2", "-b", missing, "-F", "raw", orphan, "10M")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    for arguments, words in (
            ([missing], (missing,)),
            ([bench.folder], (bench.folder,)),
            ([cut], (cut,)),
            (["--drive", f"file={text},format=qcow2"], (text,)),
            ([orphan], (orphan, missing)),
            ([bench.path("tiny", b"x")], ("tiny", "512")),
            (["--drive", f"file={text},format=raw,cache=sometimes"], ("cache", "sometimes")),
            (["--drive", f"file={text},colour=red"], ("colour",)),
            (["--drive", "readonly=on"], ("file=",)),
            (["nbd+unix:///?socket=" + missing], (missing,)),
            (["--net", "bridge"], ("bridge", "user, tap or none")),
            (["--net", f"user,hostfwd=tcp::{port}-:22"], (str(port), "hostfwd")),
            (["--net", "user,mac=ff:ff:ff:ff:ff:ff"], ("mac",)),
            (["--net", "tap,fd=77"], ("77",)),
            (["--net", "none", "--net", "user"], ("none",)),
            (["--console", "tty"], ("--console", "tty", "unix:PATH")),
            (["--console", "unix:" + "x" * 200], ("--console", "longer")),
            (["--console", "stdio", "--serial", "stdio"], ("--console", "--serial")),
            (["--balloon", "1T"], ("--balloon", "512M")),
            (["--balloon", "much"], ("--balloon", "much")),
            (["--net", "user"] * 5, ("at most 4",)),
            ([text] * 25, ("at most 24",))):
        run = subprocess.run(bench.command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        said = " ".join(arguments)[:100]
        check(run.returncode == 2, f"{said}: exit code {run.returncode}, not 2:\n{run.stdout[-300:]}{run.stderr[-1000:]}")
        for word in words:
            check(word in run.stderr, f"{said}: the message does not name {word!r}:\n{run.stderr[-1000:]}")
    taken.close()
