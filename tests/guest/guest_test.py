#!/usr/bin/env python3
"""Real guests, and lodge as a process: one case a run, as ctest calls it.

    tests/guest/guest_test.py --lodge build/lodge --guests build/guests CASE [options]

Exit code 0: passed; 1: failed, with the guest's last output; 77: skipped, with a line "SKIP: reason".
Nothing depends on speed: time limits only end what is stuck.
"""
import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time

from harness import (BOOT_SECONDS, CASES, COMMAND_SECONDS, END_SECONDS, HERE, PROMPT, Bench, Console, ConsoleError, Skip, answer, case,
                     check, guest_image, kernel_complaints, power_off, reach_prompt)
import grub_cd
import debian_cases  # noqa: F401  (its cases are for the asking)
import device_cases  # noqa: F401
import install_cases  # noqa: F401
import pc_cases  # noqa: F401
import program_cases  # noqa: F401
import screen_cases  # noqa: F401
import workload_image


@case
def boot(bench):
    """A stock kernel to its shell: commands, all processors, power off with 0, no complaint by the kernel."""
    flavour, cpus = bench.options.flavour, bench.options.cpus
    with open(os.path.join(bench.flavour_folder(flavour), "release"), encoding="utf-8") as stream:
        release = stream.read().strip()
    with bench.booted(flavour=flavour, cpus=cpus) as guest:
        uname = answer(guest, "uname -a")
        check(release in uname, f"uname said {uname!r}, the kernel is {release}")
        processors = answer(guest, "nproc")
        check(processors == str(cpus), f"nproc says {processors}, -c was {cpus}")
        listed = len(re.findall(r"^processor\s*:", answer(guest, "cat /proc/cpuinfo"), re.MULTILINE))
        check(listed == cpus, f"/proc/cpuinfo lists {listed} processors")
        # Job control, pipes and a process per processor.
        answer(guest, "for i in $(seq 8); do (seq 2000 | md5sum) & done; wait")
        check(answer(guest, "seq 2000 | md5sum | cut -c1-32") == md5_of_seq(2000), "md5sum of a pipe is wrong")
        power_off(guest)
        check(not kernel_complaints(guest), "the guest's kernel complained:\n" + "\n".join(kernel_complaints(guest)))


def md5_of_seq(last):
    text = "".join(f"{number}\n" for number in range(1, last + 1))
    return hashlib.md5(text.encode()).hexdigest()


@case
def command_line(bench):
    """The kernel's command line reaches the guest as it is given; without input the guest still runs to its end."""
    command = bench.command(append='quiet lodge.run="echo the answer is $((6 * 7)); cat /proc/cmdline"')
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=BOOT_SECONDS + END_SECONDS, check=False)
    check(result.returncode == 0, f"exit code {result.returncode}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    check("the answer is 42" in result.stdout, f"no answer in:\n{result.stdout[-2000:]}")
    check("console=ttyS0 quiet lodge.run=" in result.stdout, f"another command line:\n{result.stdout[-2000:]}")


@case
def reboot(bench):
    """The guest's reboot starts it anew in the same process."""
    with bench.booted() as guest:
        answer(guest, "touch /tmp/before")
        guest.type("reboot\n")
        reach_prompt(guest)
        check(answer(guest, "ls /tmp/before 2>/dev/null || echo gone") == "gone", "the guest did not start anew")
        power_off(guest)


@case
def no_reboot(bench):
    """With --no-reboot the guest's reboot ends the process with 0."""
    with bench.booted("--no-reboot") as guest:
        guest.type("reboot\n")
        code = guest.finish(END_SECONDS)
        check(code == 0, f"exit code {code}; {guest.last_output()}")


@case
def triple_fault(bench):
    """reboot=t makes the kernel triple-fault: with --no-reboot that is exit code 3 and a register dump."""
    with bench.booted("--no-reboot", append="reboot=t") as guest:
        guest.type("reboot\n")
        code = guest.finish(END_SECONDS)
        check(code == 3, f"exit code {code}; {guest.last_output()}")
        for register in ("rip", "rsp", "cr0", "cr3", "idt"):
            check(re.search(register, guest.output, re.IGNORECASE), f"no {register} in the dump; {guest.last_output()}")


@case
def console_keys(bench):
    """On a terminal Ctrl-A h helps and Ctrl-A x leaves."""
    with bench.booted(terminal=True) as guest:
        guest.type("\x01h")
        guest.expect(r"[Cc]trl-A", COMMAND_SECONDS)
        guest.type("\n")
        guest.expect(PROMPT, COMMAND_SECONDS)
        guest.type("\x01x")
        guest.finish(END_SECONDS)


@case
def serial_file(bench):
    """--serial file:PATH holds what the guest wrote; nothing of it is on standard output."""
    path = bench.path("serial")
    command = bench.command("--serial", f"file:{path}", append='quiet lodge.run="echo the answer is $((6 * 7))"')
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=BOOT_SECONDS + END_SECONDS, check=False)
    check(result.returncode == 0, f"exit code {result.returncode}:\n{result.stderr[-2000:]}")
    check("answer" not in result.stdout, f"standard output has {result.stdout[-500:]!r}")
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    check("the answer is 42" in text, f"the file has no answer:\n{text[-2000:]}")


