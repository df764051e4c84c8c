"""The screen, the keyboard, and the commands for machines that run."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from harness import (BOOT_SECONDS, COMMAND_SECONDS, END_SECONDS, PROMPT, READY, Console, ConsoleError, Skip, answer, case, check, guest_image,
                     lodge, power_off, reach_prompt)
from device_cases import check_digest, disc, no_complaints
from pc_cases import MIB, boot_cd, pc_command, wait_for_drives
from screen import Remote

NAME = "pc-test"
INSTALLER = "/usr/lib/debian-installer/images/12/{0}/text/debian-installer/{0}"


@case
def screen_firmware(bench):
    """SeaBIOS's text on the VGA, read by its font; Ctrl-Alt-Delete on the keyboard begins anew."""
    disk = bench.path("empty", bytes(MIB))
    with Console(pc_command(bench, "--drive", f"file={disk},format=raw")) as machine:
        machine.expect("No bootable device", BOOT_SECONDS)
        remote = Remote(bench, NAME)
        remote.wait_for_text(r"SeaBIOS \(version [-.\w]+\)(?s:.*)Booting from Hard Disk(?s:.*)No bootable device", COMMAND_SECONDS)
        picture = remote.picture()
        check((picture.width, picture.height) == (720, 400), f"the text mode has {picture.width}x{picture.height} dots")
        remote.command("key", "ctrl-alt-delete")
        machine.expect("SeaBIOS", BOOT_SECONDS)
        machine.expect("No bootable device", BOOT_SECONDS)
        check(machine.output.count("SeaBIOS (version") == 2, "it did not begin anew")


@contextlib.contextmanager
def linux_with_screen(bench, *arguments, flavour="cloud-amd64"):
    """Stock Linux on the PC: its shell on the serial port, its first terminal on the screen."""
    folder = bench.flavour_folder(flavour)
    initrd = bench.path("initrd")
    guest_image.flavour_image(folder, pc=True).write(initrd)
    cd = boot_cd(bench, os.path.join(folder, "vmlinuz"), initrd, "console=tty0 console=ttyS0")
    with Console(pc_command(bench, "--cdrom", cd, *arguments)) as guest:
        guest.expect("SeaBIOS", BOOT_SECONDS)
        reach_prompt(guest)
        yield guest, Remote(bench, NAME)


@case
def screen_linux(bench):
    """Linux's text console on the screen, scrolled; and what is typed on the keyboard arrives."""
    with linux_with_screen(bench) as (guest, remote):
        answer(guest, "printf '\\033c' >/dev/tty1; for i in $(seq 1 60); do echo line $i of many >/dev/tty1; done")
        shown = remote.wait_for_text("line 60 of many", COMMAND_SECONDS).string.split("\n")
        lines = [int(found.group(1)) for found in map(re.compile(r"line (\d+) of many$").match, shown) if found]
        check(lines == list(range(lines[0], 61)) and len(lines) >= 20, f"the screen is not what scrolled: {shown}")
        guest.type("read -r typed </dev/tty1; echo \"typed: $typed\"\n")
        guest.expect("typed <", COMMAND_SECONDS)
        text = "Hello, World! 42% of {all} ~keys~ | a\\b"
        remote.command("type", text + "\n")
        guest.expect(re.escape("typed: " + text), COMMAND_SECONDS)
        remote.wait_for_text(re.escape("Hello, World!"), COMMAND_SECONDS)
        power_off(guest)


