"""What is on a machine's screen: pictures from `lodge screenshot`, and the text in them by recognition of the VGA's font."""
import os
import re
import struct
import subprocess
import time
import zlib

from harness import COMMAND_SECONDS, ConsoleError, Skip

FONT_FILES = ("/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin")
FONT_HEIGHT = 16
# The letter A of the 8x16 font, by which the font is found in the ROM.
LETTER_A = bytes((0, 0, 0x10, 0x38, 0x6C, 0xC6, 0xC6, 0xFE, 0xC6, 0xC6, 0xC6, 0xC6, 0, 0, 0, 0))


def load_font():
    """Rows of each glyph to its character; the first of those that look alike."""
    for path in FONT_FILES:
        if not os.path.exists(path):
            continue
        with open(path, "rb") as stream:
            rom = stream.read()
        start = rom.index(LETTER_A) - ord("A") * FONT_HEIGHT
        glyphs = {}
        for code in [*range(32, 127), *range(0, 32), *range(127, 256)]:
            rows = rom[start + code * FONT_HEIGHT:start + (code + 1) * FONT_HEIGHT]
            glyphs.setdefault(rows, bytes((code,)).decode("cp437"))
        return glyphs
    raise Skip("there is no VGA font: install the package seabios")


class Picture:
    """A PNG file of 8-bit RGB, as rows of bytes."""

    def __init__(self, path):
        with open(path, "rb") as stream:
            data = stream.read()
        if data[:8] != b"\x89PNG\r\n\x1a\n":
            raise ConsoleError(f"{path} is no PNG file")
        at, packed = 8, b""
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at:at + 8])
            body = data[at + 8:at + 8 + length]
            if kind == b"IHDR":
                self.width, self.height, depth, color = struct.unpack(">IIBB", body[:10])
                if (depth, color) != (8, 2):
                    raise ConsoleError(f"{path}: depth {depth}, color type {color}")
            elif kind == b"IDAT":
                packed += body
            at += length + 12
        self.rows = list(self.unfilter(zlib.decompress(packed)))

    def unfilter(self, data):
        """PNG 1.2, 6: each row is what remains after a guess from its neighbours."""
        stride, before = self.width * 3, bytearray(self.width * 3)
        for y in range(self.height):
            start = y * (stride + 1)
            kind, row = data[start], bytearray(data[start + 1:start + 1 + stride])
            if kind == 1:
                for i in range(3, stride):
                    row[i] = (row[i] + row[i - 3]) & 0xFF
            elif kind == 2:
                row = bytearray((a + b) & 0xFF for a, b in zip(row, before))
            elif kind in (3, 4):
                for i in range(stride):
                    left, up, corner = (row[i - 3] if i >= 3 else 0), before[i], (before[i - 3] if i >= 3 else 0)
                    if kind == 3:
                        guess = (left + up) // 2
                    else:
                        base = left + up - corner
                        guess = min((left, up, corner), key=lambda value, base=base: abs(base - value))
                    row[i] = (row[i] + guess) & 0xFF
            yield bytes(row)
            before = row

    def pixel(self, x, y):
        return self.rows[y][3 * x:3 * x + 3]

    def text(self, font, cell_width):
        """A line a row of characters; "?" for what is no glyph of the font. The paper of a cell is its lower right corner, or the other
        colour of the two if it is drawn the other way round."""
        lines = []
        for top in range(0, self.height - FONT_HEIGHT + 1, FONT_HEIGHT):
            line = ""
            for left in range(0, self.width - cell_width + 1, cell_width):
                cells = [[self.rows[top + y][3 * (left + x):3 * (left + x) + 3] for x in range(8)] for y in range(FONT_HEIGHT)]
                first = cells[0][0]
                shape = bytes(sum((pixel != first) << (7 - x) for x, pixel in enumerate(row)) for row in cells)
                other = bytes(row ^ 0xFF for row in shape)
                line += font.get(shape) or font.get(other) or "?"
            lines.append(line.rstrip())
        return "\n".join(lines)


class Remote:
    """A running machine by the commands for it."""

    def __init__(self, bench, name):
        self.bench, self.name, self.font = bench, name, load_font()

    def command(self, command, *arguments):
        run = subprocess.run([self.bench.options.lodge, command, self.name, *arguments], capture_output=True, text=True,
                             timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL)
        if run.returncode != 0:
            raise ConsoleError(f"lodge {command}: exit code {run.returncode}: {run.stderr}")
        return run.stdout

    def picture(self):
        path = self.bench.path("screen.png")
        self.command("screenshot", path)
        return Picture(path)

    def text(self, cell_width=9):
        return self.picture().text(self.font, cell_width)

    def wait_for(self, found, seconds, what):
        """Looks until found(picture) gives something; the last picture is kept when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            picture = self.picture()
            result = found(picture)
            if result:
                return result
            if time.monotonic() > deadline:
                kept = os.path.join(self.bench.kept_folder(), f"{self.name}.png")
                os.replace(self.bench.path("screen.png"), kept)
                raise ConsoleError(f"{what} did not come within {seconds} s; the screen is kept in {kept}:\n{picture.text(self.font, 9)}")
            time.sleep(0.2)

    def wait_for_text(self, pattern, seconds, cell_width=9):
        return self.wait_for(lambda picture: re.search(pattern, picture.text(self.font, cell_width)), seconds, f"the text {pattern!r}")
