"""Makes a state directory from a backup. Nothing of it is visible before all of it is proven and on the disk."""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from belljar.base.files import LockHeld, fsync_dir, lock_file, remove_tree, write_atomic
from belljar.base.home import make_home
from belljar.base.ids import ALPHABET, ID_LENGTH
from belljar.base.unarchive import ArchiveBroken, ArchiveReader, Member
from belljar.control.backup import DATABASE
from belljar.control.store.copying import Settled, is_new, pour, settle_restored
from belljar.control.store.place import Place
from belljar.control.store.places import place_at
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.control.store.tables import HEAD
from belljar.model.errors import Conflict, DiskFull, Internal, InvalidArgument, NotSupported
from belljar.server.settings import CONFIG_FILE, read_settings
from belljar.server.state_files import STORE_KEY
from belljar.server.stores import MARK

__all__ = ("Restored", "restore")

_LOCK = "lock"
_PIECE = 1 << 20
_RESERVE = 64 << 20
_SNAPSHOT = rf"sn[{ALPHABET}]{{{ID_LENGTH}}}"
_ALLOWED = re.compile(
    rf"{re.escape(DATABASE)}|{re.escape(CONFIG_FILE)}|key|{re.escape(STORE_KEY)}"
    rf"|snapshots/{_SNAPSHOT}/(manifest\.json|recipe|cooling|files/[A-Za-z0-9_][A-Za-z0-9._-]*)"
    rf"|content/(snapshots/{_SNAPSHOT}|chunks/[0-9a-f]{{2}}/[0-9a-f]{{64}})"
)
"""All that a server's state directory may get from outside. It draws its own id, and its own mark for an object store."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`created`: when the backup was made, in seconds since 1970. `left_out`: snapshot → why it is not whole in the backup.
    `notes`: what is still to be done.
    """

    created: float
    version: str
    files: int
    bytes: int
    found: Settled
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def restore(source: BinaryIO, home: Path, database: str | None = None) -> Restored:
    """Blocks. `database`: an address; the store goes there, where none is yet, instead of into the directory.

    Raises InvalidArgument for what is no whole backup, Conflict when the directory has something in it, NotSupported
    for a backup of a newer release, DiskFull, Internal; then the directory is as it was.
    """
    home = home.absolute()
    _check_empty(home)
    place = None if database is None else place_at(database, home / DATABASE)
    if place is not None and not is_new(place):
        raise _in_use(place)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _beside(home) as folder:
            restored = _unpack(source, folder)
            if place is not None:
                _move_store(folder / DATABASE, place)
                write_atomic(folder / MARK, f"{place}\n".encode(), mode=0o600)
            os.sync()
            _check_empty(home)
            folder.rename(home)  # only over an empty one
            fsync_dir(home.parent)
            make_home(home)
            return restored
    except ArchiveBroken as error:
        raise InvalidArgument(f"this backup cannot be restored: {error}", hint="nothing was changed") from error
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise Conflict(f"{home} has got something in it meanwhile") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"restoring to {home}: no space is left on the disk") from error
        raise Internal(f"restoring to {home}: {error}") from error


def _move_store(file: Path, place: Place) -> None:
    """The last step before the directory has its name. Holds the place meanwhile, as a server does."""
    writer = place.writer()
    try:
        upgrade(place)
        if not is_new(place):
            raise _in_use(place)
        pour(Sqlite(file), place)
    finally:
        writer.close()
    Sqlite(file).drop()


def _in_use(place: Place) -> Conflict:
    return Conflict(f"there is a store in {place} already", hint="restore into a database of its own")


def _check_empty(home: Path) -> None:
    if home.is_symlink() or (home.exists() and (not home.is_dir() or any(home.iterdir()))):
        raise Conflict(
            f"{home} is not an empty folder", hint="a backup is restored into a new one, which no server uses"
        )
    if home.is_mount():
        raise Conflict(
            f"{home} is where a disk is mounted: a restored directory cannot take its place in one step",
            hint="restore to a new folder on that disk, and name it in BELLJAR_HOME",
        )


@contextlib.contextmanager
def _beside(home: Path) -> Generator[Path]:
    """An empty folder that becomes the state directory; it holds its lock already, so that no server starts in between."""
    folder = home.with_name(f".{home.name}.restoring")
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        with lock_file(folder / _LOCK, about="restore"):
            for left in folder.iterdir():  # of a restore that was killed
                if left.name != _LOCK:
                    remove_tree(left)
            try:
                yield folder
            except BaseException:
                remove_tree(folder)
                raise
    except LockHeld as held:
        raise Conflict(f"a restore to {home} is under way: process {held.holder}") from held


def _unpack(source: BinaryIO, folder: Path) -> Restored:
    reader = ArchiveReader(source)
    _check_room(reader, folder)
    schema = reader.head.get("schema")
    if not isinstance(schema, str) or schema > HEAD:
        raise NotSupported(
            f"the backup was made by a newer Belljar ({_word(reader.head.get('belljar'))})",
            hint="upgrade Belljar first",
        )
    for member in reader.members():
        if not _ALLOWED.fullmatch(member.name):
            raise ArchiveBroken(f"no file of a state directory is called {member.name!r}")
        _write(member, folder / member.name)
    database = folder / DATABASE
    if reader.end is None or not database.exists():
        raise ArchiveBroken("there is no store in it")
    created = reader.head.get("created")
    created = float(created) if isinstance(created, int | float) else 0.0
    upgrade(Sqlite(database))
    when = f"{datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M:%S} UTC"
    message = (
        f"it ran on the server of which the backup of {when} was made; a backup has snapshots, not running sandboxes"
    )
    found = settle_restored(database, at=time.time(), message=message)
    left_out: Any = reader.end.get("left_out")
    if not isinstance(left_out, dict):
        raise ArchiveBroken("its end does not say what is not in it")
    named = {_word(id): _word(why) for id, why in cast("dict[str, Any]", left_out).items()}
    return Restored(
        created,
        _word(reader.head.get("belljar")),
        int(reader.end["files"]),
        int(reader.end["bytes"]),
        found,
        named,
        _notes(folder, has_content=reader.head.get("content") is not False),
    )


def _check_room(reader: ArchiveReader, folder: Path) -> None:
    """Before a byte is unpacked: the head bounds what can come."""
    if reader.size + _RESERVE > (free := shutil.disk_usage(folder).free):
        raise DiskFull(f"the backup may take {reader.size >> 20} MiB, and {free >> 20} MiB are free")
    names = os.statvfs(folder)
    if names.f_files and reader.files > names.f_favail:
        raise DiskFull(f"the backup may have {reader.files} files, and the disk has room for {names.f_favail} more")


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ArchiveBroken(f"it has {member.name} twice") from error
    with os.fdopen(fd, "wb") as file:
        while piece := member.read(_PIECE):
            file.write(piece)


def _notes(folder: Path, *, has_content: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if (folder / STORE_KEY).exists():
        notes.append(f"the keys of snapshots are in {STORE_KEY} of the new directory: name that file in store_key_file")
    if not has_content:
        notes.append(
            "cold snapshots are read from the object store; once the old server is gone for good, remove the store's object "
            "`owner`, so that this one may write there"
        )
    elif (folder / "content").is_dir() and read_settings(folder).store_url is not None:
        notes.append(
            "cold snapshots are in the folder content of the new directory: a server looks there without store_url"
        )
    return tuple(notes)


def _word(value: object) -> str:
    """Text of the archive, for people: bounded, and nothing that a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:500])
