"""What the audit log is told by every route there is, who may read it, and that a killed server leaves it whole."""

import asyncio
import contextlib
import json
import os
import random
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert
from tests.api.conftest import Front
from tests.api.process import ServerProcess, wipe
from tests.api.test_keys import ROUTES, client, filled, key_of, status

from belljar.base.tasks import wait_until
from belljar.control import audit as control
from belljar.control.store.tables import WorkspaceRow
from belljar.model.audit import AuditEntry, entries_of, verify
from belljar.model.errors import DiskFull
from belljar.model.key import Scope

CHANGES = [(method, path) for method, path in ROUTES if method not in ("GET", "HEAD")]
PIECES = re.compile(r"/processes/\{id\}/(stdin|resize|detach)$|/calls/")


async def log_of(front: Front, workspace: str = "default") -> list[AuditEntry]:
    """The oldest first."""
    return [entry async for page in front.product.audit.export(workspace) for entry in page]


async def test_every_route_that_changes_something_makes_one_entry(front: Front):
    assert len(CHANGES) > 35
    sandbox = str((await front.sandbox())["id"])
    secret = await key_of(front, Scope.RUN)
    key = (await front.product.keys.list("default"))[0][0].id
    async with client(front, secret) as http:
        for method, path in CHANGES:
            where = filled(path, sandbox)
            before = len(await log_of(front))
            answered = await status(http, method, where)
            made = (await log_of(front))[before:]
            if PIECES.search(path):
                assert made == [], path
                continue
            (entry,) = made
            assert (entry.method, entry.route, entry.target, entry.status) == (method, path, where, answered), path
            assert (entry.workspace, entry.key, entry.via, entry.peer) == ("default", key, "tcp", "127.0.0.1")
            assert (entry.code is None) == (answered < 400)
    found = verify(await log_of(front))
    assert found.broken is None
    assert found.count == 1 + len(CHANGES) - sum(bool(PIECES.search(path)) for _, path in CHANGES)


async def test_what_only_looks_is_not_told(front: Front):
    sandbox = str((await front.sandbox())["id"])
    before = len(await log_of(front))
    for method, path in ROUTES:
        if method in ("GET", "HEAD") and not path.endswith(("/watch", "/output")):
            await status(front.http, method, filled(path, sandbox))
    assert len(await log_of(front)) == before


async def test_a_refusal_for_lack_of_rights_is_told_of_every_route(front: Front):
    sandbox = str((await front.sandbox())["id"])
    secret = await key_of(front, Scope.READ)
    before = len(await log_of(front))
    async with client(front, secret) as http:
        for method, path in CHANGES:
            assert await status(http, method, filled(path, sandbox)) == 403
    made = (await log_of(front))[before:]
    assert [(entry.method, entry.route) for entry in made] == CHANGES
    assert {(entry.status, entry.code) for entry in made} == {(403, "permission_denied")}


async def test_whoever_is_unknown_leaves_no_entry(front: Front):
    before = len(await log_of(front))
    made, secret = await front.product.keys.make("gone")
    await front.product.keys.revoke("default", made.id)
    for key in (None, "bjk_wrong", secret):
        async with client(front, key) as http:
            assert await status(http, "POST", "/v1/sandboxes") == 401
            assert await status(http, "POST", "/health") == 405
    assert len(await log_of(front)) == before


async def test_what_was_made_is_named_by_its_address(front: Front):
    made = await front.http.post("/v1/sandboxes", json={"name": "box"}, headers={"x-request-id": "mine-1"})
    id = made.json()["id"]
    assert made.headers["location"] == f"/v1/sandboxes/{id}"
    kept = await front.http.post("/v1/sandboxes/box/snapshots", json={})
    assert kept.headers["location"] == f"/v1/snapshots/{kept.json()['id']}"
    key = await front.http.post("/v1/keys", json={"name": "ci"})
    assert key.headers["location"] == f"/v1/keys/{key.json()['id']}"
    template = await front.http.post("/v1/templates", json={"name": "warm", "image": "base"})
    assert template.headers["location"] == "/v1/templates/warm"
    for answer in (made, kept, key, template):
        assert (await front.http.get(answer.headers["location"])).status_code == 200
    entries = await log_of(front)
    assert [(entry.target, entry.status, entry.code) for entry in entries] == [
        (answer.headers["location"], 201, None) for answer in (made, kept, key, template)
    ]
    assert (entries[0].request_id, entries[0].key, entries[0].via) == ("mine-1", None, "unix")
    assert entries[0].peer == f"uid:{os.geteuid()}"
    assert key.json()["secret"] not in str(entries)


