"""A copy of the database as it is in one moment, made while others write, and what is to be said in one that was restored."""

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from belljar.model.errors import DiskFull, InvalidArgument

__all__ = ("Copied", "Settled", "copy_database", "settle_restored", "sweep")

_RESERVE = 64 << 20
_BUSY_SECONDS = 10.0
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """`descriptor` reads the copy, which has no name any more: it goes with the process, however that ends. The caller closes it.

    `snapshots`: ids of those that are acknowledged and not deleted in it.
    """

    descriptor: int
    size: int
    snapshots: tuple[str, ...]

    def read(self, offset: int) -> bytes:
        """The next piece, at most 1 MiB; none at the end. Blocks."""
        return os.pread(self.descriptor, _PIECE, offset)


@dataclass(frozen=True, slots=True)
class Settled:
    """How many there are in a restored store; `lost`: sandboxes that lived when it was copied."""

    workspaces: int
    keys: int
    snapshots: int
    templates: int
    lost: int


def copy_database(file: Path) -> Copied:
    """Blocks for as long as writing the file takes; nobody who reads or writes waits. Raises DiskFull."""
    size = file.stat().st_size + _RESERVE
    if (free := shutil.disk_usage(file.parent).free) < size:
        raise DiskFull(f"a copy of the store needs {size >> 20} MiB beside it, and {free >> 20} MiB are free")
    sweep(file)
    target = _target(file)
    # For its owner alone before anything is in it.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as source:
            source.execute("VACUUM INTO ?", (str(target),))
        with contextlib.closing(sqlite3.connect(target)) as made:
            rows = made.execute("SELECT id FROM snapshots WHERE state = 'ready' AND ended_at IS NULL ORDER BY id")
            snapshots = tuple(str(id) for (id,) in rows)
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        return Copied(descriptor, os.fstat(descriptor).st_size, snapshots)
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise DiskFull("no space is left on the disk for a copy of the store") from error
        raise
    finally:
        sweep(file)


def sweep(file: Path) -> None:
    """Removes what a killed server was copying."""
    for left in (_target(file), _target(file).with_name(f"{_target(file).name}-journal")):
        left.unlink(missing_ok=True)


def settle_restored(file: Path, *, at: float, message: str) -> Settled:
    """Of a copy that is up to date: what lived in it is lost, and says why. `at` in seconds since 1970. Blocks.

    Raises InvalidArgument for a file that is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(file)) as store, store:
            if (said := store.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise InvalidArgument(f"the store in the backup is damaged: {said}")
            # A create that was under way may be asked for again with its key.
            store.execute(
                "DELETE FROM idempotency WHERE sandbox IN "
                "(SELECT id FROM sandboxes WHERE ended_at IS NULL AND status = 'creating')"
            )
            lost = store.execute(
                "UPDATE sandboxes SET status = 'lost', ended_at = ?, ended_reason = 'restored', ended_message = ? "
                "WHERE ended_at IS NULL",
                (at, message),
            ).rowcount
            return Settled(
                _count(store, "workspaces WHERE ended IS NULL"),
                _count(store, "keys WHERE revoked IS NULL"),
                _count(store, "snapshots WHERE state = 'ready' AND ended_at IS NULL"),
                _count(store, "templates WHERE snapshot IS NOT NULL"),
                lost,
            )
    except sqlite3.DatabaseError as error:
        raise InvalidArgument(f"the store in the backup cannot be read: {error}") from error


def _count(store: sqlite3.Connection, what: str) -> int:
    return int(store.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def _target(file: Path) -> Path:
    return file.with_name(f".{file.name}.copy")
