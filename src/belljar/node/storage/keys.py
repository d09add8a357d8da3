"""What is secret: the keys of a store, and how bytes are sealed with one.

Everything is derived from a key of 32 bytes: the names of chunks, where chunks are cut, and a key of its own for each thing that
is sealed (AES-256-GCM), so that random nonces never meet.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from belljar.model.errors import InvalidArgument, SnapshotCorrupt

__all__ = ("OVERHEAD", "Key", "Keys", "parse_keys", "read_keys")

KEY_SIZE = 32
OVERHEAD = 12 + 16
"""Bytes that sealing adds: nonce and tag."""
_MOST = 64


@dataclass(frozen=True, slots=True)
class Key:
    """`id` tells keys apart and nothing of the key. Never printed."""

    id: str
    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "Key":
        return cls(_derived("belljar store 1 key id", secret)[:8].hex(), secret)

    def name(self, content: bytes | memoryview) -> bytes:
        """Stands for the content; without the key nobody can tell which content it stands for."""
        return blake3(content, key=_derived("belljar store 1 chunk names", self._secret)).digest()

    @property
    def seed(self) -> int:
        """63 bits for the chunker, so that the sizes of chunks do not tell the content either."""
        return int.from_bytes(_derived("belljar store 1 chunk borders", self._secret)[:8]) >> 1

    def cipher(self, about: bytes) -> AESGCM:
        """For this thing alone."""
        return AESGCM(blake3(about, key=_derived("belljar store 1 content", self._secret)).digest())

    def seal(self, data: bytes, about: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + self.cipher(about).encrypt(nonce, data, about)

    def unseal(self, data: bytes, about: bytes) -> bytes:
        """Raises SnapshotCorrupt unless it was sealed with this key, about this, and not changed since."""
        try:
            return self.cipher(about).decrypt(data[:12], data[12:], about)
        except (InvalidTag, ValueError) as error:
            raise SnapshotCorrupt("it was changed, or encrypted with another key") from error


@dataclass(frozen=True, slots=True)
class Keys:
    """`current` encrypts what is new, None nothing; all of them decrypt."""

    all: Sequence[Key] = ()

    @property
    def current(self) -> Key | None:
        return self.all[0] if self.all else None

    def find(self, id: str | None) -> Key | None:
        """None for what is not encrypted. Raises SnapshotCorrupt for a key that is not here."""
        if id is None:
            return None
        for key in self.all:
            if key.id == id:
                return key
        have = f"the keys here are {', '.join(key.id for key in self.all)}" if self.all else "no key is set"
        raise SnapshotCorrupt(
            f"it is encrypted with key {id[:40]}, and {have}",
            hint="add that key to BELLJAR_STORE_KEY_FILE, below the one for new snapshots",
        )


def read_keys(file: Path | None, text: str | None) -> Keys:
    """From the file, else from the text (BELLJAR_STORE_KEY). Raises InvalidArgument, which does not quote a key."""
    if file is None:
        return parse_keys(text or "", "BELLJAR_STORE_KEY")
    try:
        said = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the key file {file} cannot be read: {error}") from error
    keys = parse_keys(said, str(file))
    if not keys.all:
        raise InvalidArgument(f"the key file {file} has no key", hint="head -c 32 /dev/urandom | base64 makes one")
    return keys


def parse_keys(text: str, source: str) -> Keys:
    """A key a line, the one for new snapshots first; ``#`` begins a comment. Each is 32 bytes in base64 or hex."""
    found: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        if word := line.partition("#")[0].strip():
            found.append(Key.of(_decoded(word, f"{source}, line {number}")))
    if len(found) > _MOST or len({key.id for key in found}) != len(found):
        raise InvalidArgument(f"{source} has a key twice, or more than {_MOST}")
    return Keys(tuple(found))


def _decoded(word: str, where: str) -> bytes:
    try:
        secret = bytes.fromhex(word) if len(word) == 2 * KEY_SIZE else base64.b64decode(word, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != KEY_SIZE:
        raise InvalidArgument(f"{where}: a key is 32 bytes in base64 or hex", hint="head -c 32 /dev/urandom | base64")
    return secret


def _derived(context: str, secret: bytes) -> bytes:
    return blake3(secret, derive_key_context=context).digest()
