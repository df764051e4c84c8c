"""What the guests' test cases share: the program and the kernels, a guest at its prompt, and how a case says that it failed."""
import contextlib
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))

from console import DEBIAN_GREETING, PROMPT, READY, Console, ConsoleError  # noqa: E402  (the path above comes first)
import grub_cd  # noqa: E402, F401
import guest_image  # noqa: E402

BOOT_SECONDS = 360
COMMAND_SECONDS = 120
END_SECONDS = 120

CASES = {}


class Skip(Exception):
    """The case cannot run here; the message says why."""


def case(function):
    CASES[function.__name__] = function
    return function


def check(condition, message):
    if not condition:
        raise ConsoleError(message)


def ended(command, seconds=COMMAND_SECONDS):
    """A command that ends by itself, when it has."""
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)


def lodge(bench, *arguments):
    return ended([bench.options.lodge, *arguments])


class Bench:
    """What every case needs: the program, the kernels, a folder for its own files."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder

    def flavour_folder(self, flavour):
        folder = os.path.join(self.options.guests, flavour)
        if os.path.exists(os.path.join(folder, "vmlinuz")):
            return folder
        reason = f"no {flavour} kernel: run tools/guest-kernels.sh"
        with contextlib.suppress(OSError), open(os.path.join(folder, "unavailable"), encoding="utf-8") as stream:
            reason = stream.read().strip()
        raise Skip(reason)

    def kernel(self, flavour):
        return os.path.join(self.flavour_folder(flavour), "vmlinuz")

    def initrd(self, flavour):
        path = os.path.join(self.folder, "initrd")
        guest_image.flavour_image(self.flavour_folder(flavour)).write(path)
        return path

    def path(self, name, data=None):
        path = os.path.join(self.folder, name)
        if data is not None:
            with open(path, "wb") as out:
                out.write(data)
        return path

    @staticmethod
    def kept_folder():
        """For what a failing case leaves to look at."""
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "lodge-test-pictures")
        os.makedirs(path, exist_ok=True)
        return path

    def command(self, *arguments, flavour="cloud-amd64", cpus=1, memory="512M", append="", initrd=None):
        """lodge run with a guest; later arguments may override."""
        return [self.options.lodge, "run", "--kernel", self.kernel(flavour), "--initrd", initrd or self.initrd(flavour),
                "--append", f"console=ttyS0 {append}".strip(), "-m", memory, "-c", str(cpus),
                "--engine", self.options.engine, "--name", "guest-test", *arguments]

    @contextlib.contextmanager
    def booted(self, *arguments, terminal=False, **settings):
        """A guest at its prompt."""
        with Console(self.command(*arguments, **settings), terminal=terminal) as guest:
            reach_prompt(guest)
            yield guest


def reach_prompt(guest):
    guest.expect(READY, BOOT_SECONDS)
    guest.expect(PROMPT, COMMAND_SECONDS)


def answer(guest, command):
    output, code = guest.run(command, COMMAND_SECONDS)
    check(code == 0, f"{command!r} returned {code}:\n{output}")
    return output.strip()


def power_off(guest):
    guest.type("poweroff\n")
    code = guest.finish(END_SECONDS)
    check(code == 0, f"exit code {code} after poweroff; {guest.last_output()}")


def kernel_complaints(guest):
    """Oopses, warnings and stalls that the guest's kernel printed."""
    pattern = r"^.*(?:\bBUG:|WARNING: CPU|Oops|general protection|rcu: INFO|soft lockup|Kernel panic|unchecked MSR).*$"
    return re.findall(pattern, guest.output, re.MULTILINE)
