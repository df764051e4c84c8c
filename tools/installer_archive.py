"""Debian's installer out of its packages, and the archive that it installs from.

The archive is a server of our own in front of a mirror of Debian. What the installer asks for comes from the mirror as it is; mirrors
with gaps are common among those that fetch packages only when someone asks, and few ask for the installer's own components (udebs). So
the server makes three things itself: the components' index, after what the mirror really has; the Release file that vouches for it (the
installer is told that this one is not signed; debootstrap and apt read InRelease, with its signature); and those components that are
nothing but a common package's programs, out of that package where the mirror has only that.
"""
import concurrent.futures
import contextlib
import gzip
import hashlib
import http.client
import http.server
import io
import lzma
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

MIRROR = "http://deb.debian.org/debian/"
SUITE = "trixie"
PACKAGES = "main/binary-amd64/Packages"
INDEX = "main/debian-installer/binary-amd64/Packages"
# The components that have the same programs as packages, and the packages.
REPACKED = {"e2fsprogs-udeb": ("e2fsprogs", "libext2fs2t64", "libcom-err2", "libss2"), "ntfs-3g-udeb": ("ntfs-3g", "libntfs-3g89t64")}
# The newest installer may be for a kernel whose modules the mirror does not have yet; so many versions back are looked at.
OLDER_VERSIONS = 3
FETCH_SECONDS = 120
ATTEMPTS = 3


class Missing(Exception):
    """The mirror does not have it, or there is no mirror."""


def fetch(path, method="GET"):
    """The open answer of the mirror."""
    request = urllib.request.Request(MIRROR + path, method=method)
    left = ATTEMPTS
    while True:
        left -= 1
        try:
            return urllib.request.urlopen(request, timeout=FETCH_SECONDS)
        except OSError as error:
            if not left or isinstance(error, urllib.error.HTTPError):
                raise Missing(f"{MIRROR}{path}: {error}") from error


def download(path):
    with fetch(path) as answer:
        return answer.read()


def has(path):
    try:
        fetch(path, "HEAD").close()
    except Missing:
        return False
    return True


def paragraphs(index):
    """The packages of an index: their fields by name, of one line each, and the whole text."""
    for text in index.strip().split("\n\n"):
        yield dict(re.findall(r"^([\w-]+): *(.*)$", text, re.M)), text


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{command[0]} failed: {done.stderr}")


