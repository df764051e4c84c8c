"""Conversations with registers, held with Lodge's machine and with QEMU's: a firmware made of interpreter.s and a script runs on both, and what it
reads is compared. Where the two differ, the conversation says why, or it fails; it fails too where it says so and they do not."""
import os
import struct
import subprocess

ROM_BYTES, CODE_BYTES = 256 << 10, 4 << 10
BASE = 0x200000  # where the interpreter runs: in an even megabyte, which the gate of A20 leaves alone
RUN_SECONDS = 60
EXIT_CODE = 33  # what the interpreter ends with
OPERATIONS = {name: number for number, name in enumerate(
    ("finish", "port_write", "port_read", "memory_write", "memory_read", "port_wait", "memory_wait", "port_string", "memory_string",
     "memory_jump", "triple_fault"))}


CONVERSATIONS = {}


def conversation(function):
    """A function of the script and of a folder for files, which gives the arguments of converse() if there are any."""
    CONVERSATIONS[function.__name__] = function
    return function


class PeerError(Exception):
    """What failed, as lines."""


class Script:
    """What is written and read, one after the other. A read's `mask` are the bits that count; `differs` is the reason why the two machines do not
    answer alike (both may be functions of the number within a row), and `free` the reason why nothing can be said of it."""

    def __init__(self):
        self.records, self.reads, self.topic = [], [], ""

    def about(self, topic):
        """Stands before what follows, in messages."""
        self.topic = topic

    def _add(self, operation, width, address, value=0, more=0):
        self.records.append(struct.pack("<BBHIII", OPERATIONS[operation], width, 0, address & 0xffffffff, value & 0xffffffff, more & 0xffffffff))

    def _read(self, operation, width, address, value=0, more=0, count=1, mask=0xffffffff, differs="", free="", note=""):
        self._add(operation, width, address, value, more)
        kind = "port" if operation.startswith("port") else "memory"
        for number in range(count):
            at = address + (number * width if operation == "memory_string" else 0)
            what = f"{self.topic}: {note + ' ' if note else ''}{kind} {at:#x}" + (f" [{number}]" if operation == "port_string" else "")
            self.reads.append((what, mask(number) if callable(mask) else mask, differs(number) if callable(differs) else differs, free,
                               more if operation.endswith("wait") else None))

    def out(self, width, port, *values):
        for value in values:
            self._add("port_write", width, port, value)

    def outb(self, port, *values):
        self.out(1, port, *values)

    def outw(self, port, *values):
        self.out(2, port, *values)

    def outl(self, port, *values):
        self.out(4, port, *values)

    def inb(self, port, **how):
        self._read("port_read", 1, port, **how)

    def inw(self, port, **how):
        self._read("port_read", 2, port, **how)

    def inl(self, port, **how):
        self._read("port_read", 4, port, **how)

    def ins(self, width, port, count, **how):
        self._read("port_string", width, port, count, count=count, **how)

    def wait(self, port, bits, wanted, width=1, **how):
        """Until the bits are as wanted; what they are in the end is an answer too."""
        self._read("port_wait", width, port, bits, wanted, **how)

    def store(self, width, address, *values):
        """At the same address, one after the other."""
        for value in values:
            self._add("memory_write", width, address, value)

    def fill(self, address, data):
        """Bytes, a whole number of dwords."""
        for at in range(0, len(data), 4):
            self._add("memory_write", 4, address + at, struct.unpack_from("<I", data, at)[0])

    def load(self, width, address, count=1, **how):
        self._read("memory_string", width, address, count, count=count, **how)

    def wait_memory(self, address, bits, wanted, width=4, **how):
        self._read("memory_wait", width, address, bits, wanted, **how)

    def stages(self, address, parts):
        """What is said after each start of the processor: how many there have been is kept at this address. Each part ends the last one."""
        jumps = len(self.records)
        for number in range(1, len(parts)):
            self._add("memory_jump", 1, address, 0xff, number)
        for number, part in enumerate(parts):
            if number > 0:
                where = len(self.records)
                record = bytearray(self.records[jumps + number - 1])
                struct.pack_into("<H", record, 2, where)
                self.records[jumps + number - 1] = bytes(record)
            self.store(1, address, number + 1)
            part()
            if number < len(parts) - 1:
                self._add("finish", 0, 0)  # it has not: there are answers missing

    def triple_fault(self):
        self._add("triple_fault", 0, 0)

    # --- PCI configuration (mechanism #1)
    def config_at(self, device, function, register, bus=0):
        self.outl(0xcf8, 0x80000000 | bus << 16 | device << 11 | function << 8 | (register & 0xfc))
        return 0xcfc + register % 4

    def config_read(self, device, function, register, width=4, bus=0, note="", **how):
        port = self.config_at(device, function, register, bus)
        self._read("port_read", width, port, note=f"{note + ' ' if note else ''}{bus:02x}:{device:02x}.{function} register {register:#04x} by", **how)

    def config_write(self, device, function, register, value, width=4, bus=0):
        self.out(width, self.config_at(device, function, register, bus), value)


