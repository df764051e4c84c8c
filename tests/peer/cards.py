"""What drivers, and curious ones, say to bridges, cards and the processors' interrupt controllers."""
import os
import struct

from peer import conversation


def header(s, device, function, skip=(), odd=None, **how):
    """A function's whole header, and which of its bits can be written. `odd`: of registers, why they differ."""
    odd = odd or {}
    for register in range(0, 0x40, 4):
        if register not in skip:
            s.config_read(device, function, register, differs=odd.get(register, ""), mask=0xffffff00 if register == 0x3c else 0xffffffff)
    # Not the command, nor what would move what the firmware uses.
    for register in (0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x3c):
        if register in skip:
            continue
        for value in (0xffffffff, 0):
            s.config_write(device, function, register, value)
            # What a latency timer keeps is of no consequence.
            s.config_read(device, function, register, note=f"{value:#x} written to", mask=0xffff00ff if register == 0x0c else 0xffffffff, **how)
    s.config_write(device, function, 6, 0xffff, 2)
    s.config_read(device, function, 6, 2, note="ones written to", differs=odd.get(4, ""))


def bits(s, device, function, registers, kept=0xff, **how):
    """Registers of one byte: as they are, and what they keep of the bits that are not reserved."""
    for register in registers:
        s.config_read(device, function, register, 1, **how)
        for value in (0xff, 0x00, 0x5a):
            s.config_write(device, function, register, value, 1)
            s.config_read(device, function, register, 1, note=f"{value:#04x} written to", mask=kept, **how)


@conversation
def pci_of_440fx(s, _):
    s.about("mechanism 1")
    s.outl(0xcf8, 0xffffffff)
    s.inl(0xcf8, mask=0x80fffffc)
    s.outl(0xcf8, 0x80000000)
    s.inl(0xcf8)
    for port, width in ((0xcfc, 1), (0xcfd, 1), (0xcfe, 2), (0xcfc, 4)):
        s._read("port_read", width, port)
    s.outl(0xcf8, 0x00000000)
    s.inl(0xcfc)
    for device, function in ((0, 1), (3, 0), (31, 7)):
        s.config_read(device, function, 0)
    s.config_read(0, 0, 0, bus=1)
    wired = "what the data sheet has wired to one, and how fast it answers; QEMU's has zeros"
    for name, device, function, odd in (("440FX", 0, 0, {4: wired}), ("PIIX3", 1, 0, {4: wired}), ("PIIX3's IDE", 1, 1, {}), ("PIIX4's power management", 1, 3, {})):
        s.about(name)
        header(s, device, function, odd=odd)
    s.about("440FX's shadow")
    bits(s, 0, 0, [0x59], kept=0x30)
    bits(s, 0, 0, range(0x5a, 0x60), kept=0x33)
    s.about("440FX's SMRAM")
    s.config_read(0, 0, 0x72, 1)
    s.about("PIIX3's lines")
    bits(s, 1, 0, range(0x60, 0x64), kept=0x8f)
    s.about("PIIX3's others")
    for register in (0x40, 0x44, 0x48, 0x4c, 0x50, 0x68, 0x70, 0x74, 0x78, 0x7c, 0x80, 0xa0, 0xa4):
        s.config_read(1, 0, register)
    s.about("IDE's timing")
    s.config_read(1, 1, 0x40, differs="the channels are decoded from the beginning, as OVMF expects; QEMU decodes them whatever is there")
    s.config_read(1, 1, 0x44)
    s.config_read(1, 1, 0x48)
    s.about("power management")
    s.config_read(1, 3, 0x40)
    s.config_write(1, 3, 0x40, 0xffffffff)
    s.config_read(1, 3, 0x40, note="ones written to", mask=0xffc1)
    bits(s, 1, 3, (0x80,), kept=0x01)
    s.config_read(1, 3, 0x58, differs="there is no system management mode, so firmware finds its command port taken")


