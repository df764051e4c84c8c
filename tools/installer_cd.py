"""A CD with Debian's installer that asks nothing: it installs a small system onto the only disk and ends the machine."""
import gzip
import os
import shutil

import grub_cd
from guest_image import Archive

PASSWORD = "lodge"
# What it says on the serial line when it is through, and when it waits for somebody after all.
DONE, ASKS = r"reboot: Power down", r"Prompt: '\?'|\[Press enter"

# All its answers: preseeding with a file in its initial RAM disk (Debian GNU/Linux Installation Guide, appendix B).
PRESEED = """
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string debian
d-i netcfg/get_domain string
d-i hw-detect/load_firmware boolean false
d-i mirror/country string manual
d-i mirror/http/hostname string {host}
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i debian-installer/allow_unauthenticated boolean true
d-i passwd/make-user boolean false
d-i passwd/root-password password {password}
d-i passwd/root-password-again password {password}
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i apt-setup/services-select multiselect
tasksel tasksel/first multiselect
d-i pkgsel/upgrade select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string default
d-i debian-installer/add-kernel-opts string console=ttyS0
d-i finish-install/reboot_in_progress note
d-i cdrom-detect/eject boolean false
d-i debian-installer/exit/poweroff boolean true
"""


def with_file(initrd, path, name, data):
    """At `path` the initial RAM disk with one more file, in an archive behind it; packed, as the kernel takes that at any offset."""
    further = Archive()
    further.file(name, data)
    with open(initrd, "rb") as stream, open(path, "wb") as out:
        shutil.copyfileobj(stream, out)
        out.write(gzip.compress(b"".join(further.records())))


def make(folder, archive, platform=grub_cd.BIOS):
    """FOLDER/cd.iso, for as long as the archive (installer_archive.py) is there; a guest needs a user network that leads to the host."""
    preseed = PRESEED.format(host=archive.host, password=PASSWORD).encode()
    initrd = os.path.join(folder, "initrd")
    with_file(archive.initrd, initrd, "preseed.cfg", preseed)
    return grub_cd.make(folder, archive.kernel, initrd, "console=ttyS0 auto=true priority=critical DEBIAN_FRONTEND=text", platform=platform)