class InstallerArchive(contextlib.AbstractContextManager):
    """`kernel`, `initrd` and `version` of the installer, and `host` for mirror/http/hostname in the guest."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.own = {}
        udebs = list(paragraphs(lzma.decompress(download(f"dists/{SUITE}/{INDEX}.xz")).decode()))
        debs = {fields["Package"]: fields for fields, _ in paragraphs(self.hold_packages())}
        self.kernel, self.initrd, self.version, release = self.installer(debs, udebs)
        self.make_index([(fields, text) for fields, text in udebs if fields.get("Kernel-Version", release) == release], debs)
        archive = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                archive.answer(self, True)

            def do_HEAD(self):
                archive.answer(self, False)

            def log_message(self, *_):
                """The guest's own log says what it fetched."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # As the user network with loopback=on leads there.
        self.host = f"10.0.2.2:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def hold_packages(self):
        """The packages' index, held with the InRelease file that vouches for it: a mirror that changes meanwhile may show parts of two
        states, and an installation takes long."""
        for _ in range(ATTEMPTS):
            vouched = download(f"dists/{SUITE}/InRelease")
            packed = download(f"dists/{SUITE}/{PACKAGES}.xz")
            digest = hashlib.sha256(packed).hexdigest()
            if re.search(rf"^ {digest} +\d+ {PACKAGES}\.xz$", vouched.decode(), re.M):
                by_hash = f"{os.path.dirname(PACKAGES)}/by-hash/SHA256/{digest}"
                self.own.update({f"dists/{SUITE}/{name}": data
                                 for name, data in (("InRelease", vouched), (f"{PACKAGES}.xz", packed), (by_hash, packed))})
                return lzma.decompress(packed).decode()
        raise Missing(f"{MIRROR}: its packages' index is not the one of its InRelease")

    def installer(self, debs, udebs):
        """The newest installer of which the mirror has the kernel's modules."""
        newest = debs["debian-installer-13-netboot-amd64"]["Filename"]
        releases = {fields["Kernel-Version"] for fields, _ in udebs if fields["Package"].startswith("ext4-modules") and has(fields["Filename"])}
        number = int(re.search(r"\+deb13u(\d+)_", newest).group(1))
        tried = []
        for update in range(number, max(number - OLDER_VERSIONS, 0), -1):
            package = re.sub(r"\+deb13u\d+_", f"+deb13u{update}_", newest)
            name = os.path.basename(package)
            if not has(package):
                continue
            files = self.unpacked(package, os.path.join(self.folder, name.removesuffix(".deb")))
            with open(files[0], "rb") as kernel:
                release = re.search(rb"(\d+\.\d+\.\d+\S*-amd64) \(", kernel.read(1 << 20)).group(1).decode()
            if release in releases:
                return (*files, name.split("_")[1], release)
            tried.append(f"{name} is for {release}")
        raise Missing(f"{MIRROR} has no kernel modules for an installer that it has ({'; '.join(tried)})")

    @staticmethod
    def unpacked(package, folder):
        images = "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64"
        files = [os.path.join(folder, images, name) for name in ("linux", "initrd.gz")]
        if not all(map(os.path.exists, files)):
            making = folder + ".new"
            shutil.rmtree(making, ignore_errors=True)
            os.makedirs(making)
            deb = making + ".deb"
            with fetch(package) as answer, open(deb, "wb") as out:
                shutil.copyfileobj(answer, out)
            members = " ".join(f"./{images}/{os.path.basename(path)}" for path in files)
            run("sh", "-ec", f"dpkg-deb --fsys-tarfile {deb} | tar -x -C {making} {members}")
            os.remove(deb)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(making, folder)
        return files

    def make_index(self, udebs, debs):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            there = list(pool.map(has, (fields["Filename"] for fields, _ in udebs)))
        kept = []
        for (fields, text), is_there in zip(udebs, there):
            if is_there:
                kept.append(text)
            elif fields["Package"] in REPACKED:
                kept.append(self.repack(fields, text, debs))
        index = ("\n\n".join(kept) + "\n").encode()
        made = {INDEX: index, f"{INDEX}.xz": lzma.compress(index, preset=1), f"{INDEX}.gz": gzip.compress(index)}
        release = [line for line in download(f"dists/{SUITE}/Release").decode().splitlines() if f" {INDEX}" not in line]
        for heading, digest in (("MD5Sum:", hashlib.md5), ("SHA256:", hashlib.sha256)):
            if heading in release:
                at = release.index(heading) + 1
                release[at:at] = [f" {digest(data).hexdigest()} {len(data)} {name}" for name, data in made.items()]
        self.own.update({f"dists/{SUITE}/{name}": data for name, data in made.items()})
        self.own[f"dists/{SUITE}/Release"] = "\n".join([*release, ""]).encode()

    def repack(self, fields, text, debs):
        """A component out of packages' programs and libraries; the paragraph that says so."""
        tree = os.path.join(self.folder, fields["Package"])
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(os.path.join(tree, "DEBIAN"))
        for name in REPACKED[fields["Package"]]:
            deb = tree + ".deb"
            with open(deb, "wb") as out:
                out.write(download(debs[name]["Filename"]))
            run("dpkg-deb", "-x", deb, tree)
            os.remove(deb)
        shutil.rmtree(os.path.join(tree, "usr/share"), ignore_errors=True)
        control = re.sub(r"^(Filename|Size|MD5sum|SHA256|Description-md5|Tag):.*\n?", "", text, flags=re.M).strip() + "\n"
        with open(os.path.join(tree, "DEBIAN", "control"), "w", encoding="utf-8") as out:
            out.write(control)
        udeb = tree + ".udeb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, udeb)
        with open(udeb, "rb") as stream:
            data = stream.read()
        self.own[fields["Filename"]] = data
        return control + (f"Filename: {fields['Filename']}\nSize: {len(data)}\nMD5sum: {hashlib.md5(data).hexdigest()}\n"
                          f"SHA256: {hashlib.sha256(data).hexdigest()}")

    def answer(self, request, with_body):
        path = urllib.parse.unquote(request.path).removeprefix("/debian/")
        own = self.own.get(path)
        try:
            with fetch(urllib.parse.quote(path), request.command) if own is None else io.BytesIO(own) as found:
                headers = found.headers if own is None else {"Content-Length": str(len(own))}
                request.send_response(200)
                for name in ("Content-Length", "Last-Modified"):
                    if value := headers.get(name):
                        request.send_header(name, value)
                request.end_headers()
                if with_body:
                    shutil.copyfileobj(found, request.wfile)
        except Missing as error:
            request.send_error(404, str(error).splitlines()[0][:200])
        except (OSError, http.client.HTTPException):
            # The guest has hung up, or the mirror has in the middle of a file: the guest asks again.
            request.close_connection = True