@case
def cd_changed(bench):
    """The CD is taken out and another one put in while Linux runs, which locks the drive while it uses the disc."""
    first, second = disc(MIB, 6), disc(2 * MIB, 7)
    with linux_with_screen(bench, "--net", "none") as (guest, remote):
        wait_for_drives(guest, ("/dev/sr0",))
        answer(guest, "mkdir -p /cd && mount -t iso9660 -o ro /dev/sr0 /cd && cat /cd/boot/grub/grub.cfg")
        locked = lodge(bench, "eject", NAME)
        check(locked.returncode == 2 and "locked the drive cd0" in locked.stderr, f"a mounted disc: {locked.returncode} {locked.stderr}")
        answer(guest, "umount /cd")
        remote.command("eject")
        answer(guest, "! head -c 1 /dev/sr0")
        for content in (first, second):
            remote.command("insert", bench.path("content.iso", content))
            check_digest(guest, f"head -c {len(content)} /dev/sr0", content, "the disc reads otherwise")
            check(answer(guest, "cat /sys/block/sr0/size") == str(len(content) // 512), "the disc has another size")
        missing = lodge(bench, "insert", NAME, bench.path("none.iso"))
        check(missing.returncode == 2 and "none.iso" in missing.stderr, f"a file that is not there: {missing.stderr}")
        none = lodge(bench, "insert", NAME, bench.path("image.iso.xz", b"\xfd7zXZ\0" + bytes(100)))
        check(none.returncode == 2 and "it is packed" in none.stderr, f"a file that is no CD: {none.stderr}")
        check_digest(guest, f"head -c {len(content)} /dev/sr0", content, "the disc of before is not in the drive again")
        other = lodge(bench, "eject", NAME, "cd1")
        check(other.returncode == 2 and "there is cd0" in other.stderr, f"a drive that is not there: {other.stderr}")
        no_complaints(guest)
        power_off(guest)


def qmp(bench, name, *commands):
    """Commands of QMP, each of a name and arguments, over the machine's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(COMMAND_SECONDS)
        connection.connect(os.path.join(bench.folder, "lodge", f"{name}.sock"))
        stream = connection.makefile("rw", encoding="utf-8")
        check("QMP" in json.loads(stream.readline()), "no greeting")
        for command, arguments in (("qmp_capabilities", {}), *commands):
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            answered = json.loads(stream.readline())
            while "event" in answered:
                answered = json.loads(stream.readline())
            check("return" in answered, f"{command}: {answered}")


@case
def tablet(bench):
    """Linux's own driver finds the tablet on USB and hears where the pointer is and which button is down."""
    with linux_with_screen(bench, flavour="amd64") as (guest, _):
        answer(guest, "until grep -q 'USB Tablet' /proc/bus/input/devices; do sleep 0.1; done")
        handlers = answer(guest, "grep -A4 'USB Tablet' /proc/bus/input/devices | grep Handlers")
        event = re.search(r"event\d+", handlers).group()
        answer(guest, f"until [ -c /dev/input/{event} ]; do sleep 0.1; done")
        # The device is open before the event comes.
        guest.type(f"{{ echo now $((1 + 1)) listening; dd bs=24 count=5 2>/dev/null | od -An -v -t x1 -w24 | cut -c 49-; }} </dev/input/{event}\n")
        guest.expect("now 2 listening", COMMAND_SECONDS)
        qmp(bench, NAME, ("input-send-event", {"events": [{"type": "abs", "data": {"axis": "x", "value": 0x4001}},
                                                          {"type": "abs", "data": {"axis": "y", "value": 0x2002}},
                                                          {"type": "btn", "data": {"button": "left", "down": True}}]}))
        # Types and codes of <linux/input-event-codes.h>: EV_MSC with the button's usage first, EV_KEY, then EV_ABS twice, EV_SYN.
        for line in ("04 00 04 00 01 00 09 00", "01 00 10 01 01 00 00 00", "03 00 00 00 01 40 00 00", "03 00 01 00 02 20 00 00",
                     "00 00 00 00 00 00 00 00"):
            guest.expect(line, COMMAND_SECONDS)
        no_complaints(guest)
        power_off(guest)


@case
def usb_keyboard(bench):
    """A keyboard on USB: Linux's own driver hears it, and before that SeaBIOS, whose menu it opens."""
    with linux_with_screen(bench, "--keyboard", "usb", flavour="amd64") as (guest, _):
        answer(guest, "until grep -q 'USB Keyboard' /proc/bus/input/devices; do sleep 0.1; done")
        handlers = answer(guest, "grep -A4 'USB Keyboard' /proc/bus/input/devices | grep Handlers")
        event = re.search(r"event\d+", handlers).group()
        answer(guest, f"until [ -c /dev/input/{event} ]; do sleep 0.1; done")
        guest.type(f"{{ echo now $((1 + 1)) listening; dd bs=24 count=3 2>/dev/null | od -An -v -t x1 -w24 | cut -c 49-; }} </dev/input/{event}\n")
        guest.expect("now 2 listening", COMMAND_SECONDS)
        check(lodge(bench, "key", NAME, "z").returncode == 0, "key failed")
        # EV_MSC with the key's usage, EV_KEY, EV_SYN.
        for line in ("04 00 04 00 1d 00 07 00", "01 00 2c 00 01 00 00 00", "00 00 00 00 00 00 00 00"):
            guest.expect(line, COMMAND_SECONDS)
        no_complaints(guest)
        power_off(guest)
    with Console(pc_command(bench, "--cdrom", "none", "--boot", "menu", "--keyboard", "usb")) as guest:
        guest.expect("ESC for boot menu", BOOT_SECONDS)
        check(lodge(bench, "key", "pc-test", "esc").returncode == 0, "key failed")
        guest.expect("Select boot device", COMMAND_SECONDS)


@case
def remote(bench):
    """ps, pause, resume, reset, stop and kill on running machines, by QMP as well."""
    with bench.booted("--name", "first") as guest:
        listed = json.loads(lodge(bench, "ps", "--json").stdout)
        check([(row["name"], row["status"], row["memory"]) for row in listed] == [("first", "running", "512M")], f"ps says {listed}")
        check(int(listed[0]["pid"]) == guest.process.pid, "another process")
        check(lodge(bench, "pause", "first").returncode == 0, "pause failed")
        check("paused" in lodge(bench, "ps").stdout, "it is not paused")
        guest.type("echo it $((1 + 1)) goes on\n")
        check(lodge(bench, "resume", "first").returncode == 0, "resume failed")
        guest.expect("it 2 goes on", COMMAND_SECONDS)
        refused = lodge(bench, "screenshot", "first", bench.path("x.png"))
        check(refused.returncode == 2 and "no screen" in refused.stderr, f"a machine without a screen: {refused.stderr}")
        check(lodge(bench, "reset", "first").returncode == 0, "reset failed")
        reach_prompt(guest)
        # A paused machine stays so over a reset, until it is told to go on.
        check(lodge(bench, "pause", "first").returncode == 0 and lodge(bench, "reset", "first").returncode == 0, "reset while paused failed")
        check("paused" in lodge(bench, "ps").stdout, "the reset machine runs")
        check(lodge(bench, "resume", "first").returncode == 0, "resume failed")
        reach_prompt(guest)
        stopped = lodge(bench, "stop", "first", str(END_SECONDS))
        check(stopped.returncode == 0, f"stop: {stopped.stderr}")
        code = guest.finish(END_SECONDS)
        check(code == 0, f"exit code {code} after stop")
    check(json.loads(lodge(bench, "ps", "--json").stdout) == [], "a machine is left")
    with bench.booted("--name", "second") as guest:
        # One that stands still does not answer, and can be ended all the same.
        guest.process.send_signal(signal.SIGSTOP)
        row = json.loads(lodge(bench, "ps", "--json").stdout)[0]
        check(row["status"] == "silent", f"a stopped process is {row}")
        silent = lodge(bench, "pause", "second")
        check(silent.returncode == 1 and "does not answer" in silent.stderr, f"pause of a stopped process: {silent.returncode} {silent.stderr}")
        check(lodge(bench, "kill", "second").returncode == 0, "kill failed")
        code = guest.finish(END_SECONDS)
        check(code == 128 + signal.SIGKILL, f"exit code {code} after kill")
    check(json.loads(lodge(bench, "ps", "--json").stdout) == [], "a machine is left")


@case
def console_shared(bench):
    """lodge console: what a machine in the background printed and prints, at a terminal that it leaves without ending it."""
    with bench.booted("--name", "shared") as guest:
        command = [bench.options.lodge, "console", "shared"]
        with Console(command, terminal=True) as other:
            # Printed before it came; what is typed there the machine answers to both.
            other.expect(READY, COMMAND_SECONDS)
            other.expect(PROMPT, COMMAND_SECONDS)
            other.type("echo from the $((2 - 1))st other end\n")
            other.expect("from the 1st other end", COMMAND_SECONDS)
            guest.expect("from the 1st other end", COMMAND_SECONDS)
            other.type("\x01h")
            other.expect("the machine goes on", COMMAND_SECONDS)
            other.type("\x01x")
            code = other.finish(END_SECONDS)
            check(code == 0 and "shared goes on" in other.output, f"leaving: {code} {other.last_output()}")
        reached = subprocess.run(command, input="echo $((40 + 2)) by a pipe; poweroff\n", capture_output=True, text=True,
                                 timeout=END_SECONDS, check=False)
        check(reached.returncode == 0 and "42 by a pipe" in reached.stdout, f"by a pipe: {reached.returncode} {reached.stdout[-500:]}")
        code = guest.finish(END_SECONDS)
        check(code == 0, f"exit code {code} after poweroff")
    none = lodge(bench, "console", "shared")
    check(none.returncode == 2 and "no running machine" in none.stderr, f"a machine that has ended: {none.returncode} {none.stderr}")


@case
def remote_bad_input(bench):
    """Names in use and of nobody, keys and layouts that are none, files that cannot be written: which, what, and exit code 2."""
    def refused(words, *arguments, code=2):
        run = lodge(bench, *arguments)
        check(run.returncode == code and words in run.stderr, f"{arguments}: exit code {run.returncode}\n{run.stderr}")

    disk = bench.path("empty", bytes(MIB))
    refused("none runs", "pause", "nobody")
    with Console(pc_command(bench, "--drive", f"file={disk},format=raw", "--display", "vnc=127.0.0.1:0")) as machine:
        check(machine.finish(COMMAND_SECONDS) == 2 and "is not a port" in machine.output, machine.output)
    with Console(pc_command(bench, "--drive", f"file={disk},format=raw", "--display", "vnc")) as machine:
        where = machine.expect(r"the screen of pc-test is at (\S+)", COMMAND_SECONDS).group(1)
        machine.expect("No bootable device", BOOT_SECONDS)
        refused("runs already", *pc_command(bench, disk)[1:])
        refused("in use", "run", disk, "--snapshot", "--name", "other", "--display", f"vnc={where}")
        refused("pc-test", "pause", "nobody")
        refused("cannot be a machine's name", "pause", "../x")
        refused("no key 'any'", "key", NAME, "any")
        refused("unknown keyboard layout", "type", NAME, "x", "xx")
        refused("U+00E9", "type", NAME, "é")
        refused("/nowhere/x.png", "screenshot", NAME, "/nowhere/x.png")
        refused("usage: lodge key", "key", NAME)
        refused("no number of seconds", "stop", NAME, "soon")
        # The firmware has no power button; the machine goes on.
        refused("has not switched itself off", "stop", NAME, "0", code=1)
        check(lodge(bench, "kill", NAME).returncode == 0 and machine.finish(END_SECONDS) == 0, "kill failed")
    for arguments, words in ((["--display", "gtk"], "unknown display"), (["--display", "vnc", "--vga", "none"], "no graphics card"),
                             (["--vnc-password", disk], "goes with"), (["--display", "vnc", "--vnc-password", "/nowhere"], "/nowhere"),
                             (["--keymap", "xx"], "unknown keyboard layout"), (["--uefi-vars", "x"], "goes with --firmware uefi"),
                             (["--firmware", "uefi", "--uefi-vars", disk], "no store of this firmware's")):
        refused(words, "run", disk, *arguments)


class Browser:
    """A headless Chromium by WebDriver (W3C), whose requests are HTTP and JSON."""

    def __init__(self, folder):
        program = shutil.which("chromedriver")
        if not program:
            raise Skip("no chromedriver: install chromium-driver")
        self.folder = folder
        os.mkdir(folder)
        self.process = subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env={**os.environ, "TMPDIR": folder})
        self.port = self.session = None
        for line in self.process.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                self.port = found.group(1)
                break
        check(self.port, "chromedriver does not start")
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,950"]}
        self.session = self.call("/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})["sessionId"]

    def call(self, path, body=None, method=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=COMMAND_SECONDS) as response:
            return json.load(response)["value"]

    def open(self, url):
        self.call(f"/session/{self.session}/url", {"url": url})

    def script(self, text):
        return self.call(f"/session/{self.session}/execute/sync", {"script": text, "args": []})

    def press(self, key):
        self.call(f"/session/{self.session}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def close(self):
        # The driver has to end the browser, whose processes are nobody's children; they may write into its folder until they have gone.
        try:
            if self.session:
                self.call(f"/session/{self.session}", method="DELETE")
                self.call("/shutdown")
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        deadline = time.monotonic() + COMMAND_SECONDS
        while any(self.folder.encode() in read_command_line(process) for process in os.listdir("/proc") if process.isdigit()):
            check(time.monotonic() < deadline, "the browser does not end")
            time.sleep(0.05)


def read_command_line(process):
    try:
        with open(f"/proc/{process}/cmdline", "rb") as stream:
            return stream.read()
    except OSError:  # it has gone
        return b""


@case
def browser(bench):
    """The screen in a browser shows what the machine's picture shows, and keys pressed there arrive."""
    with linux_with_screen(bench, "--display", "web") as (guest, remote):
        url = re.search(r"the screen of pc-test is at (\S+)", guest.output).group(1)
        answer(guest, "printf '\\033c\\033[?25l' >/dev/tty1; echo seen in a browser >/dev/tty1")
        remote.wait_for_text("seen in a browser", COMMAND_SECONDS)
        page = Browser(bench.path("browser"))
        try:
            page.open(url)
            # The canvas has the screen's own dots, whatever it is scaled to.
            dots = ("const c = document.querySelector('canvas'); if (!c || c.width != 720) return null;"
                    "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, 32).data);")
            picture = remote.picture()
            expected = [value for y in range(32) for x in range(720) for value in (*picture.pixel(x, y), 255)]
            deadline = time.monotonic() + COMMAND_SECONDS
            while page.script(dots) != expected:
                if time.monotonic() > deadline:
                    raise ConsoleError("the browser shows something else")
                time.sleep(0.5)
            guest.type("read -r typed </dev/tty1; echo \"typed: $typed\"\n")
            guest.expect("typed <", COMMAND_SECONDS)
            for key in "browser\ue007":  # WebDriver's Enter
                page.press(key)
            guest.expect("typed: browser", COMMAND_SECONDS)
        finally:
            page.close()
        power_off(guest)


@case
def installer_dialogs(bench):
    """Debian's own installer from a CD: its dialog in the framebuffer, and its keyboard."""
    architecture = "i386" if bench.options.flavour == "686-pae" else "amd64"
    installer = INSTALLER.format(architecture)
    if not os.path.exists(os.path.join(installer, "linux")):
        raise Skip(f"no installer: install debian-installer-12-netboot-{architecture}")
    cd = boot_cd(bench, os.path.join(installer, "linux"), os.path.join(installer, "initrd.gz"), "vga=788")
    disk = bench.path("disk.qcow2")
    check(lodge(bench, "image", "create", "-q", "-f", "qcow2", disk, "10G").returncode == 0, "no disk")
    red, grey = b"\xaa\x00\x00", b"\xaa\xaa\xaa"

    def chosen(picture):
        """The row of the chosen entry: a red bar in a grey dialog of the framebuffer."""
        if (picture.width, picture.height) != (1280, 800) or picture.pixel(640, 60) != grey:
            return None
        return next((y for y in range(100, 700) if picture.pixel(700, y) == red), None)

    with Console(pc_command(bench, "--cdrom", cd, disk, memory="1G")) as machine:
        machine.expect("SeaBIOS", BOOT_SECONDS)
        remote = Remote(bench, NAME)
        first = remote.wait_for(chosen, BOOT_SECONDS, "the dialog of languages")
        remote.command("key", "down", "down")
        remote.wait_for(lambda picture: chosen(picture) == first + 32, COMMAND_SECONDS, "the choice two lines further down")
        check(lodge(bench, "kill", NAME).returncode == 0, "kill failed")
