#!/usr/bin/env python3
"""One conversation with registers, by its name: peer_test.py NAME --lodge FILE."""
import argparse
import shutil
import sys
import tempfile

import cards
import chips
import peer
import storage

assert cards and chips and storage  # whose conversations are peer's now

SKIPPED = 77


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(peer.CONVERSATIONS))
    parser.add_argument("--lodge", required=True)
    options = parser.parse_args()
    for tool in ("qemu-system-x86_64", "as", "ld"):
        if not shutil.which(tool):
            print(f"skipped: no {tool}: install the packages qemu-system-x86 and binutils")
            return SKIPPED
    with tempfile.TemporaryDirectory(prefix="lodge-peer-") as folder:
        script = peer.Script()
        conversation = peer.CONVERSATIONS[options.name]
        settings = conversation(script, folder) or {}
        try:
            wrong = peer.converse(folder, script, options.lodge, **settings)
        except peer.PeerError as error:
            wrong = [str(error)]
    for line in wrong:
        print(line)
    print(f"{options.name}: {len(script.reads)} answers, {len(wrong)} of them not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