def make_rom(folder, script):
    """The firmware's file: the script, and behind it the interpreter."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interpreter.s")
    rules, compiled, code = (os.path.join(folder, name) for name in ("interpreter.ld", "interpreter.o", "interpreter.bin"))
    with open(rules, "w", encoding="ascii") as out:
        out.write(f"SECTIONS {{ script = {BASE:#x}; . = {BASE + ROM_BYTES - CODE_BYTES:#x}; .text : {{ *(.text) }}\n"
                  f"  . = {BASE + ROM_BYTES - 16:#x}; .reset : {{ *(.reset) }} /DISCARD/ : {{ *(*) }} }}\n")
    for command in (["as", "--32", "-o", compiled, source], ["ld", "-m", "elf_i386", "-T", rules, "--oformat", "binary", "-o", code, compiled]):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise PeerError(f"{' '.join(command)}:\n{made.stderr}")
    with open(code, "rb") as stream:
        interpreter = stream.read()
    records = b"".join(script.records) + struct.pack("<BBHIII", 0, 0, 0, 0, 0, 0)
    if len(interpreter) != CODE_BYTES or len(records) > ROM_BYTES - CODE_BYTES:
        raise PeerError(f"the script ({len(records)} bytes) or the interpreter ({len(interpreter)}) does not fit")
    rom = os.path.join(folder, "rom.bin")
    with open(rom, "wb") as out:
        out.write(records.ljust(ROM_BYTES - CODE_BYTES, b"\0") + interpreter)
    return rom


def listen(command, answers):
    """Runs the machine; the numbers that its firmware has said."""
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        raise PeerError(f"{' '.join(command)}:\nno end after {RUN_SECONDS} s") from late
    with open(answers, "rb") as stream:
        said = stream.read()
    if run.returncode != EXIT_CODE:
        raise PeerError(f"{' '.join(command)}:\nexit code {run.returncode} after {len(said) // 4} answers\n{run.stdout}{run.stderr}")
    return list(struct.unpack(f"<{len(said) // 4}I", said[:len(said) // 4 * 4]))


def compare(script, ours, theirs):
    """The lines of what is not as it should be."""
    wrong = []
    if not len(ours) == len(theirs) == len(script.reads):
        return [f"{len(script.reads)} reads, {len(ours)} answers of Lodge, {len(theirs)} of QEMU"]
    excused, alike = {}, set()
    for (what, mask, differs, free, wanted), our, their in zip(script.reads, ours, theirs):
        same = our & mask == their & mask
        if wanted not in (None, our, their) and not free:
            wrong.append(f"{what}: waited for {wanted:#x} in vain: Lodge {our:#x}, QEMU {their:#x}")
        if differs:
            excused[differs] = what
            if not same:
                alike.add(differs)
        elif not free and not same:
            wrong.append(f"{what}: Lodge {our:#x}, QEMU {their:#x}" + (f" (of the bits {mask:#x})" if mask != 0xffffffff else ""))
    wrong += [f"{what}: both answer alike now, so this is no reason any more: {reason}" for reason, what in excused.items() if reason not in alike]
    return wrong


def converse(folder, script, lodge, qemu="qemu-system-x86_64", machine="pc", ours=(), theirs=(), engine="soft", resets=False):
    """Holds the conversation with both; `ours` and `theirs` are the arguments that give them the same devices. `resets`: in its
    course the machine, or its processor, starts again."""
    rom = make_rom(folder, script)
    answers = {name: os.path.join(folder, f"{name}.answers") for name in ("lodge", "qemu")}
    mine = listen([lodge, "run", "--machine", machine, "--firmware", rom, "-m", "64M", "--engine", engine, "--serial", "null",
                   *([] if resets else ["--no-reboot"]), "--debug-exit", "--debug-console", f"file:{answers['lodge']}", "--name", f"peer-{os.getpid()}",
                   *(ours if "--net" in ours else ["--net", "none", *ours])],
                  answers["lodge"])
    peer = listen([qemu, "-M", machine, "-accel", "tcg", "-bios", rom, "-m", "64M", "-nodefaults", "-display", "none", "-serial", "null", *([] if resets else ["-no-reboot"]),
                   "-debugcon", f"file:{answers['qemu']}", "-global", "isa-debugcon.iobase=0x402", "-device",
                   "isa-debug-exit,iobase=0x501,iosize=0x04", *theirs], answers["qemu"])
    return compare(script, mine, peer)
