"""Routes of processes, over a socket, on a scripted node."""

import asyncio
import base64
import json
from typing import Any

import httpx2
import pytest
from tests.api.conftest import Front

from belljar.front.native import stream
from belljar.model.errors import DeadlineExceeded, LimitExceeded, NotFound, PermissionDenied, SandboxGone
from belljar.model.framing import CONTENT_TYPE, NOTHING, Decoder, Failure, Piece, Started
from belljar.model.process import Exit, Output, Stream


def escaped(body: object) -> dict[str, Any]:
    """The client would send UTF-8, which has no lone surrogates."""
    return {"content": json.dumps(body), "headers": {"content-type": "application/json"}}


def decoded(body: bytes) -> list[Piece]:
    return list(Decoder().feed(body))


@pytest.fixture
async def at(front: Front) -> str:
    return f"/v1/sandboxes/{(await front.sandbox(name='box'))['id']}"


async def test_a_process_is_started(front: Front, at: str):
    answer = await front.http.post(
        f"{at}/processes",
        **escaped(
            {
                "key": "k1",
                "argv": ["ls", "-l", "\udcff"],
                "env": {"A": "b"},
                "cwd": "/tmp",
                "user": "user",
                "stdin": False,
                "pty": {"cols": 100, "rows": 30},
                "keep_alive": True,
            }
        ),
    )
    assert answer.status_code == 201
    assert answer.json()["argv"] == ["ls", "-l", "\udcff"]
    assert answer.json()["returncode"] is None
    ((spec, _),) = front.node.inside.started
    assert (spec.key, spec.cwd, spec.user, spec.stdin, spec.keep_alive) == ("k1", "/tmp", "user", False, True)
    assert spec.pty is not None
    assert (spec.pty.cols, spec.pty.rows) == (100, 30)


async def test_a_command_is_given_to_a_shell(front: Front, at: str):
    await front.http.post(f"{at}/processes", json={"command": "echo $A"})
    assert front.node.inside.started[0][0].argv == ("/bin/sh", "-c", "echo $A")
    assert len(front.node.inside.started[0][0].key) == 32


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"argv": ["a"], "command": "a"},
        {"argv": []},
        {"argv": [""]},
        {"argv": "ls"},
        {"argv": ["a\0b"]},
        {"argv": ["a", 1]},
        {"argv": ["\ud800"]},
        {"command": "a\0b"},
        {"argv": ["a"], "pty": {"cols": 0, "rows": 24}},
        {"argv": ["a"], "pty": {"width": 1}},
        {"argv": ["a"], "env": {"A=B": "x"}},
        {"argv": ["a"], "key": ""},
        {"argv": ["a"], "key": "é"},
        {"argv": ["a"], "shell": True},
        {"argv": ["x" * (3 << 20)]},
    ],
)
@pytest.mark.parametrize("verb", ["processes", "run"])
async def test_a_process_that_cannot_be_is_refused(front: Front, at: str, verb: str, body: dict[str, object]):
    answer = await front.http.post(f"{at}/{verb}", **escaped(body))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text
    assert front.node.inside.started == []


