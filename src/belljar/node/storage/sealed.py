"""Long things sealed in parts, so that neither side ever holds more than one of them.

``BJSEAL1\\n``, the key's id (8 bytes), a salt (32), then parts of 1 MiB, each with its tag of 16 bytes. A part's nonce is its
number and whether it is the last: parts cannot be moved, left out or taken from another thing.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidTag

from belljar.model.errors import SnapshotCorrupt
from belljar.node.storage.keys import Key, Keys

__all__ = ("MAGIC", "PART", "Source", "Unsealed", "read_exactly", "seal_parts")

MAGIC = b"BJSEAL1\n"
PART = 1 << 20
_TAG = 16
_SALT = 32


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""
        ...


def seal_parts(data: Iterable[bytes], key: Key, about: bytes) -> Iterator[bytes]:
    """The sealed form of the data, piece by piece."""
    salt = secrets.token_bytes(_SALT)
    cipher = key.cipher(salt + about)
    yield MAGIC + bytes.fromhex(key.id) + salt
    number, waiting = 0, bytearray()
    for piece in data:
        waiting += piece
        while len(waiting) > PART:
            yield cipher.encrypt(_nonce(number, last=False), bytes(waiting[:PART]), about)
            del waiting[:PART]
            number += 1
    yield cipher.encrypt(_nonce(number, last=True), bytes(waiting), about)


class Unsealed:
    """What was sealed, to be read. Raises SnapshotCorrupt for what is not whole."""

    def __init__(self, source: Source, keys: Keys, about: bytes, *, magic_read: bool = False) -> None:
        self._read = source.read
        head = b"" if magic_read else read_exactly(self._read, len(MAGIC))
        if head not in (b"", MAGIC):
            raise SnapshotCorrupt("it is not what Belljar encrypts: it begins with other bytes")
        key = keys.find(read_exactly(self._read, 8).hex())
        assert key is not None
        self._about = about
        self._cipher = key.cipher(read_exactly(self._read, _SALT) + about)
        self._ahead = _read_up_to(self._read, PART + _TAG)
        self._number = 0
        self._plain = memoryview(b"")
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """As many bytes, fewer only at the end."""
        parts: list[memoryview] = []
        while size > 0 and (self._plain or not self._ended):
            if not self._plain:
                self._next()
            parts.append(self._plain[:size])
            self._plain = self._plain[len(parts[-1]) :]
            size -= len(parts[-1])
        return b"".join(parts)

    def _next(self) -> None:
        part, self._ahead = (
            self._ahead,
            _read_up_to(self._read, PART + _TAG) if len(self._ahead) == PART + _TAG else b"",
        )
        self._ended = not self._ahead
        try:
            plain = self._cipher.decrypt(_nonce(self._number, last=self._ended), part, self._about)
        except (InvalidTag, ValueError) as error:
            raise SnapshotCorrupt("it was cut off, changed, or encrypted with another key") from error
        self._plain = memoryview(plain)
        self._number += 1


def read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Raises SnapshotCorrupt when it ends before."""
    data = _read_up_to(read, size)
    if len(data) != size:
        raise SnapshotCorrupt("it is cut off")
    return data


def _read_up_to(read: Callable[[int], bytes], size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + bytes([last])
