"""Which error of the project's tree an errno is."""

from __future__ import annotations

import errno
import os

from belljar_agent.api import Refused

__all__ = ("printable", "refusal", "refusing")

_CODES = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "conflict",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.EEXIST: "already_exists",
    errno.ENOTEMPTY: "conflict",
    errno.EISDIR: "conflict",
    errno.EBUSY: "conflict",
    errno.EXDEV: "conflict",
    errno.ETXTBSY: "conflict",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.ENAMETOOLONG: "invalid_argument",
    errno.EINVAL: "invalid_argument",
    errno.ELOOP: "invalid_argument",
    errno.EFBIG: "too_large",
    errno.EMFILE: "limit_exceeded",
    errno.ENFILE: "limit_exceeded",
    errno.ENOMEM: "limit_exceeded",
    errno.EMLINK: "limit_exceeded",
    errno.EOPNOTSUPP: "not_supported",
    errno.ENOSYS: "not_supported",
}


def printable(path: str) -> str:
    """The path for a message: no bytes that are not UTF-8, no control characters, not too long."""
    shown = "".join(char if char.isprintable() else "?" for char in path)
    return shown if len(shown) <= 300 else f"{shown[:150]}…{shown[-150:]}"


def refusal(error: OSError, path: str) -> Refused:
    number = error.errno or 0
    return Refused(_CODES.get(number, "internal"), f"{printable(path)}: {os.strerror(number) if number else error}")


class refusing:  # noqa: N801 - used as a word: `with refusing(path)`
    """Turns an OSError inside into the Refused that names `path`."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise refusal(error, self._path) from None
