"""What drivers, and curious ones, say to the chips of the PC/AT."""
from peer import conversation

KEYBOARD_DATA, KEYBOARD_STATUS = 0x60, 0x64
OUTPUT_FULL, INPUT_FULL = 1, 2


def controller_command(s, *values):
    s.outb(KEYBOARD_STATUS, values[0])
    for value in values[1:]:
        s.outb(KEYBOARD_DATA, value)


def take(s, count=1, **how):
    """Bytes from the output buffer, with the status before each."""
    for _ in range(count):
        s.wait(KEYBOARD_STATUS, OUTPUT_FULL, OUTPUT_FULL)
        s.inb(KEYBOARD_STATUS, mask=0x21)
        s.inb(KEYBOARD_DATA, **how)


@conversation
def i8042(s, _):
    s.about("after power-on")
    s.inb(KEYBOARD_STATUS, mask=0xf7)  # but whether a command was written last
    for name, command, count in (("self test", 0xaa, 1), ("keyboard's line", 0xab, 1), ("mouse's line", 0xa9, 1), ("input port", 0xc0, 1)):
        s.about(name)
        controller_command(s, command)
        take(s, count)
    s.about("output port")
    controller_command(s, 0xd0)
    take(s, mask=0x03)  # the other bits are lines of the cables, at this very moment
    s.about("command byte after the self test")
    controller_command(s, 0x20)
    take(s, differs="the test turns the ports off and sets the system flag; QEMU's leaves the command byte as it is")
    s.about("command byte")
    for value in (0x00, 0x47, 0x77, 0x30, 0x41, 0x03):
        controller_command(s, 0x60, value)
        controller_command(s, 0x20)
        take(s)
    for name, command in (("mouse off", 0xa7), ("mouse on", 0xa8), ("keyboard off", 0xad), ("keyboard on", 0xae)):
        s.about(name)
        controller_command(s, command)
        controller_command(s, 0x20)
        take(s)
    s.about("written as if the keyboard, or the mouse, had said it")
    controller_command(s, 0xd2, 0x5a)
    take(s)
    controller_command(s, 0xd3, 0xa5)
    take(s)
    s.about("keyboard")
    reasons = {"no such command": "a keyboard asks for such a command again; QEMU's takes it",
               "all keys repeat": "a keyboard takes set 3's commands; QEMU's asks again",
               "set?, of 3": "Lodge's keyboard has the sets 1 and 2"}
    for name, words, count in (("identify", [0xf2], 3), ("echo", [0xee], 1), ("lights", [0xed, 7], 2), ("rate", [0xf3, 0x20], 2),
                               ("scan code set", [0xf0, 0], 3), ("set 2", [0xf0, 2], 2), ("set 3", [0xf0, 3], 2), ("set?, of 3", [0xf0, 0], 3),
                               ("set 2", [0xf0, 2], 2), ("off", [0xf5], 1), ("on", [0xf4], 1), ("defaults", [0xf6], 1), ("reset", [0xff], 2),
                               ("no such command", [0x00], 1), ("all keys repeat", [0xf7], 1)):
        s.about(f"keyboard, {name}")
        for number, word in enumerate(words):
            s.outb(KEYBOARD_DATA, word)
            take(s, 1 if number + 1 < len(words) else count - number, differs=reasons.get(name, ""))
    for name, words, count in (("identify", [0xf2], 2), ("reset", [0xff], 3), ("status", [0xe9], 4), ("resolution", [0xe8, 1], 2),
                               ("scaling 2:1", [0xe7], 1), ("status", [0xe9], 4), ("scaling 1:1", [0xe6], 1), ("rate", [0xf3, 40], 2),
                               ("on", [0xf4], 1), ("status", [0xe9], 4), ("remote", [0xf0], 1), ("poll", [0xeb], 4), ("wrap", [0xee], 1),
                               ("echoed", [0x12], 1), ("no wrap", [0xec], 1), ("stream", [0xea], 1), ("defaults", [0xf6], 1),
                               ("wheel", [0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2], 8), ("five buttons", [0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2], 8),
                               ("reset", [0xff], 3), ("identify", [0xf2], 2)):
        s.about(f"mouse, {name}")
        for number, word in enumerate(words):
            controller_command(s, 0xd4, word)
            take(s, 1 if number + 1 < len(words) else count - number,
                 differs="Lodge's mouse has three buttons and a wheel" if name == "five buttons" else "")


