"""What drivers, and curious ones, say to controllers of disks."""
import os

from peer import conversation

SECTOR, CD_SECTOR = 512, 2048
DISK_SECTORS = 20160  # 20 cylinders of 16 heads and 63 sectors
BUSY, DSC = 0x80, 0x10  # of a status; the second says nothing since ATA-4
# Of IDENTIFY. Serial number, firmware's revision, model; and what the devices offer, where they are different devices: words that are no more
# (4, 5, 20, 21, 22, 48, 52, 53, 62), IORDY (49), times (65 to 68, 71, 72), sectors at once (59), queues (75, 76), TRIM and zeros behind it (69, 105), standards and features
# (50, 78, 80 to 87), the mode of UDMA (88) and how the reset found that (93), the sector's physical size (106), numbers (108 to 111), no spindle
# (217), transport (222), sum (255).
STRINGS = {*range(10, 20), *range(23, 47)}
NOT_COMPARED = STRINGS | {4, 5, 20, 21, 22, 48, 49, 50, 52, 53, 59, 62, *range(65, 73), 75, 76, 78, *range(80, 89), 93, 105, 106, *range(108, 112), 217, 222, 255}


def image(folder, name, size, seed):
    path = os.path.join(folder, name)
    with open(path, "wb") as out:
        out.write(b"".join(bytes((at * 7 + seed + byte) & 0xff for byte in range(16)) * (SECTOR // 16) for at in range(size // SECTOR)))
    return path


class Channel:
    """An IDE channel: its ports, and the questions that are always the same."""

    def __init__(self, s, base, control):
        self.s, self.base, self.control = s, base, control

    def registers(self, moved=False, differs=""):
        """Error, count, the three of the address, device, status. `moved`: behind a transfer."""
        for register in range(1, 8):
            if register in range(2, 7) and moved:
                self.s.inb(self.base + register, free="what is in them after a transfer is nowhere said (ATA-4 on)")
            else:
                self.s.inb(self.base + register, mask=~DSC if register == 7 else 0xff, differs=differs if register == 1 else "")

    def command(self, command, device=0xe0, features=0, count=0, lba=0):
        s = self.s
        s.outb(self.base + 6, device | (lba >> 24 & 0xf if device & 0x40 else 0))
        for register, value in ((1, features), (2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
            s.outb(self.base + register, value & 0xff)
        s.outb(self.base + 7, command)

    def idle(self):
        self.s.wait(self.control, BUSY, 0, note="until it is not busy,")

    def data(self, **how):
        self.idle()
        self.s.inb(self.base + 7)
        self.s.ins(2, self.base, SECTOR // 2, **how)

    def put(self, value):
        self.idle()
        self.s.inb(self.base + 7)
        self.s.outw(self.base, *([value] * (SECTOR // 2)))


def ide_machine(folder):
    disk, cd = image(folder, "disk", DISK_SECTORS * SECTOR, 1), image(folder, "cd.iso", 64 * CD_SECTOR, 2)
    copies = [image(folder, "disk.peer", DISK_SECTORS * SECTOR, 1), image(folder, "cd.peer", 64 * CD_SECTOR, 2)]
    return {"ours": ["--drive", f"file={disk},format=raw", "--drive", f"file={cd},media=cdrom,check=off"],
            "theirs": ["-drive", f"file={copies[0]},format=raw,if=ide,index=0", "-drive", f"file={copies[1]},format=raw,if=ide,media=cdrom,index=2"]}


@conversation
def ide_disk(s, folder):
    disk = Channel(s, 0x1f0, 0x3f6)
    s.about("after power-on")
    disk.idle()
    disk.registers(differs="a reset ends with the diagnostics' code; QEMU's begins without")
    s.inb(disk.control)
    s.about("identify")
    disk.command(0xec, 0xa0)
    disk.data(mask=lambda word: 0 if word in NOT_COMPARED else 0xffff)
    disk.registers()
    s.about("software reset")
    s.outb(disk.control, 0x0c)
    s.inb(disk.control, free="the disk is busy until the bit goes down again; QEMU's for a moment only")
    s.outb(disk.control, 0x08)
    disk.idle()
    disk.registers()
    s.about("diagnostics")
    disk.command(0x90, 0xa0)
    disk.idle()
    disk.registers()
    s.about("a read of two sectors")
    disk.command(0x20, count=2, lba=5)
    disk.data()
    disk.data()
    disk.registers(moved=True)
    s.about("a read by cylinder, head and sector")
    disk.command(0x20, 0xa3, count=1, lba=0x000207)
    disk.data()
    disk.registers(moved=True)
    s.about("a write, and what it wrote")
    disk.command(0x30, count=2, lba=9)
    disk.put(0x1234)
    disk.put(0x5678)
    disk.idle()
    disk.registers(moved=True)
    disk.command(0x20, count=2, lba=9)
    disk.data()
    disk.data()
    s.about("several at once")
    disk.command(0xc6, 0xe0, count=3)
    disk.idle()
    disk.registers()
    disk.command(0xc6, 0xe0, count=8)
    disk.idle()
    disk.registers()
    disk.command(0xc4, count=3, lba=30)
    disk.idle()
    s.inb(disk.base + 7)
    s.ins(2, disk.base, 3 * SECTOR // 2)
    disk.registers(moved=True)
    s.about("48 bits")
    for register, value in ((2, 0), (2, 1), (3, 0), (3, 40), (4, 0), (4, 0), (5, 0), (5, 0)):
        s.outb(disk.base + register, value)
    s.outb(disk.base + 6, 0xe0)
    s.outb(disk.base + 7, 0x24)
    disk.data()
    disk.registers(moved=True)
    s.about("largest address")
    disk.command(0xf8, 0xe0)
    disk.idle()
    disk.registers()
    disk.command(0x27, 0xe0)
    disk.idle()
    disk.registers()
    s.about("behind the end")
    disk.command(0x20, count=1, lba=DISK_SECTORS)
    disk.idle()
    disk.registers(moved=True, differs="the sector is not found (IDNF); QEMU aborts the command")
    s.about("commands without data")
    for name, command in (("recalibrate", 0x10), ("seek", 0x70), ("verify", 0x40), ("parameters", 0x91), ("flush", 0xe7), ("flush ext", 0xea),
                          ("idle at once", 0xe1), ("standby at once", 0xe0), ("power mode", 0xe5), ("idle", 0xe3), ("standby", 0xe2)):
        s.about(name)
        disk.command(command, 0xef if command == 0x91 else 0xe0, count=63 if command == 0x91 else 1, lba=1)
        disk.idle()
        disk.registers(moved=command == 0x40)
    s.about("features")
    for feature, count in ((0x03, 0x0c), (0x03, 0x22), (0x03, 0x45), (0x02, 0), (0x82, 0), (0xaa, 0), (0x55, 0), (0x77, 0)):
        s.about(f"feature {feature:#x} {count:#x}")
        disk.command(0xef, 0xa0, features=feature, count=count)
        disk.idle()
        disk.registers()
    s.about("commands that are none")
    for command in (0xa0, 0xa1, 0x00, 0x5f, 0xff):
        s.about(f"command {command:#x}")
        disk.command(command, 0xa0)
        disk.idle()
        disk.registers()
    s.about("the device that is not there")
    s.outb(disk.base + 6, 0xb0)
    for register in (2, 7):
        s.inb(disk.base + register)
    s.outb(disk.base + 7, 0xec)
    s.inb(disk.base + 7)
    return ide_machine(folder)


@conversation
def ide_cd(s, folder):
    cd = Channel(s, 0x170, 0x376)

    def packet(*command, room=0xfffe, take=0, differs=None, error=""):
        cd.command(0xa0, 0xa0, lba=(room & 0xff) << 8 | (room >> 8) << 16)
        cd.idle()
        cd.registers()
        bytes_of = list(command) + [0] * (12 - len(command))
        for at in range(0, 12, 2):
            s.outw(cd.base, bytes_of[at] | bytes_of[at + 1] << 8)
        cd.idle()
        s.inb(cd.base + 1, mask=0xfb, differs=error)  # beside the sense key: the command is aborted, or not
        for register in range(2, 8):
            s.inb(cd.base + register, mask=~DSC if register == 7 else 0xff)
        if take:
            s.ins(2, cd.base, take // 2, differs=lambda word: (differs or {}).get(word, ""))
            cd.idle()
            cd.registers()

    reasons = {"sense": {0: "the information bytes hold nothing (SPC, 4.5.3); QEMU's drive says that they do"},
               "sense of the eject": {0: "the information bytes hold nothing (SPC, 4.5.3); QEMU's drive says that they do",
                                      1: "an illegal request; QEMU's drive is not ready", 6: "medium removal is prevented (53h 02h); QEMU's says 53h"},
               "contents": {6: "the lead-out is one of data as the track before it; QEMU's may be copied"},
               "sessions": {0: "one session, in twelve bytes; QEMU's looks for the format in another byte of the command"},
               "event": {0: "the length is that of what follows it (MMC, 6.7); QEMU's leaves out the header"}}
    s.about("after power-on")
    cd.idle()
    s.inb(cd.base + 1, differs="a reset ends with the diagnostics' code; QEMU's begins without")
    for register in range(2, 7):
        s.inb(cd.base + register)
    s.inb(cd.base + 7, differs="a packet device is not ready until it has been spoken to (ATA/ATAPI-4, 9.1); QEMU's is")
    s.about("identify")
    cd.command(0xec, 0xa0)
    cd.idle()
    cd.registers()
    cd.command(0xa1, 0xa0)
    cd.data(mask=lambda word: 0 if word in NOT_COMPARED else 0xffff)
    s.about("software reset")
    s.outb(cd.control, 0x0c)
    s.outb(cd.control, 0x08)
    cd.idle()
    cd.registers()
    for name, command, take in (("sense", (3, 0, 0, 0, 18), 18), ("ready?", (0,), 0), ("sense", (3, 0, 0, 0, 18), 18), ("ready?", (0,), 0),
                                ("capacity", (0x25,), 8), ("read", (0x28, 0, 0, 0, 0, 3, 0, 0, 1), 2048), ("read of 12", (0xa8, 0, 0, 0, 0, 4, 0, 0, 0, 1), 2048),
                                ("contents", (0x43, 0, 0, 0, 0, 0, 0, 0, 20), 20), ("contents, in minutes", (0x43, 2, 0, 0, 0, 0, 0, 0, 20), 20),
                                ("sessions", (0x43, 0, 1, 0, 0, 0, 0, 0, 12), 12), ("mechanism", (0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), 8),
                                ("behind the end", (0x28, 0, 0, 1, 0, 0, 0, 0, 1), 0), ("sense", (3, 0, 0, 0, 18), 18),
                                ("no such command", (0xfe,), 0), ("sense", (3, 0, 0, 0, 18), 18), ("nothing to read", (0x28,), 0),
                                ("lock", (0x1e, 0, 0, 0, 1), 0), ("eject while locked", (0x1b, 0, 0, 0, 2), 0), ("sense of the eject", (3, 0, 0, 0, 18), 18),
                                ("unlock", (0x1e,), 0), ("event", (0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8), ("seek", (0x2b, 0, 0, 0, 0, 5), 0)):
        s.about(name)
        packet(*command, take=take, differs=reasons.get(name.split(",")[0]),
               error="an illegal request; QEMU's drive is not ready" if name == "eject while locked" else "")
    s.about("inquiry")
    packet(0x12, 0, 0, 0, 36)
    s.ins(2, cd.base, 18, mask=lambda word: 0xffff if word in (0, 2, 3) else 0)  # the others are the standard's number and names
    return ide_machine(folder)


@conversation
def bus_master(s, folder):
    """The PIIX's bus mastering: its registers, and reads and writes through them."""
    base, table, buffer = 0xc000, 0x10000, 0x20000
    disk = Channel(s, 0x1f0, 0x3f6)
    s.config_write(1, 1, 0x20, base | 1)
    s.config_write(1, 1, 0x04, 0x5, 2)
    s.config_write(1, 1, 0x40, 0x80008000)
    s.about("registers")
    for channel in (0, 8):
        for offset in (0, 2):
            s.inb(base + channel + offset)
        s.inl(base + channel + 4)
        for value in (0xff, 0x00):
            s.outb(base + channel + 2, value)
            s.inb(base + channel + 2)
        s.outl(base + channel + 4, 0x12345677)
        s.inl(base + channel + 4)
    for name, lengths, sectors in (("one piece", [1024], 2), ("two pieces", [512, 512], 2), ("table too short", [512], 2), ("too much room", [4096], 1)):
        s.about(f"read, {name}")
        s.store(4, buffer + sectors * SECTOR - 4, 0)
        at = buffer
        for number, length in enumerate(lengths):
            s.store(4, table + 8 * number, at)
            s.store(4, table + 8 * number + 4, length | (0x80000000 if number == len(lengths) - 1 else 0))
            at += length
        s.outl(base + 4, table)
        s.outb(base, 0x08)
        s.outb(base + 2, 0x06)
        disk.command(0xc8, count=sectors, lba=20)
        s.outb(base, 0x09)
        if name == "table too short":
            s.wait(base + 2, 0x01, 0x00)
        else:
            s.wait(base + 2, 0x04, 0x04)
        if name != "table too short":
            disk.idle()
            s.inb(base + 2)
            s.inb(base)
            disk.registers(moved=True)
        s.load(4, buffer, 8)
        s.load(4, buffer + 512, 8)
        s.outb(base, 0)
        s.inb(base + 2, mask=0x63)
        s.outb(base + 2, 0x06)
        s.outb(disk.control, 0x0c)
        s.outb(disk.control, 0x08)
        disk.idle()
    return ide_machine(folder)


SEEKING = "a drive's bit stays until its interrupt has been sensed (82077AA, 5.2.4); QEMU's goes with the seek"


@conversation
def floppy(s, folder):
    ports = 0x3f0
    disk = image(folder, "floppy", 1440 << 10, 3)

    def send(*values):
        for value in values:
            s.wait(ports + 4, 0xc0, 0x80)
            s.outb(ports + 5, value)

    def receive(count, more=False, **how):
        for _ in range(count):
            s.wait(ports + 4, 0xc0, 0xc0)
            s.inb(ports + 5, **how)
        if not more:
            s.wait(ports + 4, 0xc0, 0x80)

    def interrupt():
        s.outb(0x20, 0x0a)
        s.wait(0x20, 0x40, 0x40)

    s.about("after power-on")
    s.inb(ports + 2, differs="it stays in its reset until it is let go; QEMU's has been let go")
    s.inb(ports + 3)
    s.about("reset")
    s.outb(ports + 2, 0x0c)
    s.outb(ports + 2, 0x00)
    s.inb(ports + 2)  # and not the main status, by whose read QEMU's leaves the reset
    s.outb(ports + 2, 0x0c)
    for _ in range(4):
        send(0x08)
        receive(2)
    s.about("version")
    send(0x10)
    receive(1)
    s.about("configure")
    send(0x13, 0, 0x57, 0)
    s.about("dump")
    send(0x0e)
    receive(4, more=True)
    receive(2, more=True, free="the drives' times, which nobody has set yet")
    receive(1, more=True, free="the last sector of a track, which no command has named yet")
    receive(3)
    s.about("lock")
    send(0x94)
    receive(1)
    send(0x14)
    receive(1)
    s.about("perpendicular")
    send(0x12, 0x80)
    s.about("motor")
    s.outb(0xd6, 0xc0)  # the first controller is a channel of the second
    s.outb(0xd4, 0x00)
    s.outb(ports + 2, 0x1c)
    s.inb(ports + 2)
    s.outb(ports + 7, 0)
    send(0x03, 0xaf, 0x02)
    s.about("recalibrate")
    send(0x07, 0)
    interrupt()
    s.inb(ports + 4, mask=0x0f, differs=SEEKING)
    send(0x08)
    receive(2)
    s.about("seek")
    send(0x0f, 0x04, 5)
    interrupt()
    s.inb(ports + 4, mask=0x0f, differs=SEEKING)
    send(0x08)
    receive(1, more=True, mask=0xfb)  # the head is no drive's status in QEMU's
    receive(1)
    s.about("drive's status")
    send(0x04, 0x00)
    receive(1)
    s.about("nothing to tell")
    send(0x08)
    receive(1)
    s.about("no such command")
    send(0x1f)
    receive(1)
    for name, command, mode, count in (("read", 0xe6, 0x46, 1024), ("read behind the last sector", 0xe6, 0x46, 1024), ("write", 0xc5, 0x4a, 512), ("read", 0xe6, 0x46, 512)):
        s.about(name)
        s.outb(0x0a, 0x06)
        s.outb(0x0c, 0)
        s.outb(0x0b, mode)
        for port, value in ((0x04, 0x00), (0x04, 0x40), (0x81, 0x02), (0x05, (count - 1) & 0xff), (0x05, (count - 1) >> 8)):
            s.outb(port, value)
        s.outb(0x0a, 0x02)
        first = 20 if "behind" in name else 3
        send(command, 0x04, 5, 1, first, 2, 18, 0x1b, 0xff)
        receive(1, more=True)
        receive(1, more=True, differs="no sector of that number (ND); QEMU's says end of cylinder" if "behind" in name else "")
        receive(5)
        s.load(4, 0x24000, 4)
        s.load(4, 0x24000 + count - 4)
    s.about("changed?")
    s.inb(ports + 7, mask=0x80)
    return {"ours": ["--floppy", disk], "theirs": ["-drive", f"file={image(folder, 'floppy.peer', 1440 << 10, 3)},format=raw,if=floppy"]}


@conversation
def ahci(s, folder):
    where, port = 0xe0000000, 0xe0000100
    no_frame = "the end of data that is read by PIO comes without a frame of its registers (SATA 2.6, 11.8); QEMU's sends one"
    setup_reasons = {0: "data come to the host (the frame's D); QEMU's leaves that out", 3: "no data are left at the end (E_STATUS); QEMU's says that some are"}
    lists, received, table, buffer = 0x10000, 0x11000, 0x12000, 0x20000
    settings = ide_machine(folder)
    s.config_write(0x1f, 2, 0x24, where)
    s.config_write(0x1f, 2, 0x04, 0x6, 2)
    s.about("after power-on")
    s.load(4, where, mask=0xc00bffff)  # the link's speed, and what is offered beyond QEMU's
    s.load(4, where + 0x04, 3)
    s.load(4, where + 0x10, differs="AHCI 1.2; QEMU's is of 1.0")
    s.store(4, where + 4, 0x80000000)
    s.load(4, where + 4)
    for number in range(6):
        s.about(f"port {number} after power-on")
        for offset in (0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x38, 0x3c):
            s.load(4, where + 0x100 + number * 0x80 + offset, mask=0xffffff0f if offset == 0x28 else 0xffffffff,  # but the link's speed
                   differs="a device that is there has come (PxSERR.DIAG.X, N); QEMU's was always there" if number in (0, 2) and offset in (0x10, 0x30) else "")
    s.about("places")
    for offset, differs in ((0, "lists begin at whole KiB (3.3.1)"), (4, ""), (8, "frames begin at whole 256 bytes (3.3.3)"), (0xc, "")):
        for value in (0xffffffff, 0):
            s.store(4, port + offset, value)
            s.load(4, port + offset, differs=differs and f"{differs}; QEMU's keeps all bits" if value else "")
    s.store(4, port, lists)
    s.store(4, port + 8, received)
    s.about("interrupts")
    for value in (0xffffffff, 0):
        s.store(4, port + 0x14, value)
        s.load(4, port + 0x14, mask=0x7fffff7f)  # but cold presence and mechanical switches, which there are none of
    s.about("start")
    s.store(4, port + 0x18, 0x16)
    s.wait_memory(port + 0x18, 0x4000, 0x4000)
    s.store(4, port + 0x18, 0x17)
    s.wait_memory(port + 0x18, 0xc000, 0xc000)
    s.load(4, port + 0x18)
    s.load(4, port + 0x20, differs="the disk is ready; QEMU's shows a fault until its first command")
    s.load(4, port + 0x24)
    for name, command, count, lba, length in (("identify", 0xec, 0, 0, 512), ("read", 0x25, 2, 7, 1024), ("no such command", 0x5f, 0, 0, 0),
                                              ("read after an error", 0x25, 2, 9, 1024)):
        s.about(name)
        s.fill(table, bytes([0x27, 0x80, command, 0, lba, 0, 0, 0xe0, 0, 0, 0, 0, count, 0, 0, 0]))
        s.fill(table + 0x80, buffer.to_bytes(8, "little") + bytes(4) + (max(length, 2) - 1).to_bytes(4, "little"))
        s.fill(lists, (5 | (1 if length else 0) << 16).to_bytes(4, "little") + bytes(4) + table.to_bytes(8, "little"))
        s.store(4, port + 0x10, 0xffffffff)
        s.store(4, port + 0x30, 0xffffffff)
        s.store(4, port + 0x38, 1)
        if command == 0x5f:
            s.wait_memory(port + 0x10, 0x40000000, 0x40000000)
            s.load(4, port + 0x10)
            s.load(4, port + 0x20, mask=~DSC)
            s.load(4, port + 0x38)
            s.load(4, received + 0x40, 5, mask=lambda dword: ~(DSC << 16) if dword == 0 else 0xffffffff)
            s.store(4, port + 0x18, 0x16)
            s.wait_memory(port + 0x18, 0x8000, 0)
            s.store(4, port + 0x10, 0xffffffff)
            s.store(4, port + 0x18, 0x17)
            s.wait_memory(port + 0x18, 0x8000, 0x8000)
            continue
        s.wait_memory(port + 0x38, 1, 0)
        for offset in (0x10, 0x18, 0x20, 0x30):
            s.load(4, port + offset, differs=no_frame if length == 512 and offset == 0x10 else "")
        s.load(4, lists + 4)
        s.load(4, received + 0x20, 5, differs=lambda dword: setup_reasons.get(dword, ""))
        s.load(4, received + 0x40, 1, mask=~(DSC << 16), differs=no_frame if length == 512 else "")
        s.load(4, received + 0x44, 4, free="the frame's address and count, after a transfer")
        if length == 512:
            s.load(2, buffer, 256, mask=lambda word: 0 if word in NOT_COMPARED else 0xffff)
        else:
            s.load(4, buffer, 4)
            s.load(4, buffer + length - 4)
    return {**settings, "machine": "q35"}