@conversation
def pci_of_q35(s, _):
    wired = "what the data sheet has wired to one, and how fast it answers; QEMU's has zeros"
    several = "function 0 says that there are several; QEMU's function 2 says so too"
    for name, device, function, odd in (("MCH", 0, 0, {4: wired, 8: "revision A2; QEMU's has none"}), ("LPC", 31, 0, {4: wired}),
                                        ("SATA", 31, 2, {4: wired, 0x0c: several, 0x34: "its capabilities stand elsewhere"})):
        s.about(name)
        header(s, device, function, odd=odd, skip=(0x0c,) if device == 31 and function == 2 else ())
    s.about("MCH's shadow")
    bits(s, 0, 0, [0x90], kept=0x30)
    bits(s, 0, 0, range(0x91, 0x97), kept=0x33)
    s.about("MCH's memory-mapped configuration")
    s.config_read(0, 0, 0x60, differs="the data sheet's address (5.1.15); QEMU's begins at another")
    for value in (0xb0000001, 0xb0000003, 0xb0000005, 0x5ffffff8, 0):
        s.config_write(0, 0, 0x60, value)
        s.config_read(0, 0, 0x60, note=f"{value:#x} written to", mask=0xf0000007 if value & 7 == 1 else 0xfc000007)
    s.config_write(0, 0, 0x64, 0xffffffff)
    s.config_read(0, 0, 0x64, note="ones written to", mask=0xf)
    s.config_write(0, 0, 0x64, 0)
    s.config_write(0, 0, 0x60, 0xb0000001)
    for offset in (0x00000, 0xf8000, 0xfa000, 0xfa010, 0x08000, 0xfa100):
        s.load(4, 0xb0000000 + offset)
    s.about("LPC's lines")
    bits(s, 31, 0, [*range(0x60, 0x64), *range(0x68, 0x6c)], kept=0x8f)
    s.about("LPC's others")
    lpc = {0x48: "the GPIO base is one of ports (13.1.14); QEMU's has none", 0x64: "serial interrupts as after a reset (13.1.17); QEMU's has none",
           0x80: "nothing is decoded until firmware says so (13.1.20); QEMU tells which ports it has"}
    for register in range(0x40, 0x100, 4):
        if register not in (0x60, 0x68):
            s.config_read(31, 0, register, differs=lpc.get(register, ""))
    for register, value, kept in ((0x40, 0xffffffff, 0xffffff81), (0x40, 0x601, 0xffffffff), (0x44, 0xff, 0x87), (0x44, 0x80, 0xff),
                                  (0xf0, 0xfed1c001, 0xffffffff), (0xf0, 0x5ffffffe, 0xffffc001), (0xf0, 0, 0xffffffff)):
        s.config_write(31, 0, register, value)
        s.config_read(31, 0, register, note=f"{value:#x} written to", mask=kept)
    return {"machine": "q35", "ours": ["--vga", "none"]}


def power_management(s, base):
    s.about("PM1")
    s.inw(base, mask=0xfffe)
    s.outw(base, 0xffff)
    s.inw(base, mask=0xfffe)
    for value in (0xffff, 0x0000, 0x0120):
        s.outw(base + 2, value)
        s.inw(base + 2, differs="only events that there are can be enabled; QEMU's keeps all bits" if value == 0xffff else "")
    s.outw(base + 2, 0)
    for value in (0x0001, 0x0003, 0x0000, 0x1c01):
        s.outw(base + 4, value)
        s.inw(base + 4, differs="there is no mode but ACPI's (FADT, SMI_CMD 0), so SCI_EN stays" if value == 0 else "")
    s.outw(base + 4, 0)
    s.about("timer of 24 bits")
    s.inl(base + 8, mask=0xff000000)


@conversation
def power_of_piix4(s, _):
    s.config_write(1, 3, 0x40, 0x601)
    s.config_write(1, 3, 0x80, 1, 1)
    power_management(s, 0x600)
    s.about("SMI's ports")
    for port in (0xb2, 0xb3):
        s.inb(port)
        s.outb(port, 0x5a)
        s.inb(port)


@conversation
def power_of_ich9(s, _):
    s.config_write(31, 0, 0x40, 0x601)
    s.config_write(31, 0, 0x44, 0x80, 1)
    power_management(s, 0x600)
    s.about("GPE0")
    for offset in range(0x20, 0x30, 4):
        s.inl(0x600 + offset)
    s.about("SMI")
    s.inl(0x630, differs="there is no system management mode, so firmware finds its command port taken")
    s.inl(0x634)
    return {"machine": "q35"}


@conversation
def ioapic(s, _):
    select, window = 0xfec00000, 0xfec00010

    def read(register, **how):
        s.store(4, select, register)
        s.load(4, window, note=f"register {register:#x},", **how)

    def write(register, value):
        s.store(4, select, register)
        s.store(4, window, value)

    s.about("after power-on")
    s.load(4, select)
    for register in range(0x00, 0x40):
        read(register, differs="the 82093AA's version, as KVM's has it; QEMU's is a later one" if register == 1 else "")
    s.about("which bits can be written")
    for register, mask in ((0x00, 0xffffffff), (0x02, 0xffffffff), (0x10, 0x1ffff), (0x11, 0xff000000), (0x3e, 0x1ffff), (0x3f, 0xff000000)):
        for value in (0xffffffff, 0x00010000):
            write(register, value)
            read(register, mask=mask)  # QEMU's keeps reserved bits
    write(0x00, 0)


