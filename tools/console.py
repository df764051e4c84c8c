"""A guest at the other end of a serial console: start the process, wait for text, type commands, wait for the end.

Works over pipes (input piped in is typed to the guest) and over a pseudo-terminal (as a person sits there).
Nothing here depends on speed: every wait is for a pattern, and time limits only end a run that is stuck.
"""
import contextlib
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import time

PROMPT = r"lodge-guest:\S*# "
READY = r"lodge-guest ready:"
# How the Debian system of tools/debian-image.sh greets, and what is typed until there is the prompt; not in its own words, lest their echo
# be taken for it.
DEBIAN_GREETING = (("login: ", "root\n"),
                   (r"root@debian:\S*# ", "stty columns 1000; bind 'set enable-bracketed-paste off'; PS1=$(printf 'lodge-%s:# ' guest)\n"),
                   (PROMPT, None))


class ConsoleError(Exception):
    """The guest or its process did something else than was waited for; the message has the end of its output."""


class Console:
    """One process with its output so far. Not for several threads."""

    def __init__(self, command, terminal=False, echo=None):
        """Starts `command`. echo: a binary stream that gets all output as it comes."""
        self.output = ""
        self.position = 0  # everything before it has been matched by an expect()
        self.echo = echo
        self.terminal = None
        if terminal:
            self.terminal, inner = pty.openpty()
            self.process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
            os.close(inner)
            self.reader = self.writer = self.terminal
        else:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, bufsize=0)
            self.reader = self.process.stdout.fileno()
            self.writer = self.process.stdin.fileno()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.reader, selectors.EVENT_READ)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.terminal is not None:
            os.close(self.terminal)
        else:
            self.process.stdin.close()
            self.process.stdout.close()
        self.selector.close()

    def read_some(self, deadline):
        """Takes what has come, waiting for it until the deadline. False at the end of the output."""
        if not self.selector.select(max(0.0, deadline - time.monotonic())):
            return True
        try:
            data = os.read(self.reader, 65536)
        except OSError:  # a pseudo-terminal's end: EIO
            data = b""
        if self.echo is not None and data:
            self.echo.write(data)
            self.echo.flush()
        self.output += data.decode("utf-8", "replace")
        return bool(data)

    def expect(self, pattern, timeout):
        """Waits for the regular expression in output not yet matched; returns the match."""
        deadline = time.monotonic() + timeout
        expression = re.compile(pattern, re.MULTILINE)
        while True:
            match = expression.search(self.output, self.position)
            if match:
                self.position = match.end()
                return match
            if time.monotonic() >= deadline:
                raise ConsoleError(f"no {pattern!r} in {timeout} s; {self.last_output()}")
            if not self.read_some(deadline):
                raise ConsoleError(f"the process ended{self.how_it_ended()} before {pattern!r} came; {self.last_output()}")

    def answer_greeting(self, greeting, timeout):
        """Waits for each pattern and types what stands beside it."""
        for pattern, typed in greeting:
            self.expect(pattern, timeout)
            if typed:
                self.type(typed)

    def type(self, text):
        try:
            os.write(self.writer, text.encode())
        except BrokenPipeError as error:
            raise ConsoleError(f"the process ended before {text!r} was typed; {self.last_output()}") from error

    def run(self, command, timeout):
        """Types a command at the prompt and returns what it printed. The markers' text differs from what is typed, so the
        terminal's echo is not mistaken for them."""
        self.type(f'echo lodge-"begin"; {command}; echo lodge-"end" $?\n')
        self.expect(r"^lodge-begin\r*\n", timeout)
        start = self.position
        end = self.expect(r"lodge-end (\d+)\r*\n", timeout)
        self.expect(PROMPT, timeout)
        return self.output[start:end.start()].replace("\r", ""), int(end.group(1))

    def finish(self, timeout):
        """Waits for the process to end by itself; returns its exit code (128 + N after signal N)."""
        deadline = time.monotonic() + timeout
        while self.read_some(deadline):
            if time.monotonic() >= deadline:
                raise ConsoleError(f"still running after {timeout} s; {self.last_output()}")
        try:
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ConsoleError(f"closed its output, yet runs on after {timeout} s; {self.last_output()}") from error
        return code if code >= 0 else 128 - code

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def how_it_ended(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(1)
            return f" by signal {-code}" if code < 0 else f" with exit code {code}"
        return " its output"

    def last_output(self):
        return "its last output:\n" + self.output[-3000:]


def standard_output():
    """The binary stream to show a guest's output on."""
    return sys.stdout.buffer