async def test_run_streams_start_output_and_exit(front: Front, at: str):
    front.node.inside.events = [Output(Stream.STDOUT, 0, b"a"), Output(Stream.STDERR, 0, b"b"), Exit(3)]
    answer = await front.http.post(f"{at}/run", json={"argv": ["x"]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    started, *rest = decoded(answer.content)
    assert isinstance(started, Started)
    assert (started.process["id"], started.process["argv"]) == (7, ["x"])
    assert rest == front.node.inside.events


async def test_run_gives_input(front: Front, at: str):
    body = {"argv": ["cat"], "input": base64.b64encode(b"\0\xff").decode(), "stdin": False}
    await front.http.post(f"{at}/run", json=body)
    spec, given = front.node.inside.started[0]
    assert (spec.stdin, given) == (True, b"\0\xff")


@pytest.mark.parametrize(
    ("body", "stdin", "given"),
    [
        ({}, False, None),
        ({"stdin": True}, True, None),
        ({"input": ""}, True, b""),
        ({"stdin": False, "input": "YQ=="}, True, b"a"),
    ],
)
async def test_run_has_an_empty_stdin_unless_something_is_said(
    front: Front, at: str, body: dict[str, object], stdin: bool, given: bytes | None
):
    await front.http.post(f"{at}/run", json={"argv": ["cat"]} | body)
    spec, input = front.node.inside.started[0]
    assert (spec.stdin, input) == (stdin, given)


async def test_run_refuses_input_that_is_too_large_or_no_base64(front: Front, at: str):
    large = await front.http.post(f"{at}/run", json={"argv": ["a"], "input": base64.b64encode(bytes(2 << 20)).decode()})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    huge = await front.http.post(f"{at}/run", json={"argv": ["a"], "input": "A" * (5 << 20)})
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "too_large")
    for bad in ("$$$", "A", "é"):
        answer = await front.http.post(f"{at}/run", json={"argv": ["a"], "input": bad})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotFound("no program x"), 404),
        (PermissionDenied("not executable"), 403),
        (LimitExceeded("pids"), 429),
        (DeadlineExceeded("silent"), 504),
        (SandboxGone("it ended"), 404),
    ],
)
async def test_a_failed_start_is_an_error_of_http(front: Front, at: str, failure: Exception, status: int):
    front.node.inside.failure = failure
    for verb in ("run", "processes"):
        answer = await front.http.post(f"{at}/{verb}", json={"argv": ["x"]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (status, str(failure))


async def test_a_failure_on_the_way_is_the_last_piece(front: Front, at: str):
    inside = front.node.inside
    inside.events, inside.late_failure = [Output(Stream.STDOUT, 0, b"a")], SandboxGone("it ended: lifetime")
    answer = await front.http.post(f"{at}/run", json={"argv": ["x"]})
    last = decoded(answer.content)[-1]
    assert isinstance(last, Failure)
    assert (last.error["code"], last.error["request_id"]) == ("sandbox_gone", answer.headers["x-request-id"])
    inside.late_failure = RuntimeError("secret")
    answer = await front.http.post(f"{at}/run", json={"argv": ["x"]})
    last = decoded(answer.content)[-1]
    assert isinstance(last, Failure)
    assert last.error["code"] == "internal"
    assert b"secret" not in answer.content


async def test_output_comes_at_once_and_a_client_that_leaves_detaches(front: Front, at: str):
    inside = front.node.inside
    inside.events, inside.hold = [Output(Stream.STDOUT, 0, b"now")], asyncio.Event()
    for method, path, body in (("POST", "run", {"argv": ["x"]}), ("GET", "processes/7/output?stdout=0", None)):
        before = inside.closed
        async with front.http.stream(method, f"{at}/{path}", json=body) as answer:
            got: list[Piece] = []
            decoder = Decoder()
            async with asyncio.timeout(5):
                async for data in answer.aiter_raw():
                    got += decoder.feed(data)
                    if any(isinstance(piece, Output) for piece in got):
                        break
            assert inside.closed == before
        for _ in range(100):
            if inside.closed > before:
                break
            await asyncio.sleep(0.02)
        assert inside.closed == before + 1


async def test_a_reader_that_stops_stops_the_guest(front: Front, at: str):
    inside = front.node.inside
    inside.endless = True
    async with front.http.stream("POST", f"{at}/run", json={"argv": ["yes"]}) as answer:
        data = answer.aiter_raw()
        await anext(data)
        await asyncio.sleep(0.5)
        held = inside.pieces
        await asyncio.sleep(0.5)
        assert inside.pieces == held
        assert held * 65536 < 8 << 20
    for _ in range(100):
        if inside.closed:
            break
        await asyncio.sleep(0.02)
    assert inside.closed == 1


async def test_a_silent_stream_is_kept_warm(front: Front, at: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.05)
    inside = front.node.inside
    inside.events, inside.hold = [], asyncio.Event()
    async with front.http.stream("GET", f"{at}/processes/7/output?stdout=0") as answer:
        got = b""
        async with asyncio.timeout(5):
            async for data in answer.aiter_raw():
                got += data
                if len(got) >= 2 * len(NOTHING):
                    break
    assert got[: 2 * len(NOTHING)] == NOTHING * 2


async def test_processes_are_listed_and_found(front: Front, at: str):
    assert [process["id"] for process in (await front.http.get(f"{at}/processes")).json()["items"]] == [7]
    assert (await front.http.get(f"{at}/processes/7")).json()["pid"] == 42
    assert (await front.http.get(f"{at}/processes/42?by=pid")).json()["id"] == 7
    assert (await front.http.get(f"{at}/processes/8")).status_code == 404
    assert (await front.http.get(f"{at}/processes/8/output?stdout=0")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "processes/x",
        "processes/-1",
        "processes/99999999999999999999",
        "processes/7?by=name",
        "processes/7/output?stdout=-1",
        "processes/7/output?stdin=0",
        "processes/7/wait?timeout=61",
        "processes/7/wait?timeout=nan",
        "processes/7/wait?timeout=-1",
    ],
)
async def test_what_is_no_process_or_offset_is_refused(front: Front, at: str, path: str):
    answer = await front.http.get(f"{at}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text


async def test_input_goes_to_stdin(front: Front, at: str):
    answer = await front.http.post(f"{at}/processes/7/stdin?offset=10&eof=true", content=b"\0" * 100)
    assert answer.json() == {"offset": 110}
    assert (await front.http.post(f"{at}/processes/7/stdin?offset=0", content=b"x" * (9 << 20))).status_code == 413
    assert (await front.http.post(f"{at}/processes/7/stdin", content=b"x")).status_code == 400


@pytest.mark.parametrize(("said", "number"), [(9, 9), ("SIGTERM", 15), ("int", 2), ("USR1", 10), (34, 34)])
async def test_a_signal_has_a_number_or_a_name(front: Front, at: str, said: object, number: int):
    answer = await front.http.post(f"{at}/processes/7/signal", json={"signal": said, "group": True})
    assert (answer.status_code, answer.json()) == (200, {})
    assert front.node.inside.signals == [(number, True)]


@pytest.mark.parametrize("said", [0, 65, -9, "SIGNOTHING", "", True, 1.5, None])
async def test_what_is_no_signal_is_refused(front: Front, at: str, said: object):
    assert (await front.http.post(f"{at}/processes/7/signal", json={"signal": said})).status_code == 400
    assert front.node.inside.signals == []


async def test_a_terminal_is_resized_and_a_process_left_alone(front: Front, at: str):
    assert (await front.http.post(f"{at}/processes/7/resize", json={"cols": 120, "rows": 40})).json() == {}
    assert [(size.cols, size.rows) for size in front.node.inside.sizes] == [(120, 40)]
    assert (await front.http.post(f"{at}/processes/7/resize", json={"cols": 0, "rows": 40})).status_code == 400
    assert (await front.http.post(f"{at}/processes/7/detach")).json() == {}
    assert front.node.inside.calls == [("detach", (7,))]


async def test_a_wait_ends_with_the_process(front: Front, at: str):
    assert (await front.http.get(f"{at}/processes/7/wait?timeout=5")).json()["returncode"] == 0


@pytest.mark.parametrize(("method", "path"), [("GET", "wait?timeout=60"), ("POST", "stdin?offset=0")])
async def test_a_wait_ends_when_the_client_leaves(front: Front, at: str, method: str, path: str):
    front.node.inside.hold = asyncio.Event()
    with pytest.raises(httpx2.ReadTimeout):
        await front.http.request(method, f"{at}/processes/7/{path}", timeout=0.2)
    for _ in range(100):
        if front.node.inside.closed:
            break
        await asyncio.sleep(0.02)
    assert front.node.inside.closed == 1


async def test_a_log_leaves_an_output_alone_that_is_being_read(front: Front, at: str):
    inside = front.node.inside
    inside.events, inside.hold = [Output(Stream.STDOUT, 0, b"now")], asyncio.Event()
    async with front.http.stream("POST", f"{at}/run", json={"argv": ["x"]}) as answer:
        data = answer.aiter_raw()
        await anext(data)
        logs = (await front.http.get(f"{at}/logs")).json()
        assert logs["processes"][0]["attached"] is True
        assert inside.closed == 0
