"""The kernel's notices of changes, which Python's library has no words for."""

from __future__ import annotations

import ctypes
import os
import struct

from belljar_agent.api import Refused

__all__ = ("Flag", "Inotify", "Notice")

_EVENT = struct.Struct("iIII")
_READ = 64 << 10


class Flag:
    MODIFY = 0x2
    ATTRIB = 0x4
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x01000000
    DONT_FOLLOW = 0x02000000
    ISDIR = 0x40000000
    CHANGES = MODIFY | ATTRIB | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF


class Notice:
    __slots__ = ("cookie", "flags", "name", "watch")

    def __init__(self, watch: int, flags: int, cookie: int, name: str) -> None:
        self.watch = watch
        self.flags = flags
        self.cookie = cookie
        self.name = name


class Inotify:
    """One queue. Raises OSError as the calls do; without inotify in the kernel Refused."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self.fd = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise Refused("limit_exceeded", f"no more watches can be made: {os.strerror(ctypes.get_errno())}")

    def add(self, path: str, flags: int) -> int:
        watch = self._library.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(flags))
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return watch

    def remove(self, watch: int) -> None:
        """One that is gone is fine."""
        self._library.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Notice]:
        """What there is now, maybe nothing."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        notices: list[Notice] = []
        at = 0
        while at < len(data):
            watch, flags, cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            notices.append(Notice(watch, flags, cookie, name))
        return notices

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
