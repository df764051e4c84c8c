#!/usr/bin/env python3
"""Takes the ELF kernel out of a bzImage (Linux Documentation/arch/x86/boot.rst: payload_offset and payload_length).

    tools/vmlinux.py BZIMAGE OUTPUT
"""
import lzma
import struct
import subprocess
import sys
import zlib


def payload_of(image):
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    return image[begin:begin + length]


def unpack(source, target):
    with open(source, "rb") as file:
        payload = payload_of(file.read())
    if payload.startswith(b"\xfd7zXZ\0"):
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        kernel = zlib.decompressobj(31).decompress(payload)
    else:  # the last four bytes are the unpacked size
        tool = "zstd" if payload.startswith(b"\x28\xb5\x2f\xfd") else "lz4"
        kernel = subprocess.run([tool, "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    if not kernel.startswith(b"\x7fELF"):
        raise ValueError(f"{source}: its payload is no ELF kernel")
    with open(target, "wb") as file:
        file.write(kernel)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    unpack(sys.argv[1], sys.argv[2])
