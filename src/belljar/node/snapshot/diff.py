"""What a snapshot changed: its tar against the list of what its image holds. However many paths there are, few are in memory."""

import heapq
import stat
import struct
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

from belljar.model.snapshot import ChangeKind, PathChange, PathKind
from belljar.node.image.paths import ImagePath, order, read_paths
from belljar.node.snapshot.entries import Entry, read_entries

__all__ = ("contents_of", "difference")

_IDENTITY: Final = (b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"etc/machine-id", b".belljar")
"""Belljar's own writing, another in each sandbox."""
_AT_ONCE: Final = 50_000
_KINDS: Final = {b"0": PathKind.FILE, b"1": PathKind.FILE, b"2": PathKind.SYMLINK, b"5": PathKind.DIRECTORY}
_LINKS: Final = 10_000
_AHEAD: Final = 16 << 10
_HEAD: Final = struct.Struct("<cQIII??I")
Keyed = tuple[bytes, Entry]


def difference(upper: Path, image: Path | None) -> Generator[PathChange]:
    """`upper`: what `save_files` wrote; `image`: the list of the image's paths, None for an empty one. Sorted, a folder before
    what is in it. Raises SnapshotCorrupt, Internal (a damaged list), OSError.
    """
    known = iter(()) if image is None else ((order(path.path), path) for path in read_paths(image))
    for path, change, kind, size in _joined(_sorted(_entries(upper)), known):
        if not path.startswith(_IDENTITY) or not _is_identity(path):
            yield PathChange("/" + _text(path), change, kind, size)


def contents_of(tree: Path) -> Generator[PathChange]:
    """All that the tar of a directory holds, as added. Raises as `difference`."""
    for entry in _sorted(_entries(tree)):
        yield PathChange(_text(entry[1].path), ChangeKind.ADDED, _kind(entry[1]), entry[1].size)


Found = tuple[bytes, ChangeKind, PathKind, int]


def _joined(upper: Iterable[Keyed], image: Iterator[tuple[bytes, ImagePath]]) -> Generator[Found]:
    """Both sorted. `cover`: below it nothing of the image is there any more but what the upper layer has itself."""
    cover = b""
    old = next(image, None)
    for key, new in upper:
        while old is not None and old[0] < key:
            if cover and old[0].startswith(cover):
                yield _gone(old[1])
            old = next(image, None)
        same = old[1] if old is not None and old[0] == key else None
        if same is None:
            if not new.deleted:
                yield new.path, ChangeKind.ADDED, _kind(new), new.size
            continue
        was_folder, is_folder = stat.S_ISDIR(same.mode), new.kind == b"5"
        covered = bool(cover) and key.startswith(cover)
        if new.deleted:
            yield _gone(same)
        elif not (was_folder and is_folder) or covered or new.opaque or _dressed_otherwise(same, new):
            yield new.path, ChangeKind.MODIFIED, _kind(new), new.size
        if was_folder and (not is_folder or new.opaque) and not covered:
            cover = key + b"\0"
        old = next(image, None)
    while old is not None:
        if cover and old[0].startswith(cover):
            yield _gone(old[1])
        old = next(image, None)


def _dressed_otherwise(old: ImagePath, new: Entry) -> bool:
    return (stat.S_IMODE(old.mode), old.uid, old.gid) != (new.mode, new.uid, new.gid)


def _gone(old: ImagePath) -> Found:
    return old.path, ChangeKind.DELETED, _kind_of_mode(old.mode), old.size


def _is_identity(path: bytes) -> bool:
    return any(path == name or path.startswith(name + b"/") for name in _IDENTITY)


def _entries(file: Path) -> Generator[Keyed]:
    """In any order; hard links with the size of what they are another name of, as long as there are not too many."""
    links: list[Entry] = []
    for entry in read_entries(file):
        if entry.kind == b"1" and len(links) < _LINKS:
            links.append(entry)
        elif entry.path:
            yield order(entry.path), entry
    if links:
        sizes = dict.fromkeys((_target(link) for link in links), 0)
        for entry in read_entries(file):
            if entry.path in sizes:
                sizes[entry.path] = entry.size
        for link in links:
            yield order(link.path), replace(link, size=sizes[_target(link)])


def _target(link: Entry) -> bytes:
    return link.link.removeprefix(b"./").rstrip(b"/")


def _sorted(entries: Iterable[Keyed]) -> Generator[Keyed]:
    """In the order of their keys; of several with one key the last. What does not fit into memory goes through a file that
    nobody else sees.
    """
    runs: list[Iterator[Keyed]] = []
    gathered: list[Keyed] = []
    with tempfile.TemporaryFile() as file:
        for item in entries:
            gathered.append(item)
            if len(gathered) == _AT_ONCE:
                gathered.sort(key=itemgetter(0))
                runs.append(_run(file, gathered))
                gathered = []
        gathered.sort(key=itemgetter(0))
        runs.append(iter(gathered))
        before: Keyed | None = None
        for item in heapq.merge(*runs, key=itemgetter(0)):
            if before is not None and before[0] != item[0]:
                yield before
            before = item
        if before is not None:
            yield before


def _run(file: BinaryIO, items: list[Keyed]) -> Iterator[Keyed]:
    """Each run has its own place in the file that all share."""
    start = file.seek(0, 2)
    for _, entry in items:
        head = entry.kind, entry.size, entry.mode, entry.uid, entry.gid, entry.deleted, entry.opaque, len(entry.path)
        file.write(_HEAD.pack(*head) + entry.path)
    return _read_run(file, start, len(items))


def _read_run(file: BinaryIO, at: int, count: int) -> Iterator[Keyed]:
    buffer = b""

    def take(size: int) -> bytes:
        nonlocal at, buffer
        while len(buffer) < size:
            file.seek(at)
            more = file.read(_AHEAD)
            at += len(more)
            buffer += more
        data, buffer = buffer[:size], buffer[size:]
        return data

    for _ in range(count):
        kind, size, mode, uid, gid, deleted, opaque, length = _HEAD.unpack(take(_HEAD.size))
        path = take(length)
        yield order(path), Entry(path, kind, size, mode, uid, gid, deleted=deleted, opaque=opaque)


def _kind(entry: Entry) -> PathKind:
    return _KINDS.get(entry.kind, PathKind.OTHER)


def _kind_of_mode(mode: int) -> PathKind:
    if stat.S_ISDIR(mode):
        return PathKind.DIRECTORY
    if stat.S_ISLNK(mode):
        return PathKind.SYMLINK
    return PathKind.FILE if stat.S_ISREG(mode) else PathKind.OTHER


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
