#!/usr/bin/env python3
"""The demo without a terminal: shows the guest's boot, types a few commands at its prompt and powers it off.

    tools/demo_console.py [--debian] build/lodge run ...

Returns 0 if the guest answered every command and powered off.
"""
import re
import sys

from console import DEBIAN_GREETING, PROMPT, READY, Console, ConsoleError, standard_output

# A translated guest on a busy machine takes its time; these only end what is stuck.
BOOT_SECONDS = 900
COMMAND_SECONDS = 120

BUSYBOX_GREETING = ((READY, None), (PROMPT, None))

BUSYBOX_COMMANDS = (
    ("uname -a", r"^Linux lodge-guest .*"),
    ("cat /proc/cpuinfo", r"^processor\s*: 0$"),
    ("nproc", r"^[1-9]\d*$"),
)
DEBIAN_COMMANDS = (
    ("cat /etc/os-release", r"^ID=debian$"),
    ("lsblk", r"^vda "),
    ("ip -4 -brief address show enp0s1", r"10\.0\.2\.15/24"),
    ("getent hosts deb.debian.org || echo no name server here", r"\w"),
)


def show(guest, greeting, commands):
    guest.answer_greeting(greeting, BOOT_SECONDS)
    for command, expected in commands:
        output, code = guest.run(command, COMMAND_SECONDS)
        if code != 0 or not re.search(expected, output, re.MULTILINE):
            raise ConsoleError(f"{command!r} returned {code} and printed:\n{output}")
    guest.type("poweroff\n")
    code = guest.finish(COMMAND_SECONDS)
    if code != 0:
        raise ConsoleError(f"the guest powered off, but the exit code is {code}")


def main():
    debian = sys.argv[1:2] == ["--debian"]
    try:
        with Console(sys.argv[1 + debian:], echo=standard_output()) as guest:
            show(guest, *((DEBIAN_GREETING, DEBIAN_COMMANDS) if debian else (BUSYBOX_GREETING, BUSYBOX_COMMANDS)))
    except (ConsoleError, OSError) as error:
        print(f"\nlodge demo: {error}", file=sys.stderr)
        return 1
    print("\nlodge demo: the guest booted, answered and powered off.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
