"""Files inside a sandbox."""

from dataclasses import dataclass
from enum import StrEnum

from belljar.model.errors import InvalidArgument

__all__ = ("MAX_PATH", "Change", "ChangeKind", "FileInfo", "FileKind", "check_path")

MAX_PATH = 4096


class FileKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """As `os.stat_result`: `size` in bytes, `mode` the permission bits, `mtime` in seconds since 1970."""

    path: str
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime: float
    target: str | None = None
    """Of a symbolic link."""

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2] or "/"


class ChangeKind(StrEnum):
    CREATED = "created"
    MODIFIED = "modified"
    REMOVED = "removed"
    MOVED = "moved"
    OVERFLOW = "overflow"
    """Some changes were missed: look again at the whole tree."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change below a watched path; `source` is where a moved file came from."""

    kind: ChangeKind
    path: str
    source: str | None = None


def check_path(path: str) -> str:
    """Raises InvalidArgument unless it is a path of 1 to 4096 characters without NUL; relative ones start at workdir."""
    try:
        size = len(path.encode(errors="surrogateescape"))
    except UnicodeEncodeError:  # half a surrogate pair that stands for no byte
        size = 0
    if not 1 <= size <= MAX_PATH or "\0" in path:
        raise InvalidArgument("a path has 1 to 4096 bytes and no NUL")
    return path
