"""Events through the SDK, on whole and on broken connections."""

import itertools

import pytest
from tests.unit.sdk.scripted import ScriptedServer

import belljar
from belljar.model.events import event_json


@pytest.fixture
def made(server: ScriptedServer) -> list[belljar.Event]:
    """What the server has."""
    kinds = itertools.cycle((belljar.EventKind.SANDBOX_CREATED, belljar.EventKind.SANDBOX_ENDED))
    events = [
        belljar.Event(id=f"ev{seq}", workspace="default", kind=next(kinds), at=1000.0 + seq, sandbox="sb1", seq=seq)
        for seq in range(1, 21)
    ]
    server.events = events
    return events


def test_a_list_goes_over_its_pages(server: ScriptedServer, made: list[belljar.Event]) -> None:
    pages = [
        {"items": [event_json(made[2]) | {"of a later release": 1}, event_json(made[1])], "next": 2},
        {"items": [event_json(made[0])], "next": None},
    ] * 2
    server.answers["GET", "/v1/events"] = lambda: (200, pages.pop(0))
    assert list(belljar.Events.list(sandbox="sb1", kind="sandbox", since=5.0)) == [made[2], made[1], made[0]]
    assert [query for _, _, query in server.requests] == [
        {"limit": "500", "sandbox": "sb1", "kind": "sandbox", "since": "5.0"},
        {"limit": "500", "cursor": "2", "sandbox": "sb1", "kind": "sandbox", "since": "5.0"},
    ]
    assert list(belljar.Events.list(limit=2)) == [made[2], made[1]]


def test_following_goes_on_behind_the_last_that_came(server: ScriptedServer, made: list[belljar.Event]) -> None:
    server.cuts = [700, 0, 5, 333, 1]
    assert list(itertools.islice(belljar.Events.follow(after=0), 20)) == made
    asked = [int(query["after"]) for _, path, query in server.requests if path == "/v1/events/follow"]
    assert len(asked) == 6
    assert asked == sorted(asked)


def test_one_that_begins_now_comes_back_to_where_it_began(server: ScriptedServer, made: list[belljar.Event]) -> None:
    """The connection breaks before anything happened: what happens meanwhile is not missed."""
    server.events_now = 15
    server.cuts = [len("id: 15\n\n")]
    assert list(itertools.islice(belljar.Events.follow(kind=["sandbox"]), 5)) == made[15:]
    asked = [query for _, path, query in server.requests if path == "/v1/events/follow"]
    assert asked == [{"kind": "sandbox"}, {"after": "15", "kind": "sandbox"}]


def test_over_a_server_that_was_killed(server: ScriptedServer, made: list[belljar.Event]) -> None:
    events = belljar.Events.follow(after=0)
    got = [next(events) for _ in range(3)]
    waiting = server.restart_after(0.2)
    got += [next(events) for _ in range(17)]
    waiting.join()
    assert got == made


async def test_the_async_side_does_the_same(server: ScriptedServer, made: list[belljar.Event]) -> None:
    server.cuts = [1000, 2]
    got: list[belljar.Event] = []
    async for event in belljar.AsyncEvents.follow(after=4):
        got.append(event)
        if len(got) == 16:
            break
    assert got == made[4:]
