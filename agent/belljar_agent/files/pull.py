"""pull: a tree as a tar stream (POSIX, with extended headers where they are needed)."""

from __future__ import annotations

import os
import re
import stat
import tarfile

from belljar_agent.api import Refused
from belljar_agent.files.refusals import refusing
from belljar_agent.files.tree import Found, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from belljar_agent.api import Answer, Args, Context

__all__ = ("TreeSource",)

_BLOCK = 512
_MAX_LINKS = 1 << 16
_ESCAPED = re.compile(r"\\([0-7]{3})")
_NO_FILES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs", "debugfs", "tracefs"})


class TreeSource:
    """Sockets and devices are left out. A file that shrinks while it is read is filled up with zeros to the size its
    header tells, one that grows is cut there, one that vanishes before its header is left out."""

    def __init__(self, ctx: Context, args: Args) -> None:
        self._ctx = ctx
        path = ctx.resolve(args.get("path"))
        with refusing(path):
            status = os.stat(path)
        self._links: dict[tuple[int, int], str] = {}
        self._fd = -1
        self._left = 0
        self._padding = 0
        self._ready = bytearray()
        self._entries = self._headers(os.path.realpath(path), os.path.basename(path) or "root", status)
        self._ended = False

    def size_info(self) -> Answer:
        return {}

    def read(self, limit: int) -> bytes | None:
        if not self._ready and self._fd >= 0 and self._left >= limit and (data := self._file_bytes(limit)):
            return data  # in the middle of a big file: no copy
        while len(self._ready) < limit and not self._ended:
            if self._left:
                self._read_file(limit - len(self._ready))
            elif self._padding:
                self._ready += bytes(self._padding)
                self._padding = 0
            else:
                header = next(self._entries, None)
                if header is None:
                    self._ended = True
                    self._ready += bytes(2 * _BLOCK)
                else:
                    self._ready += header
        data = bytes(memoryview(self._ready)[:limit])
        del self._ready[:limit]
        return data

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self._entries.close()
        self._close_file()

    def _read_file(self, limit: int) -> None:
        wanted = min(limit, self._left)
        data = self._file_bytes(wanted)
        if not data:
            data = bytes(wanted)
            self._left -= wanted
        self._ready += data

    def _file_bytes(self, wanted: int) -> bytes:
        """What the open file has; nothing once it has ended early or cannot be read: its header is out already."""
        data = b""
        if self._fd >= 0:
            try:
                data = os.read(self._fd, wanted)
            except OSError:
                data = b""
            self._left -= len(data)
            if not data or not self._left:
                self._close_file()
        return data

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _headers(self, top: str, name: str, status: os.stat_result) -> Generator[bytes]:
        if not stat.S_ISDIR(status.st_mode):
            header = self._header(name, top, None, status)
            if header is None:
                raise Refused("conflict", f"{name} is not a regular file")
            yield header
            return
        yield self._encode(tarfile.DIRTYPE, ".", status)
        for found in walk(top, skip=_kernel_mounts()):
            header = self._header(found.path, found.name, found, found.status)
            if header is not None:
                yield header

    def _header(self, name: str, at: str, found: Found | None, status: os.stat_result) -> bytes | None:
        mode = status.st_mode
        folder = None if found is None else found.fd
        try:
            if stat.S_ISDIR(mode):
                return self._encode(tarfile.DIRTYPE, name, status)
            if stat.S_ISLNK(mode):
                return self._encode(tarfile.SYMTYPE, name, status, link=os.readlink(at, dir_fd=folder))
            if not stat.S_ISREG(mode):
                return None
            key = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and key in self._links:
                return self._encode(tarfile.LNKTYPE, name, status, link=self._links[key])
            fd = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._left = status.st_size
        self._padding = -status.st_size % _BLOCK
        if status.st_nlink > 1 and len(self._links) < _MAX_LINKS:
            self._links[key] = name
        return self._encode(tarfile.REGTYPE, name, status)

    def _encode(self, kind: bytes, name: str, status: os.stat_result, *, link: str = "") -> bytes:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = status.st_uid, status.st_gid
        info.uname, info.gname = self._ctx.user_name(status.st_uid), self._ctx.group_name(status.st_gid)
        info.mtime = max(0, int(status.st_mtime))
        info.size = status.st_size if kind == tarfile.REGTYPE else 0
        info.linkname = link
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _kernel_mounts() -> frozenset[str]:
    """Where the kernel shows itself as files: a copy of these is of no use, and some have no end."""
    found = {"/.belljar"}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.split(" ")
                kind = fields[fields.index("-") + 1]
                if kind in _NO_FILES:
                    found.add(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[4]))
    except (OSError, ValueError, IndexError):
        found.update(("/proc", "/sys"))
    return frozenset(found)
