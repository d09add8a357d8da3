"""A terminal with somebody in front of it, for programs that want one."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ("Terminal",)


class Terminal:
    """Starts a program as the leader of a session whose terminal this is."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, cols: int = 90, rows: int = 25
    ) -> None:
        self.fd, self._far = os.openpty()
        self.resize(cols, rows)
        self.modes = termios.tcgetattr(self._far)
        self.seen = b""
        self.process = subprocess.Popen(
            argv,
            stdin=self._far,
            stdout=self._far,
            stderr=self._far,
            # what another window left in the environment says nothing of this one
            env=dict(env) | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
            cwd=cwd,
            preexec_fn=self._log_in,
        )

    def _log_in(self) -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.hang_up()

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self._far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def change_size(self, cols: int, rows: int) -> None:
        """As a window does it: the size, then the signal."""
        self.resize(cols, rows)
        os.kill(self.process.pid, signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        left = memoryview(keys)
        while left:
            left = left[os.write(self.fd, left[:1024]) :]

    def expect(self, pattern: bytes, timeout: float = 30.0) -> re.Match[bytes]:
        """Waits until what is shown matches; what was before is forgotten."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.seen, re.DOTALL)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} did not come; this did: {self.seen[-2000:]!r}")
            try:
                self.seen += os.read(self.fd, 65536)
            except OSError as error:
                raise AssertionError(f"{pattern!r} did not come before the end: {self.seen[-2000:]!r}") from error
        self.seen = self.seen[match.end() :]
        return match

    def wait(self, timeout: float = 30.0) -> int:
        """The exit status; reads meanwhile, so that the program can write."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], 0.02)[0]:
                self.seen += os.read(self.fd, 65536)
        return self.process.returncode

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._far)

    def hang_up(self) -> None:
        """The window is closed."""
        for fd in (self.fd, self._far):
            if fd >= 0:
                os.close(fd)
        self.fd = self._far = -1