@conversation
def local_apic(s, _):
    base = 0xfee00000
    s.about("after power-on")
    for register in range(0, 0x400, 0x10):
        if register != 0x280:  # which tells of reads of the registers that are none
            s.load(4, base + register, differs="LINT0 lets the 8259s' interrupts through, as KVM's does for old firmware" if register == 0x350 else "")
    s.about("which bits can be written")
    s.store(4, base + 0xf0, 0x1ff)
    s.load(4, base + 0xf0)
    for register, mask in ((0x20, 0xff000000), (0x80, 0xff), (0xd0, 0xff000000), (0xe0, 0xf0000000), (0x310, 0xff000000), (0x320, 0x300ff), (0x330, 0x107ff),
                           (0x340, 0x107ff), (0x350, 0x1a7ff), (0x360, 0x1a7ff), (0x370, 0x100ff), (0x3e0, 0xb), (0x380, 0xffffffff)):
        for value in (0xffffffff, 0x00010000) if register != 0x380 else (0,):
            s.store(4, base + register, value)
            s.load(4, base + register, note=f"{value:#x} written to", mask=mask)  # QEMU's keeps reserved bits
    s.about("an interrupt to itself")
    s.store(4, base + 0x320, 0x10000)
    s.store(4, base + 0x80, 0)
    s.store(4, base + 0x300, 0x00044055)
    s.load(4, base + 0x300)
    s.load(4, base + 0x220)
    s.load(4, base + 0x120)
    s.about("timer, once")
    s.store(4, base + 0x3e0, 0x3)
    s.store(4, base + 0x320, 0x10061)
    s.store(4, base + 0x380, 1000)
    s.wait_memory(base + 0x390, 0xffffffff, 0)
    s.load(4, base + 0x230)
    s.store(4, base + 0x320, 0x61)
    s.store(4, base + 0x380, 1000)
    s.wait_memory(base + 0x230, 2, 2)


