#!/usr/bin/env python3
"""Runs a guest twice under the virtual clock, in the first and in the second tier of Lodge's own engine, compares the processor's state
every so many instructions, and narrows the first difference down to one block.

    tools/lockstep.py [--lodge build/lodge] [--every N] [--until N] [--timeout S] -- --kernel FILE --initrd FILE --append "..." ...

Exit code: 0 when the runs agree, 1 with the first differing states, 2 for bad usage.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile
import threading

FIELDS = (["instructions", "rip"] +
          ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] + [f"r{i}" for i in range(8, 16)] +
          ["rflags", "cr0", "cr1", "cr2", "cr3", "cr4", "efer"] +
          [f"{s}.base" for s in ("es", "cs", "ss", "ds", "fs", "gs")] + ["selectors", "vector"])
RECORD = struct.Struct(f"<{len(FIELDS)}Q")


class Run:
    """One guest, its states read from a pipe as they come, so that a run that is ahead waits."""

    def __init__(self, options, tier, every, start, folder):
        self.fifo = os.path.join(folder, f"tier{tier}")
        if os.path.exists(self.fifo):
            os.unlink(self.fifo)
        os.mkfifo(self.fifo)
        command = [options.lodge, "run", "--engine", "soft", "--virtual-clock", "--soft-tier", str(tier), "--no-reboot",
                   "--state-trace", f"{self.fifo},{every},{start}"] + options.arguments
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""
        threading.Thread(target=self._collect, daemon=True).start()
        self.stream = open(self.fifo, "rb")

    def _collect(self):
        while chunk := self.process.stdout.read1(65536):
            self.output += chunk

    def next(self):
        data = self.stream.read(RECORD.size)
        return RECORD.unpack(data) if len(data) == RECORD.size else None

    def end(self):
        self.process.kill()
        self.process.wait()
        self.stream.close()


def compare(options, every, start, until, folder):
    """(last equal state's instructions, first differing pair) or (instructions compared, None)."""
    runs = [Run(options, tier, every, start, folder) for tier in (1, 2)]
    timer = threading.Timer(options.timeout, lambda: [run.process.kill() for run in runs])
    timer.start()
    equal = start
    try:
        while True:
            a, b = (run.next() for run in runs)
            if a is None and b is None:
                return equal, None
            if a != b:
                return equal, (a, b)
            equal = a[0]
            if until and equal >= until:
                return equal, None
    finally:
        timer.cancel()
        for run in runs:
            run.end()
        if options.verbose:
            for tier, run in enumerate(runs, 1):
                print(f"--- tier {tier} said:", run.output.decode(errors="replace")[-1500:], sep="\n")


def show(pair):
    a, b = pair
    if a is None or b is None:
        print(f"only the run in tier {1 if a else 2} went on")
        return
    for name, x, y in zip(FIELDS, a, b):
        print(f"  {name:14} {x:#018x} {y:#018x}" + ("   <--" if x != y else "") if x != y or name in ("instructions", "rip") else
              f"  {name:14} {x:#018x}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default="build/lodge")
    parser.add_argument("--every", type=int, default=1_000_000, help="instructions between two comparisons")
    parser.add_argument("--until", type=int, default=0, help="stop after so many instructions (default: at the guest's end)")
    parser.add_argument("--timeout", type=float, default=3600)
    parser.add_argument("--trail", type=int, default=70, help="how many instructions to show before the first difference")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("arguments", nargs="+", help="options of lodge run")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        equal, difference = compare(options, options.every, 0, options.until, folder)
        if not difference:
            print(f"no difference in {equal:,} instructions")
            return 0
        print(f"difference after {equal:,} instructions", flush=True)
        # A state that is asked for is reached by single instructions from the block before it on, which the first tier runs. So the
        # first state to differ is that behind the block at fault, however far apart the others are.
        low, high = equal, max((pair[0] for pair in difference if pair), default=equal + options.every)
        while high - low > 1:
            middle = (low + high) // 2
            _, finer = compare(options, 1 << 40, middle, middle, folder)
            if finer:
                high, difference = middle, finer
            else:
                low = middle
        trail = Run(options, 1, 1, max(0, high - options.trail), folder)
        states = []
        while (state := trail.next()) and state[0] <= high:
            states.append(state)
        trail.end()
        print(f"the states differ first after {high:,} instructions: tier 1, tier 2")
        show(difference)
        print("the way there:", " ".join(f"{state[1]:x}" for state in states))
        return 1


if __name__ == "__main__":
    sys.exit(main())