@case
def serial_socket(bench):
    """--serial unix:PATH listens there: a client sees the guest and types to it; the socket is gone afterwards."""
    path = bench.path("socket")
    with Console(bench.command("--serial", f"unix:{path}")) as lodge:
        with Console([sys.executable, os.path.join(HERE, "socket_client.py"), path]) as guest:
            # The boot may be over before the client is there, so it asks for a prompt.
            guest.expect("connected", COMMAND_SECONDS)
            deadline, next_key = time.monotonic() + BOOT_SECONDS, 0.0
            while not re.search(PROMPT, guest.output):
                now = time.monotonic()
                check(now < deadline, f"no prompt; {guest.last_output()}")
                if now >= next_key:  # one key a while: a boot that is still printing must not be flooded
                    guest.type("\n")
                    next_key = now + 3
                guest.read_some(next_key)
            check(answer(guest, "echo $((6 * 7))") == "42", "wrong answer")
            guest.type("poweroff\n")
            guest.finish(END_SECONDS)
        code = lodge.finish(END_SECONDS)
        check(code == 0, f"exit code {code}; {lodge.last_output()}")
    check(not os.path.exists(path), "the socket's file is left")


def settings_of(terminal):
    settings = termios.tcgetattr(terminal)
    return settings[:4]  # input, output, control and local modes


@case
def terminal_restored(bench):
    """The terminal is raw while the guest runs and as before after every end: Ctrl-A x, power off, two SIGTERMs."""
    def leave(guest):
        guest.type("\x01x")

    def power(guest):
        guest.type("poweroff\n")

    def terminate(guest):
        guest.run("killall acpid", COMMAND_SECONDS)
        guest.signal(signal.SIGTERM)
        guest.run("true", COMMAND_SECONDS)  # two that come at once are one to the process
        guest.signal(signal.SIGTERM)

    for end in (leave, power, terminate):
        with Console(["sleep", "infinity"], terminal=True) as fresh:
            before = settings_of(fresh.terminal)
        with bench.booted(terminal=True) as guest:
            check(settings_of(guest.terminal) != before, "the terminal is not raw while the guest runs")
            check(not settings_of(guest.terminal)[3] & (termios.ECHO | termios.ICANON), "the terminal echoes")
            end(guest)
            guest.finish(END_SECONDS)
            check(settings_of(guest.terminal) == before, f"the terminal is not as before after {end.__name__}")


@case
def small_code_cache(bench):
    """Translated code that does not fit is dropped as a whole, again and again, while several processors run."""
    with bench.booted("--engine", "soft", "--code-cache", "4M", cpus=2) as guest:
        answer(guest, "for i in $(seq 4); do (seq 2000 | md5sum) & done; wait")
        check(answer(guest, "seq 2000 | md5sum | cut -c1-32") == md5_of_seq(2000), "md5sum of a pipe is wrong")
        power_off(guest)
        check(not kernel_complaints(guest), "the guest's kernel complained:\n" + "\n".join(kernel_complaints(guest)))


