"""Events over HTTP: whose they are, pages, the stream, and that a killed server loses none."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.api.conftest import Front
from tests.api.process import ServerProcess, wipe
from tests.api.test_keys import client, key_of

from belljar.base.tasks import wait_until
from belljar.control import eventlog
from belljar.front.native import stream
from belljar.model.key import Scope
from belljar.model.workspace import Quota


async def pieces(answer: httpx2.Response) -> AsyncIterator[dict[str, str]]:
    """The stream as its standard reads it; comments are left out."""
    piece: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            if name:
                piece[name] = value.removeprefix(" ")
        elif piece:
            yield piece
            piece = {}


@contextlib.asynccontextmanager
async def following(
    http: httpx2.AsyncClient, query: str = "", **headers: str
) -> AsyncGenerator[AsyncIterator[dict[str, str]]]:
    async with http.stream("GET", f"/v1/events/follow{query}", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with asyncio.timeout(10):
            yield pieces(answer)


async def listed(http: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get("/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_what_happened_is_listed_the_newest_first(front: Front):
    made = await front.sandbox(name="web")
    await front.http.post("/v1/sandboxes/web/snapshots", json={"name": "kept"})
    await front.http.delete("/v1/sandboxes/web")
    items = await listed(front.http)
    assert [(item["seq"], item["kind"]) for item in items] == [
        (4, "sandbox.ended"),
        (3, "snapshot.created"),
        (2, "sandbox.started"),
        (1, "sandbox.created"),
    ]
    assert {(item["sandbox"], item["workspace"]) for item in items} == {(made["id"], "default")}
    assert (items[0]["reason"], items[0]["name"], items[1]["name"]) == ("killed", "web", "kept")


async def test_pages_filters_and_times(front: Front):
    for number in range(3):
        await front.sandbox(name=f"n{number}")
    await front.http.delete("/v1/sandboxes/n1")
    seen: list[dict[str, Any]] = []
    cursor: dict[str, int] = {}
    while True:
        page = (await front.http.get("/v1/events", params={"limit": 2} | cursor)).json()
        seen += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert [item["seq"] for item in seen] == [7, 6, 5, 4, 3, 2, 1]
    assert [item["seq"] for item in await listed(front.http, sandbox="n0")] == [2, 1]
    assert [item["seq"] for item in await listed(front.http, sandbox=seen[0]["sandbox"])] == [7, 4, 3]
    assert await listed(front.http, sandbox="n1") == [], "a name is that of a live one"
    assert [item["seq"] for item in await listed(front.http, kind="sandbox.ended")] == [7]
    both = await listed(front.http, kind=["sandbox.ended", "sandbox.started"])
    assert [item["seq"] for item in both] == [7, 6, 4, 2]
    assert len(await listed(front.http, kind="sandbox")) == 7
    assert await listed(front.http, kind="snapshot") == []
    at = seen[3]["at"]
    assert len(await listed(front.http, since=at)) + len(await listed(front.http, until=at)) == 7


@pytest.mark.parametrize(
    "query",
    [
        "?limit=0",
        "?limit=1001",
        "?cursor=0",
        "?cursor=x",
        "?cursor=" + "9" * 40,
        "?since=nan",
        "?until=x",
        "?kind=nothing",
        "?kind=" + "x" * 5000,
        "?kind=sandbox" * 1 + "&kind=sandbox" * 40,
        "?sandbox=" + "x" * 200,
        "?x=1",
        "/follow?after=-1",
        "/follow?after=x",
        "/follow?after=" + "9" * 40,
        "/follow?since=1",
        "/follow?kind=%00",
        "/follow?cursor=1",
    ],
)
async def test_a_question_that_makes_no_sense_is_told_so(front: Front, query: str):
    answer = await front.http.get(f"/v1/events{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("id", ["x", "-1", "1.5", "", "9" * 40, "1\t2", "sb01"])
async def test_a_place_that_is_none_is_refused(front: Front, id: str):
    answer = await front.http.get("/v1/events/follow", headers={"last-event-id": id})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")


async def test_a_sandbox_that_is_none_has_no_events(front: Front):
    await front.sandbox()
    for word in (
        "sb01xxxxxxxxxxxxxxxxxxx",
        "' OR 1=1 --",
        "%",
        "\udcff".encode(errors="surrogateescape").decode("latin-1"),
    ):
        assert await listed(front.http, sandbox=word) == []


async def test_a_follower_is_told_where_it_begins_and_then_what_happens(front: Front):
    await front.sandbox(name="before")
    async with following(front.http) as events:
        assert await anext(events) == {"id": "2"}
        made = await front.sandbox(name="web")
        created, started = await anext(events), await anext(events)
        assert (created["id"], created["event"]) == ("3", "sandbox.created")
        assert (started["id"], started["event"]) == ("4", "sandbox.started")
        assert json.loads(started["data"]) == (await listed(front.http, limit=1))[0]
        assert json.loads(created["data"])["sandbox"] == made["id"]


async def test_one_that_comes_back_goes_on_behind_the_last_it_saw(front: Front):
    for _ in range(3):
        await front.sandbox()
    for query, headers in (("?after=2", {}), ("", {"last-event-id": "2"}), ("?after=0", {"last-event-id": "2"})):
        async with following(front.http, query, **headers) as events:
            assert [(await anext(events))["id"] for _ in range(4)] == ["3", "4", "5", "6"]
    async with following(front.http, "?after=1000") as events:
        assert await anext(events) == {"id": "1000"}


async def test_a_follower_of_one_sandbox_or_kind_hears_of_nothing_else(front: Front):
    await front.sandbox(name="a")
    async with following(front.http, "?after=0&sandbox=a&kind=sandbox.ended&kind=sandbox.started") as events:
        assert (await anext(events))["id"] == "2"
        await front.sandbox(name="b")
        await front.http.delete("/v1/sandboxes/b")
        await front.http.delete("/v1/sandboxes/a")
        assert (await anext(events))["id"] == "6"


async def test_nothing_of_another_workspace_is_seen_and_numbers_tell_nothing_of_it(front: Front):
    await front.product.workspaces.make("other", Quota())
    mine = await front.sandbox(name="web")
    async with client(front, await key_of(front, Scope.READ, "other")) as foreign:
        assert await listed(foreign) == []
        assert await listed(foreign, sandbox="web") == []
        assert await listed(foreign, sandbox=mine["id"]) == []
        async with following(foreign, "?after=0") as events:
            assert await anext(events) == {"id": "0"}
            await front.http.delete("/v1/sandboxes/web")
            async with client(front, await key_of(front, Scope.RUN, "other")) as runner:
                made = (await runner.post("/v1/sandboxes", json={})).json()
            created = await anext(events)
            assert (created["id"], json.loads(created["data"])["sandbox"]) == ("1", made["id"])
    assert {item["sandbox"] for item in await listed(front.http)} == {mine["id"]}


async def test_a_key_that_reads_may_look_and_nobody_may_change(front: Front):
    async with client(front, await key_of(front, Scope.READ)) as http:
        assert await listed(http) == []
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await http.request(method, "/v1/events")).status_code == 403
    assert (await front.http.delete("/v1/events")).status_code == 405


async def test_too_many_followers_are_refused_and_those_who_leave_make_room(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(eventlog, "MOST_FOLLOWERS", 2)
    async with following(front.http) as one, following(front.http) as two:
        await asyncio.gather(anext(one), anext(two))
        answer = await front.http.get("/v1/events/follow")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "limit_exceeded")
    for _ in range(100):
        if (await http_status(front)) == 200:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("nobody made room")


async def http_status(front: Front) -> int:
    async with front.http.stream("GET", "/v1/events/follow") as answer:
        return answer.status_code


async def test_a_quiet_stream_is_kept_open(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.05)
    async with front.http.stream("GET", "/v1/events/follow") as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(5):
            assert [await anext(lines) for _ in range(4)] == ["id: 0", "", ":", ""]


async def test_hostile_words_cannot_break_the_stream(front: Front):
    await front.sandbox(name="web")
    front.node.end(next(iter(front.node.known)), "exited")
    await front.http.post("/v1/sandboxes", json={"image": "x\n\nid: 99\ndata: {}"})
    async with following(front.http, "?after=0") as events:
        ids = [(await anext(events))["id"] for _ in range(3)]
    assert ids == ["1", "2", "3"]


@pytest.fixture
async def start(state: Path) -> AsyncGenerator[Callable[..., ServerProcess]]:
    made: list[ServerProcess] = []

    def start_one(*words: str, **more: Any) -> ServerProcess:
        made.append(ServerProcess(state / "home", *words, **more))
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    await wipe(state / "home")


@pytest.mark.both_stores
async def test_a_follower_misses_nothing_over_killed_servers_and_nothing_comes_twice(
    start: Callable[..., ServerProcess],
):
    ids: list[str] = []
    seen: list[dict[str, Any]] = []

    async def follow(server: ServerProcess, enough: int) -> None:
        with contextlib.suppress(httpx2.TransportError):
            async with server.client() as http, following(http, f"?after={seen[-1]['seq'] if seen else 0}") as events:
                async for event in events:
                    if "data" in event:
                        seen.append(json.loads(event["data"]))
                    if len(seen) >= enough:
                        return

    async def change(server: ServerProcess) -> None:
        with contextlib.suppress(httpx2.TransportError):
            async with server.client() as http:
                while True:
                    ids.append((await http.post("/v1/sandboxes", json={})).json()["id"])
                    await http.delete(f"/v1/sandboxes/{ids[-1]}")

    for _ in range(3):
        server = start("--embedded")
        server.ready()
        before = len(ids)
        work = asyncio.gather(change(server), change(server), follow(server, 1 << 30))

        async def enough(wanted: int = before + 8) -> bool:
            return len(ids) >= wanted

        assert await wait_until(enough, timeout=60, every=0.01)
        server.process.kill()
        await work
        server.wait()
    last = start("--embedded")
    async with last.client() as http:
        everything = (await listed(http, limit=1000))[::-1]
    await follow(last, len(everything))
    assert [event["seq"] for event in seen] == list(range(1, len(everything) + 1))
    assert seen == everything
    told = [(event["sandbox"], event["kind"]) for event in seen]
    assert len(told) == len(set(told)), "one was told twice"
    assert {(id, "sandbox.started") for id in ids} <= set(told)
