"""The entries of a tar, one after the other, whoever wrote it: bounded memory, no file system is touched."""

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from belljar.model.errors import SnapshotCorrupt

__all__ = ("Entry", "read_entries")

_BLOCK: Final = 512
_NOTHING: Final = bytes(_BLOCK)
_LONGEST_EXTENSION: Final = 1 << 20
_ID: Final = 0xFFFF_FFFF
_OPAQUE: Final = b"SCHILY.xattr.trusted.overlay.opaque"
_LONG: Final = {b"L": b"path", b"K": b"linkpath"}


@dataclass(frozen=True, slots=True)
class Entry:
    """`path` is relative, without ``.``, ``..`` and empty parts (the top itself is empty); `kind` is tar's letter; `mode` are the
    bits of permission. `link`: the target. `deleted`: stands for what is no longer there. `opaque`: hides the folder below it.
    """

    path: bytes
    kind: bytes
    size: int
    mode: int
    uid: int
    gid: int
    link: bytes = b""
    deleted: bool = False
    opaque: bool = False


def read_entries(file: Path) -> Generator[Entry]:
    """Raises SnapshotCorrupt for what is no tar, OSError."""
    with file.open("rb", buffering=1 << 18) as tar:
        yield from _Reader(tar).entries()


@dataclass(slots=True)
class _Reader:
    tar: BinaryIO
    left: int = 0
    records: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])

    def entries(self) -> Generator[Entry]:
        self.left = os.fstat(self.tar.fileno()).st_size
        while (block := self._read(_BLOCK)) != _NOTHING:
            kind, size = block[156:157], _number(block[124:136])
            if kind in (b"x", b"g", *_LONG):
                self._extend(kind, size)
                continue
            size = self._int(b"size", size)
            if size > self.left or (size and kind not in (b"0", b"\0")):
                raise SnapshotCorrupt("the tar has an entry of an impossible size")
            yield self._entry(block, kind, size)
            self.records.clear()
            self._skip(size + -size % _BLOCK)

    def _extend(self, kind: bytes, size: int) -> None:
        if not 0 < size <= _LONGEST_EXTENSION:
            raise SnapshotCorrupt("the tar has an impossible extended header")
        content = self._read(size + -size % _BLOCK)[:size]
        if kind in _LONG:
            self.records[_LONG[kind]] = content.rstrip(b"\0")
        elif kind == b"x":
            self.records |= _records(content)

    def _entry(self, block: bytes, kind: bytes, size: int) -> Entry:
        name = block[:100].partition(b"\0")[0]
        prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
        path = self.records.get(b"path") or (prefix + b"/" + name if prefix else name)
        device = _number(block[329:337]), _number(block[337:345])
        return Entry(
            path=_plain(path),
            kind=b"0" if kind == b"\0" else kind,
            size=size if kind in (b"0", b"\0") else 0,
            mode=_number(block[100:108]) & 0o7777,
            uid=self._int(b"uid", _number(block[108:116])) & _ID,
            gid=self._int(b"gid", _number(block[116:124])) & _ID,
            link=self.records.get(b"linkpath") or block[157:257].partition(b"\0")[0],
            deleted=kind == b"3" and device == (0, 0),
            opaque=self.records.get(_OPAQUE) == b"y",
        )

    def _int(self, key: bytes, otherwise: int) -> int:
        said = self.records.get(key)
        if said is None:
            return otherwise
        if not said.isdigit() or len(said) > 20:
            raise SnapshotCorrupt("the tar has an impossible number")
        return int(said)

    def _read(self, size: int) -> bytes:
        data = self.tar.read(size)
        self.left -= len(data)
        if len(data) != size:
            raise SnapshotCorrupt("the tar ends in the middle")
        return data

    def _skip(self, size: int) -> None:
        if size > self.left:
            raise SnapshotCorrupt("the tar ends in the middle")
        self.left -= size
        self.tar.seek(size, os.SEEK_CUR)


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    try:
        number = int(digits, 8)
    except ValueError:
        number = -1
    if number < 0:
        raise SnapshotCorrupt("the tar has an impossible number")
    return number


def _records(content: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        digits, space, _ = content[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = content[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if length < len(digits) + 4 or at + length > len(content) or not equals:
            raise SnapshotCorrupt("the tar has a damaged extended header")
        found[key] = value
        at += length
    return found


def _plain(path: bytes) -> bytes:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or path.startswith(b"/") or b"\0" in path:
        raise SnapshotCorrupt(f"the tar has an impossible name: {path[:80]!r}")
    return b"/".join(parts)
