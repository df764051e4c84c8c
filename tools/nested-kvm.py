#!/usr/bin/env python3
"""Proves Lodge on the kernel's own KVM, on a machine without VT-x or SVM: a stock Debian kernel boots on QEMU's emulated
AMD processor with SVM, loads Debian's own kvm and kvm-amd modules, and there the engine suite runs, `lodge check` must
choose kvm, and `lodge run --engine kvm` takes a stock guest to its prompt and through its power off: by its kernel, and by
SeaBIOS and GRUB from a CD.

    tools/nested-kvm.py [--build build] [--verbose] [--suite-only] [--filter GTEST_FILTER]

Exit code 0: all passed; 1: something failed; 77: a part is missing here (QEMU, the kernel package).

What this cannot prove: TCG's own errors show through, so it checks Lodge's use of KVM, not silicon. One of them stops the whole
machine now and then (once in some 30 boots of a guest with two processors): an interrupt stays pending at its APIC while a nested
guest spins with its own interrupts off, which must leave guest mode for it. A run that ends so is begun again, a few times.
"""
import argparse
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from console import Console, ConsoleError, PROMPT  # noqa: E402
import grub_cd  # noqa: E402
import guest_image  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKIPPED = 77
ATTEMPTS = 5
LOOK_SECONDS = 20  # how long a silent machine is trusted
# In the order of their dependencies: kvm-amd needs symbols of ccp and kvm, kvm those of irqbypass.
MODULES = ("irqbypass", "kvm", "ccp", "kvm-amd")

SUITE = """
for module in @MODULES@; do
    insmod /nested/$module.ko || echo "nested: insmod $module failed"
done
@SUITE@ --engine kvm --processor tcg --gtest_brief=1 --gtest_filter='@FILTER@'
echo "nested: engine suite ended with $?"
"""
LODGE = """
@LODGE@ check --json >/tmp/check.json
echo "nested: check ended with $?, engine $(sed -n 's/^  "engine": "\\(.*\\)".*/\\1/p' /tmp/check.json)"
echo "nested: run begins"
@LODGE@ run --engine kvm --kernel /nested/vmlinuz --initrd /nested/initrd --append "console=ttyS0 quiet" -m 256M -c 2
echo "nested: run ended with $?"
echo "nested: run begins"
@LODGE@ run --engine kvm --cdrom /nested/cd.iso --net none -m 256M -c 2
echo "nested: run ended with $?"
"""
FIRMWARE = ("bios-256k.bin", "vgabios-stdvga.bin")


def provide_kernel():
    """The folder with Debian's kernel and modules; None if it cannot be had."""
    subprocess.run([os.path.join(ROOT, "tools/guest-kernels.sh"), "amd64"], check=False)
    folder = os.path.join(ROOT, "build/guests/amd64")
    return folder if os.path.exists(os.path.join(folder, "vmlinuz")) else None


def outer_image(kernel, options, scratch):
    """The initramfs of the machine that QEMU emulates: modules, programs, and the guest that runs in it."""
    suite = os.path.abspath(os.path.join(options.build, "tests/engine_suite"))
    lodge = os.path.abspath(os.path.join(options.build, "lodge"))
    script = SUITE if options.suite_only else SUITE + LODGE
    for name, value in (("MODULES", " ".join(MODULES)), ("SUITE", suite), ("LODGE", lodge), ("FILTER", options.filter)):
        script = script.replace(f"@{name}@", value)
    archive = guest_image.flavour_image(kernel, script)
    for module in MODULES:
        archive.host_file(os.path.join(kernel, f"modules/{module}.ko"), f"nested/{module}.ko")
    programs = [suite] if options.suite_only else [suite, lodge]
    for program in programs:
        archive.program(stripped(program, scratch))
        archive.link(program, stripped(program, scratch))
    if not options.suite_only:
        archive.host_file(os.path.join(kernel, "vmlinuz"), "nested/vmlinuz")
        inner = os.path.join(scratch, "inner-initrd")
        guest_image.flavour_image(kernel).write(inner)
        archive.host_file(inner, "nested/initrd")
        pc = os.path.join(scratch, "pc-initrd")
        guest_image.flavour_image(kernel, pc=True).write(pc)
        archive.host_file(grub_cd.make(scratch, os.path.join(kernel, "vmlinuz"), pc, "console=ttyS0 quiet"), "nested/cd.iso")
        for name in FIRMWARE:
            archive.host_file(os.path.join("/usr/share/seabios", name), f"usr/share/seabios/{name}")
    path = os.path.join(scratch, "initrd")
    archive.write(path)
    return path


def stripped(program, scratch):
    """A copy without debug information, which would only fill the initramfs."""
    copy = os.path.join(scratch, os.path.basename(program))
    if not os.path.exists(copy):
        subprocess.run(["strip", "-o", copy, program], check=True)
    return copy


class InterruptsLost(Exception):
    """The emulated machine takes none of the interrupts that its APIC has pending."""


