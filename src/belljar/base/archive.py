"""A tar packed with zstd that proves it is whole, written in one pass. `unarchive` reads it.

``head.json`` comes first and says at most how many files and bytes follow. Then come the files; behind at most 1,000 of them
``manifest/000001.sha256`` has a line of SHA-256 and name for each, as `sha256sum -c` reads it. ``end.json`` is last: how many
files and bytes there were, and the SHA-256 of all manifests one after the other. Any tar that knows zstd unpacks it.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any

import zstandard

__all__ = (
    "BLOCK",
    "END",
    "FORMAT",
    "HEAD",
    "MAX_END",
    "MAX_HEAD",
    "MAX_MANIFEST",
    "MAX_NAME",
    "PER_MANIFEST",
    "ArchiveWriter",
    "is_name",
    "manifest_name",
    "padding",
)

FORMAT = 1
HEAD = "head.json"
END = "end.json"
BLOCK = 512
PER_MANIFEST = 1000
"""Files behind which their digests come at the latest: so many are in memory."""
MAX_NAME = 100
"""Letters: what the oldest form of a tar's header has room for."""
MAX_HEAD = 64 << 10
MAX_END = 1 << 20
MAX_MANIFEST = PER_MANIFEST * (64 + 2 + MAX_NAME + 1)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_OCTAL = 8 << 30
"""Bytes: longer files have a size that is no text."""
_LEVEL = 3


def is_name(name: str) -> bool:
    """Whether a file of an archive may have this name: relative, in flat letters, nothing hidden and nothing upwards."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def manifest_name(number: int) -> str:
    return f"manifest/{number:06}.sha256"


def padding(size: int) -> int:
    """Bytes that follow a file of this size, up to the next block."""
    return -size % BLOCK


class ArchiveWriter:
    """Each call gives the next bytes of the archive, often none. Blocks for as long as packing takes: some ms a MiB.

    `size` and `files`: at most so many bytes in so many files are going to come. `at`: their time, in seconds since 1970.
    Raises ValueError for what was promised otherwise.
    """

    def __init__(self, head: Mapping[str, Any], *, files: int, size: int, at: float) -> None:
        self._head = {"format": FORMAT, **head, "at_most": {"files": files, "bytes": size}}
        self._most_files, self._most = files, size
        self._at = int(at)
        self._packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        self._files = self._bytes = self._size = self._left = self._manifests = 0
        self._name = ""
        self._digest = hashlib.sha256()
        self._lines: list[str] = []
        self._all = hashlib.sha256()

    def begin(self) -> bytes:
        return self._packer.compress(self._member(HEAD, json.dumps(self._head, indent=1).encode() + b"\n"))

    def file(self, name: str, size: int) -> bytes:
        """Begins one: exactly `size` bytes of it come in calls of `data`."""
        if self._left or not is_name(name) or size < 0:
            raise ValueError(f"no file {name!r} of {size} bytes can come here")
        self._files += 1
        self._bytes += size
        if self._files > self._most_files or self._bytes > self._most:
            raise ValueError("more is to be written than the head says")
        self._name, self._size, self._left, self._digest = name, size, size, hashlib.sha256()
        packed = self._packer.compress(self._header(name, size))
        return packed if size else packed + self._filed()

    def data(self, piece: bytes) -> bytes:
        if len(piece) > self._left:
            raise ValueError(f"{self._name} is longer than was said")
        self._digest.update(piece)
        self._left -= len(piece)
        packed = self._packer.compress(piece)
        if self._left == 0 and piece:
            packed += self._filed()
        return packed

    def end(self, more: Mapping[str, Any]) -> bytes:
        """The last bytes. `more`: what is known only now."""
        if self._left:
            raise ValueError(f"{self._name} is shorter than was said")
        packed = self._manifest() if self._lines else b""
        proof = {**more, "files": self._files, "bytes": self._bytes, "sha256": self._all.hexdigest()}
        packed += self._packer.compress(self._member(END, json.dumps(proof, indent=1).encode() + b"\n"))
        return packed + self._packer.compress(bytes(2 * BLOCK)) + self._packer.flush()

    def _filed(self) -> bytes:
        """The file is there: its padding, and the manifest when it is due."""
        self._lines.append(f"{self._digest.hexdigest()}  {self._name}\n")
        packed = self._packer.compress(bytes(padding(self._size)))
        return packed + (self._manifest() if len(self._lines) >= PER_MANIFEST else b"")

    def _manifest(self) -> bytes:
        self._manifests += 1
        text = "".join(self._lines).encode()
        self._lines.clear()
        self._all.update(text)
        return self._packer.compress(self._member(manifest_name(self._manifests), text))

    def _member(self, name: str, content: bytes) -> bytes:
        return self._header(name, len(content)) + content + bytes(padding(len(content)))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self._at
        return info.tobuf(tarfile.USTAR_FORMAT if size < _OCTAL else tarfile.GNU_FORMAT, "ascii", "strict")
