#!/usr/bin/env python3
"""'lodge image' as a process: what it says and does, and that QEMU's tools and it understand each other's images.

    image_test.py [CASE...]      LODGE and IMAGE_IO in the environment name the programs; SEEDS=N makes the random cases N times as long.
"""
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import unittest

LODGE = os.environ.get("LODGE", "build/lodge")
IMAGE_IO = os.environ.get("IMAGE_IO", "build/tests/image_io")
SEEDS = int(os.environ.get("SEEDS", "1"))
MIB = 1 << 20


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lodge-image-")
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run_program(self, *command, code=0, **more):
        done = subprocess.run(command, cwd=self.folder.name, capture_output=True, text=True, timeout=120, **more)
        self.assertEqual(done.returncode, code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done

    def lodge(self, *arguments, code=0, **more):
        return self.run_program(os.path.abspath(LODGE), "image", *arguments, code=code, **more)

    def qemu_img(self, *arguments, code=0):
        return self.run_program("qemu-img", *arguments, code=code)

    def image_io(self, *arguments, code=0):
        return self.run_program(os.path.abspath(IMAGE_IO), *arguments, code=code)

    def write(self, name, data, offset=0):
        with open(self.path(name), "r+b" if os.path.exists(self.path(name)) else "w+b") as file:
            file.seek(offset)
            file.write(data)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()


class Commands(Case):
    def test_create_and_info(self):
        self.lodge("create", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=8", "a.qcow2", "1.5G")
        ours = json.loads(self.lodge("info", "--json", "a.qcow2").stdout)
        theirs = json.loads(self.qemu_img("info", "--output=json", "a.qcow2").stdout)
        self.assertEqual(ours["virtual-size"], 3 << 29)
        self.assertEqual({k: ours[k] for k in theirs}, theirs)
        self.assertEqual(self.lodge("info", "a.qcow2").stdout, self.qemu_img("info", "a.qcow2").stdout)

    def test_create_makes_large_images_small(self):
        self.lodge("create", "-f", "qcow2", "big", "10T")
        self.assertLess(os.stat(self.path("big")).st_blocks * 512, 4 * MIB)
        self.lodge("check", "big")
        self.qemu_img("check", "big")

    def test_backing_chain(self):
        self.write("base.raw", os.urandom(100_000))
        self.lodge("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "middle")
        self.lodge("create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top")
        ours = json.loads(self.lodge("info", "--json", "--backing-chain", "top").stdout)
        self.assertEqual([one["format"] for one in ours], ["qcow2", "qcow2", "raw"])
        self.assertEqual(ours[0]["virtual-size"], 100_352)
        # Without -F the format is recorded all the same.
        said = self.lodge("create", "-f", "qcow2", "-b", "middle", "other").stderr
        self.assertIn("recorded", said)
        self.assertEqual(json.loads(self.lodge("info", "--json", "other").stdout)["backing-filename-format"], "qcow2")

    def test_preallocation(self):
        for mode in ("metadata", "falloc", "full"):
            for extended in ("off", "on"):
                name = f"{mode}-{extended}"
                self.lodge("create", "-q", "-f", "qcow2", "-o", f"preallocation={mode},extended_l2={extended},cluster_size=64k", name, "20M")
                self.qemu_img("check", name)
                self.lodge("check", name)
                entries = json.loads(self.qemu_img("map", "--output=json", name).stdout)
                self.assertTrue(all(one["present"] and "offset" in one for one in entries), entries)
                self.assertEqual(sum(one["length"] for one in entries), 20 * MIB)
                blocks = os.stat(self.path(name)).st_blocks * 512
                (self.assertLess if mode == "metadata" else self.assertGreaterEqual)(blocks, 20 * MIB)
        self.lodge("create", "-q", "-o", "preallocation=falloc", "raw", "8M")
        self.assertGreaterEqual(os.stat(self.path("raw")).st_blocks * 512, 8 * MIB)

    def test_resize(self):
        for form in ("raw", "qcow2"):
            self.lodge("create", "-q", "-f", form, form, "10M")
            self.lodge("resize", form, "+6M")
            self.lodge("resize", "-f", form, form, "20M")
            self.assertEqual(json.loads(self.lodge("info", "--json", form).stdout)["virtual-size"], 20 * MIB)
            self.assertIn("--shrink", self.lodge("resize", form, "-4M", code=2).stderr)
            self.lodge("resize", "--shrink", form, "-4M")
            self.assertEqual(json.loads(self.lodge("info", "--json", form).stdout)["virtual-size"], 16 * MIB)
        self.lodge("resize", "--preallocation=full", "qcow2", "+1M")
        self.qemu_img("check", "qcow2")

    def test_snapshots(self):
        self.lodge("create", "-q", "-f", "qcow2", "a", "4M")
        self.image_io("write", "a", "--seed", "5", "--count", "20")
        before = self.sum("a")
        self.lodge("snapshot", "-c", "first", "a")
        self.image_io("write", "a", "--seed", "6", "--count", "20")
        after = self.sum("a")
        self.assertNotEqual(before, after)
        self.qemu_img("check", "a")
        for tool in (self.lodge, self.qemu_img):
            self.assertIn("first", tool("snapshot", "-l", "a").stdout)
        self.lodge("convert", "-l", "first", "a", "first.raw")
        self.assertEqual(self.sum("first.raw"), before)
        self.lodge("snapshot", "-a", "first", "a")
        self.assertEqual(self.sum("a"), before)
        self.qemu_img("snapshot", "-d", "first", "a")
        self.assertEqual(self.lodge("snapshot", "-l", "a").stdout, "")
        self.lodge("check", "a")
        self.assertIn("no snapshot 'none'", self.lodge("snapshot", "-a", "none", "a", code=2).stderr)
        self.lodge("create", "-q", "r", "1M")
        self.assertIn("no internal snapshots", self.lodge("snapshot", "-c", "x", "r", code=2).stderr)

    def sum(self, name):
        self.lodge("convert", "-q", name, "sum.raw")
        return hash(self.read("sum.raw"))

    def chain(self):
        self.write("base", random.Random(1).randbytes(3 * MIB))
        self.lodge("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "middle", "4M")
        self.image_io("write", "middle", "--seed", "1", "--count", "15")
        self.lodge("create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top", "5M")
        self.image_io("write", "top", "--seed", "2", "--count", "15")
        return self.sum("top")

    def test_commit(self):
        whole = self.chain()
        self.lodge("commit", "top")
        self.assertEqual(self.sum("top"), whole)
        self.assertEqual(self.sum("middle"), whole)
        self.lodge("check", "top")
        self.lodge("check", "middle")
        entries = json.loads(self.lodge("map", "--json", "top").stdout)
        self.assertTrue(all(one["depth"] > 0 or not one["present"] for one in entries), entries)

    def test_commit_down_the_chain(self):
        whole = self.chain()
        self.lodge("commit", "-b", "base", "top")
        self.assertEqual(hash(self.read("base")), whole)
        self.assertIn("not in the chain", self.lodge("commit", "-b", "other", "top", code=2).stderr)
        self.assertIn("no backing file", self.lodge("commit", "-f", "raw", "base", code=2).stderr)

    def test_rebase(self):
        whole = self.chain()
        self.write("new", random.Random(1).randbytes(2 * MIB) + bytes(MIB))
        self.lodge("rebase", "-b", "new", "-F", "raw", "top")
        self.assertEqual(self.sum("top"), whole)
        self.lodge("rebase", "-b", "", "top")
        self.assertEqual(self.sum("top"), whole)
        self.assertNotIn("backing-filename", json.loads(self.lodge("info", "--json", "top").stdout))
        self.lodge("check", "top")
        self.qemu_img("check", "top")

    def test_rebase_of_the_name_alone(self):
        whole = self.chain()
        os.rename(self.path("middle"), self.path("renamed"))
        self.assertIn("middle: there is no such file", self.lodge("info", "--backing-chain", "top", code=2).stderr)
        self.assertIn("-F", self.lodge("rebase", "-u", "-b", "renamed", "top", code=2).stderr)
        self.lodge("rebase", "-u", "-b", "renamed", "-F", "qcow2", "top")
        self.assertEqual(self.sum("top"), whole)

    def test_convert_keeps_holes(self):
        self.write("sparse", os.urandom(MIB), 30 * MIB)
        os.truncate(self.path("sparse"), 64 * MIB)
        self.lodge("convert", "sparse", "copy")
        self.assertEqual(self.read("copy"), self.read("sparse"))
        self.assertLess(os.stat(self.path("copy")).st_blocks * 512, 2 * MIB)
        self.lodge("convert", "-S", "0", "sparse", "whole")
        self.assertEqual(self.read("whole"), self.read("sparse"))
        self.assertGreaterEqual(os.stat(self.path("whole")).st_blocks * 512, 64 * MIB)

    def test_convert_forms(self):
        self.write("source", random.Random(3).randbytes(3 * MIB) + bytes(MIB) + b"ab" * MIB + b"tail of no sector")
        for options in ([], ["-c"], ["-c", "-o", "compression_type=zstd,cluster_size=128k"], ["-W", "-m", "16"], ["-m", "1"],
                        ["-o", "cluster_size=512"], ["-o", "extended_l2=on,cluster_size=2M"], ["-o", "compat=v2"], ["-t", "none", "-T", "none"],
                        ["-o", "data_file=outside,data_file_raw=on"]):
            self.lodge("convert", "-O", "qcow2", *options, "source", "made")
            self.lodge("check", "made")
            self.qemu_img("check", "made")
            self.qemu_img("compare", "-f", "raw", "-F", "qcow2", "source", "made")
            self.lodge("compare", "-f", "raw", "-F", "qcow2", "source", "made")
            self.lodge("convert", "made", "back")
            padded = self.read("source")
            self.assertEqual(self.read("back")[:len(padded)], padded, options)
        self.lodge("convert", "source", "back", "-O", "qcow2", "-c", "both")
        self.lodge("convert", "both", "whole")
        self.assertEqual(self.read("whole")[:len(padded)], padded)
        self.assertEqual(self.read("whole")[len(padded):len(padded) + len(self.read("back"))], self.read("back"))

    def test_convert_into_an_image_that_is_there(self):
        self.write("source", os.urandom(MIB) + bytes(MIB))
        self.lodge("create", "-q", "-f", "qcow2", "there", "3M")
        self.image_io("write", "there", "--count", "30")
        self.lodge("convert", "-n", "-O", "qcow2", "source", "there")
        self.lodge("convert", "there", "back")
        self.assertEqual(self.read("back")[:2 * MIB], self.read("source"))
        self.lodge("create", "-q", "small", "1M")
        self.assertIn("has 1048576 bytes", self.lodge("convert", "-n", "source", "small", code=2).stderr)

    def test_convert_over_a_backing_file(self):
        whole = self.chain()
        self.lodge("convert", "-O", "qcow2", "-B", "middle", "-F", "qcow2", "top", "new")
        self.assertEqual(self.sum("new"), whole)
        self.assertLess(os.stat(self.path("new")).st_size, 4 * MIB)

    def test_convert_that_is_interrupted_leaves_nothing(self):
        self.write("source", random.Random(4).randbytes(48 * MIB))
        self.write("old", b"what was there before")
        command = [os.path.abspath(LODGE), "image", "convert", "-p", "-c", "-O", "qcow2", "source", "old"]
        process = subprocess.Popen(command, cwd=self.folder.name, stdout=subprocess.PIPE)
        self.assertTrue(process.stdout.read(1))  # it is at work
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assertEqual(sorted(os.listdir(self.folder.name)), ["old", "source"])
        self.assertEqual(self.read("old"), b"what was there before")

    def test_compare(self):
        self.write("a", bytes(MIB))
        self.write("b", bytes(MIB) + bytes(MIB))
        self.assertIn("identical", self.lodge("compare", "a", "b").stdout)
        self.assertIn("size mismatch", self.lodge("compare", "-s", "a", "b", code=1).stdout)
        self.write("b", b"x", MIB + 5)
        self.assertIn(f"offset {MIB + 5}!", self.lodge("compare", "a", "b", code=1).stdout)
        self.lodge("compare", "a", "none", code=2)

    def test_called_qemu_img(self):
        os.symlink(os.path.abspath(LODGE), self.path("qemu-img"))
        self.run_program("./qemu-img", "create", "-f", "qcow2", "x", "1M")
        self.run_program("./qemu-img", "info", "none", code=1)
        self.run_program("./qemu-img", "check", "x")
        self.run_program("./qemu-img", "--version")

    def test_bench(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "4M")
        for options in ([], ["-w"], ["--random", "-d", "1"], ["-w", "--flush-interval", "10", "-t", "none"]):
            said = self.lodge("bench", "-c", "200", *options, "x").stdout
            self.assertIn("Run completed in", said)
        self.assertIn("too few", self.lodge("bench", "-s", "8M", "x", code=2).stderr)

    def test_check_mends(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "4M")
        self.image_io("write", "x", "--count", "20")
        size = os.stat(self.path("x")).st_size
        clusters = size // 65536
        # Refcounts that are too high, and one that is too low: leaks and damage.
        data = bytearray(self.read("x"))
        table = int.from_bytes(data[48:56], "big")
        block = int.from_bytes(data[table:table + 8], "big")
        data[block + 2 * (clusters - 1):block + 2 * clusters] = (5).to_bytes(2, "big")
        self.write("x", bytes(data))
        self.assertIn("Leaked cluster", self.lodge("check", "x", code=3).stdout)
        data[block + 2 * (clusters - 2):block + 2 * (clusters - 1)] = bytes(2)
        self.write("x", bytes(data))
        self.assertIn("ERROR", self.lodge("check", "x", code=2).stdout)
        before = self.sum("x")
        found = json.loads(self.lodge("check", "--json", "-r", "all", "x").stdout)
        self.assertEqual(found["leaks-fixed"] >= 1 and found["corruptions-fixed"] >= 1, True, found)
        self.lodge("check", "x")
        self.qemu_img("check", "x")
        self.assertEqual(self.sum("x"), before)
        self.lodge("create", "-q", "raw", "1M")
        self.lodge("check", "raw", code=63)
        self.lodge("check", "none", code=1)


class BadInput(Case):
    def fault(self, *arguments, code=2):
        done = self.lodge(*arguments, code=code)
        self.assertTrue(done.stderr.startswith("lodge: error: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def test_options(self):
        for arguments, said in (
                (["frob"], "no command 'frob'"),
                ([], "--help"),
                (["info"], "--help"),
                (["info", "--frob", "x"], "--frob"),
                (["info", "--output", "xml", "x"], "xml"),
                (["create", "x", "lots"], "'lots' is not a size"),
                (["create", "x"], "of what size"),
                (["create", "-f", "vmdk", "x", "1M"], "'vmdk' cannot be used yet"),
                (["create", "-f", "frob", "x", "1M"], "no format 'frob'"),
                (["create", "-o", "frob=1", "x", "1M"], "-o frob: raw images have no such option"),
                (["create", "-f", "qcow2", "-o", "cluster_size=3k", "x", "1M"], "-o cluster_size: '3k' is not a cluster's size"),
                (["create", "-f", "qcow2", "-o", "cluster_size=4M", "x", "1M"], "512 to 2097152"),
                (["create", "-f", "qcow2", "-o", "refcount_bits=3", "x", "1M"], "-o refcount_bits"),
                (["create", "-f", "qcow2", "-o", "encryption=on", "x", "1M"], "no encrypted images"),
                (["create", "-f", "qcow2", "-o", "compat=v2,extended_l2=on", "x", "1M"], "needs compat=v3"),
                (["create", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=4k", "x", "1M"], "16k or more"),
                (["create", "-f", "qcow2", "-o", "=3", "x", "1M"], "without a name"),
                (["create", "-f", "qcow2", "-o", "cluster_size=512", "x", "1E"], "take larger clusters"),
                (["create", "-f", "qcow2", "-b", "none", "-F", "raw", "x"], "none: there is no such file"),
                (["create", "nowhere/x", "1M"], "nowhere/x"),
                (["convert", "x"], "files"),
                (["convert", "none", "x"], "none: there is no such file"),
                (["convert", "-S", "5", "none", "x"], "-S 5"),
                (["convert", "-m", "0", "none", "x"], "-m 0"),
                (["resize", "x"], "size"),
                (["map", "--start-offset", "x", "y"], "--start-offset"),
                (["bench", "-d", "0", "x"], "-d 0")):
            self.assertIn(said, self.fault(*arguments), arguments)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_images(self):
        self.write("text", b"just a text\n")
        self.assertIn("is not a qcow2 image", self.fault("info", "-f", "qcow2", "text"))
        self.write("cut", b"QFI\xfb\x00\x00\x00\x03")
        self.assertIn("cut: ", self.fault("info", "cut"))
        self.write("vmdk", b"KDMV" + bytes(508))
        self.assertIn("looks like a vmdk image", self.fault("info", "vmdk"))
        os.mkdir(self.path("folder"))
        self.assertIn("is a folder", self.fault("info", "folder"))
        # Encrypted images are made by their header's crypt_method (AES, LUKS): qemu-img derives a key for one, and gives up
        # at times when the machine is too quick or too busy for it to measure how long that takes.
        for method in (1, 2):
            self.lodge("create", "-q", "-f", "qcow2", "locked", "1M")
            data = bytearray(self.read("locked"))
            data[32:36] = method.to_bytes(4, "big")
            self.write("locked", bytes(data))
            self.assertIn("encrypt", self.fault("info", "locked"))

    def test_unknown_features(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "1M")
        data = bytearray(self.read("x"))
        data[72] = 0x80  # incompatible: bit 63
        self.write("x", bytes(data))
        self.assertIn("feature", self.fault("info", "x"))
        data[72] = 0
        data[80] = 0x80  # compatible: nobody needs to care
        data[88] = 0x80  # autoclear: gone once it is written
        self.write("x", bytes(data))
        self.lodge("info", "x")
        self.assertEqual(self.read("x")[88], 0x80)
        self.image_io("write", "x", "--count", "3")
        self.assertEqual(self.read("x")[88], 0)
        self.assertEqual(self.read("x")[80], 0x80)

    def test_truncated(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "4M")
        self.image_io("write", "x", "--count", "30")
        size = os.stat(self.path("x")).st_size
        data = self.read("x")
        rng = random.Random(7)
        for length in [0, 1, 71, 72, 104, 512, 65536, 65537, size // 2, size - 1] + [rng.randrange(size) for _ in range(20)]:
            with open(self.path("cut"), "wb") as file:
                file.write(data[:length])
            for command in (["info"], ["check"], ["map"], ["convert"]):
                more = ["out"] if command == ["convert"] else []
                done = subprocess.run([os.path.abspath(LODGE), "image", *command, "-f", "qcow2", "cut", *more], cwd=self.folder.name,
                                      capture_output=True, text=True, timeout=60)
                self.assertIn(done.returncode, (0, 1, 2, 3), f"{command} {length}: {done.stderr}")

    def test_malicious(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "4M")
        self.image_io("write", "x", "--count", "30")
        self.lodge("snapshot", "-c", "s", "x")
        data = self.read("x")
        rng = random.Random(8)
        tables = [int.from_bytes(data[at:at + 8], "big") for at in (40, 48, 64)]
        for n in range(150 * SEEDS):
            bad = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                where = rng.choice([rng.randrange(8, 112), rng.choice(tables) + rng.randrange(128), rng.randrange(len(data))])
                bad[min(where, len(bad) - 1)] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)])
            self.write("bad", bytes(bad))
            for command in (["info"], ["check"], ["check", "-r", "all"], ["map"], ["compare"]):
                more = ["x"] if command == ["compare"] else []
                done = subprocess.run([os.path.abspath(LODGE), "image", *command, "bad", *more], cwd=self.folder.name, capture_output=True,
                                      timeout=60, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)))
                self.assertIn(done.returncode, (0, 1, 2, 3, 63), f"{command} {n}: {done.stderr}")

    def test_in_use(self):
        self.lodge("create", "-q", "-f", "qcow2", "x", "4M")
        holder = subprocess.Popen(["qemu-io", self.path("x")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (holder.stdin.close(), holder.stdout.close(), holder.wait()))
        self.assertTrue(holder.stdout.read(8))  # its prompt
        self.assertIn("in use", self.fault("resize", "x", "8M"))
        self.assertIn("in use", self.fault("info", "x"))
        self.assertIn("in use", self.fault("create", "-f", "qcow2", "x", "1M"))
        self.assertIn("in use", self.fault("convert", "-f", "qcow2", "-U", "x", "x"))
        self.lodge("info", "-U", "x")
        holder.stdin.write(b"write 0 4k\nquit\n")
        holder.stdin.flush()


class Matrix(Case):
    """Images made by one are looked at, compared and written by the other."""
    SHAPES = ["", "cluster_size=512", "cluster_size=2M", "cluster_size=4k,refcount_bits=1", "refcount_bits=64", "refcount_bits=2,cluster_size=16k",
              "refcount_bits=8,lazy_refcounts=on", "compat=0.10", "compat=0.10,cluster_size=1k", "extended_l2=on", "extended_l2=on,cluster_size=16k",
              "extended_l2=on,cluster_size=2M,refcount_bits=32", "compression_type=zstd", "compression_type=zstd,cluster_size=8k",
              "data_file=outside", "data_file=outside,data_file_raw=on"]

    def same(self, name, model, what):
        for tool in (self.qemu_img, self.lodge):
            tool("check", name)
            tool("compare", "-f", "qcow2", "-F", "raw", name, model)
        self.qemu_img("convert", "-O", "raw", name, "theirs")
        self.lodge("convert", "-O", "raw", name, "ours")
        self.assertEqual(self.read("ours"), self.read("theirs"), what)
        ours, theirs = ([one for one in json.loads(tool("map", "--output=json", name).stdout) if one["data"]] for tool in (self.lodge, self.qemu_img))
        # What QEMU knows to be holes of the file below (by a guess at whether it pays to ask) is data to Lodge; its contents were compared.
        for one in theirs:
            inside = [other for other in ours if other["start"] < one["start"] + one["length"] and one["start"] < other["start"] + other["length"]]
            covered = sum(min(one["start"] + one["length"], other["start"] + other["length"]) - max(one["start"], other["start"])
                          for other in inside)
            self.assertEqual(covered, one["length"], what)
            self.assertTrue(all(other["depth"] == one["depth"] for other in inside), what)

    def qemu_write(self, name, model, rng):
        """The same random writes by qemu-io to an image and to a raw file."""
        size = json.loads(self.qemu_img("info", "--output=json", name).stdout)["virtual-size"]
        commands = []
        for _ in range(25):
            offset = rng.randrange(size)
            length = 1 + rng.randrange(min(size - offset, rng.choice((700, 5000, 200_000))))
            kind = rng.choice(["write", "write", "write", "write -z", "write -z -u"])
            if kind.startswith("write -z"):
                offset, length = offset // 512 * 512, max(512, length // 512 * 512)
                length = min(length, size - offset)
                commands.append(f"{kind} {offset} {length}")
            else:
                commands.append(f"{kind} -P {rng.randrange(256)} {offset} {length}")
        for target, form in ((name, "qcow2"), (model, "raw")):
            arguments = [part for command in commands for part in ("-c", command)]
            done = self.run_program("qemu-io", "-f", form, target, *arguments)
            self.assertNotIn("failed", done.stdout, done.stdout)

    def shape(self, options, maker, backing_depth, seed):
        rng = random.Random(seed)
        what = f"{options} made by {maker}, {backing_depth} below, seed {seed}"
        size = rng.choice([3 * MIB, 3 * MIB + 512 * 7])
        for name in ("outside", "model", "base", "image", "middle"):
            if os.path.exists(self.path(name)):
                os.remove(self.path(name))
        tool = self.lodge if maker == "lodge" else self.qemu_img
        with open(self.path("model"), "wb") as model:
            model.truncate(size)
        below = []
        if backing_depth:
            base = rng.randbytes(rng.choice([MIB, 4 * MIB]) // 512 * 512)
            self.write("base", base)
            self.write("model", base[:size])
            below = ["-b", "base", "-F", "raw"]
        if backing_depth > 1:
            tool("create", "-q", "-f", "qcow2", *below, "middle", str(size))
            self.image_io("write", "middle", "--seed", str(seed + 1), "--count", "20", "--model", "model")
            below = ["-b", "middle", "-F", "qcow2"]
        tool("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), *below, "image", str(size))
        self.same("image", "model", what + ", empty")
        self.image_io("write", "image", "--seed", str(seed), "--count", "40", "--model", "model")
        self.same("image", "model", what + ", after Lodge")
        self.qemu_write("image", "model", rng)
        self.same("image", "model", what + ", after QEMU")
        self.image_io("write", "image", "--seed", str(seed + 2), "--count", "20", "--model", "model")
        self.same("image", "model", what + ", after both")
        if "data_file" in options or options.endswith("refcount_bits=1") or "refcount_bits=2," in options:
            return  # no snapshots, or none of clusters that compressed data share
        # Snapshots of one, applied and deleted by the other.
        for make, use in ((self.lodge, self.qemu_img), (self.qemu_img, self.lodge)):
            before = self.read("ours")
            make("snapshot", "-c", "kept", "image")
            self.image_io("write", "image", "--seed", str(seed + 3), "--count", "15")
            for looks in (self.lodge, self.qemu_img):
                looks("check", "image")
            use("snapshot", "-a", "kept", "image")
            use("snapshot", "-d", "kept", "image")
            self.same("image", "model", what + ", snapshot")
            self.assertEqual(self.read("ours"), before, what)

    def test_shapes(self):
        if not program_exists("qemu-io"):
            self.skipTest("qemu-utils is not installed")
        for n, options in enumerate(self.SHAPES):
            depths = [0] if "data_file_raw" in options else [n % 3] if SEEDS == 1 else [0, 1, 2]
            for depth in depths:
                for maker in ("lodge", "qemu"):
                    for seed in range(SEEDS):
                        with self.subTest(options=options, maker=maker, depth=depth, seed=seed):
                            self.shape(options, maker, depth, 100 * seed + n)

    def test_compressed(self):
        rng = random.Random(1)
        data = b"".join(bytes([rng.randrange(256)]) * rng.randrange(5000) if rng.random() < 0.7 else rng.randbytes(rng.randrange(20_000))
                        for _ in range(400))
        self.write("source", data + bytes(-len(data) % 512))
        for kind in ("zlib", "zstd"):
            for cluster in ("4k", "64k", "2M"):
                for makes in (self.lodge, self.qemu_img):
                    makes("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind},cluster_size={cluster}", "source", "small")
                    self.same("small", "source", f"{kind} {cluster}")
                    if cluster != "2M":  # of which a single one has metadata of 10 MiB
                        self.assertLess(os.stat(self.path("small")).st_size, len(data))


class Kill(Case):
    """A process that is killed at any moment loses nothing that it had flushed, and leaves an image with leaks at worst."""

    def test_kill(self):
        for n, options in enumerate(["cluster_size=4k", "extended_l2=on,cluster_size=16k", "cluster_size=512,refcount_bits=64", "compat=0.10",
                                     "lazy_refcounts=on,compression_type=zstd"]):
            for seed in range(4 * SEEDS):
                with self.subTest(options=options, seed=seed):
                    self.kill(options, 1000 * n + seed)

    def kill(self, options, seed):
        rng = random.Random(seed)
        self.lodge("create", "-q", "-f", "qcow2", "-o", options, "x", "3M")
        process = subprocess.Popen([os.path.abspath(IMAGE_IO), "write", "x", "--seed", str(seed), "--count", "100000", "--discard"],
                                   cwd=self.folder.name, stdout=subprocess.PIPE, text=True)
        begun = flushed = 0
        stop_at = rng.randrange(1, 300)
        for line in process.stdout:
            word, number = line.split()
            if word == "flushed":
                flushed = int(number)
            else:
                begun = int(number)
            if begun >= stop_at:
                process.kill()
                stop_at = 1 << 60
        process.wait()
        self.assertEqual(process.returncode, -signal.SIGKILL)
        # Leaks are no damage.
        done = subprocess.run([os.path.abspath(LODGE), "image", "check", "x"], cwd=self.folder.name, capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)
        self.image_io("verify", "x", "--seed", str(seed), "--flushed", str(flushed), "--begun", str(begun), "--discard")
        done = subprocess.run(["qemu-img", "check", "x"], cwd=self.folder.name, capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)
        self.lodge("check", "-r", "leaks", "x")
        self.image_io("write", "x", "--seed", str(seed + 1), "--count", "30")
        self.lodge("check", "x")


class FullDisk(Case):
    """No space left in mid-write: an error, an image that is whole, and it goes on when there is space."""

    def setUp(self):
        super().setUp()
        # A file system of a few MiB, in a namespace of its own where that is allowed.
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "none", self.folder.name]).returncode != 0:
            self.skipTest("a small file system needs root and mount")
        self.addCleanup(lambda: subprocess.run(["umount", self.folder.name]))

    def test_write(self):
        self.lodge("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "x", "16M")
        self.write("ballast", bytes(MIB))
        said = self.image_io("write", "x", "--seed", "1", "--count", "1000", code=2)
        self.assertIn("No space left on device", said.stderr)
        done = subprocess.run([os.path.abspath(LODGE), "image", "check", "x"], cwd=self.folder.name, capture_output=True, text=True)
        self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)
        lines = said.stdout.splitlines()
        flushed = max([int(line.split()[1]) for line in lines if line.startswith("flushed")], default=0)
        begun = max(int(line.split()[1]) for line in lines if line.startswith("begun"))
        self.image_io("verify", "x", "--seed", "1", "--flushed", str(flushed), "--begun", str(begun))
        os.remove(self.path("ballast"))
        self.lodge("check", "-r", "leaks", "x")
        self.image_io("write", "x", "--seed", "2", "--count", "5")
        self.lodge("check", "x")

    def test_convert(self):
        with tempfile.NamedTemporaryFile() as source:
            source.write(os.urandom(5 * MIB))
            source.flush()
            said = self.lodge("convert", "-O", "qcow2", source.name, "y", code=2).stderr
            self.assertIn("No space left on device", said)
            self.assertEqual(os.listdir(self.folder.name), [])


def program_exists(name):
    return subprocess.run(["which", name], capture_output=True).returncode == 0


if __name__ == "__main__":
    program = unittest.main(argv=[sys.argv[0], *sys.argv[1:]], exit=False)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    skipped = len(result.skipped)
    if skipped:
        for case, reason in result.skipped:
            print(f"SKIP: {case}: {reason}")
    sys.exit(77 if skipped and skipped == result.testsRun else 0)
