"""API keys: made once, shown once, kept as digests; checked from memory."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import new_id
from belljar.control.store.keys import KeyRecord, KeyStore
from belljar.control.store.tables import DEFAULT_WORKSPACE
from belljar.model.errors import Unauthenticated

__all__ = ("DEFAULT_WORKSPACE", "LOCAL", "Keys", "Principal")

_PREFIX = "bjk_"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `local`: through the unix socket, whose file permissions are the check."""

    workspace: str
    key: str | None = None
    local: bool = False


LOCAL = Principal(DEFAULT_WORKSPACE, local=True)


class Keys:
    """Own it as an async context manager: entering reads the digests."""

    def __init__(self, store: KeyStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._valid: dict[str, KeyRecord] = {}

    async def __aenter__(self) -> Self:
        self._valid = {record.digest: record for record in await self._store.valid()}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._valid.clear()

    def __len__(self) -> int:
        return len(self._valid)

    async def make(self, name: str, *, workspace: str = DEFAULT_WORKSPACE) -> str:
        """A new key; this is the only time that it can be seen."""
        key = _PREFIX + secrets.token_urlsafe(32)
        record = KeyRecord(new_id("key"), workspace, name, _digest(key), self._clock.now())
        await self._store.insert(record)
        self._valid[record.digest] = record
        return key

    def check(self, key: str | None) -> Principal:
        """Whose key this is. Raises Unauthenticated."""
        if key is None:
            raise Unauthenticated(
                "no API key", hint="send it as `Authorization: Bearer KEY` (the SDK: BELLJAR_API_KEY)"
            )
        record = self._valid.get(_digest(key))
        if record is None:
            raise Unauthenticated("this API key is not valid here")
        return Principal(record.workspace, record.id)


def _digest(key: str) -> str:
    # No salt and no slow hash: a key has 256 random bits, there is nothing to guess.
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()