def cmos(s, register, **how):
    s.outb(0x70, register)
    s.inb(0x71, **how)


def set_cmos(s, register, value):
    s.outb(0x70, register)
    s.outb(0x71, value)


@conversation
def clock(s, _):
    s.about("registers")
    cmos(s, 0x0a, mask=0x7f)
    cmos(s, 0x0b)
    cmos(s, 0x0c, free="the periodic flag rises with or without its interrupt, as soon as its time has come; QEMU's with it only")
    cmos(s, 0x0d)
    s.inb(0x70, note="index")
    s.about("time is set")
    for mode, words in ((0x82, (0x58, 0x59, 0x23, 5, 0x28, 2, 0x23)), (0x86, (58, 59, 23, 5, 28, 2, 23)), (0x80, (0x58, 0x59, 0x91, 5, 0x28, 2, 0x23))):
        set_cmos(s, 0x0b, mode)
        for register, value in zip((0, 2, 4, 6, 7, 8, 9), words):
            set_cmos(s, register, value)
        for register in (0, 2, 4, 6, 7, 8, 9):
            cmos(s, register)
    s.about("alarm")
    set_cmos(s, 0x0b, 0x82)
    for register, value in ((1, 0xc0), (3, 0xff), (5, 0x12)):
        set_cmos(s, register, value)
        cmos(s, register)
    s.about("which bits can be written")
    for value in (0xff, 0x00, 0x26):
        set_cmos(s, 0x0a, value)
        cmos(s, 0x0a, mask=0x7f)
    for value in (0xff, 0x80, 0x82):
        set_cmos(s, 0x0b, value)
        cmos(s, 0x0b)
    set_cmos(s, 0x0c, 0xff)
    cmos(s, 0x0c, mask=0x0f)
    set_cmos(s, 0x0d, 0)
    cmos(s, 0x0d)
    s.about("memory")
    for register in (0x0e, 0x0f, 0x3f, 0x70, 0x7f):
        set_cmos(s, register, register ^ 0xff)
        cmos(s, register)
    s.about("periodic interrupt")
    set_cmos(s, 0x0a, 0x26)
    set_cmos(s, 0x0b, 0x42)
    s.outb(0x70, 0x0c)
    s.wait(0x71, 0x40, 0x40)
    set_cmos(s, 0x0b, 0x02)
    s.about("updates")
    set_cmos(s, 0x0b, 0x12)
    s.outb(0x70, 0x0c)
    s.wait(0x71, 0x10, 0x10)


@conversation
def serial(s, _):
    port = 0x3f8
    s.about("after power-on")
    for register in range(8):
        s.inb(port + register, differs="a reset clears the modem control register; QEMU's has OUT2 set" if register == 4 else "")
    s.about("divisor")
    s.outb(port + 3, 0x83)
    s.outb(port, 0x34)
    s.outb(port + 1, 0x12)
    s.inb(port)
    s.inb(port + 1)
    s.outb(port, 1)
    s.outb(port + 1, 0)
    s.outb(port + 3, 0x03)
    s.about("which bits can be written")
    for register in (1, 3, 4, 7):
        for value in (0xff, 0x00, 0x55):
            if register == 3 and value == 0xff:
                value = 0x7f
            s.outb(port + register, value)
            s.inb(port + register)
    s.outb(port + 1, 0)
    s.outb(port + 3, 3)
    s.about("loopback")
    for lines in (0x10, 0x1f, 0x15, 0x1a, 0x18, 0x14):
        s.outb(port + 4, lines)
        s.inb(port + 6, differs="lines that change are told in loopback as otherwise; QEMU tells only how they are")
        s.inb(port + 6)
    s.about("loopback of data")
    s.outb(port + 4, 0x10)
    for value in (0x00, 0x55, 0xff):
        s.outb(port, value)
        s.wait(port + 5, 1, 1)
        s.inb(port + 5)
        s.inb(port)
        s.inb(port + 5)
    s.about("queues")
    for control in (0x00, 0x01, 0x07, 0x81, 0xc7, 0x06):
        s.outb(port + 2, control)
        s.inb(port + 2)
    s.about("interrupts")
    s.outb(port + 4, 0x18)
    s.outb(port + 1, 0x02)
    s.inb(port + 2)
    s.inb(port + 2)
    s.outb(port + 1, 0x00)
    s.inb(port + 2)


