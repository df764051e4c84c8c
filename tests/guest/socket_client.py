#!/usr/bin/env python3
"""Joins standard input and output with a Unix socket: socket_client.py PATH. Waits for the socket to be there."""
import os
import selectors
import socket
import sys
import time


def connect(path):
    deadline = time.monotonic() + 60
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main():
    client = connect(sys.argv[1])
    os.write(1, b"connected\n")
    selector = selectors.DefaultSelector()
    selector.register(client, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            from_guest = key.fileobj is client
            data = client.recv(65536) if from_guest else os.read(0, 65536)
            if not data:
                return
            if from_guest:
                os.write(1, data)
            else:
                client.sendall(data)


if __name__ == "__main__":
    main()
