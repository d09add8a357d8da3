"""Clients that take their time, or never end what they began: each is given so long, and the answers of others are not spoilt."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send
from tests.api.conftest import Front
from tests.api.raw import Door
from tests.api.test_hostile_clients import CHUNKED, JSON, refused

from belljar.base.tasks import wait_until
from belljar.server.listen import serving, unix_socket

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
SOON = 0.3


@pytest.fixture
def door(front: Front, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr("belljar.server.http.HEAD_SECONDS", SOON)
    monkeypatch.setattr("belljar.front.native.bodies._PATIENCE_SECONDS", SOON)
    return Door(front.socket)


async def test_a_head_that_dribbles_in_is_refused(door: Door) -> None:
    async with door.talk() as talk:
        pieces = [HEALTH[at : at + 1] for at in range(len(HEALTH) - 1)]
        dribble = asyncio.create_task(talk.say(*pieces, pause=0.05))
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.error()) == (408, "timeout")
        assert await talk.ended() == b""
        await dribble


async def test_a_connection_is_not_held_by_what_is_no_request(door: Door) -> None:
    """Empty lines between requests mean nothing, and do not begin one."""
    async with door.talk() as talk:
        await talk.say(HEALTH)
        assert (await talk.answer() or pytest.fail("no answer")).status == 200
        dribble = asyncio.create_task(talk.say(*[b"\r\n"] * 200, pause=0.05))
        assert await talk.ended() == b""
        assert not await dribble


async def test_a_body_that_dribbles_in_is_refused(door: Door) -> None:
    async with door.talk() as talk:
        head = door.head("POST /v1/sandboxes HTTP/1.1", JSON, "content-length: 10000")
        dribble = asyncio.create_task(talk.say(head, *[b" "] * 200, pause=0.05))
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.error()) == (504, "timeout")
        assert await talk.ended() == b""
        assert not await dribble


async def test_chunks_that_dribble_in_are_refused(door: Door) -> None:
    async with door.talk() as talk:
        head = door.head("POST /v1/sandboxes HTTP/1.1", JSON, CHUNKED)
        dribble = asyncio.create_task(talk.say(head, b"1;x=", *[b"a"] * 200, pause=0.05))
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.error()) == (504, "timeout")
        assert await talk.ended() == b""
        assert not await dribble


async def test_a_body_that_comes_fast_enough_is_taken(door: Door) -> None:
    """It takes longer than a silence may."""
    body = b'{"name":"slow"}' + b" " * 20_000
    async with door.talk() as talk:
        whole = door.post(body)
        await talk.say(*[whole[at : at + 1500] for at in range(0, len(whole), 1500)], pause=0.05)
        answer = await talk.answer()
        assert answer is not None
        assert answer.status == 201, answer


async def test_the_rest_of_a_body_that_was_refused_has_an_end(door: Door) -> None:
    async with door.talk() as talk:
        await talk.say(door.head("POST /v1/nothing HTTP/1.1", JSON, "content-length: 1000000"))
        refused(await talk.answer(), "not_found")
        assert not await talk.say(*[b"a" * 1000] * 200, pause=0.05)


async def test_a_connection_lives_on_when_the_rest_of_a_body_came(door: Door) -> None:
    async with door.talk() as talk:
        await talk.say(door.head("POST /v1/nothing HTTP/1.1", JSON, "content-length: 1000"), b"a" * 500)
        refused(await talk.answer(), "not_found")
        await talk.say(b"a" * 500)
        await asyncio.sleep(2 * SOON)
        await talk.say(HEALTH)
        answer = await talk.answer()
        assert answer is not None
        assert answer.status == 200


@contextlib.asynccontextmanager
async def waiting(front: Front, door: Door) -> AsyncIterator[tuple[Door, bytes]]:
    """A request that is answered when the node's `hold` is set, or after 5 s."""
    await front.sandbox(name="box")
    front.node.inside.hold = asyncio.Event()
    yield door, door.head("GET /v1/sandboxes/box/processes/7/wait?timeout=5 HTTP/1.1")
    front.node.inside.hold.set()


async def test_a_head_behind_a_request_that_takes_long_has_its_deadline_too(front: Front, door: Door) -> None:
    async with waiting(front, door) as (_, ask), door.talk() as talk:
        await talk.say(ask, HEALTH[:10])
        await asyncio.sleep(2 * SOON)
        front.node.inside.hold.set()
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.json()["returncode"]) == (200, 0)
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.error()) == (408, "timeout")
        assert await talk.ended() == b""


async def test_junk_behind_a_request_does_not_spoil_its_answer(front: Front, door: Door) -> None:
    async with waiting(front, door) as (_, ask), door.talk() as talk:
        await talk.say(ask, ask, b"\0\0 junk \r\n\r\n", b"more" * 1000, pause=0.05)
        front.node.inside.hold.set()
        for _ in range(2):
            answer = await talk.answer()
            assert answer is not None
            assert (answer.status, answer.json()["returncode"]) == (200, 0)
        assert answer.header("connection") == "close"
        assert await talk.ended() == b""


async def test_when_all_connections_are_busy_one_more_is_told_to_come_again(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with unix_socket(tmp_path / "s") as made:
        async with serving(app, [made], listener="unix", connections=2), contextlib.AsyncExitStack() as stack:
            door = Door(tmp_path / "s")
            busy = [await stack.enter_async_context(door.talk()) for _ in range(2)]
            for talk in busy:
                await talk.say(HEALTH)
            await asyncio.sleep(0.05)
            for _ in range(5):
                answer = await door.ask(HEALTH)
                assert answer is not None
                assert (answer.status, answer.error(), answer.header("retry-after")) == (503, "no_capacity", "1")
                assert answer.header("connection") == "close"
            go_on.set()
            for talk in busy:
                answer = await talk.answer()
                assert answer is not None
                assert answer.status == 200


async def test_a_client_that_never_reads_does_not_keep_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.server.http._FLUSH_SECONDS", SOON)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"8000000"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(8_000_000)})

    with unix_socket(tmp_path / "s") as made, socket.socket(socket.AF_UNIX) as client:
        async with serving(app, [made], listener="unix") as connections:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, str(tmp_path / "s"))
            await loop.sock_sendall(client, HEALTH)
            for count in (1, 0):

                async def there(count: int = count) -> bool:
                    return connections() == count

                assert await wait_until(there, timeout=10)