async def test_a_sandbox_that_is_called_by_its_name_is_told_by_its_id(front: Front):
    id = (await front.sandbox(name="box"))["id"]
    await front.http.post("/v1/sandboxes/box/processes", json={"command": "true"})
    await front.http.patch("/v1/sandboxes/box", json={"labels": {"a": "b"}})
    await front.http.delete("/v1/sandboxes/box")
    await front.http.delete("/v1/sandboxes/box")
    assert [(entry.method, entry.target, entry.status) for entry in (await log_of(front))[1:]] == [
        ("POST", f"/v1/sandboxes/{id}/processes", 201),
        ("PATCH", f"/v1/sandboxes/{id}", 200),
        ("DELETE", f"/v1/sandboxes/{id}", 200),
        ("DELETE", "/v1/sandboxes/box", 404),
    ]


async def test_an_answer_that_streams_is_told_when_it_starts(front: Front):
    await front.sandbox(name="box")
    front.node.inside.hold = asyncio.Event()
    async with front.http.stream("POST", "/v1/sandboxes/box/run", json={"command": "sleep 9"}) as answer:
        assert answer.status_code == 200
        entry = (await log_of(front))[-1]
        assert (entry.route, entry.status) == ("/v1/sandboxes/{ref}/run", 200)
        front.node.inside.hold.set()


async def test_a_client_that_leaves_before_the_answer_is_told_as_such(front: Front):
    reader, writer = await asyncio.open_unix_connection(str(front.socket))
    writer.write(b"POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()

    async def told() -> bool:
        return [(e.method, e.target, e.status, e.code) for e in await log_of(front)] == [
            ("POST", "/v1/sandboxes", 499, "cancelled")
        ]

    assert await wait_until(told, timeout=5)
    assert await reader.read() == b""


async def test_parts_of_a_file_are_told_once_with_the_last(front: Front):
    await front.sandbox(name="box")
    where = "/v1/sandboxes/box/files/content?path=/x&upload=u"
    for query in ("&last=false", "&offset=2&last=false", "&offset=4&last=true", "&last=false&last=true"):
        await front.http.put(where + query, content=b"ab")
    assert [entry.route for entry in (await log_of(front))[1:]] == ["/v1/sandboxes/{ref}/files/content"] * 2


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/" + "x" * 5000, "/v1/" + "x" * 123 + "…"),
        ("/v1/%00%1b%5b2J%0d%0a", "/v1/%00�[2J��"),
        ("/v1/%ff%fe", "/v1/��"),
        ("/v1/sandboxes/%0a", "/v1/sandboxes/{ref}"),
        ("/v1/sandboxes/%1b/processes/1/stdin%0a", "/v1/sandboxes/{ref}/processes/{id}/stdin"),
    ],
)
async def test_what_a_client_sends_cannot_spoil_the_log(front: Front, path: str, route: str):
    await front.http.post(path, content=b"\0" * 100)
    (entry,) = await log_of(front)
    assert entry.route == route
    assert entry.target.isprintable()
    assert len(entry.target) <= 256
    page = (await front.http.get("/v1/audit")).json()["items"]
    assert (page[0]["route"], page[0]["hash"]) == (route, entry.hash)


async def test_only_an_admin_reads_it_and_of_its_own_workspace_alone(front: Front):
    await front.product.keys._store._database.write((insert(WorkspaceRow), {"id": "other", "created": 0.0}))
    await front.sandbox()
    for scope in (Scope.READ, Scope.RUN):
        async with client(front, await key_of(front, scope)) as http:
            for path in ("/v1/audit", "/v1/audit/export"):
                assert await status(http, "GET", path) == 403
    async with client(front, await key_of(front, Scope.ADMIN, "other")) as http:
        assert (await http.get("/v1/audit")).json() == {"items": [], "next": None}
        assert (await http.get("/v1/audit/export")).content == b""
        await http.post("/v1/sandboxes", json={})
        (item,) = (await http.get("/v1/audit")).json()["items"]
        assert (item["seq"], item["workspace"]) == (1, "other")
    async with client(front, await key_of(front, Scope.ADMIN)) as http:
        (item,) = (await http.get("/v1/audit")).json()["items"]
        assert item["workspace"] == "default"