@conversation
def timer(s, _):
    s.about("status of channels")
    for channel in range(3):
        for mode in range(6):
            for access in (1, 2, 3):
                s.outb(0x43, channel << 6 | access << 4 | mode << 1)
                s.outb(0x43, 0xe0 | 2 << channel)
                s.inb(0x40 + channel, mask=0x3f)
                for _ in range(2 if access == 3 else 1):
                    s.outb(0x40 + channel, 0xff)
                s.outb(0x43, 0xe0 | 2 << channel)
                s.inb(0x40 + channel, mask=0x3f)
    s.about("after a control word")
    for mode, reason in ((0, "the count is not there yet (null count); QEMU does not tell"), (4, "the output is high until a count ends (8254, mode 4)")):
        s.outb(0x43, 0x30 | mode << 1)
        s.outb(0x43, 0xe2)
        s.inb(0x40, mask=0x80 if mode else 0x40, differs=reason)
    s.about("port 61h")
    for value in (0x00, 0x01, 0x02, 0x03, 0x0c, 0xff, 0x00):
        s.outb(0x61, value)
        s.inb(0x61, mask=0xcf)
    s.about("channel 2 ends its count")
    s.outb(0x61, 0x00)
    s.outb(0x43, 0xb0)
    s.outb(0x42, 0x10)
    s.outb(0x42, 0x00)
    s.inb(0x61, mask=0x20)
    s.outb(0x61, 0x01)
    s.wait(0x61, 0x20, 0x20)


@conversation
def interrupt_controllers(s, _):
    for base, vector, cascade in ((0x20, 0x08, 4), (0xa0, 0x70, 2)):
        s.about(f"at {base:#x}")
        for value in (0x00, 0xff, 0xa5):
            s.outb(base + 1, value)
            s.inb(base + 1)
        s.outb(base, 0x11)
        s.outb(base + 1, vector, cascade, 1)
        s.inb(base + 1)
        s.outb(base, 0x0b)
        s.inb(base)
        s.outb(base, 0x0a)
        s.inb(base, mask=0xfe)
        for value in (0xff, 0x00):
            s.outb(base + 1, value)
            s.inb(base + 1)
        s.outb(base + 1, 0xff)
    s.about("edge or level")
    for port in (0x4d0, 0x4d1):
        s.inb(port)
        for value in (0xff, 0x00):
            s.outb(port, value)
            s.inb(port)
    s.about("a request from the serial port")
    s.outb(0x21, 0xef)
    s.outb(0x3fc, 0x08)
    s.outb(0x3f9, 0x02)
    s.outb(0x20, 0x0a)
    s.inb(0x20, mask=0x10)
    s.outb(0x20, 0x0c)
    s.inb(0x20, note="poll")
    s.outb(0x20, 0x0b)
    s.inb(0x20)
    s.outb(0x20, 0x64)
    s.outb(0x20, 0x0b)
    s.inb(0x20)
    s.outb(0x3f9, 0x00)
    s.outb(0x20, 0x0a)
    s.inb(0x20, mask=0x10)


