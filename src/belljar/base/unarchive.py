"""Reads what `archive` writes, and believes nothing: every name, size and digest is checked, and memory is bounded."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import zstandard

from belljar.base.archive import (
    BLOCK,
    END,
    FORMAT,
    HEAD,
    MAX_END,
    MAX_HEAD,
    MAX_MANIFEST,
    PER_MANIFEST,
    is_name,
    manifest_name,
    padding,
)

__all__ = ("ArchiveBroken", "ArchiveReader", "Member")

_WINDOW = 8 << 20
"""Bytes that the unpacker may be made to keep."""
_PIECE = 1 << 20


class ArchiveBroken(Exception):
    """It is no archive of this form, is cut off, was changed, or holds what it may not. The message says what."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""
        ...


class Member:
    """One file: `read` gives its bytes, none at its end. Whether they are right is known when the archive has ended."""

    def __init__(self, name: str, size: int, read: Callable[[int], bytes]) -> None:
        self.name = name
        self.size = size
        self._read = read
        self._left = size
        self._digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        piece = self._read(min(size, self._left)) if self._left else b""
        self._digest.update(piece)
        self._left -= len(piece)
        return piece

    def line(self) -> str:
        """Of its manifest. Reads what nobody has read."""
        while self.read(_PIECE):
            pass
        return f"{self._digest.hexdigest()}  {self.name}\n"


class ArchiveReader:
    """`head` is read at once; `end` is there when all of `members` was. Blocks. Raises ArchiveBroken, and OSError of the source.

    `files` and `size`: what the head allows; more is never given out. Nothing of this is true before `end` is there.
    """

    def __init__(self, source: Source) -> None:
        unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._source = unpacker.stream_reader(source)  # pyright: ignore[reportArgumentType] # it only reads
        self.end: dict[str, Any] | None = None
        name, size = self._header()
        if name != HEAD:
            raise ArchiveBroken(f"it begins with {name!r}: it is no backup of Belljar")
        self.head = self._json(HEAD, size, MAX_HEAD)
        if self.head.get("format") != FORMAT:
            raise ArchiveBroken(f"it has format {self.head.get('format')!r}, and this Belljar reads {FORMAT}")
        self.files, self.size = _most(self.head.get("at_most"), "files"), _most(self.head.get("at_most"), "bytes")

    def members(self) -> Iterator[Member]:
        """Each is to be read before the next one is asked for; what is not read is skipped, and checked all the same."""
        lines: list[str] = []
        all_of_them = hashlib.sha256()
        files = total = manifests = 0
        while True:
            name, size = self._header()
            if name == END:
                if lines:
                    raise ArchiveBroken("its last files have no digests")
                self._check_end(size, files, total, all_of_them.hexdigest())
                return
            if name == manifest_name(manifests + 1):
                text = self._content(name, size, MAX_MANIFEST)
                if text != "".join(lines).encode():
                    raise ArchiveBroken(f"a file was changed: {_first_difference(lines, text)}")
                all_of_them.update(text)
                lines.clear()
                manifests += 1
                continue
            files, total = files + 1, total + size
            if files > self.files or total > self.size:
                raise ArchiveBroken(
                    f"more follows than its head allows ({self.files} files, {self.size} bytes): {name} is too much"
                )
            if len(lines) >= PER_MANIFEST:
                raise ArchiveBroken("digests are missing")
            member = Member(name, size, self._some)
            yield member
            lines.append(member.line())
            self._skip_padding(size)

    def _check_end(self, size: int, files: int, total: int, digest: str) -> None:
        end = self._json(END, size, MAX_END)
        if (end.get("files"), end.get("bytes"), end.get("sha256")) != (files, total, digest):
            raise ArchiveBroken("its end does not fit what came before")
        if self._exactly(2 * BLOCK).strip(b"\0") or self._read(1):
            raise ArchiveBroken("something follows after its end")
        self.end = end

    def _header(self) -> tuple[str, int]:
        """Name and size of the next file, which is a plain one with a good name."""
        block = self._exactly(BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise ArchiveBroken("it is torn: a header cannot be read") from error
        if info.type != tarfile.REGTYPE or info.linkname:
            raise ArchiveBroken(f"{info.name[:100]!r} is no plain file")
        if not is_name(info.name):
            raise ArchiveBroken(f"no file of a backup is called {info.name[:100]!r}")
        if info.size < 0:
            raise ArchiveBroken(f"{info.name} has no size")
        return info.name, info.size

    def _json(self, name: str, size: int, most: int) -> dict[str, Any]:
        try:
            said: Any = json.loads(self._content(name, size, most))
        except (ValueError, RecursionError) as error:
            raise ArchiveBroken(f"its {name} cannot be read") from error
        if not isinstance(said, dict):
            raise ArchiveBroken(f"its {name} is something else")
        return cast("dict[str, Any]", said)

    def _content(self, name: str, size: int, most: int) -> bytes:
        if size > most:
            raise ArchiveBroken(f"its {name} is longer than {most} bytes")
        content = self._exactly(size)
        self._skip_padding(size)
        return content

    def _skip_padding(self, size: int) -> None:
        if self._exactly(padding(size)).strip(b"\0"):
            raise ArchiveBroken("it is torn: something stands between two files")

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            parts.append(self._some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        if not (data := self._read(size)):
            raise ArchiveBroken("it is cut off")
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._source.read(size)
        except zstandard.ZstdError as error:
            raise ArchiveBroken("it is torn, or was not packed with zstd") from error


def _most(said: Any, word: str) -> int:
    number: Any = cast("dict[str, Any]", said).get(word) if isinstance(said, dict) else None
    if type(number) is not int or number < 0:
        raise ArchiveBroken("its head does not say how much may follow")
    return number


def _first_difference(lines: list[str], text: bytes) -> str:
    """The name in the first line that is another one."""
    told = text.decode(errors="replace").splitlines(keepends=True)
    for line, expected in zip(lines, told, strict=False):
        if line != expected:
            return line[66:].strip()
    return "their number is another one"
