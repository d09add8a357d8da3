"""Routes of contexts, over a socket, on a scripted node."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from tests.api.conftest import Front

from belljar.model.code import CodeSpec, ContextSpec, Done, HostCall, Raised, Shown, Status
from belljar.model.errors import Conflict, LimitExceeded, NotFound, NotSupported, SandboxGone


@pytest.fixture
async def at(front: Front) -> str:
    return f"/v1/sandboxes/{(await front.sandbox(name='box'))['id']}/contexts"


def events_of(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines() if line]


async def test_contexts_are_created_listed_shown_restarted_and_closed(front: Front, at: str):
    body = {"id": "one", "language": "bash", "cwd": "/tmp", "env": {"A": "b"}, "user": "user"}
    made = await front.http.post(at, json=body)
    assert made.status_code == 201
    assert made.json()["language"] == "bash"
    assert front.node.inside.calls == [("create_context", (ContextSpec("one", "bash", "/tmp", {"A": "b"}, "user"),))]
    assert (await front.http.get(at)).json()["items"] == [made.json()]
    assert (await front.http.get(f"{at}/one")).json() == made.json()
    assert (await front.http.post(f"{at}/one/restart")).json()["restarts"] == 1
    assert (await front.http.delete(f"{at}/one")).json() == {}
    assert (await front.http.delete(f"{at}/one")).json() == {}
    assert (await front.http.get(f"{at}/one")).status_code == 404


async def test_a_context_without_an_id_gets_one(front: Front, at: str):
    first, second = [(await front.http.post(at, json={})).json() for _ in range(2)]
    assert first["id"] != second["id"]
    assert (first["language"], first["state"]) == ("python", "idle")


async def test_events_are_lines_of_json(front: Front, at: str):
    front.node.inside.said = [
        Shown(1, True, {"text/plain": "2", "image/png": "aGk="}, {"x": 1}),
        HostCall(2, "c1", "tool", "[]"),
        Raised(3, "ValueError", "no", "Traceback"),
        Done(4, Status.ERROR, 7),
    ]
    body = {"key": "k", "code": "1+1", "env": {"A": "b"}, "timeout": "5s", "silent": True, "after": 3}
    answer = await front.http.post(f"{at}/python/execute", json=body | {"create": {"language": "python"}})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert events_of(answer) == [
        {"seq": 1, "kind": "result", "main": True, "data": {"text/plain": "2", "image/png": "aGk="}, "extra": {"x": 1}},
        {"seq": 2, "kind": "call", "call": "c1", "name": "tool", "payload": "[]"},
        {"seq": 3, "kind": "error", "name": "ValueError", "value": "no", "traceback": "Traceback"},
        {"seq": 4, "kind": "done", "status": "error", "count": 7},
    ]
    (call,) = front.node.inside.calls
    assert call == (
        "execute",
        ("python", CodeSpec("k", "1+1", {"A": "b"}, 5.0, True), 3, ContextSpec("python", "python")),
    )


async def test_an_unknown_context_is_said_at_once(front: Front, at: str):
    answer = await front.http.post(f"{at}/nobody/execute", json={"code": "1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("error", [NotSupported("no"), LimitExceeded("no"), Conflict("no"), SandboxGone("no")])
async def test_an_error_on_the_way_is_the_last_line(front: Front, at: str, error: Exception):
    front.node.inside.late_failure = error
    lines = events_of(await front.http.post(f"{at}/x/execute", json={"code": "1", "create": {}}))
    assert lines[-1]["error"]["code"] == error.code
    assert lines[-1]["error"]["message"] == "no"


async def test_a_client_that_leaves_leaves_the_execution(front: Front, at: str):
    front.node.inside.hold = asyncio.Event()
    async with front.http.stream("POST", f"{at}/x/execute", json={"code": "1", "create": {}}) as answer:
        assert (await anext(answer.aiter_lines())).startswith('{"seq":1')
    for _ in range(100):
        if front.node.inside.closed:
            break
        await asyncio.sleep(0.02)
    assert front.node.inside.closed == 1


async def test_calls_are_answered_with_a_value_or_an_error(front: Front, at: str):
    await front.http.post(f"{at}/x/calls/c1", json={"key": "k", "value": "v" * 4_000_000})
    await front.http.post(f"{at}/x/calls/c2", json={"key": "k", "error": {"name": "E", "message": "m"}})
    assert front.node.inside.calls == [
        ("answer", ("x", "k", "c1", "v" * 4_000_000, None)),
        ("answer", ("x", "k", "c2", None, {"name": "E", "message": "m"})),
    ]
    front.node.inside.failure = NotFound("no such call")
    assert (await front.http.post(f"{at}/x/calls/c1", json={"key": "k", "value": ""})).status_code == 404


async def test_interrupts_name_an_execution_or_whatever_runs(front: Front, at: str):
    await front.http.post(f"{at}/x/interrupt", json={"key": "k"})
    await front.http.post(f"{at}/x/interrupt", json={})
    assert front.node.inside.calls == [("interrupt", ("x", "k")), ("interrupt", ("x", None))]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"id": "has space"}),
        ("", {"id": ""}),
        ("", {"id": "x" * 65}),
        ("", {"language": "../../x"}),
        ("", {"language": "a\0b"}),
        ("", {"env": {"A=B": "c"}}),
        ("", {"nonsense": 1}),
        ("/x/execute", {"code": 1, "create": {}}),
        ("/x/execute", {"create": {}}),
        ("/x/execute", {"code": "1", "key": "ä", "create": {}}),
        ("/x/execute", {"code": "1", "timeout": -1, "create": {}}),
        ("/x/execute", {"code": "1", "after": -1, "create": {}}),
        ("/x/execute", {"code": "1", "env": {"A": "b\0"}, "create": {}}),
        ("/bad%20id/execute", {"code": "1", "create": {}}),
        ("/x/calls/c1", {"key": "k"}),
        ("/x/calls/c1", {"key": "k", "value": "v", "error": {"name": "E", "message": "m"}}),
        ("/x/calls/c1", {"value": "v"}),
        ("/x/interrupt", {"key": 5}),
    ],
)
async def test_what_makes_no_sense_is_refused(front: Front, at: str, path: str, body: dict[str, Any]):
    answer = await front.http.post(f"{at}{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text
    assert front.node.inside.calls == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/x/execute", {"code": "#" * (33 << 20), "create": {}}),
        ("/x/calls/c1", {"key": "k", "value": "x" * ((16 << 20) + 1)}),
        ("", {"env": {"A": "x" * (2 << 20)}}),
    ],
)
async def test_what_is_too_large_is_refused(front: Front, at: str, path: str, body: dict[str, Any]):
    answer = await front.http.post(f"{at}{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large"), answer.text


async def test_code_beyond_its_bound_is_refused_with_a_hint(front: Front, at: str):
    answer = await front.http.post(f"{at}/x/execute", json={"code": "#" * ((8 << 20) + 1), "create": {}})
    assert answer.status_code == 400
    assert "file" in answer.json()["error"]["hint"]