@case
def virtual_clock(bench):
    """Under the virtual clock two runs of a stock kernel print the same bytes, time stamps and random numbers included."""
    folder = bench.flavour_folder("cloud-amd64")
    script = "cat /proc/interrupts\nhead -c 16 /dev/urandom | md5sum\ndmesg | md5sum\n"
    initrd = os.path.join(bench.folder, "initrd-script")
    guest_image.flavour_image(folder, script).write(initrd)
    command = bench.command("--engine", "soft", "--virtual-clock", initrd=initrd, memory="256M")
    runs = [subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=BOOT_SECONDS + END_SECONDS, check=False) for _ in range(2)]
    for run in runs:
        check(run.returncode == 0, f"exit code {run.returncode}; {run.stdout[-2000:].decode(errors='replace')}")
    lines = [run.stdout.decode(errors="replace").splitlines() for run in runs]
    for first, second in zip(*lines):
        check(first == second, f"the runs differ:\n{first}\n{second}")
    check(len(lines[0]) == len(lines[1]) > 100, f"{len(lines[0])} and {len(lines[1])} lines")


@case
def lockstep(bench):
    """Both tiers of the software engine take a stock kernel through the same states (tools/lockstep.py)."""
    tool = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "lockstep.py")
    initrd = os.path.join(bench.folder, "initrd-script")
    flavour = bench.options.flavour
    script = "".join(("seq 3000 | md5sum\n", "seq 2000 | gzip -9 | gunzip | sha256sum\n", "echo 2^500 | bc\n",
                      "awk 'BEGIN { for (i = 0; i < 20000; i++) s += sqrt(i); print s }'\n",
                      "for i in 1 2 3 4 5 6 7 8; do (cat /proc/cpuinfo | sort | sha1sum) & done; wait\n")) * bench.options.times
    guest_image.flavour_image(bench.flavour_folder(flavour), script).write(initrd)
    command = [sys.executable, tool, "--lodge", bench.options.lodge, "--every", "200000", "--",
               "--kernel", bench.kernel(flavour), "--initrd", initrd, "--append", "console=ttyS0", "-m", "256M"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    check(run.returncode == 0, f"exit code {run.returncode}:\n{run.stdout[-4000:]}")
    compared = int(re.search(r"no difference in ([\d,]+)", run.stdout)[1].replace(",", ""))
    check(compared > 300_000_000, f"only {compared:,} instructions were compared")


@case
def profile(bench):
    """--profile and --jitdump: a report of where the time went, and what perf needs to know of translated code."""
    report, folder = os.path.join(bench.folder, "report"), os.path.join(bench.folder, "jit")
    os.mkdir(folder)
    with bench.booted("--profile", report, "--jitdump", folder) as guest:
        answer(guest, "seq 20000 | md5sum")
        power_off(guest)
        guest.finish(END_SECONDS)
    with open(report, encoding="utf-8") as stream:
        text = stream.read()
    samples = int(re.search(r"threads, (\d+) samples", text)[1])
    check(samples > 20, f"only {samples} samples:\n{text}")
    shares = [float(share) for share in re.findall(r"^ +([\d.]+) %", text.split("\nTranslated blocks")[0], re.MULTILINE)]
    check(len(shares) == 5 and abs(sum(shares) - 100) < 1, f"shares {shares} are not those of a whole:\n{text}")
    check(re.search(r"%  0xffffffff[0-9a-f]{8}  kernel", text), f"no block of the kernel:\n{text}")
    for name in ("runs of second-tier code", "exceptions", "interrupts", "page walks for data", "blocks translated by the second tier"):
        count = int(re.search(rf"^ +{re.escape(name)} +(\d+)$", text, re.MULTILINE)[1])
        check(count > 100, f"{count} {name}:\n{text}")
    files = os.listdir(folder)
    check(len(files) == 1 and re.fullmatch(r"jit-\d+\.dump", files[0]), f"{folder} holds {files}")
    with open(os.path.join(folder, files[0]), "rb") as stream:
        data = stream.read()
    check(data[:8] == b"DTiJ\x01\x00\x00\x00", f"the dump begins with {data[:8]}")
    at, names = 40, []
    while at < len(data):
        kind, size = int.from_bytes(data[at:at + 4], "little"), int.from_bytes(data[at + 4:at + 8], "little")
        check(kind == 0 and size > 56, f"record {kind} of {size} bytes at {at}")
        name = data[at + 56:data.index(b"\0", at + 56)].decode()
        code = int.from_bytes(data[at + 40:at + 48], "little")
        check(size == 56 + len(name) + 1 + code, f"{name}: {size} bytes, code {code}")
        names.append(name)
        at += size
    check(at == len(data) and len(names) > 1000, f"{len(names)} records, {at} of {len(data)} bytes")
    check(all(re.fullmatch(r"guest (user|kernel) 0x[0-9a-f]+", name) for name in names), "a record has another name")


# Each a fixed amount of work, checked by stress-ng itself.
STRESSORS = ("--cpu 2 --cpu-ops 60", "--vm 2 --vm-bytes 16M --vm-ops 2000", "--fault 1 --fault-ops 2000", "--signal 1 --signal-ops 20000",
             "--fork 2 --fork-ops 400", "--switch 2 --switch-ops 20000", "--futex 2 --futex-ops 2000",
             "--mmap 1 --mmap-bytes 4M --mmap-ops 20", "--timer 1 --timer-ops 500", "--tlb-shootdown 2 --tlb-shootdown-ops 200",
             "--icache 2 --icache-ops 40", "--membarrier 2 --membarrier-ops 50", "--atomic 2 --atomic-ops 200")


@case
def stress(bench):
    """stress-ng --verify in a guest: processors, memory, faults, signals, processes, TLB shoot-downs, code that changes."""
    program = shutil.which("stress-ng")
    if not program:
        raise Skip("there is no stress-ng")
    options = bench.options
    lines = ["cd /tmp"] + [f"{program} --verify --temp-path /tmp --no-rand-seed --oomable -q {stressor} && echo stress-ok"
                           for stressor in STRESSORS] * options.times
    image = guest_image.flavour_image(bench.flavour_folder(options.flavour), "\n".join(lines) + "\n")
    image.program(program)
    initrd = os.path.join(bench.folder, "initrd-script")
    image.write(initrd)
    command = bench.command(flavour=options.flavour, cpus=options.cpus, initrd=initrd, append="quiet")
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         timeout=(BOOT_SECONDS + END_SECONDS) * options.times, check=False)
    output = run.stdout.decode(errors="replace")
    check(run.returncode == 0, f"exit code {run.returncode}:\n{output[-3000:]}")
    passed = output.count("stress-ok")
    check(passed == len(STRESSORS) * options.times, f"{passed} of {len(STRESSORS) * options.times} stressors passed:\n{output[-3000:]}")