@conversation
def vga(s, _):
    """The card of any PC: which bits of its registers are there, the palette, and its four planes."""
    s.config_write(2, 0, 0x04, 3, 2)

    def indexed(port, register, *values, **how):
        for value in values:
            s.outb(port, register)
            s.outb(port + 1, value)
            s.inb(port + 1, note=f"register {register:#x}, {value:#x} written to", **how)

    s.about("ports")
    s.outb(0x3c2, 0x67)
    s.inb(0x3cc)
    s.inb(0x3ca)
    s.inb(0x3c2, mask=0x6f)
    for value in (0xe3, 0x63, 0x67):
        s.outb(0x3c2, value)
        s.inb(0x3cc)
    s.about("sequencer")
    for register in range(5):
        indexed(0x3c4, register, 0xff, 0x00, 0x55, 0xaa)
    s.about("graphics controller")
    for register in range(9):
        indexed(0x3ce, register, 0xff, 0x00, 0x55, 0xaa)
    s.about("CRT controller")
    indexed(0x3d4, 0x11, 0x0e)
    for register in [*range(0x11), *range(0x12, 0x19)]:
        indexed(0x3d4, register, 0xff, 0x00, 0x55, 0xaa)
    s.about("CRT controller, locked")
    indexed(0x3d4, 0x11, 0x8e)
    for register in (0, 5, 7):
        indexed(0x3d4, register, 0xff)
    s.about("attribute controller")
    for register in range(0x15):
        for value in (0xff, 0x00, 0x55):
            s.inb(0x3da, mask=0)
            s.outb(0x3c0, register)
            s.outb(0x3c0, value)
            s.inb(0x3da, mask=0)
            s.outb(0x3c0, register)
            s.inb(0x3c1, note=f"register {register:#x}, {value:#x} written to")
    s.inb(0x3da, mask=0)
    s.outb(0x3c0, 0x20)
    s.inb(0x3c0, mask=0x1f)  # bit 5 lets the picture through; QEMU's leaves it out
    s.about("palette")
    s.outb(0x3c6, 0xff)
    s.inb(0x3c6, differs="the mask is there; QEMU's has none")
    s.outb(0x3c8, 0x10)
    for value in (0x3f, 0xff, 0x15, 0x01, 0x02, 0x03):
        s.outb(0x3c9, value)
    s.inb(0x3c8)
    s.inb(0x3c7)
    s.outb(0x3c7, 0x10)
    for _ in range(6):
        s.inb(0x3c9)
    s.inb(0x3c7)
    s.about("planes")
    for register, value in ((2, 0x0f), (4, 0x06)):
        s.outw(0x3c4, register | value << 8)
    for register, value in ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0x05), (7, 0x0f), (8, 0xff)):
        s.outw(0x3ce, register | value << 8)
    for plane in range(4):
        s.outw(0x3c4, 2 | 1 << plane << 8)
        s.store(1, 0xa0010, 0x11 * (plane + 1))
    planes = lambda: [(s.outw(0x3ce, 4 | plane << 8), s.load(1, 0xa0010, note=f"plane {plane},")) for plane in range(4)]
    planes()
    s.outw(0x3c4, 0x0f02)
    for name, settings, value in (("set/reset", ((0, 0x05), (1, 0x0f)), 0xff), ("bit mask", ((1, 0), (8, 0x0f)), 0xa5), ("rotate", ((8, 0xff), (3, 0x03)), 0x81),
                                  ("and", ((3, 0x08),), 0x3c), ("or", ((3, 0x10),), 0x3c), ("exclusive or", ((3, 0x18),), 0xff), ("mode 1", ((3, 0), (5, 1)), 0x00),
                                  ("mode 2", ((5, 2), (8, 0x33)), 0x0a), ("mode 3", ((5, 3), (0, 0x06), (8, 0xf0), (3, 1)), 0x55)):
        s.about(f"planes, {name}")
        for register, setting in settings:
            s.outw(0x3ce, register | setting << 8)
        s.load(1, 0xa0010, note="latched,", mask=0xff if (5, 1) not in settings else 0)
        s.store(1, 0xa0010, value)
        s.outw(0x3ce, 0x0005)
        planes()
    s.about("read mode 1")
    for register, value in ((5, 8), (2, 0x05), (7, 0x07)):
        s.outw(0x3ce, register | value << 8)
    s.load(1, 0xa0010)
    s.about("windows")
    s.outw(0x3ce, 0x0005)
    s.outw(0x3ce, 0x0003)
    s.outw(0x3ce, 0xff08)
    s.outw(0x3ce, 0x0001)
    s.outw(0x3ce, 0x0004)
    for select in (0, 1, 2, 3):
        s.outw(0x3ce, 6 | (1 | select << 2) << 8)
        for address in (0xa0000, 0xb0000, 0xb8000):
            s.store(1, address, 0x60 + select)
            s.load(1, address, note=f"window {select},")
    s.about("chain 4")
    s.outw(0x3ce, 0x0506)
    s.outw(0x3c4, 0x0e04)
    s.outw(0x3c4, 0x0f02)
    for at in range(8):
        s.store(1, 0xa0000 + at, 0xc0 + at)
    s.outw(0x3c4, 0x0604)
    for plane in range(4):
        s.outw(0x3ce, 4 | plane << 8)
        s.load(1, 0xa0000, 6, note=f"plane {plane},")
    s.about("odd and even")
    s.outw(0x3c4, 0x0204)
    s.outw(0x3c4, 0x0302)
    s.outw(0x3ce, 0x1005)
    s.outw(0x3ce, 0x0e06)
    s.outw(0x3ce, 0x0004)
    for at in range(8):
        s.store(1, 0xb8000 + at, 0xd0 + at)
    s.load(1, 0xb8000, 8)
    return {"theirs": ["-vga", "std"]}


