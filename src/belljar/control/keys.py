"""API keys: made once, shown once, kept as digests; checked from memory."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import new_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.store.keys import KeyStore
from belljar.control.store.tables import DEFAULT_WORKSPACE
from belljar.model.errors import Error, InvalidArgument, LimitExceeded, NotFound, PermissionDenied, Unauthenticated
from belljar.model.key import PREFIX, Key, Scope, check_key_name
from belljar.model.workspace import Quota

__all__ = ("DEFAULT_WORKSPACE", "LOCAL", "MAX_KEYS", "Keys", "Principal")

MAX_KEYS = 1000
"""Valid ones of a workspace."""
_PREFIX = "bjk_"
_USED_EACH = 60.0
"""Seconds between two notes of when a key was used."""
_LONGEST = 100 * 365 * 86400.0
_log = get_logger("control.keys")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `local`: through the unix socket, whose file permissions are the check."""

    workspace: str
    key: str | None = None
    local: bool = False
    scope: Scope = Scope.ADMIN

    @property
    def operates(self) -> bool:
        """Whether this one runs the server, and not only works in it."""
        return self.workspace == DEFAULT_WORKSPACE and self.scope is Scope.ADMIN

    def require(self, needed: Scope) -> None:
        """Raises PermissionDenied."""
        if not self.scope.covers(needed):
            raise PermissionDenied(
                f"this API key may only {_MAY[self.scope]}", hint=f"it takes one with the scope {needed.value}"
            )


LOCAL = Principal(DEFAULT_WORKSPACE, local=True)
_MAY = {Scope.READ: "look", Scope.RUN: "make, change and end things, not keys", Scope.ADMIN: "do everything"}


class Keys:
    """Own it as an async context manager: entering reads the digests, leaving writes down when keys were used."""

    def __init__(self, store: KeyStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._valid: dict[str, Key] = {}
        """By digest. An expired one may still be in it."""
        self._by_id: dict[str, Key] = {}
        self._used: dict[str, float] = {}
        self._noted: dict[str, float] = {}
        """What of it is in the store."""
        """What is not written down yet, by id."""
        self._making = asyncio.Lock()
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, error=str(error)))

    async def __aenter__(self) -> Self:
        for digest, key in (await self._store.valid(self._clock.now())).items():
            self._keep(digest, key)
        self._tasks.start(self._note_regularly(), name="use of keys")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()
        await self._note()
        self._drop(lambda _: True)

    def __len__(self) -> int:
        now = self._clock.now()
        return sum(key.is_valid(now) for key in self._valid.values())

    async def make(
        self,
        name: str,
        *,
        workspace: str = DEFAULT_WORKSPACE,
        scope: Scope = Scope.ADMIN,
        ttl: float | None = None,
        quota: Quota | None = None,
    ) -> tuple[Key, str]:
        """A new one and its secret, which can be seen this once. `ttl`: seconds until it expires, None never.

        Raises InvalidArgument, LimitExceeded.
        """
        check_key_name(name)
        if ttl is not None and not 0 < ttl <= _LONGEST:
            raise InvalidArgument("a key expires after more than 0 seconds and at most 100 years, or never")
        async with self._making:
            now = self._clock.now()
            if await self._store.count(workspace, now) >= MAX_KEYS:
                raise LimitExceeded(f"a workspace has at most {MAX_KEYS} keys", hint="revoke some: belljar key ls")
            secret = _PREFIX + secrets.token_urlsafe(32)
            expires = None if ttl is None else now + ttl
            key = Key(new_id(PREFIX), workspace, name, scope, now, expires, quota=quota or Quota())
            await self._store.insert(key, _digest(secret))
            self._keep(_digest(secret), key)
            return key, secret

    async def list(
        self, workspace: str, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Key], str | None]:
        """A page of them, revoked and expired ones too, the newest first; and where the next page begins."""
        found = await self._store.list(workspace, after=cursor, limit=limit + 1)
        following = found[limit - 1].id if len(found) > limit else None
        return [self._as_used(key) for key in found[:limit]], following

    async def get(self, workspace: str, id: str) -> Key:
        """Raises NotFound."""
        key = await self._store.get(workspace, id)
        if key is None:
            raise NotFound(f"there is no key {id[:64]}")
        return self._as_used(key)

    async def revoke(self, workspace: str, id: str) -> Key:
        """From now on nobody gets in with it. One that was revoked before is fine. Raises NotFound."""
        key = await self.get(workspace, id)
        if key.revoked is not None:
            return key
        self._drop(lambda known: known.id == id)
        revoked = replace(key, revoked=self._clock.now())
        await self._store.revoke(key, revoked.revoked or 0.0)
        return revoked

    def quota(self, id: str) -> Quota:
        """Of a valid one; none of any other, with which nobody comes in."""
        key = self._by_id.get(id)
        return Quota() if key is None else key.quota

    def forget(self, workspace: str) -> None:
        """Its keys were revoked in the store: from now on nobody gets in with them."""
        self._drop(lambda known: known.workspace == workspace)

    def check(self, key: str | None) -> Principal:
        """Whose key this is. Raises Unauthenticated."""
        if key is None:
            raise Unauthenticated(
                "no API key", hint="send it as `Authorization: Bearer KEY` (the SDK: BELLJAR_API_KEY)"
            )
        known, now = self._valid.get(_digest(key)), self._clock.now()
        if known is None:
            raise Unauthenticated("this API key is not valid here")
        if not known.is_valid(now):
            raise Unauthenticated(f"this API key has expired: {known.id}", hint="belljar key create")
        self._used[known.id] = now
        return Principal(known.workspace, known.id, scope=known.scope)

    def _keep(self, digest: str, key: Key) -> None:
        self._valid[digest] = key
        self._by_id[key.id] = key

    def _drop(self, gone: Callable[[Key], bool]) -> None:
        self._valid = {digest: key for digest, key in self._valid.items() if not gone(key)}
        self._by_id = {key.id: key for key in self._valid.values()}
        # One that is not valid any more was maybe used just before: it leaves when that is in the store.
        self._used = {id: at for id, at in self._used.items() if id in self._by_id or self._noted.get(id) != at}
        self._noted = {id: at for id, at in self._noted.items() if id in self._used}

    def _as_used(self, key: Key) -> Key:
        used = self._used.get(key.id)
        return key if used is None else replace(key, used=used)

    async def _note_regularly(self) -> None:
        while True:
            await asyncio.sleep(_USED_EACH)
            now = self._clock.now()
            self._drop(lambda key, now=now: not key.is_valid(now))
            await self._note()

    async def _note(self) -> None:
        """What cannot be written now is written the next time."""
        used = {id: at for id, at in self._used.items() if self._noted.get(id) != at}
        if not used:
            return
        try:
            await self._store.note_used(used)
        except Error as error:
            _log.warning("it could not be noted when keys were used", error=str(error))
        else:
            self._noted |= used


def _digest(key: str) -> str:
    # No salt and no slow hash: a key has 256 random bits, there is nothing to guess.
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()