@case
def power_button(bench):
    """The first SIGTERM or SIGINT is the power button: the guest shuts down by itself, exit code 0."""
    with bench.booted() as guest:
        guest.run("pidof acpid", COMMAND_SECONDS)
        guest.signal(getattr(signal, bench.options.signal))
        code = guest.finish(END_SECONDS)
        check(code == 0, f"exit code {code}; {guest.last_output()}")
        check("lodge-guest: power button" in guest.output, f"the guest saw no power button; {guest.last_output()}")


@case
def second_signal(bench):
    """A guest that does not react to its power button is ended by the second signal."""
    with bench.booted() as guest:
        answer(guest, "killall acpid")
        guest.signal(signal.SIGTERM)
        check(answer(guest, "echo still here") == "still here", "the guest did not go on")
        guest.signal(signal.SIGTERM)
        code = guest.finish(END_SECONDS)
        check(code == 128 + signal.SIGTERM, f"exit code {code}; {guest.last_output()}")


def descendants():
    """The command names of all processes whose parent is this one: proc(5), /proc/PID/stat."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            name, _, rest = stream.read().partition("(")[2].rpartition(")")
            if int(rest.split()[1]) == os.getpid():
                found.append(name)
    return found


@case
def killed(bench):
    """SIGKILL leaves nothing behind: no process, no file."""
    scratch = bench.path("scratch")
    os.mkdir(scratch)
    os.environ["TMPDIR"] = os.environ["XDG_RUNTIME_DIR"] = scratch
    shared_before = set(os.listdir("/dev/shm"))
    with bench.booted() as guest:
        guest.signal(signal.SIGKILL)
        code = guest.finish(END_SECONDS)
        check(code == 128 + signal.SIGKILL, f"exit code {code}")
    check(not descendants(), f"processes are left: {descendants()}")
    # The folder of running machines stays for the next one. Who clears away is told of the end by the kernel, as this test is.
    def files():
        return [os.path.join(folder, name) for folder, _, names in os.walk(scratch) for name in names]

    deadline = time.monotonic() + END_SECONDS
    while files() and time.monotonic() < deadline:
        time.sleep(0.05)
    check(not files(), f"files are left: {files()}")
    left = {name for name in set(os.listdir("/dev/shm")) - shared_before if "lodge" in name}
    check(not left, f"files are left in /dev/shm: {left}")


@case
def idle(bench):
    """An idle guest halts: over five seconds it uses less than half of them on the host's processor."""
    with bench.booted() as guest:
        answer(guest, "sync; sleep 2")
        before = cpu_seconds(guest.process.pid)
        start = time.monotonic()
        time.sleep(5)
        used, passed = cpu_seconds(guest.process.pid) - before, time.monotonic() - start
        check(used < passed / 2, f"an idle guest used {used:.2f} s of {passed:.2f} s")
        power_off(guest)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
        fields = stream.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)