class Monitor:
    """The emulator's; one that does not answer is a ConsoleError."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.ask(lambda: self.socket.connect(path))

    def ask(self, request):
        try:
            request()
            text = b""
            while not text.endswith(b"(qemu) "):
                more = self.socket.recv(65536)
                if not more:
                    raise ConsoleError("the emulator's monitor has ended")
                text += more
            return text.decode(errors="replace")
        except OSError as error:
            raise ConsoleError(f"the emulator's monitor does not answer: {error}") from error

    def command(self, text):
        return self.ask(lambda: self.socket.sendall(text.encode() + b"\n"))


def interrupts_are_lost(monitor):
    """Whether the same vector has been pending for seconds, with none in service."""
    samples = set()
    for _ in range(4):
        apic = monitor.command("info lapic")
        in_service, pending = (re.search(rf"{name}\s+(.*?)\s*\n", apic) for name in ("ISR", "IRR"))
        samples.add((in_service and in_service.group(1), pending and pending.group(1)))
        time.sleep(1)
    in_service, pending = samples.pop()
    return not samples and in_service == "(none)" and pending not in (None, "(none)")


class Machine:
    """The emulated machine's console, with a look at its interrupts when it says nothing for long."""

    def __init__(self, console, monitor, time_limit):
        self.console, self.monitor, self.time_limit = console, monitor, time_limit
        self.type = console.type

    def expect(self, pattern):
        deadline = time.monotonic() + self.time_limit
        while True:
            try:
                return self.console.expect(pattern, min(LOOK_SECONDS, max(0.1, deadline - time.monotonic())))
            except ConsoleError:
                if self.console.process.poll() is not None:
                    raise
                if interrupts_are_lost(self.monitor()):
                    raise InterruptsLost from None
                if time.monotonic() >= deadline:
                    raise


class Verdict:
    def __init__(self):
        self.failed = False

    def note(self, what, good, detail=""):
        self.failed = self.failed or not good
        print(f"{'pass' if good else 'FAIL'}: {what}{': ' + detail if detail else ''}", flush=True)


def follow(machine, options, verdict):
    """Goes through what the machine prints, and sits at the inner guest's prompt."""
    ended = machine.expect(r"nested: engine suite ended with (\d+)\s")
    verdict.note("the engine suite on the kernel's KVM", ended.group(1) == "0", f"exit code {ended.group(1)}")
    if options.suite_only:
        return
    ended = machine.expect(r"nested: check ended with (\d+), engine (\w*)\s")
    verdict.note("lodge check", ended.group(1) == "0" and ended.group(2) == "kvm", f"exit code {ended.group(1)}, engine '{ended.group(2)}'")
    for way in ("by its kernel", "by firmware from a CD"):
        follow_run(machine, options, verdict, way)


def follow_run(machine, options, verdict, way):
    machine.expect("nested: run begins")
    began = time.monotonic()
    found = machine.expect(rf"({PROMPT})|nested: run ended with \d+\s")
    verdict.note(f"lodge run --engine kvm reaches the guest's prompt, {way}", found.group(1) is not None, f"after {time.monotonic() - began:.0f} s")
    if found.group(1) is None:
        return
    # What is typed differs from what is printed, so that the terminal's echo does not count as the answer.
    machine.type('echo "processors": $(nproc).\n')
    found = machine.expect(r"processors: (\d+)\.")
    verdict.note("the guest's nproc", found.group(1) == "2", found.group(1))
    machine.expect(PROMPT)
    machine.type("poweroff\n")
    ended = machine.expect(r"nested: run ended with (\d+)\s")
    verdict.note("the guest's poweroff ends lodge", ended.group(1) == "0", f"exit code {ended.group(1)}")


def run(kernel, options):
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="lodge-nested-") as scratch:
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "EPYC,+svm", "-m", "1536", "-nographic", "-no-reboot", "-nodefaults",
                   "-serial", "stdio", "-monitor", f"unix:{scratch}/monitor,server,nowait", "-kernel", os.path.join(kernel, "vmlinuz"), "-initrd", outer_image(kernel, options, scratch),
                   "-append", "console=ttyS0 panic=-1 quiet"]
        with Console(command, echo=sys.stdout.buffer if options.verbose else None) as console:
            monitor = functools.cache(lambda: Monitor(os.path.join(scratch, "monitor")))
            try:
                follow(Machine(console, monitor, options.time_limit), options, verdict)
            except ConsoleError as error:
                verdict.note("the nested machine", False, str(error))
            if verdict.failed and not options.verbose:
                print(console.output[-20000:])
    return 1 if verdict.failed else 0


def main():
    parser = argparse.ArgumentParser(description="Runs Lodge on the kernel's KVM inside an emulated AMD machine.")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="the build folder with lodge and tests/engine_suite")
    parser.add_argument("--verbose", action="store_true", help="show the machine's console")
    parser.add_argument("--suite-only", action="store_true", help="only the engine suite")
    parser.add_argument("--filter", default="*", help="a GoogleTest filter for the engine suite")
    parser.add_argument("--time-limit", type=float, default=150, help="seconds that one step may take")
    options = parser.parse_args()
    if not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
        return SKIPPED
    kernel = provide_kernel()
    if kernel is None:
        print("skipped: there is no Debian kernel to boot (tools/guest-kernels.sh amd64)")
        return SKIPPED
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return run(kernel, options)
            except InterruptsLost:
                print(f"the emulated machine has stopped taking interrupts, which is its own fault (run {attempt} of {ATTEMPTS})", flush=True)
        print("FAIL: no run came to its end")
        return 1
    except (grub_cd.CannotMake, OSError) as error:
        print(f"skipped: {error}")
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
