"""Joins this process's own stdin, stdout and stderr with those of a process in a sandbox."""

import contextlib
import fcntl
import os
import select
import signal
import threading

import belljar
from belljar.cli.interrupts import Interrupted
from belljar.model.errors import Error
from belljar.model.process import Stream

__all__ = ("exit_status", "follow", "give_stdin", "stdin_is_ours", "write_all")

_CHUNK = 1 << 20
_FDS = {Stream.STDOUT: 1, Stream.STDERR: 2}


def stdin_is_ours() -> bool:
    """False when there is none, or when it is a terminal whose foreground is another job: reading would stop this one."""
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def give_stdin(process: "belljar.Process") -> None:
    """Passes what comes, byte for byte, in a thread that ends with the process."""
    threading.Thread(target=_pump, args=(process,), name="belljar-stdin", daemon=True).start()


def follow(process: "belljar.Process") -> int:
    """Writes output as it comes; the return code at the end. Raises Interrupted when our own reader is gone."""
    for piece in process.output():
        write_all(_FDS[piece.stream], piece.data)
    return process.wait()


def exit_status(returncode: int) -> int:
    """As a shell says it: 128 and the number of the signal."""
    return 128 - returncode if returncode < 0 else returncode


def write_all(fd: int, data: bytes) -> None:
    """Raises Interrupted(SIGPIPE) when the reader of our output has gone."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except BrokenPipeError:
            raise Interrupted(signal.SIGPIPE) from None


def _pump(process: "belljar.Process") -> None:
    stdin = process.stdin
    if stdin is None:
        return
    with contextlib.suppress(OSError):  # no pipe; one of 64 KiB would make a request of every 64 KiB
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, _CHUNK)
    with contextlib.suppress(OSError, Error, ValueError):  # it reads no more, or the end of all this is told elsewhere
        while data := _read():
            stdin.write(data)
        stdin.close()


def _read() -> bytes:
    try:
        return os.read(0, _CHUNK)
    except BlockingIOError:  # somebody who shares it made it non-blocking
        select.select([0], [], [])
        return _read()
    except OSError:  # there is none
        return b""
