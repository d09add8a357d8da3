"""read: a piece of a regular file as a stream."""

from __future__ import annotations

import os
import stat

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.refusals import printable, refusal, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Answer, Args, Context

__all__ = ("FileSource", "open_regular")


def open_regular(path: str, *, follow: bool = True) -> int:
    """A descriptor of a regular file. Never waits: a FIFO or device is refused, without being opened if possible."""
    with refusing(path):
        try:
            _check_kind(path, os.stat(path, follow_symlinks=follow))
        except NotADirectoryError:
            raise FileNotFoundError(2, "a part of the path is no directory") from None
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        _check_kind(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Refused("conflict", f"{printable(path)} is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("conflict", f"{printable(path)} is not a regular file")


class FileSource:
    """From `offset` to the end of the file, or at most `length` bytes."""

    def __init__(self, ctx: Context, args: Args) -> None:
        self._path = ctx.resolve(args.get("path"))
        self._at = arguments.number(args, "offset", 0)
        self._left = arguments.optional_number(args, "length")
        self._fd = open_regular(self._path)

    def size_info(self) -> Answer:
        with refusing(self._path):
            return {"size": os.fstat(self._fd).st_size}

    def read(self, limit: int) -> bytes | None:
        if self._left is not None:
            limit = min(limit, self._left)
        if limit <= 0:
            return b""
        try:
            data = os.pread(self._fd, limit, self._at)
        except BlockingIOError:
            return None
        except OSError as error:
            raise refusal(error, self._path) from None
        self._at += len(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
