"""The snapshot: what was kept of a sandbox, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import check_labels, check_name

__all__ = (
    "CHANGES_PAGE",
    "MAX_FORKS",
    "PREFIX",
    "ChangeKind",
    "PathChange",
    "PathKind",
    "Snapshot",
    "SnapshotKind",
    "SnapshotSpec",
    "check_mount_point",
)

PREFIX = "sn"
"""Of a snapshot's id."""
MAX_FORKS = 100
"""Children of one call."""
CHANGES_PAGE = 1000
_SYSTEM = ("/", "/.belljar", "/dev", "/proc", "/sys", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/run", "/tmp")


class SnapshotKind(StrEnum):
    """`memory`: processes and files, the whole of it goes on. `filesystem`: what changed on the image; it starts as an image
    does. `directory`: one path; it is mounted into a sandbox.
    """

    MEMORY = "memory"
    FILESYSTEM = "filesystem"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """What was asked for. `path`: of the directory. `ttl`: seconds until it expires, None never."""

    kind: SnapshotKind
    path: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    ttl: float | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        check_labels(self.labels)
        if (self.path is not None) != (self.kind is SnapshotKind.DIRECTORY):
            raise InvalidArgument("path names the directory of a directory snapshot, and of no other")
        if self.path is not None and (not self.path.startswith("/") or "\0" in self.path or len(self.path) > 4096):
            raise InvalidArgument(f"path is an absolute path, not {self.path[:80]!r}")
        if self.ttl is not None and self.ttl <= 0:
            raise InvalidArgument("ttl is more than 0 seconds, or None for one that never expires")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node knows of one that is durable. Times in seconds since 1970, sizes in bytes.

    `sandbox`: what it was taken of; `image`: that one's image; `parent`: the snapshot that the sandbox last came from (made
    from it, or rolled back to it). `size`: of its files; `stored`: what they take on the disk (or in the object store) now.
    `paused`: seconds for which the sandbox stood still. `cpus`, `memory`, `disk`: what the sandbox was shown of each.
    `template`: made by a template, so what starts from it is new, not one's past.
    """

    id: str
    kind: SnapshotKind
    sandbox: str
    image: str
    created: float
    size: int
    stored: int
    cpus: float
    memory: int
    disk: int
    parent: str | None = None
    path: str | None = None
    paused: float = 0.0
    template: bool = False


class PathKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class ChangeKind(StrEnum):
    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class PathChange:
    """One path that a filesystem snapshot changed on its image, or that a directory snapshot holds (all `added`).

    `size` in bytes, 0 for what is no file. `path` is absolute (relative to the directory for a directory snapshot); bytes
    that are no UTF-8 travel as Python's `surrogateescape`.
    """

    path: str
    change: ChangeKind
    kind: PathKind
    size: int = 0


def check_mount_point(path: str) -> str:
    """Raises InvalidArgument where nothing may be mounted: over the root or what the system needs."""
    if not path.startswith("/") or "\0" in path or len(path) > 4096 or ".." in path.split("/"):
        raise InvalidArgument(f"a mount point is an absolute path without .., not {path[:80]!r}")
    plain = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    if plain in _SYSTEM or plain.startswith(("/.belljar/", "/proc/", "/sys/", "/dev/")):
        raise InvalidArgument(f"nothing can be mounted over {plain}")
    return plain
