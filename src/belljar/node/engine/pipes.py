"""The named pipes to an instance's agent, in the instance's own folder.

They are opened read-write by everybody, so nobody ever sees an end of file or waits for a peer: a server may die, its
successor opens the same pipes and goes on.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from belljar.node.engine.api import Channel

__all__ = ("ERROR_KEPT", "error_text", "make_pipes", "open_agent_end", "open_channel", "open_error", "remove_pipes")

_IN, _OUT, _ERROR = "in", "out", "err"
_CAPACITY = 1 << 20
ERROR_KEPT = 64 << 10
"""A pipe's usual capacity: what is kept of the agent's (and the engine's) standard error, which hostile code can write to."""


def make_pipes(folder: Path) -> None:
    """Makes those that are missing."""
    for name in (_IN, _OUT, _ERROR):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(folder / name, 0o600)


def remove_pipes(folder: Path) -> None:
    for name in (_IN, _OUT, _ERROR):
        (folder / name).unlink(missing_ok=True)


def open_channel(folder: Path) -> Channel:
    """The server's end. Raises FileNotFoundError when there are no pipes."""
    write_fd = _open(folder / _IN, os.O_NONBLOCK)
    try:
        return Channel(read_fd=_open(folder / _OUT, os.O_NONBLOCK), write_fd=write_fd)
    except OSError:
        os.close(write_fd)
        raise


def open_agent_end(folder: Path) -> tuple[int, int, int]:
    """Standard input, output and error of the agent."""
    opened: list[int] = []
    try:
        opened.extend(_open(folder / name, 0) for name in (_IN, _OUT, _ERROR))
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened[0], opened[1], opened[2]


def open_error(folder: Path) -> int | None:
    """The error pipe for `error_text`; None when there is none. What it holds is lost when the last one closes it."""
    try:
        return _open(folder / _ERROR, os.O_NONBLOCK)
    except OSError:
        return None


def error_text(fd: int) -> str:
    """What waits in the error pipe (opened with O_NONBLOCK), the end of it, with control characters made visible."""
    kept = b""
    with contextlib.suppress(OSError):
        while len(kept) < ERROR_KEPT and (piece := os.read(fd, ERROR_KEPT)):
            kept += piece
    text = kept.decode(errors="replace").strip()
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)[-2000:]


def _open(path: Path, flags: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags)
    if path.name != _ERROR:
        with contextlib.suppress(OSError):  # beyond /proc/sys/fs/pipe-max-size: then the usual 64 KiB
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _CAPACITY)
    return fd
