"""The route of what was used, and a server that is killed in the middle of it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.api.conftest import Front
from tests.api.process import ServerProcess, wipe
from tests.api.test_keys import client, key_of
from tests.api.test_metrics import numbers

from belljar.base.tasks import wait_until
from belljar.model.key import Scope
from belljar.model.usage import AMOUNTS, Counters, Reading
from belljar.model.workspace import Quota

Lines = list[dict[str, Any]]


async def told(http: httpx2.AsyncClient, **query: object) -> Lines:
    """All pages."""
    found: Lines = []
    cursor: str | None = None
    while True:
        asked = {name.rstrip("_"): value for name, value in query.items()} | ({"cursor": cursor} if cursor else {})
        answer = await http.get("/v1/usage", params=asked)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        cursor = answer.json()["next"]
        if cursor is None:
            return found


def sums(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(line[name] for line in lines) for name in AMOUNTS}


async def test_what_an_ended_sandbox_used_is_told_at_once_and_adds_up(front: Front):
    await front.product.workspaces.make("team", Quota())
    async with client(front, await key_of(front, Scope.RUN, "team")) as team:
        ids: list[str] = []
        for http, cpu in ((front.http, 1_000_000), (team, 7), (team, 11)):
            id = (await http.post("/v1/sandboxes", json={"cpu": 0.5})).json()["id"]
            ids.append(id)
            front.node.readings[id] = Reading(time.time(), Counters(cpu, 20, 30), 64 << 20, 0)
            await asyncio.sleep(0.01)
            await http.delete(f"/v1/sandboxes/{id}")
        lines = await told(front.http, limit=1)
        assert [(line["sandbox"], line["workspace"], line["hour"]) for line in lines] == [
            (ids[2], "team", None),
            (ids[1], "team", None),
            (ids[0], "default", None),
        ]
        assert [line["cpu_us"] for line in lines] == [11, 7, 1_000_000]
        assert [line["sent_bytes"] for line in lines] == [30, 30, 30]
        for line in lines:
            record = (await front.product.sandboxes.get(line["workspace"], line["sandbox"])).ended
            assert record is not None
            assert line["running_us"] > 0
            assert line["promised_cpu_us"] == line["running_us"] // 2
        assert sums(lines) == sums(await told(front.http, by="hour")) == sums(await told(front.http, by="workspace"))
        own = await told(team)
        assert [line["sandbox"] for line in own] == [ids[2], ids[1]]
        assert (
            sums(own) == sums(await told(team, by="hour")) == sums(await told(team, by="workspace", workspace="team"))
        )
        assert sums(own) == sums(await told(front.http, by="hour", workspace="team"))
        assert (await team.get("/v1/usage", params={"workspace": "default"})).status_code == 404
    seen = await numbers(front)
    assert seen["belljar_used_total", "sent_bytes", "team"] == 60
    assert seen["belljar_used_total", "cpu_seconds", "default"] == 1.0


async def test_a_period_is_the_hours_that_it_touches(front: Front):
    id = str((await front.sandbox())["id"])
    await front.http.delete(f"/v1/sandboxes/{id}")
    now = time.time()
    (line,) = await told(front.http, by="hour", from_=now - 1, to=now + 1)
    assert line["hour"] % 3600 == 0
    assert line["hour"] <= now < line["hour"] + 7200
    assert await told(front.http, to=now - 7200) == []
    assert await told(front.http, from_=now + 7200, to=now + 9000) == []


@pytest.mark.parametrize(
    "query",
    [
        *("from=soon", "from=nan", "from=-1", "from=inf", "to=1e300", "from=5&to=5", "from=9&to=3", "to=0"),
        *("by=day", "by=", "limit=0", "limit=1001", "since=1", "workspace=%00", "workspace=" + "x" * 65),
        *(
            "cursor=x",
            "cursor=%00",
            "cursor=sb%27--",
            "by=hour&cursor=-1",
            "by=hour&cursor=%C2%B2",
            "by=workspace&cursor=",
        ),
        *("by=hour&cursor=" + "9" * 40, "cursor=" + "9" * 5000),
    ],
)
async def test_what_cannot_be_meant_is_refused(front: Front, query: str):
    answer = await front.http.get(f"/v1/usage?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text


@pytest.fixture
async def start(state: Path) -> AsyncGenerator[Callable[..., ServerProcess]]:
    made: list[ServerProcess] = []

    def start_one() -> ServerProcess:
        made.append(ServerProcess(state / "home", "--embedded", environ={"BELLJAR_USAGE_EVERY": "1"}))
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    await wipe(state / "home")


BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


async def burn(http: httpx2.AsyncClient, id: str) -> None:
    """0.3 s of processor time."""
    done = await http.post(f"/v1/sandboxes/{id}/run", json={"argv": ["python3", "-c", BURN]})
    assert done.status_code == 200, done.text


@pytest.mark.both_stores
async def test_nothing_is_lost_and_nothing_is_there_twice_when_the_server_is_killed(
    start: Callable[..., ServerProcess],
):
    server = start()
    async with server.client() as http:
        first, second, third = [(await http.post("/v1/sandboxes", json={"cpu": 2})).json()["id"] for _ in range(3)]
        await http.delete(f"/v1/sandboxes/{third}")
        await burn(http, first)

        async def read() -> bool:
            return any(line["sandbox"] == first and line["cpu_us"] >= 300_000 for line in await told(http))

        assert await wait_until(read, timeout=10)
        before = {line["sandbox"]: line for line in await told(http)}
    server.kill()
    for _ in range(2):  # each reads once more
        server = start()
        async with server.client() as http:
            await burn(http, second)
        server.kill()
    server = start()
    async with server.client() as http:
        for id in (first, second):
            assert (await http.delete(f"/v1/sandboxes/{id}")).status_code == 200
        lines = {line["sandbox"]: line for line in await told(http)}
        assert set(lines) == {first, second, third}
        for id, line in lines.items():
            said = (await http.get(f"/v1/sandboxes/{id}")).json()
            exact = round(said["ended"]["at"] * 1e6) - round(said["started"] * 1e6)
            assert line["running_us"] == exact
            assert line["promised_cpu_us"] == 2 * exact
            assert line["promised_memory_mib_ms"] == 1024 * exact // 1000
        assert lines[third] == before[third]
        # What each burnt, once, and what the agent itself takes.
        assert before[first]["cpu_us"] <= lines[first]["cpu_us"] < 300_000 + 300_000
        assert 600_000 <= lines[second]["cpu_us"] < 600_000 + 300_000
        assert lines[first]["memory_mib_ms"] > before[first]["memory_mib_ms"] > 0
        by = [sums(await told(http, by=by)) for by in ("sandbox", "hour", "workspace")]
        assert by[0] == by[1] == by[2]
        assert by[0] == sums(list(lines.values())), json.dumps(by)
