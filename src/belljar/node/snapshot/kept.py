"""One snapshot that is there, as its store knows it, and the look at its files that tells whether they are what they were."""

import asyncio
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from belljar.model.errors import SnapshotCorrupt
from belljar.node.snapshot.manifest import FileEntry, Manifest
from belljar.node.storage.durable import digest_of

__all__ = ("Kept", "Seen", "looks", "verify")

Seen = Mapping[str, tuple[int, ...]]
"""Of each file what its inode said when its content was found right."""

_NOTED_EACH = 60.0


@dataclass(slots=True)
class Kept:
    """`key`: id of the key that its files on the disk are sealed with. `hot`: bytes of its files and manifest on the disk.
    `cold`: bytes of its chunks, None when it has none. `used`: when it was opened last, in seconds since 1970.

    `pins`: how many have it open. `plain`: a decrypted copy in memory is there. `doomed`: deleted, as soon as nobody has it open.
    """

    manifest: Manifest
    key: str | None
    hot: int
    used: float
    cold: int | None = None
    seen: Seen = field(default_factory=dict[str, tuple[int, ...]])
    pins: int = 0
    plain: bool = False
    doomed: bool = False
    is_hot: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    noted: float = field(init=False)
    """What the disk says of `used`."""

    def __post_init__(self) -> None:
        self.noted = self.used

    def use(self, now: float) -> bool:
        """It is opened. Whether that is to be noted on the disk: not each time, since right after a snapshot, when the file
        system has all its pages to write, a note takes 30 ms.
        """
        self.used = now
        if abs(now - self.noted) < _NOTED_EACH:
            return False
        self.noted = now
        return True

    @property
    def id(self) -> str:
        return self.manifest.draft.id

    @property
    def stored(self) -> int:
        return self.hot + (self.cold or 0)


def verify(folder: Path, files: Mapping[str, FileEntry], seen: Seen) -> Seen:
    """Reads what was not read since it changed last. The inode tells: nothing but the kernel sets its time of change.

    Blocks. Raises SnapshotCorrupt, with the file's name.
    """
    now: dict[str, tuple[int, ...]] = {}
    for name, entry in files.items():
        path = folder / name
        try:
            now[name] = _look(path)
        except FileNotFoundError as error:
            raise SnapshotCorrupt(f"its file {name} is gone") from error
        if now[name] == seen.get(name):
            continue
        if (size := path.stat().st_size) != entry.size:
            raise SnapshotCorrupt(f"its file {name} has {size} bytes instead of {entry.size}")
        if digest_of(path) != entry.digest:
            raise SnapshotCorrupt(f"its file {name} was changed: the digest differs")
    return now


def looks(paths: Iterable[Path]) -> Seen:
    """Raises SnapshotCorrupt for what is no regular file."""
    return {path.name: _look(path) for path in paths}


def _look(path: Path) -> tuple[int, ...]:
    """Raises SnapshotCorrupt unless it is a regular file."""
    now = path.lstat()
    if not stat.S_ISREG(now.st_mode):
        raise SnapshotCorrupt(f"its file {path.name} is no regular file")
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