async def test_pages_and_times(front: Front):
    for number in range(5):
        await front.http.post("/v1/sandboxes", json={"name": f"n{number}"})
    seen: list[dict[str, Any]] = []
    cursor: int | None = None
    while True:
        page = (await front.http.get("/v1/audit", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert [item["seq"] for item in seen] == [5, 4, 3, 2, 1]
    at = seen[2]["at"]
    later = (await front.http.get("/v1/audit", params={"since": at})).json()["items"]
    earlier = (await front.http.get("/v1/audit", params={"until": at})).json()["items"]
    assert [item["seq"] for item in later + earlier] == [5, 4, 3, 2, 1]
    for query in ("limit=0", "limit=1001", "cursor=x", "cursor=0", "cursor=" + "9" * 40, "since=nan", "until=x", "x=1"):
        answer = await front.http.get(f"/v1/audit?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), query


async def test_an_export_is_the_whole_of_it_and_holds(front: Front):
    for number in range(700):
        front.product.audit.note(act_of(number))
    answer = await front.http.get("/v1/audit/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = verify(entries_of(answer.content.splitlines()))
    assert (found.count, found.broken) == (700, None)
    rest = (await front.http.get("/v1/audit/export", params={"after": 690})).content.splitlines()
    assert [json.loads(line)["seq"] for line in rest] == list(range(691, 701))


def act_of(number: int) -> control.Act:
    said = {"workspace": "default", "key": None, "via": "tcp", "peer": None, "method": "POST", "route": "/x"}
    return control.Act(**said, target=f"/x/{number}", status=200)  # type: ignore[arg-type]


async def test_while_the_log_cannot_be_written_changes_are_refused_and_looks_are_not(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control, "MOST_WAITING", 3)
    store = front.product.audit._store
    append = store.append

    async def full(entries: object) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(store, "append", full)
    for _ in range(3):
        assert (await front.http.post("/v1/nothing")).status_code == 404
    refused = await front.http.post("/v1/sandboxes", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_capacity")
    assert refused.json()["error"]["retryable"]
    assert (await front.http.get("/v1/sandboxes")).json()["items"] == []
    monkeypatch.setattr(store, "append", append)
    assert await front.product.audit.settled(5)
    await front.sandbox()
    assert [entry.status for entry in await log_of(front)] == [404, 404, 404, 201]


async def test_a_change_whose_entry_cannot_be_written_in_time_is_not_acknowledged(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control, "_PATIENCE_SECONDS", 0.2)
    store = front.product.audit._store
    append = store.append

    async def full(entries: object) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(store, "append", full)
    answer = await front.http.post("/v1/sandboxes", json={"name": "box"}, headers={"x-request-id": "r-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert answer.headers["x-request-id"] == "r-1"
    assert "location" not in answer.headers
    monkeypatch.setattr(store, "append", append)
    assert await front.product.audit.settled(5)
    made = (await front.http.get("/v1/sandboxes/box")).json()
    assert [(entry.target, entry.status) for entry in await log_of(front)] == [(f"/v1/sandboxes/{made['id']}", 201)]


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
async def test_a_killed_server_leaves_a_chain_that_holds_with_every_acknowledged_change(
    start: Callable[..., ServerProcess],
):
    acknowledged: set[tuple[str, str]] = set()

    async def change(http: httpx2.AsyncClient, wanted: int, enough: asyncio.Event) -> None:
        with contextlib.suppress(httpx2.TransportError):  # it was killed
            while True:
                where, body = random.choice([("keys", {"name": "ci"}), ("keys", {"name": "ci"}), ("sandboxes", {})])
                made = f"/v1/{where}/{(await http.post(f'/v1/{where}', json=body)).json()['id']}"
                acknowledged.add(("POST", made))
                if random.random() < 0.5:
                    assert (await http.delete(made)).status_code == 200
                    acknowledged.add(("DELETE", made))
                await http.post("/v1/nothing")
                if len(acknowledged) >= wanted:
                    enough.set()

    async def kill(server: ServerProcess, enough: asyncio.Event) -> None:
        await enough.wait()
        await asyncio.sleep(random.random() / 50)
        server.process.kill()

    for _ in range(3):
        server, enough, wanted = start("--embedded"), asyncio.Event(), len(acknowledged) + 40
        async with server.client() as http:
            await asyncio.gather(*(change(http, wanted, enough) for _ in range(6)), kill(server, enough))
        server.wait()
    last = start("--embedded")
    async with last.client() as http:
        found = list(entries_of((await http.get("/v1/audit/export")).content.splitlines()))
    chain = verify(found)
    assert chain.broken is None
    assert (found[0].seq, chain.count) == (1, len(found))
    told = {(entry.method, entry.target) for entry in found if entry.status < 400}
    assert acknowledged - told == set()
    assert len(acknowledged) >= 120


async def test_the_key_that_a_server_makes_itself_is_told_and_a_clean_end_loses_nothing(
    start: Callable[..., ServerProcess], state: Path
):
    first = start("--port", "0")
    url = first.ready().url
    key = (state / "home" / "key").read_text().strip()
    async with httpx2.AsyncClient(base_url=str(url), headers={"Authorization": f"Bearer {key}"}) as http:
        for _ in range(20):
            assert (await http.post("/v1/nothing")).status_code == 404
    assert first.end()[0] == 0
    second = start("--port", "0")
    async with second.client() as http:
        lines = (await http.get("/v1/audit/export")).content.splitlines()
    found = list(entries_of(lines))
    assert verify(found).broken is None
    assert len(found) == 21
    assert (found[0].via, found[0].key, found[0].route, found[0].status) == ("server", None, "/v1/keys", 201)
    assert found[0].target == f"/v1/keys/{found[1].key}"
