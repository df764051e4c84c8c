"""A Debian system out of its packages (tools/debian-image.sh), on a qcow2 overlay with a network: what people do with one."""
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess

from device_cases import TAP_SETUP, echoed, free_port, image_tool, namespaces, no_complaints, noise
from harness import BOOT_SECONDS, COMMAND_SECONDS, DEBIAN_GREETING, END_SECONDS, Console, Skip, answer, case, check

# apt over a slow line; fio's verification.
LONG_SECONDS = 240


class Debian:
    """The system with an overlay of one's own."""

    def __init__(self, bench, flavour="cloud-amd64"):
        self.bench = bench
        self.folder = os.path.abspath(os.path.join(bench.options.guests, "debian" if flavour == "cloud-amd64" else f"debian-{flavour}"))
        if not os.path.exists(os.path.join(self.folder, "vmlinuz")):
            reason = f"no Debian system: run tools/debian-image.sh {flavour}"
            with contextlib.suppress(OSError), open(os.path.join(self.folder, "unavailable"), encoding="utf-8") as stream:
                reason = stream.read().strip()
            raise Skip(reason)
        self.base = os.path.join(self.folder, "base.qcow2")
        self.overlay = bench.path("overlay.qcow2")
        image_tool(bench, "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "qcow2", self.overlay)

    @contextlib.contextmanager
    def booted(self, *arguments, cpus=2):
        """Logged in as root."""
        command = [self.bench.options.lodge, "run", "--kernel", os.path.join(self.folder, "vmlinuz"),
                   "--initrd", os.path.join(self.folder, "initrd"), "--append", "root=/dev/vda console=ttyS0 quiet", "-m", "1G",
                   "-c", str(cpus), "--engine", self.bench.options.engine, "--name", "debian-test", self.overlay, *arguments]
        with Console(command) as guest:
            log_in(guest)
            yield guest


def log_in(guest):
    guest.answer_greeting(DEBIAN_GREETING, BOOT_SECONDS)


def power_off(guest):
    guest.type("poweroff\n")
    code = guest.finish(END_SECONDS)
    check(code == 0, f"exit code {code} after poweroff; {guest.last_output()}")


def long_answer(guest, command):
    output, code = guest.run(command, LONG_SECONDS)
    check(code == 0, f"{command!r} returned {code}:\n{output}")
    return output.strip()


def file_digest(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@case
def debian(bench):
    """From the login to a package that was not there, over a reboot, to a clean file system; the base is as it was."""
    system = Debian(bench)
    before = file_digest(system.base)
    with system.booted() as guest:
        check(answer(guest, "systemctl --failed --no-legend | wc -l") == "0", "some service failed:\n" + answer(guest, "systemctl --failed"))
        check("inet 10.0.2.15" in answer(guest, "ip -4 address show enp0s1"), "no address by DHCP")
        answer(guest, "! command -v hello")
        long_answer(guest, "apt-get -qq -o Acquire::Retries=3 update && apt-get -qq -o Acquire::Retries=3 install -y hello >/dev/null")
        check("Hello, world!" in answer(guest, "hello"), "the package says something else")
        guest.type("reboot\n")
        log_in(guest)
        check("Hello, world!" in answer(guest, "hello"), "the package is gone after the reboot")
        check(answer(guest, "dpkg-query -W -f '${Status}' hello") == "install ok installed", "the package is not whole")
        power_off(guest)
        no_complaints(guest)
    check(file_digest(system.base) == before, "the base has changed")
    image_tool(bench, "check", "-q", system.overlay)
    flat = bench.path("flat")
    image_tool(bench, "convert", "-q", "-O", "raw", system.overlay, flat)
    fsck = subprocess.run(["e2fsck", "-fn", flat], capture_output=True, text=True, check=False)
    check(fsck.returncode == 0, f"e2fsck: {fsck.returncode}\n{fsck.stdout[-1000:]}")
    # The overlay thrown away: as on the first day.
    os.unlink(system.overlay)
    with Debian(bench).booted() as guest:
        answer(guest, "! command -v hello")
        power_off(guest)


FIO = ("fio --name=verify --filename=/dev/{disk} --size=48M --rw=randrw --bsrange=512-64k --ioengine=libaio --iodepth=16 --numjobs=1 "
       "--direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --output-format=terse --minimal >/tmp/fio.{disk} && echo verified-$?")


@case
def fio_verify(bench):
    """fio --verify on virtio-blk: raw with packed rings, qcow2 past the page cache, each with two queues; both at once."""
    system = Debian(bench)
    raw, qcow2 = bench.path("raw", b""), bench.path("disk.qcow2")
    os.truncate(raw, 64 << 20)
    image_tool(bench, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,extended_l2=off", qcow2, "64M")
    with system.booted("--drive", f"file={raw},format=raw,queues=2,packed=on", "--drive", f"file={qcow2},queues=2") as guest:
        for disk in ("vdb", "vdc"):
            check("verified-0" in long_answer(guest, FIO.format(disk=disk)), f"{disk} does not verify")
        both = " & ".join(FIO.format(disk=disk) for disk in ("vdb", "vdc"))
        check(long_answer(guest, f"({both} & wait)").count("verified-0") == 2, "two at once do not verify")
        power_off(guest)
        no_complaints(guest)
    image_tool(bench, "check", "-q", qcow2)


def iperf(port, *arguments):
    """One run of iperf3 against a server on this host's loopback; bits a second that arrived."""
    run = subprocess.run(["iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", "2", *arguments], capture_output=True, text=True,
                         timeout=COMMAND_SECONDS, check=False)
    report = json.loads(run.stdout)
    check(run.returncode == 0 and "sum_received" in report["end"], f"iperf3 {' '.join(arguments)}: {report.get('error')}\n{run.stdout[-1500:]}")
    return report["end"]["sum_received"]["bits_per_second"]


@case
def iperf_user(bench):
    """iperf3 through forwarded ports in both directions, and from the guest to the host; datagrams there and back; a large upload."""
    if not shutil.which("iperf3"):
        raise Skip("there is no iperf3")
    system = Debian(bench)
    # A server serves one client, and listens anew after it.
    runs = {"to the guest": (), "from the guest": ("-R",), "four to the guest": ("-P", "4")}
    ports, echo, udp = [free_port() for _ in runs], free_port(), free_port(socket.SOCK_DGRAM)
    forwards = ",".join(f"hostfwd=tcp::{port}-:{5201 + number}" for number, port in enumerate(ports))
    content = noise(16 << 20, 5)
    with system.booted("--net", f"user,loopback=on,{forwards},hostfwd=tcp::{echo}-:7,hostfwd=udp::{udp}-:7") as guest:
        answer(guest, "for port in 5201 5202 5203; do iperf3 -s -D -p $port; done; socat TCP-LISTEN:7,fork,reuseaddr EXEC:cat & socat -b 65536 UDP-LISTEN:7,fork EXEC:cat & true")
        answer(guest, "until [ $(ss -ltn | grep -c ':520[123] ') = 3 ] && ss -ltn | grep -q ':7 ' && ss -lun | grep -q ':7 '; do :; done")
        for port, (direction, arguments) in zip(ports, runs.items(), strict=True):
            bits = iperf(port, *arguments)
            check(bits > 1e6, f"{direction}: {bits} bits a second")
        check(echoed(echo, content) == content, "what came back is not what was sent")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(COMMAND_SECONDS)
            for size in (1, 1400, 9000):
                datagram = noise(64 * (size // 64 + 1), size)[:size]
                peer.sendto(datagram, ("127.0.0.1", udp))
                check(peer.recv(65536) == datagram, f"a datagram of {size} bytes comes back as another")
        power_off(guest)
        no_complaints(guest)


@case
def iperf_tap(bench):
    """iperf3 over a tap interface with two queue pairs, both ways at once, in a network namespace."""
    if not os.path.exists("/dev/net/tun"):
        raise Skip("there is no /dev/net/tun")
    system = Debian(bench)
    os.environ["QUEUES"], os.environ["FOLDER"] = "2", bench.folder
    inside = [*namespaces("net", "pid", "fork", "kill-child"), "sh", "-c", TAP_SETUP.replace('"$@"', 'iperf3 -s -D -B 10.9.0.1\n"$@"'), "sh"]
    command = [*inside, bench.options.lodge, "run", "--kernel", os.path.join(system.folder, "vmlinuz"),
               "--initrd", os.path.join(system.folder, "initrd"), "--append", "root=/dev/vda console=ttyS0 quiet", "-m", "1G", "-c", "2",
               "--engine", bench.options.engine, system.overlay, "--net", "tap,ifname=tap0,queues=2"]
    with Console(command) as guest:
        log_in(guest)
        # No DHCP server there.
        answer(guest, "pkill dhclient; ifdown --force enp0s1 >/dev/null 2>&1; ip address flush dev enp0s1")
        answer(guest, "ip address add 10.9.0.2/24 dev enp0s1; ip link set enp0s1 up")
        answer(guest, "until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done")
        report = json.loads(long_answer(guest, "iperf3 -J -c 10.9.0.1 -t 2 -P 4 --bidir"))
        for direction in ("sum_received", "sum_received_bidir_reverse"):
            check(report["end"][direction]["bits_per_second"] > 1e6, f"{direction}: {report['end'][direction]}")
        power_off(guest)
        no_complaints(guest)
