"""System calls that Python does not have. `ctypes` is imported at the first one: it costs 4 ms."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = (
    "CLONE_NEWCGROUP",
    "CLONE_NEWPID",
    "MNT_DETACH",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "MS_REMOUNT",
    "drop_bounding",
    "mount",
    "enter",
    "load",
    "set_name",
    "unmount",
    "unshare",
)

CLONE_NEWPID = 0x2000_0000
CLONE_NEWCGROUP = 0x0200_0000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MNT_DETACH = 2
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_LIBC: list[Any] = []


def load() -> None:
    """Now rather than with the first call."""
    _libc()


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Raises OSError."""
    words = [word.encode("utf-8", "surrogateescape") for word in (source, target, kind)]
    _check(_libc().mount(*words, flags, options.encode() or None), target)


def unmount(target: str, flags: int = 0) -> None:
    """Raises OSError."""
    _check(_libc().umount2(target.encode("utf-8", "surrogateescape"), flags), target)


def unshare(flags: int) -> None:
    """Raises OSError."""
    _check(_libc().unshare(flags), "unshare")


def enter(fd: int, kind: int) -> None:
    """Moves the caller (for CLONE_NEWPID: its children to come) into the namespace of `fd`. Raises OSError."""
    _check(_libc().setns(fd, kind), "setns")


def drop_bounding(kept: frozenset[int]) -> None:
    """No program started from here on gets a capability that is not in `kept`, not even root's. Raises OSError."""
    libc = _libc()
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in kept:
            _check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"capability {number}")
        number += 1


def set_name(name: bytes) -> None:
    """What `ps` shows as the command."""
    _libc().prctl(_PR_SET_NAME, name[:15], 0, 0, 0)


def _libc() -> Any:
    if not _LIBC:
        import ctypes

        _LIBC.append(ctypes.CDLL(None, use_errno=True))
    return _LIBC[0]


def _check(result: int, what: str) -> None:
    if result < 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
