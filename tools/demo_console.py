#!/usr/bin/env python3
"""The demo without a terminal: shows the guest's boot, types a few commands at its prompt and powers it off.

    tools/demo_console.py build/lodge run ...

Returns 0 if the guest answered every command and powered off.
"""
import re
import sys

from console import PROMPT, READY, Console, ConsoleError, standard_output

# A translated guest on a busy machine takes its time; these only end what is stuck.
BOOT_SECONDS = 900
COMMAND_SECONDS = 120

COMMANDS = (
    ("uname -a", r"^Linux lodge-guest .*"),
    ("cat /proc/cpuinfo", r"^processor\s*: 0$"),
    ("nproc", r"^[1-9]\d*$"),
)


def show(guest):
    guest.expect(READY, BOOT_SECONDS)
    guest.expect(PROMPT, COMMAND_SECONDS)
    for command, expected in COMMANDS:
        output, code = guest.run(command, COMMAND_SECONDS)
        if code != 0 or not re.search(expected, output, re.MULTILINE):
            raise ConsoleError(f"{command!r} returned {code} and printed:\n{output}")
    guest.type("poweroff\n")
    code = guest.finish(COMMAND_SECONDS)
    if code != 0:
        raise ConsoleError(f"the guest powered off, but the exit code is {code}")


def main():
    try:
        with Console(sys.argv[1:], echo=standard_output()) as guest:
            show(guest)
    except (ConsoleError, OSError) as error:
        print(f"\nlodge demo: {error}", file=sys.stderr)
        return 1
    print("\nlodge demo: the guest booted, answered and powered off.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
