"""A CD with GRUB that boots a Linux kernel, out of Debian's packages."""
import os
import shutil
import subprocess

BIOS, UEFI = "i386-pc", "x86_64-efi"

CONFIGURATION = """serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=0
menuentry "guest" {{
  linux /boot/vmlinuz {append}
  initrd /boot/initrd
}}
"""


class CannotMake(Exception):
    """What is missing here, or what grub-mkrescue said."""

    def __init__(self, message, missing):
        super().__init__(message)
        self.missing = missing


def make(folder, kernel, initrd, append, files=(), platform=BIOS):
    """FOLDER/cd.iso, and what it was made of beside it; `files` are further ones, of a name and bytes each. Its path."""
    tool = shutil.which("grub-mkrescue")
    if not tool or not shutil.which("xorriso") or not os.path.isdir(f"/usr/lib/grub/{platform}"):
        raise CannotMake(f"no grub-mkrescue for {platform}: install grub-common, grub-pc-bin, grub-efi-amd64-bin, xorriso and mtools", True)
    tree, cd = os.path.join(folder, "tree"), os.path.join(folder, "cd.iso")
    os.makedirs(os.path.join(tree, "boot", "grub"))
    shutil.copy(kernel, os.path.join(tree, "boot", "vmlinuz"))
    shutil.copy(initrd, os.path.join(tree, "boot", "initrd"))
    for name, data in [("boot/grub/grub.cfg", CONFIGURATION.format(append=append).encode()), *files]:
        with open(os.path.join(tree, name), "wb") as out:
            out.write(data)
    made = subprocess.run([tool, "-d", f"/usr/lib/grub/{platform}", "-o", cd, tree], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise CannotMake(f"grub-mkrescue failed:\n{made.stdout}{made.stderr}", False)
    return cd