@conversation
def vbe(s, _):
    """Bochs' linear modes."""
    def register(number, *values, **how):
        for value in values:
            s.outw(0x1ce, number)
            s.outw(0x1cf, value)
        s.outw(0x1ce, number)
        s.inw(0x1cf, note=f"register {number} after {[hex(value) for value in values]}:", **how)

    s.config_write(2, 0, 0x10, 0xe0000000)
    s.config_write(2, 0, 0x18, 0xe2000000)
    s.config_write(2, 0, 0x04, 3, 2)
    s.about("after power-on")
    for number in range(11):
        register(number)
    s.about("identity")
    register(0, 0xb0c2)
    register(0, 0xb0c5)
    register(0, 0x1234)
    s.about("most")
    register(4, 0x02)
    for number in (1, 2):
        register(number, differs="modes up to 2560 x 1600; QEMU's go on to 16000 x 12000")
    register(3)
    s.about("a mode")
    register(4, 0x00)
    register(1, 800)
    register(2, 600)
    register(3, 32)
    register(4, 0x41)
    for number in range(1, 11):
        register(number)
    s.about("panning")
    register(6, 1024)
    register(8, 16)
    register(9, 100)
    s.about("memory")
    s.store(4, 0xe0000000, 0x12345678)
    s.load(4, 0xe0000000)
    s.about("registers in memory")
    for offset in range(0x500, 0x516, 2):
        s.load(2, 0xe2000000 + offset)
    s.load(1, 0xe2000000, 8, note="EDID")
    s.load(1, 0xe2000000 + 0x40c, differs="the ports begin as a color screen's, which is what there is; QEMU's as zeros")
    s.about("banks")
    register(4, 0x01)
    register(5, 1)
    s.store(1, 0xa0000, 0x77)
    s.load(1, 0xe0010000)
    s.about("sizes that are not possible")
    register(4, 0x00)
    refused = "a register keeps what is possible; QEMU's keeps anything until the mode is set"
    register(1, 0xffff, differs=refused)
    register(2, 0xffff, differs=refused)
    register(3, 5, differs=refused)
    register(1, 801)
    return {"theirs": ["-vga", "std"]}


@conversation
def e1000(s, _):
    base = 0xe0000000
    s.about("header")
    header(s, 3, 0, skip=(0x2c, 0x30))  # who has made the card, and its ROM
    s.config_write(3, 0, 0x10, base)
    s.config_write(3, 0, 0x04, 0x6, 2)
    s.about("after power-on")
    s.load(4, base, mask=0x00000240, note="control: speed, link")
    s.load(4, base + 0x08, mask=0x00000083, note="status: speed, link, duplex")
    s.load(4, base + 0x10, mask=0x0000020f, note="EEPROM: lines, kind")
    for register in (0x0018, 0x0020, 0x0028, 0x002c, 0x0030, 0x00c0, 0x00c4, 0x00c8, 0x00d0, 0x00d8, 0x0100, 0x0170, 0x0400, 0x0410,
                     0x1000, 0x2800, 0x2804, 0x2808, 0x2810, 0x2818, 0x2820, 0x282c, 0x3800, 0x3804, 0x3808, 0x3810, 0x3818, 0x3820, 0x4000,
                     0x4074, 0x5000, 0x5200, 0x5400, 0x5404, 0x5600, 0x5800):
        s.load(4, base + register)
    s.about("EEPROM")
    for word in (0, 1, 2, 5, 6, 7, 0x0d):  # the address, and what is the chip's: the others are its maker's
        s.store(4, base + 0x14, word << 8 | 1)
        s.wait_memory(base + 0x14, 0x10, 0x10)
        s.load(4, base + 0x14)
    s.about("PHY")
    other = "the other end is one that speaks of all its abilities; QEMU's is another"
    phy = {1: "the two ends have agreed; QEMU's have not begun", 5: other, 6: other, 17: "with the answer to the cable's length",
           16: "the PHY's own controls are zeros; QEMU's as after a reset", 20: "the PHY's own controls are zeros; QEMU's as after a reset"}
    for register in range(0, 0x20):
        s.store(4, base + 0x20, 0x08000000 | 1 << 21 | register << 16)
        s.wait_memory(base + 0x20, 0x10000000, 0x10000000)
        s.load(4, base + 0x20, differs=phy.get(register, ""), free="" if register in (*range(7), 9, 10, 16, 17, 20) else
               "registers that hold nothing are read as zeros; QEMU's read as an error")
    s.about("which bits can be written")
    held = "flow control and pauses are held; QEMU's has zeros"
    for register, mask, reason in ((0x0028, 0xffffffff, held), (0x002c, 0xffff, held), (0x0030, 0xffff, held), (0x0170, 0xffff, ""), (0x0100, 0xffffffff, ""),
                                   (0x0400, 0xffffffff, ""), (0x0410, 0xffffffff, held), (0x2800, 0xfffffff0, ""), (0x2804, 0xffffffff, ""),
                                   (0x2808, 0xffffffff, ""), (0x2818, 0xffffffff, ""), (0x2820, 0xffff, ""), (0x3800, 0xfffffff0, ""),
                                   (0x3804, 0xffffffff, ""), (0x3808, 0xffffffff, ""), (0x3820, 0xffff, held), (0x5000, 0xffffffff, "")):
        for value in (0xfffffffd, 0x00000000):
            s.store(4, base + register, value)
            s.load(4, base + register, note=f"{value:#x} written to", mask=mask, differs=reason if value else "")
    s.about("interrupts")
    s.store(4, base + 0xd8, 0xffffffff)
    s.load(4, base + 0xc0)
    s.store(4, base + 0xd0, 0x1f6dc)
    s.load(4, base + 0xd0)
    s.store(4, base + 0xc8, 0x4)
    s.load(4, base + 0xc0)
    s.load(4, base + 0xc0)
    s.store(4, base + 0xd8, 0x4)
    s.load(4, base + 0xd0)
    s.about("reset")
    s.store(4, base + 0x0000, 0x04000000)
    s.load(4, base, differs="the control register begins anew; QEMU's is empty")
    s.load(4, base + 0xd0, differs="a reset forgets which interrupts are wanted; QEMU's does not")
    s.load(4, base + 0x0100)
    return {"ours": ["--net", "user,model=e1000,mac=52:54:00:12:34:56"],
            "theirs": ["-netdev", "user,id=n", "-device", "e1000,netdev=n,addr=3,mac=52:54:00:12:34:56"]}


