"""API keys: what they may do, until when, and what is kept of them."""

import asyncio

import pytest

from belljar.control import keys as control
from belljar.control.keys import Keys
from belljar.control.store.database import Database
from belljar.control.store.keys import KeyStore
from belljar.model.errors import InvalidArgument, LimitExceeded, NotFound, PermissionDenied, Unauthenticated
from belljar.model.key import Scope


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_key_may_do_what_its_scope_says_and_no_more(database: Database):
    async with Keys(KeyStore(database)) as keys:
        for scope, allowed in ((Scope.READ, 1), (Scope.RUN, 2), (Scope.ADMIN, 3)):
            _, secret = await keys.make("one", scope=scope)
            who = keys.check(secret)
            for number, needed in enumerate(Scope):
                if number < allowed:
                    who.require(needed)
                else:
                    with pytest.raises(PermissionDenied, match="may only"):
                        who.require(needed)


async def test_an_expired_key_opens_nothing_now_and_after_a_restart(database: Database, clock: Clock):
    async with Keys(KeyStore(database), clock=clock) as keys:
        made, secret = await keys.make("one", ttl=60)
        assert made.expires == 1060
        clock.at = 1059.9
        keys.check(secret)
        clock.at = 1060
        with pytest.raises(Unauthenticated, match="has expired"):
            keys.check(secret)
        assert len(keys) == 0
    async with Keys(KeyStore(database), clock=clock) as keys:
        with pytest.raises(Unauthenticated):
            keys.check(secret)
        assert [key.id for key in (await keys.list("default"))[0]] == [made.id]


async def test_a_revoked_key_opens_nothing_from_that_moment_on(database: Database, clock: Clock):
    async with Keys(KeyStore(database), clock=clock) as keys:
        made, secret = await keys.make("one")
        _, other = await keys.make("two")
        clock.at = 1500
        assert (await keys.revoke("default", made.id)).revoked == 1500
        clock.at = 2000
        assert (await keys.revoke("default", made.id)).revoked == 1500
        with pytest.raises(Unauthenticated):
            keys.check(secret)
        keys.check(other)
        for workspace, id in (("default", "key-none"), ("elsewhere", made.id)):
            with pytest.raises(NotFound):
                await keys.revoke(workspace, id)
    async with Keys(KeyStore(database), clock=clock) as keys:
        with pytest.raises(Unauthenticated):
            keys.check(secret)
        keys.check(other)


async def test_it_is_known_when_a_key_was_used(database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "_USED_EACH", 0.02)
    async with Keys(KeyStore(database), clock=clock) as keys:
        made, secret = await keys.make("one")
        assert (await keys.get("default", made.id)).used is None
        clock.at = 1700
        keys.check(secret)
        for _ in range(20):  # before it is in the store, while it is written, and afterwards
            assert (await keys.get("default", made.id)).used == 1700
            await asyncio.sleep(0.005)
        for _ in range(200):
            if (noted := await KeyStore(database).get("default", made.id)) and noted.used:
                break
            await asyncio.sleep(0.01)
        assert noted is not None
        assert noted.used == 1700
        clock.at = 1800
        keys.check(secret)
    async with Keys(KeyStore(database), clock=clock) as keys:
        assert (await keys.get("default", made.id)).used == 1800, "also what was not written before the end"


async def test_keys_come_in_pages_and_there_are_not_too_many(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_KEYS", 7)
    async with Keys(KeyStore(database)) as keys:
        made = [(await keys.make(f"key {number}"))[0].id for number in range(7)]
        with pytest.raises(LimitExceeded):
            await keys.make("one more")
        found: list[str] = []
        cursor = None
        while True:
            page, cursor = await keys.list("default", cursor=cursor, limit=3)
            found += [key.id for key in page]
            if cursor is None:
                break
        assert sorted(found) == sorted(made)
        assert await keys.list("elsewhere") == ([], None)
        await keys.revoke("default", made[0])
        await keys.make("in its place")


@pytest.mark.parametrize("name", ["", " a", "a ", "x" * 65, "a\nb", "a\x1b[31m"])
async def test_a_name_is_short_and_printable(database: Database, name: str):
    async with Keys(KeyStore(database)) as keys:
        with pytest.raises(InvalidArgument):
            await keys.make(name)


@pytest.mark.parametrize("ttl", [0, -1, 1e12, float("nan"), float("inf")])
async def test_it_expires_in_a_time_that_can_be(database: Database, ttl: float):
    async with Keys(KeyStore(database)) as keys:
        with pytest.raises(InvalidArgument):
            await keys.make("one", ttl=ttl)
