"""Where a store keeps what on the disk, and in which steps it gets there and goes away.

``<id>/`` is a whole snapshot: ``manifest.json`` and, while it is hot, its files in ``files/``. ``.<id>.making/`` is one that is
being written, ``.<id>.gone/`` one that is being removed, and so is one with a file ``deleted``: who finds any of them at the
start removes it. A name changes in one step.

A cold snapshot has ``recipe`` instead of ``files/``; one with both is hot and cheap to cool. ``cooling`` says that the content
store may have a record of it.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from belljar.base.files import remove_tree
from belljar.base.ids import is_id
from belljar.model.errors import InvalidArgument, SnapshotCorrupt
from belljar.model.snapshot import PREFIX
from belljar.node.storage.durable import sync_file, sync_folder

__all__ = (
    "COOLING",
    "FILES",
    "MANIFEST",
    "MAX_FILES",
    "MAX_MANIFEST",
    "RECIPE",
    "Shelf",
    "check_file_name",
    "read_bounded",
    "write_synced",
)

MANIFEST = "manifest.json"
FILES = "files"
RECIPE = "recipe"
COOLING = "cooling"
_THAWING = ".files.making"
_COOLED = ".files.gone"
_DELETED = "deleted"
MAX_FILES = 64
MAX_MANIFEST = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def check_file_name(name: str) -> str:
    """Raises SnapshotCorrupt unless it is flat: letters, digits, ``.``, ``_``, ``-``, and no hidden one."""
    if not _NAME.fullmatch(name):
        raise SnapshotCorrupt(f"a snapshot cannot have a file {name[:80]!r}")
    return name


class Shelf:
    """All methods block, and raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, id: str) -> Path:
        return self.root / _checked(id)

    def making(self, id: str) -> Path:
        return self.root / f".{_checked(id)}.making"

    def gone(self, id: str) -> Path:
        return self.root / f".{_checked(id)}.gone"

    def sweep(self) -> list[str]:
        """Removes what a killed server was making, and names the ids of what it was removing."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in self._entries(".making"):
            remove_tree(entry)
        for id in self.ids():
            if (self.place(id) / _DELETED).exists():
                self.take_away(id)
            else:
                remove_tree(self.place(id) / _COOLED)
                remove_tree(self.place(id) / _THAWING)
                for left in self.place(id).glob(f".{RECIPE}.*.tmp"):
                    left.unlink()
        return [entry.name[1 : -len(".gone")] for entry in self._entries(".gone")]

    def ids(self) -> list[str]:
        return sorted(entry.name for entry in self.root.iterdir() if is_id(entry.name, PREFIX))

    def make(self, id: str) -> Path:
        """An empty folder for the files of a new one. Raises FileExistsError."""
        making = self.making(id)
        making.mkdir(mode=0o700)
        files = making / FILES
        files.mkdir(mode=0o700)
        return files

    def drop(self, id: str) -> None:
        """What `make` made, if it is there."""
        remove_tree(self.making(id))

    def put(self, id: str, manifest: bytes) -> None:
        """Makes what lies in `making` the snapshot of this id: durable when it returns. Its files are on the disk already."""
        making = self.making(id)
        write_synced(making / MANIFEST, manifest)
        if (making / FILES).is_dir():
            sync_folder(making / FILES)
        sync_folder(making)
        making.rename(self.place(id))
        sync_folder(self.root)

    def doom(self, id: str) -> None:
        """It stays where it is for those who have it open, and no server after this one finds it."""
        write_synced(self.place(id) / _DELETED, b"")
        sync_folder(self.place(id))

    def is_hot(self, id: str) -> bool:
        return self.files(id).is_dir()

    def used(self, id: str) -> float:
        """When it was opened last, in seconds since 1970."""
        return (self.place(id) / MANIFEST).stat().st_mtime

    def touch(self, id: str) -> None:
        """It is opened now. Best effort: it decides only how soon it becomes cold."""
        with contextlib.suppress(OSError):
            os.utime(self.place(id) / MANIFEST)

    def recipe(self, id: str) -> Path:
        return self.place(id) / RECIPE

    def begin_cooling(self, id: str) -> None:
        """From now on the content store may know it."""
        if not (self.place(id) / COOLING).exists():
            write_synced(self.place(id) / COOLING, b"")
            sync_folder(self.place(id))

    def may_be_cold(self, place: Path) -> bool:
        """Whether the content store may have a record of what lies there."""
        return (place / COOLING).exists()

    def cool(self, id: str) -> None:
        """Its files go; the recipe is on the disk already."""
        self.files(id).rename(self.place(id) / _COOLED)
        remove_tree(self.place(id) / _COOLED)

    def begin_thaw(self, id: str) -> Path:
        """An empty folder for its files."""
        thawing = self.place(id) / _THAWING
        remove_tree(thawing)
        thawing.mkdir(mode=0o700)
        return thawing

    def thaw(self, id: str) -> Path:
        """What lies in that folder are its files now."""
        (self.place(id) / _THAWING).rename(self.files(id))
        return self.files(id)

    def drop_thaw(self, id: str) -> None:
        remove_tree(self.place(id) / _THAWING)

    def take_away(self, id: str) -> None:
        """From now on nobody finds it, also after a power cut; `clear` frees its space."""
        with contextlib.suppress(FileNotFoundError):
            self.place(id).rename(self.gone(id))
            sync_folder(self.root)

    def clear(self, id: str) -> None:
        remove_tree(self.gone(id))

    def manifest(self, id: str) -> bytes:
        return read_bounded(self.place(id) / MANIFEST, MAX_MANIFEST)

    def files(self, id: str) -> Path:
        return self.place(id) / FILES

    def _entries(self, ending: str) -> Iterator[Path]:
        for entry in sorted(self.root.iterdir()):
            if entry.name.endswith(ending) and is_id(entry.name[1 : -len(ending)], PREFIX):
                yield entry


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns (its name is not yet: that is the folder's)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        sync_file(file.fileno())


def read_bounded(path: Path, most: int) -> bytes:
    """Raises SnapshotCorrupt for a longer one."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise SnapshotCorrupt(f"{path.name} is longer than {most >> 20} MiB")
    return data


def _checked(id: str) -> str:
    if not is_id(id, PREFIX):
        raise InvalidArgument(f"not the id of a snapshot: {id[:80]!r}")
    return id