@conversation
def dma(s, _):
    for base, step in ((0x00, 1), (0xc0, 2)):
        s.about(f"at {base:#x}")
        s.outb(base + 13 * step, 0)
        s.inb(base + 8 * step)
        s.inb(base + 13 * step)
        for register in range(8):
            port = base + register * step
            s.outb(base + 12 * step, 0)
            s.outb(port, 0x34, 0x12)
            s.outb(base + 12 * step, 0)
            s.inb(port)
            s.inb(port)
        s.outb(base + 15 * step, 0x0a)
        s.inb(base + 15 * step, differs="the bridges let the mask be read (PIIX, RWAMB); QEMU's has zeros there")
    s.about("pages")
    for port in (0x81, 0x82, 0x83, 0x87, 0x89, 0x8a, 0x8b, 0x8f):
        s.outb(port, port)
        s.inb(port)


@conversation
def ports_of_the_board(s, _):
    s.about("port 92h")
    s.inb(0x92, differs="A20 is on: the bit reads as the line is")
    # A20 stays on: the firmware runs in an odd megabyte.
    for value in (0x02, 0xfe, 0x02):
        s.outb(0x92, value)
        s.inb(0x92, mask=0x03)  # the other bits are reserved
    s.about("reset control")
    s.inb(0xcf9)
    s.outb(0xcf9, 0x02)
    s.inb(0xcf9)
    s.about("debug consoles")
    s.inb(0x402)
    s.about("nothing")
    for port in (0x100, 0x2f8, 0x200, 0x5000):
        s.inb(port)
        s.inw(port)
        s.inl(port)


@conversation
def fw_cfg(s, _):
    s.about("signature")
    s.outw(0x510, 0)
    s.ins(1, 0x511, 8)
    s.about("features")
    s.outw(0x510, 1)
    s.ins(1, 0x511, 4)
    s.about("memory")
    s.outw(0x510, 3)
    s.ins(1, 0x511, 10)
    s.about("processors")
    for key in (5, 0x0f):
        s.outw(0x510, key)
        s.ins(1, 0x511, 4)
    s.about("no such item")
    s.outw(0x510, 0x4fff)
    s.ins(1, 0x511, 4)
    s.about("DMA's signature")
    s.inl(0x514)
    s.inl(0x518)
    s.about("DMA")
    s.fill(0x10000, bytes([0, 0, 0, 0x0a, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0x10, 0]))
    s.outl(0x514, 0)
    s.outl(0x518, 0x00000100)
    s.load(4, 0x10000)
    s.load(4, 0x11000)


@conversation
def a20(s, _):
    """The gate of address line 20, by either chip."""
    def look():
        s.load(4, 0x100500)
        s.load(4, 0x000500)

    s.store(4, 0x100500, 0x11111111)
    s.store(4, 0x000500, 0x22222222)
    s.store(4, 0x110500, 0x33333333)
    s.store(4, 0x010500, 0x44444444)
    s.about("open")
    look()
    for name, close, opened in (("keyboard controller", lambda: controller_command(s, 0xd1, 0xdd), lambda: controller_command(s, 0xd1, 0xdf)),
                                ("port 92h", lambda: s.outb(0x92, 0x00), lambda: s.outb(0x92, 0x02))):
        s.about(f"closed by {name}")
        close()
        look()
        s.store(4, 0x100500, 0x55555555)
        look()
        s.load(4, 0x110500, differs="it closes what real mode reaches; QEMU's every odd megabyte")
        s.about(f"opened by {name}")
        opened()
        look()
        s.store(4, 0x000500, 0x22222222)


