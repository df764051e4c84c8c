"""QEMU's side of a comparison: its PC with TCG and the devices that Lodge's machine has."""


def qemu_pc(memory, network):
    """The beginning of a command line; `network` is the value of -nic."""
    return ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", memory, "-nic", network, "-monitor", "none",
            "-device", "qemu-xhci", "-device", "usb-tablet", "-device", "virtio-rng-pci,disable-legacy=on"]