@conversation
def xhci(s, _):
    base = 0xe0000000
    s.config_write(10, 0, 0x10, base)
    s.config_write(10, 0, 0x14, 0)
    s.config_write(10, 0, 0x04, 0x6, 2)
    s.about("what it is")
    s.config_read(10, 0, 0x08, mask=0xffffff00)
    s.load(4, base, note="length and version")
    s.load(4, base + 0x10, mask=0x00000005, note="64 bits, contexts")
    s.load(4, base + 0x14, note="doorbells")
    s.load(4, base + 0x18, note="runtime registers")
    operational = base + 0x40
    s.about("after power-on")
    for offset in (0x00, 0x04, 0x08, 0x14, 0x18, 0x1c, 0x30, 0x34, 0x38):
        s.load(4, operational + offset)
    s.about("which bits can be written")
    for offset, kept in ((0x14, 0xffff), (0x30, 0xffffffc0), (0x34, 0xffffffff), (0x38, 0xff)):
        for value in (0xffffffff, 0):
            s.store(4, operational + offset, value)
            s.load(4, operational + offset, note=f"{value:#x} written to", mask=kept)
    s.about("runs and halts")
    s.store(4, operational, 1)
    s.wait_memory(operational + 4, 1, 0)
    s.load(4, operational)
    s.store(4, operational, 0)
    s.wait_memory(operational + 4, 1, 1)
    s.about("reset")
    s.store(4, operational, 2)
    s.wait_memory(operational, 2, 0)
    s.load(4, operational + 4, mask=0x801)
    return {"theirs": ["-device", "qemu-xhci,addr=0xa,p2=4,p3=4", "-device", "usb-tablet"]}