@conversation
def processor_reset(s, _):
    """The ways in which programs for the 80286 went back to real mode: the processor is reset, and memory stays."""
    def begin(then):
        def part():
            s.load(1, 0x9000)
            s.load(4, 0x9004)
            s.inb(0x21, differs="it is the processor that is reset (INIT#); QEMU resets the machine, all but its memory")
            s.outb(0x21, 0xa5)
            then()
        return part

    s.about("the processor starts again")
    s.stages(0x9000, [lambda: (s.store(4, 0x9004, 0x12345678), s.outb(0x21, 0xa5), s.outb(0x92, 0x03)),
                      begin(lambda: s.outb(0x64, 0xfe)), begin(lambda: controller_command(s, 0xd1, 0xde)), begin(s.triple_fault), begin(lambda: None)])
    return {"resets": True}


@conversation
def event_timers(s, _):
    """The HPET."""
    base = 0xfed00000
    s.about("after power-on")
    s.load(4, base)
    s.load(4, base + 4)
    for offset in (0x10, 0x14, 0x20, 0x24, 0xf0, 0xf4, 0x108, 0x10c, 0x128, 0x148):
        s.load(4, base + offset)
    for timer in range(3):
        s.load(4, base + 0x100 + 0x20 * timer)
        s.load(4, base + 0x104 + 0x20 * timer, differs="timers interrupt by the inputs that the ICH9's have (21.1.8); QEMU's 440FX has input 2 for them")
    s.about("which bits can be written")
    for timer in range(3):
        for value in (0xffffffff, 0x00000000):
            s.store(4, base + 0x100 + 0x20 * timer, value & ~0x4000)
            s.load(4, base + 0x100 + 0x20 * timer, note=f"timer {timer}, {value:#x} written to", mask=0xffffbfbf)
    s.about("counter")
    s.store(4, base + 0xf0, 0x12345678)
    s.store(4, base + 0xf4, 0x9)
    s.load(4, base + 0xf0, 2)
    s.about("a comparator, once")
    s.store(4, base + 0xf0, 0)
    s.store(4, base + 0xf4, 0)
    s.store(4, base + 0x140, 0x0006 | 20 << 9)
    s.store(4, base + 0x148, 20000)
    s.store(4, base + 0x14c, 0)
    s.load(4, base + 0x148, 2)
    s.store(4, base + 0x10, 1)
    s.wait_memory(base + 0x20, 4, 4)
    s.store(4, base + 0x20, 4)
    s.load(4, base + 0x20)
    s.about("periods")
    s.store(4, base + 0x10, 0)
    s.store(4, base + 0xf0, 0)
    s.store(4, base + 0x100, 0x0106 | 0x48)
    s.load(4, base + 0x100, mask=0xffffffff)
    s.store(4, base + 0x108, 100000)
    s.load(4, base + 0x100)
    s.load(4, base + 0x108)
    s.store(4, base + 0x108, 50000)
    s.load(4, base + 0x108)
    s.store(4, base + 0x10, 1)
    for _ in range(3):
        s.wait_memory(base + 0x20, 1, 1)
        s.store(4, base + 0x20, 1)
    s.about("in the place of the 8254")
    s.store(4, base + 0x10, 0)
    s.store(4, base + 0x20, 0xffffffff)
    s.outb(0x20, 0x11)
    s.outb(0x21, 0x08, 4, 1, 0xff)
    s.outb(0x43, 0x34)
    s.outb(0x40, 0x00, 0x10)
    s.outb(0x20, 0x0a)
    s.wait(0x20, 1, 1)
    s.store(4, base + 0x100, 0x0104)
    s.store(4, base + 0x108, 0x7fffffff)
    s.store(4, base + 0xf0, 0)
    s.store(4, base + 0x10, 3)
    s.load(4, base + 0x10)
    s.outb(0x20, 0x11)
    s.outb(0x21, 0x08, 4, 1, 0xff)
    s.outb(0x20, 0x0a)
    s.store(4, base + 0x148, 400000)
    s.store(4, base + 0x14c, 0)
    s.wait_memory(base + 0x20, 4, 4)
    s.inb(0x20, mask=1, note="nothing of the 8254:")
    s.store(4, base + 0x108, 500000)
    s.wait(0x20, 1, 1)
    s.store(4, base + 0x10, 0)
