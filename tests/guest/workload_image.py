"""The initramfs of the workload guest: the host's own programs with their libraries, each at its own path."""
import glob
import os
import subprocess

import guest_image

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ("/usr/bin/openssl", "/usr/bin/xz", "/usr/bin/gzip", "/usr/bin/sqlite3", "/usr/bin/python3")
FILES = ("workload.sh", "workload.py", "workload.sql", "workload.c")
# Of Python's library, what no script of the workload imports.
PYTHON_SKIP = ("__pycache__", "test", "idlelib", "ensurepip", "lib2to3", "tkinter", "unittest", "distutils", "pydoc_data",
               "asyncio", "multiprocessing", "email", "xml", "dist-packages", "site-packages", "concurrent", "curses", "dbm",
               "wsgiref", "xmlrpc", "http", "html", "sqlite3", "logging", "venv", "zoneinfo")
WORK = "#!/bin/sh\nmkdir -p /work\nsh /workload/workload.sh /work /workload\n"


def ask_gcc(question):
    return subprocess.run(["/usr/bin/gcc", question], capture_output=True, text=True, check=True).stdout.strip()


def which(name):
    """A program that gcc names without a folder stands in /usr/bin."""
    return name if os.path.isabs(name) else os.path.join("/usr/bin", name)


def add_program(archive, path):
    """The program under the name that is called, which may be a link to another."""
    target = os.path.realpath(path)
    archive.program(target)
    if target != path:
        archive.link(path, target)


def add_python(archive):
    add_program(archive, "/usr/bin/python3")
    library = subprocess.run(["/usr/bin/python3", "-I", "-c", "import os; print(os.path.dirname(os.__file__))"],
                             capture_output=True, text=True, check=True).stdout.strip()
    archive.host_tree(library, skip=PYTHON_SKIP)
    for extension in glob.glob(os.path.join(library, "lib-dynload", "*.so")):
        archive.program(extension)


def add_compiler(archive):
    add_program(archive, "/usr/bin/gcc")
    for tool in ("cc1", "collect2", "as", "ld"):
        add_program(archive, which(ask_gcc(f"-print-prog-name={tool}")))
    folder = os.path.dirname(ask_gcc("-print-libgcc-file-name"))
    archive.host_tree(os.path.join(folder, "include"))
    for name in ("crtbegin.o", "crtbeginS.o", "crtend.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "liblto_plugin.so", "lto-wrapper"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            archive.program(path) if name.endswith(".so") else archive.host_file(path)
    multiarch = ask_gcc("-print-multiarch")
    for name in ("crt1.o", "Scrt1.o", "crti.o", "crtn.o", "libc.so", "libc_nonshared.a", "libm.so"):
        archive.host_file(f"/usr/lib/{multiarch}/{name}")
    for name in ("libm.so.6", "libmvec.so.1", "libgcc_s.so.1"):
        archive.host_file(f"/lib/{multiarch}/{name}")  # as libm.so, a script of the linker, names them
    for header in glob.glob("/usr/include/*.h"):
        archive.host_file(header)
    for name in ("bits", "sys", "gnu"):
        archive.host_tree(f"/usr/include/{multiarch}/{name}")


def image(flavour_folder):
    """Runs workload.sh on /workload in /work, then powers off."""
    archive = guest_image.flavour_image(flavour_folder, script=WORK)
    for program in PROGRAMS:
        add_program(archive, program)
    add_python(archive)
    add_compiler(archive)
    for name in FILES:
        archive.host_file(os.path.join(HERE, name), f"workload/{name}")
    return archive
