"""Mounts of this host: made, found, taken away."""

import ctypes
import os
import re
from pathlib import Path

__all__ = ("MS_NODEV", "MS_NOEXEC", "MS_NOSUID", "MS_SHARED", "mount", "mounts_below", "unmount_below")

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SHARED = 1 << 20
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_OCTAL = re.compile(rb"\\([0-7]{3})")


def mount(source: str | None, target: Path, flags: int, *, kind: str | None = None, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    words = [None if word is None else word.encode() for word in (source, kind, options)]
    if _libc.mount(words[0], os.fsencode(target), words[1], ctypes.c_ulong(flags), words[2]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def mounts_below(folder: Path) -> list[Path]:
    """Every mount point at or below the folder, in the order they were made."""
    prefix = os.fsencode(folder)
    found: list[Path] = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ", 5)[4])
            if point == prefix or point.startswith(prefix + b"/"):
                found.append(Path(os.fsdecode(point)))
    return found


def unmount_below(folder: Path) -> None:
    """Takes every mount at or below the folder away, busy or not (the gofer of a live guest holds them). Raises OSError."""
    for point in reversed(mounts_below(folder)):
        if _libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(point))


_libc = ctypes.CDLL(None, use_errno=True)