@case
def process_names(bench):
    """ps shows `lodge NAME`, and each virtual processor has a thread of its name."""
    with bench.booted(cpus=2) as guest:
        pid = guest.process.pid
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as stream:
            shown = stream.read().replace("\0", " ")
        check(re.search(r"lodge guest-test", shown), f"ps shows {shown!r}")
        threads = set()
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as stream:
                threads.add(stream.read().strip())
        check({"vcpu0", "vcpu1"} <= threads, f"threads are {sorted(threads)}")
        power_off(guest)


@case
def workload(bench):
    """Other people's programs compute in the guest what they compute natively."""
    native = bench.path("native")
    os.mkdir(native)
    expected = subprocess.run(["/bin/busybox", "sh", os.path.join(HERE, "workload.sh"), native, HERE],
                              capture_output=True, text=True, check=False)
    if expected.returncode != 0:
        raise Skip(f"the workload does not run natively here: {expected.stderr.strip()[-300:]}")
    initrd = bench.path("workload-initrd")
    workload_image.image(bench.flavour_folder("cloud-amd64")).write(initrd)
    command = bench.command(cpus=2, memory="2G", append="quiet", initrd=initrd)
    with Console(command) as guest:
        guest.expect("lodge-guest runs", BOOT_SECONDS)
        guest.expect(r"lodge-guest done: \d+", 800)
        code = guest.finish(END_SECONDS)
    check(code == 0, f"exit code {code}; {guest.last_output()}")
    output = guest.output.replace("\r", "")
    match = re.search(r"^== data\n.*^== end\n", output, re.MULTILINE | re.DOTALL)
    check(match, f"the workload did not come to its end; {guest.last_output()}")
    compare(expected.stdout, match.group(0))


def compare(native, guest):
    differences = [f"native: {left}\nguest:  {right}" for left, right in
                   zip(native.splitlines(), guest.splitlines(), strict=False) if left != right]
    check(native == guest, f"{len(differences)} lines differ from the native run, first of them:\n" + "\n".join(differences[:5]))