@conversation
def virtio_block(s, folder):
    """A disk on virtio 1.x: its configuration from reset to a request that is done."""
    ours, theirs = disks(folder)
    device, base = 11, 0xe0000000
    s.about("identity")
    s.config_read(device, 0, 0x00)
    s.config_read(device, 0, 0x08)
    # One of them has its structures behind the first BAR, the other behind the fifth; where they are within it is the same.
    for register in (0x10, 0x20):
        s.config_write(device, 0, register, base)
        s.config_write(device, 0, register + 4, 0)
    s.config_write(device, 0, 0x04, 0x6, 2)

    def status(value, **how):
        s.store(1, base + 0x14, value)
        s.load(1, base + 0x14, **how)

    s.about("after power-on")
    for width, offset in ((1, 0x14), (1, 0x15), (2, 0x10), (2, 0x12), (2, 0x16), (2, 0x18), (2, 0x1a), (2, 0x1c), (2, 0x1e)):
        s.load(width, base + offset)
    s.about("features")
    # In both: SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES, INDIRECT_DESC, EVENT_IDX; VERSION_1.
    for select, common in ((0, 0x30006e44), (1, 0x00000001), (2, 0xffffffff)):
        s.store(4, base, select)
        s.load(4, base)
        s.load(4, base + 4, mask=common)
    s.about("status")
    status(0)
    status(1)
    status(3)
    s.about("features that are not offered")
    for select, value in ((0, 0xffffffff), (1, 0xffffffff)):
        s.store(4, base + 0x08, select)
        s.store(4, base + 0x0c, value)
    status(0x0b, differs="features that are not offered are refused (2.2.2); QEMU's leaves them out in silence")
    s.about("features without VERSION_1")
    status(0)
    status(3)
    for select, value in ((0, 0), (1, 0)):
        s.store(4, base + 0x08, select)
        s.store(4, base + 0x0c, value)
        s.load(4, base + 0x0c)
    status(0x0b, differs="a driver of this device must know virtio 1.0; QEMU's takes one that does not say so")
    s.about("features")
    status(0)
    status(3)
    for select, value in ((0, 0), (1, 1)):
        s.store(4, base + 0x08, select)
        s.store(4, base + 0x0c, value)
    status(0x0b)
    s.about("a queue that is not there")
    s.store(2, base + 0x16, 999)
    s.load(2, base + 0x16)
    s.load(2, base + 0x18)
    s.about("queue")
    s.store(2, base + 0x16, 0)
    s.load(2, base + 0x18, free="how large it may be")
    s.store(2, base + 0x18, 8)
    s.load(2, base + 0x18)
    for offset, place in ((0x20, 0x10000), (0x28, 0x11000), (0x30, 0x12000)):
        s.store(4, base + offset, place)
        s.store(4, base + offset + 4, 0)
        s.load(4, base + offset, 2)
    s.store(2, base + 0x1c, 1)
    s.load(2, base + 0x1c)
    status(0x0f)
    for name, kind, sector, wanted in (("read", 0, 0, 0), ("behind the end", 0, 1 << 20, 1), ("identity", 8, 0, 0), ("no such request", 99, 0, 2)):
        number = ("read", "behind the end", "identity", "no such request").index(name)
        s.about(name)
        s.fill(0x14000, b"\xee" * 32)
        place_request(s, 0x10000, kind, sector, 20 if kind == 8 else 512)
        s.store(2, 0x11004 + 2 * number, 0)
        s.store(2, 0x11002, number + 1)
        s.store(2, base + 0x3000, 0)
        s.wait_memory(0x12002, 0xffff, number + 1, width=2)
        s.load(1, 0x15000)
        s.load(4, 0x12004 + 8 * number)
        s.load(4, 0x12008 + 8 * number, free="" if wanted == 0 else "how much was written before a request failed")
        if kind == 0:
            s.load(4, 0x14000, 2)
        s.wait_memory(base + 0x1000, 1, 1, width=1)
        s.load(1, base + 0x1000)
    s.about("configuration of the disk")
    s.load(4, base + 0x2000, 2)
    s.load(4, base + 0x2014)
    s.about("reset")
    s.store(1, base + 0x14, 0)
    s.wait_memory(base + 0x14, 0xff, 0, width=1)
    s.load(2, base + 0x1c)
    s.load(4, base + 0x20)
    return {"ours": ["--drive", f"file={ours},format=raw,if=virtio,serial=peer"],
            "theirs": ["-drive", f"file={theirs},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d,addr=0xb,disable-legacy=on,serial=peer"]}


def disks(folder):
    """Two images with the same beginning: ours and theirs."""
    paths = [os.path.join(folder, name) for name in ("ours", "theirs")]
    for path in paths:
        with open(path, "wb") as out:
            out.write(b"lodge and its peer: " * 51 + bytes(4))
            out.truncate(1 << 20)
    return paths


def place_request(s, ring, kind, sector, length):
    """A request to a disk on virtio in the first three descriptors of a ring: its header at 13000h, data at 14000h, the status at 15000h."""
    s.fill(0x13000, kind.to_bytes(4, "little") + bytes(4) + sector.to_bytes(8, "little"))
    s.store(1, 0x15000, 0xff)
    descriptors = ((0x13000, 16, 1, 1), (0x14000, length, 3, 2), (0x15000, 1, 2, 0))  # address, length, flags, next
    s.fill(ring, b"".join(struct.pack("<QIHH", *descriptor) for descriptor in descriptors))


@conversation
def root_port(s, folder):
    """A bridge of PCI Express: its header, and a disk behind it on the way to its registers."""
    ours, theirs = disks(folder)
    device, memory = 28, 0xe0000000
    nobody = "where nobody answers everything reads as ones; QEMU's memory as zeros"
    s.about("header")
    s.config_read(device, 0, 0x08, mask=0xffff0000)
    s.config_read(device, 0, 0x0c, mask=0x007fffff)
    for register, kept, note in ((0x18, 0x00ffffff, "buses"), (0x1c, 0xf0f0, "ports"), (0x20, 0xffffffff, "memory"), (0x24, 0xffffffff, "prefetchable memory"),
                                 (0x28, 0xffffffff, "upper half of its base"), (0x2c, 0xffffffff, "upper half of its limit")):
        for value in (0xffffffff, 0):
            s.config_write(device, 0, register, value)
            s.config_read(device, 0, register, note=f"{note}: {value:#x} written to", mask=kept)
    s.about("the bus behind it")
    s.config_read(0, 0, 0, bus=1, note="without a number")
    s.config_write(device, 0, 0x18, 0x00010100)
    s.config_read(0, 0, 0, bus=1)
    s.config_read(1, 0, 0, bus=1, note="a second device")
    s.config_read(0, 0, 0, bus=2, note="another bus")
    s.about("windows")
    for register in (0x10, 0x20):
        s.config_write(0, 0, register, memory, bus=1)
        s.config_write(0, 0, register + 4, 0, bus=1)
    s.config_write(0, 0, 0x04, 0x6, 2, bus=1)
    s.load(2, memory + 0x12, note="the windows are closed:", differs=nobody)
    s.config_write(device, 0, 0x24, 0xe000e000)
    s.config_write(device, 0, 0x28, 0)
    s.config_write(device, 0, 0x2c, 0)
    s.load(2, memory + 0x12, note="the bridge is off:", differs=nobody)
    s.config_write(device, 0, 0x04, 0x6, 2)
    s.load(2, memory + 0x12, note="open:")
    s.load(2, memory + 0x18, free="how large a queue may be")
    s.config_write(device, 0, 0x24, 0xe010e010)
    s.load(2, memory + 0x12, note="elsewhere:", differs=nobody)
    s.config_write(device, 0, 0x24, 0x0000fff0)
    s.config_write(device, 0, 0x20, 0xe000e000)
    s.load(2, memory + 0x12, note="by the other window:")
    return {"machine": "q35", "ours": ["--drive", f"file={ours},format=raw,if=virtio,port=1"],
            "theirs": ["-device", "pcie-root-port,id=p,addr=1c.0,chassis=1", "-drive", f"file={theirs},format=raw,if=none,id=d", "-device",
                       "virtio-blk-pci,drive=d,bus=p,disable-legacy=on"]}


@conversation
def virtio_legacy(s, folder):
    """A transitional disk, as a driver older than virtio 1.0 speaks to it."""
    ours, theirs = disks(folder)
    device, base, ring, size = 11, 0xc000, 0x100000, 256
    available, used = ring + 16 * size, ring + 0x2000
    s.about("identity")
    for register in (0x00, 0x08):
        s.config_read(device, 0, register)
    s.config_read(device, 0, 0x2c, mask=0xffff0000)
    s.config_write(device, 0, 0x10, 0xffffffff)
    s.config_read(device, 0, 0x10, mask=0xffff0001)
    s.config_write(device, 0, 0x10, base)
    s.config_write(device, 0, 0x04, 0x5, 2)
    s.about("after power-on")
    s.inl(base, mask=0x30006e44)  # what both offer: all but what the disks are different in
    for width, offset in ((4, 4), (4, 8), (2, 12), (2, 14), (1, 18), (1, 19)):
        s._read("port_read", width, base + offset)
    s.inl(base + 20, note="capacity:")
    s.about("features")
    for value in (0xbfffffff, 0x40):  # bit 30 is QEMU's own sign of a driver that is at fault
        s.outl(base + 4, value)
        s.inl(base + 4, mask=0x30006e44)
    s.about("a queue that is not there")
    s.outw(base + 14, 77)
    s.inw(base + 12)
    s.about("queue")
    s.outb(base + 18, 3)
    s.outw(base + 14, 0)
    s.outl(base + 8, ring >> 12)
    s.inl(base + 8)
    s.outb(base + 18, 7)
    s.inb(base + 18)
    for number, (name, kind, sector, wanted) in enumerate((("read", 0, 0, 0), ("behind the end", 0, 1 << 20, 1), ("no such request", 99, 0, 2))):
        s.about(name)
        place_request(s, ring, kind, sector, 512)
        s.store(2, available + 4 + 2 * number, 0)
        s.store(2, available + 2, number + 1)
        s.outw(base + 16, 0)
        s.wait_memory(used + 2, 0xffff, number + 1, width=2)
        s.load(1, 0x15000)
        if wanted == 0:
            s.load(4, used + 8)
            s.load(4, 0x14000, 2)
        s.wait(base + 19, 1, 1)
        s.inb(base + 19)
    s.about("reset")
    s.outb(base + 18, 0)
    s.wait(base + 18, 0xff, 0)
    s.inl(base + 8)
    return {"ours": ["--drive", f"file={ours},format=raw,if=virtio,legacy=on"],
            "theirs": ["-drive", f"file={theirs},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d,addr=0xb,disable-legacy=off,queue-size=256"]}