def refused(bench, *arguments, words=()):
    """lodge run with bad input: exit code 2, a message that names what is wrong, no guest started."""
    result = subprocess.run([bench.options.lodge, "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=60, check=False)
    said = " ".join(arguments)[:120]
    check(result.returncode == 2, f"{said}: exit code {result.returncode}, not 2:\n{result.stdout[-500:]}{result.stderr[-1000:]}")
    check(result.stderr.strip(), f"{said}: no message")
    for word in words:
        check(word in result.stderr, f"{said}: the message does not name {word!r}:\n{result.stderr[-1000:]}")


@case
def bad_input(bench):
    """Bad files, sizes and options: exit code 2 and a message that names what is wrong."""
    kernel, initrd = bench.kernel("cloud-amd64"), bench.initrd("cloud-amd64")
    with open(kernel, "rb") as stream:
        image = stream.read()
    files = {
        "empty": b"",
        "text": b"This is no kernel.\n" * 2000,
        "truncated": image[:20000],
        "half": image[:len(image) // 2],
        "short-elf": b"\x7fELF\x02\x01\x01" + bytes(57),
        "zeros": bytes(1 << 20),
    }
    for name, data in files.items():
        path = bench.path(f"kernel-{name}", data)
        refused(bench, "--kernel", path, "--engine", "soft", words=(path,))
    missing = bench.path("nowhere")
    refused(bench, "--kernel", missing, words=(missing,))
    refused(bench, "--kernel", bench.folder, words=(bench.folder,))
    refused(bench, "--kernel", kernel, "--initrd", missing, words=(missing,))
    refused(bench)
    valid = ("--kernel", kernel, "--initrd", initrd, "--engine", "soft")
    refused(bench, *valid, "-m", "2M", words=("memory",))
    large = bench.path("large-initrd", bytes(64 << 20))
    refused(bench, "--kernel", kernel, "--initrd", large, "--engine", "soft", "-m", "48M", words=("memory",))
    for size in ("0", "nonsense", "-1G", "512X", "1000000G"):
        refused(bench, *valid, f"-m={size}" if size.startswith("-") else "-m", *([] if size.startswith("-") else [size]))
    for count in ("0", "100000", "two"):
        refused(bench, *valid, "-c", count)
    refused(bench, *valid, "--no-such-option", words=("--no-such-option",))
    refused(bench, "--kernel", kernel, "--engine", "warp", words=("warp",))
    refused(bench, *valid, "--serial", "nowhere:x")
    if not proof_works(bench):
        refused(bench, "--kernel", kernel, "--initrd", initrd, "--engine", "kvm", words=("soft",))


def check_report(bench):
    result = subprocess.run([bench.options.lodge, "check", "--json"], capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, json.loads(result.stdout)


def proof_works(bench):
    return check_report(bench)[1]["facts"]["proof"]["works"]


@case
def check_command(bench):
    """lodge check: both forms agree with each other and with what this test can see of the host itself."""
    code, report = check_report(bench)
    check(code == (0 if report["works"] else 1), f"exit code {code}, works: {report['works']}")
    check(report["engine"] == ("kvm" if report["facts"]["proof"]["works"] else "soft"), f"engine {report['engine']}")
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        flags = set(re.search(r"^flags\s*: (.*)$", stream.read(), re.MULTILINE).group(1).split())
    processor = report["facts"]["processor"]
    check(processor["vmx"] == ("vmx" in flags) and processor["svm"] == ("svm" in flags), f"processor: {processor}")
    check(report["facts"]["kvm_device"]["present"] == os.path.exists("/dev/kvm"), "presence of /dev/kvm")
    text = subprocess.run([bench.options.lodge, "check"], capture_output=True, text=True, timeout=60, check=False).stdout
    check(f"`--engine auto` takes {report['engine']}" in text, f"the text names another engine:\n{text}")


CASES["check"] = CASES.pop("check_command")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lodge", required=True)
    parser.add_argument("--guests", required=True, help="the folder that tools/guest-kernels.sh fills")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--flavour", default="cloud-amd64", choices=("amd64", "cloud-amd64", "686-pae", "686"))
    parser.add_argument("--machine", default="pc", choices=("pc", "q35"), help="of cases that start with firmware")
    parser.add_argument("--platform", default=grub_cd.BIOS, choices=(grub_cd.BIOS, grub_cd.UEFI), help="install: by this firmware")
    parser.add_argument("--interface", default="", choices=("", "virtio"), help="install: the disk's, instead of the machine's own")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--times", type=int, default=1, help="lockstep and stress: the guest's work so many times")
    parser.add_argument("--signal", default="SIGTERM", choices=("SIGTERM", "SIGINT"))
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="lodge-guest-") as folder:
            # The names of machines are its own.
            os.environ["XDG_RUNTIME_DIR"] = folder
            CASES[options.case](Bench(options, folder))
    except Skip as reason:
        print(f"SKIP: {reason}")
        return 77
    except (ConsoleError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
