"""Clients that mean harm, against a real server process: each gets an error of our form or is hung up on, and others go on."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.api.process import ServerProcess, wipe
from tests.api.raw import Answer, Door

MOST = 48
"""Connections of a listener here."""
MIB = 1 << 20
CHUNKED = "transfer-encoding: chunked"
JSON = "content-type: application/json"
NO_SANDBOX = b'{"cpu":"nine"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("hostile") / "home"
    made = ServerProcess(home, "--port", "0", environ={"BELLJAR_MAX_CONNECTIONS": str(MOST)})
    try:
        made.ready()
        yield made
        assert made.process.poll() is None, made.said()
        assert "Traceback" not in made.said()
        assert made.end()[0] == 0
    finally:
        made.close()
        asyncio.run(wipe(home))


@pytest.fixture(params=["unix", "tcp"])
async def door(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """At the end of each test the server answers, and its memory has not grown by what was thrown at it."""
    said = server.ready()
    if request.param == "unix":
        opened = Door(Path(said.socket))
    else:
        assert said.url is not None
        opened = Door(None, int(said.url.rpartition(":")[2]), (server.home / "key").read_text().strip())
    assert await opened.is_well()
    before = memory(server)
    yield opened
    assert await opened.is_well()
    assert memory(server) - before < 160 * MIB


def memory(server: ServerProcess) -> int:
    """Bytes that it holds."""
    pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def sockets(server: ServerProcess) -> int:
    links = Path(f"/proc/{server.pid}/fd").iterdir()
    return sum(os.path.lexists(link) and str(read_link(link)).startswith("socket:") for link in links)


def read_link(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def refused(answer: Answer | None, *codes: str) -> None:
    """With an error in the form of the API, which is no fault of the server's."""
    assert answer is not None, "hung up without a word"
    code = answer.error()
    assert 400 <= answer.status < 500 or answer.status == 501, answer
    assert not codes or code in codes, answer


# heads ---------------------------------------------------------------------------------------------------------------

HEADS = {
    "a long address": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a long query": b"GET /health?" + b"a=b&" * 25_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a long field": b"GET /health HTTP/1.1\r\nx-a: " + b"a" * 70_000 + b"\r\n\r\n",
    "a long name of a field": b"GET /health HTTP/1.1\r\n" + b"a" * 70_000 + b": x\r\n\r\n",
    "many fields": b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    "very many fields": b"GET /health HTTP/1.1\r\n" + b"a:\r\n" * 60_000 + b"\r\n",
    "a NUL in a field": b"GET /health HTTP/1.1\r\nx-a: a\0b\r\n\r\n",
    "a lone CR in a field": b"GET /health HTTP/1.1\r\nx-a: a\rx-b: c\r\n\r\n",
    "no colon": b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n",
    "a blank before the colon": b"GET /health HTTP/1.1\r\nhost : x\r\n\r\n",
    "a line that goes on": b"GET /health HTTP/1.1\r\n folded: x\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "an address with a blank": b"GET /v1/a b HTTP/1.1\r\n\r\n",
    "an address with a control character": b"GET /v1/\x01 HTTP/1.1\r\n\r\n",
    "an address that is no ASCII": b"GET /v1/\xc3\xa9 HTTP/1.1\r\n\r\n",
    "an address that is none": b"GET nowhere HTTP/1.1\r\n\r\n",
    "an unknown method": b"BREW /pot HTTP/1.1\r\n\r\n",
    "a lower-case method": b"get /health HTTP/1.1\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n",
    "two lengths": b"POST /v1/sandboxes HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a length and chunks": b"POST /v1/sandboxes HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "a length below nothing": b"POST /v1/sandboxes HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    "a length that is no number": b"POST /v1/sandboxes HTTP/1.1\r\ncontent-length: 1e3\r\n\r\n",
    "a length beyond numbers": b"POST /v1/sandboxes HTTP/1.1\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n",
    "an unknown coding": b"POST /v1/sandboxes HTTP/1.1\r\ntransfer-encoding: cow\r\n\r\n",
}


@pytest.mark.parametrize("what", HEADS)
async def test_a_head_that_makes_no_sense_is_refused(door: Door, what: str) -> None:
    refused(await door.ask(HEADS[what]), "invalid_argument", "unauthenticated", "not_found")


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "QUERY"])
async def test_a_method_that_is_not_for_the_address_is_refused(door: Door, method: str) -> None:
    answer = await door.ask(door.head(f"{method} /v1/sandboxes HTTP/1.1", "x-secret: echo"))
    refused(answer, "not_supported", "invalid_argument")
    assert answer is not None
    assert b"echo" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/v1//sandboxes",
        "/v1/../v1/sandboxes",
        "/v1/sandboxes/..%2f..%2fetc%2fpasswd",
        "/v1/sandboxes/%2e%2e/%2e%2e",
        "/v1/sandboxes/a%00b",
        "/v1/sandboxes/%ff%fe",
        "/v1/sandboxes/%zz",
        "/v1/sandboxes/%",
        "/v1/sandboxes/a%0d%0ax-evil:%20yes",
        "/v1/sandboxes/" + "a" * 50_000,
        "/v1/sandboxes/" + "%61" * 10_000,
        "/" + "a/" * 20_000,
        "/v1/sandboxes/x/processes/99999999999999999999999999",
        "/v1/sandboxes/x/processes/-1",
        "/v1/sandboxes/x/processes/%d9%a1",
        "/v1/sandboxes/" + "x" * 64 + "/contexts/" + "y" * 5000,
        "/v1/sandboxes?limit=" + "9" * 5000,
        "/v1/sandboxes?cursor=%00",
        "/v1/sandboxes?label=%0d%0ax-evil:1",
        "/v1/sandboxes?" + "status=x&" * 5000,
        "http://elsewhere/v1/sandboxes/none",
    ],
)
async def test_an_absurd_address_is_refused(door: Door, path: str) -> None:
    answer = await door.ask(door.head(f"GET {path} HTTP/1.1"))
    refused(answer, "not_found", "invalid_argument")
    assert answer is not None
    assert answer.header("x-evil") is None
    assert len(answer.body) < 2000


async def test_what_a_client_names_does_not_get_into_heads(door: Door) -> None:
    evil = "a\r\nx-evil: yes\r\n\r\nGET / HTTP/1.1"
    for field in (
        {"name": evil},
        {"labels": {evil: "x"}},
        {"labels": {"x": evil}},
        {"env": {evil: "x"}},
        {"user": evil},
    ):
        answer = await door.ask(door.post(json.dumps(field).encode()))
        refused(answer, "invalid_argument")
        assert answer is not None
        assert answer.header("x-evil") is None
    for given in ("a\tb", "a b", "\x80\xff", "x" * 5000, "a;b=c", "<script>"):
        answer = await door.ask(door.head("GET /health HTTP/1.1", f"x-request-id: {given}"))
        assert answer is not None
        assert answer.status == 200
        assert answer.header("x-request-id") != given


async def test_old_and_unusual_requests_are_answered(door: Door) -> None:
    async with door.talk() as talk:
        await talk.say(door.head("GET /health HTTP/1.0"))
        answer = await talk.answer()
        assert answer is not None
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await talk.ended() == b""
    upgrade = door.head(
        "GET /health HTTP/1.1", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: x"
    )
    async with door.talk() as talk:
        for head in (upgrade, door.head("GET /health HTTP/1.1")):
            await talk.say(head)
            answer = await talk.answer()
            assert answer is not None
            assert answer.status == 200
    async with door.talk() as talk:  # in one go, in their order
        await talk.say(b"".join(door.head("GET /health HTTP/1.1", f"x-request-id: r{n}") for n in range(20)))
        for n in range(20):
            answer = await talk.answer()
            assert answer is not None
            assert answer.header("x-request-id") == f"r{n}"


# bodies --------------------------------------------------------------------------------------------------------------

DEEP = 100_000
BODIES = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists without an end": b"[" * DEEP,
    "deep objects": b'{"env":' * DEEP + b"1" + b"}" * DEEP,
    "a deep field": b'{"env":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "many lists": b"[" + b"[]," * 300_000 + b"[]]",
    "many unknown fields": b"{" + b",".join(b'"f%d":1' % n for n in range(60_000)) + b"}",
    "a huge whole number": b'{"pids":' + b"9" * 900_000 + b"}",
    "a huge number": b'{"cpu":1e99999}',
    "a number of many digits": b'{"cpu":' + b"1" * 900_000 + b".5}",
    "NaN": b'{"cpu":NaN}',
    "infinity": b'{"cpu":-Infinity}',
    "half a pair as a name": b'{"name":"\\ud800"}',
    "half a pair as a label": b'{"labels":{"a":"\\udfff"}}',
    "half a pair as a label's key": b'{"labels":{"\\udfff":"a"}}',
    "half a pair as a variable": b'{"env":{"A":"\\ud83d"}}',
    "bytes as a variable": b'{"env":{"A":"\\udcff"}}',
    "half a pair as a user": b'{"user":"\\ud83d"}',
    "half a pair as a folder": b'{"workdir":"/\\ud83d"}',
    "half a pair as an image": b'{"image":"\\ud83d"}',
    "half a pair as a field": b'{"\\ud83d":1}',
    "no UTF-8": b'{"name":"\xff\xfe\xfd"}',
    "UTF-8 of a surrogate": b'{"name":"\xed\xa0\x80"}',
    "UTF-16": '{"name":"x y"}'.encode("utf-16"),
    "control characters": b'{"name":"a\x00\x01\x1b[31m"}',
    "nothing": b"",
    "NULs": b"\0" * 100_000,
    "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 100,
    "two values": b"{}{}",
    "a comment": b"{/* x */}",
    "a long name": b'{"name":"' + b"a" * 900_000 + b'"}',
    "long labels": b'{"labels":{"' + b"a" * 900_000 + b'":"x"}}',
    "many labels": json.dumps({"labels": {f"l{n}": "x" for n in range(50_000)}}).encode(),
    "many variables": json.dumps({"env": {f"E{n}": "x" for n in range(50_000)}}).encode(),
    "the same field twice": b'{"name":"not-this","name":"Not A Name"}',
}


@pytest.mark.parametrize("what", BODIES)
async def test_a_body_that_is_no_sandbox_is_refused(door: Door, what: str) -> None:
    answer = await door.ask(door.post(BODIES[what]))
    refused(answer, "invalid_argument")
    assert answer is not None
    assert len(answer.body) < 4000


@pytest.mark.parametrize(
    "at",
    ["/v1/keys", "/v1/templates", "/v1/sandboxes/none/run", "/v1/sandboxes/none/contexts/x/execute", "/v1/nothing"],
)
async def test_no_address_is_harmed_by_deep_or_broken_json(door: Door, at: str) -> None:
    for what in ("deep lists", "deep objects", "a huge whole number", "no UTF-8", "half a pair as a field"):
        refused(await door.ask(door.post(BODIES[what], at)), "invalid_argument", "not_found")


@pytest.mark.parametrize(
    "piece",
    [b"[],", b'"",', b'{"a":0},', b"1,", b'"\\"",'],
    ids=["lists", "strings", "objects", "numbers", "escapes"],
)
async def test_a_big_body_that_is_not_mostly_text_is_refused_before_it_is_taken_apart(door: Door, piece: bytes) -> None:
    body = b'{"key":"k","value":[' + piece * ((60 << 20) // len(piece)) + b"0]}"
    asking = asyncio.create_task(door.ask(door.post(body, "/v1/sandboxes/none/contexts/x/calls/y")))
    refused(await asking, "invalid_argument")


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "\x80",
        "a" * 5000,
    ],
)
async def test_a_body_of_another_kind_is_refused(door: Door, kind: str) -> None:
    refused(await door.ask(door.post(b'{"name":"x"}', "/v1/sandboxes", f"content-type: {kind}")), "invalid_argument")
    packed = door.post(b"\x1f\x8b\x08\x00", "/v1/sandboxes", JSON, "content-encoding: gzip")
    refused(await door.ask(packed), "invalid_argument")


@pytest.mark.parametrize("length", [MIB + 1, 10**12, 2**63, 2**64 - 1])
async def test_a_length_beyond_the_bound_is_refused_at_once(door: Door, length: int) -> None:
    head = door.head("POST /v1/sandboxes HTTP/1.1", JSON, f"content-length: {length}")
    refused(await door.ask(head), "too_large", "invalid_argument")
    waiting = door.head("POST /v1/sandboxes HTTP/1.1", JSON, f"content-length: {length}", "expect: 100-continue")
    refused(await door.ask(waiting), "too_large", "invalid_argument")


async def test_an_endless_body_is_refused_while_it_comes(door: Door) -> None:
    chunk = b"%x\r\n" % 65536 + b"a" * 65536 + b"\r\n"
    async with door.talk() as talk:
        head = door.head("POST /v1/sandboxes HTTP/1.1", JSON, CHUNKED)
        _, answer = await asyncio.gather(talk.say(head, *([chunk] * 100)), talk.answer())
    refused(answer, "too_large")


@pytest.mark.parametrize(
    "chunks",
    [
        b"nonsense\r\n",
        b"-5\r\nhello\r\n",
        b"fffffffffffffffffff\r\n",
        b"5\r\nhello world\r\n",
        b"5hello\r\n",
        b"\r\n\r\n\r\n",
        b"0x5\r\nhello\r\n",
        b"5;" + b"x=y;" * 150_000,
        b"2\r\n{}\r\n0\r\nx: " + b"a" * 600_000,
        b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 50_000,
        b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    ],
    ids=lambda chunks: repr(chunks[:20]),
)
async def test_chunks_that_make_no_sense_are_refused(door: Door, chunks: bytes) -> None:
    refused(await door.ask(door.head("POST /v1/sandboxes HTTP/1.1", JSON, CHUNKED), chunks), "invalid_argument")


async def test_a_trailer_does_not_count_as_a_field(door: Door) -> None:
    async with door.talk() as talk:
        body = b"%x\r\n%b\r\n0\r\nidempotency-key: x\r\n\r\n" % (len(NO_SANDBOX), NO_SANDBOX)
        await talk.say(door.head("POST /v1/sandboxes HTTP/1.1", JSON, CHUNKED) + body)
        refused(await talk.answer(), "invalid_argument")
        await talk.say(door.head("GET /health HTTP/1.1"))
        answer = await talk.answer()
        assert answer is not None
        assert answer.status == 200


async def test_more_than_the_length_says_is_no_second_request(door: Door) -> None:
    async with door.talk() as talk:
        await talk.say(door.post(NO_SANDBOX) + b'"junk behind the body"}\r\n\r\n')
        refused(await talk.answer(), "invalid_argument")
        rest = await talk.ended()
        assert b" 200 " not in rest
        assert b" 201 " not in rest


async def test_a_client_that_leaves_in_the_middle_harms_nobody(door: Door) -> None:
    for cut in (10, 100, 150):
        for _ in range(10):
            async with door.talk() as talk:
                await talk.say(door.post(NO_SANDBOX + b" " * 1000)[:cut])


async def test_a_body_that_nobody_wants_is_not_waited_for(door: Door) -> None:
    """The address is wrong, or the key."""
    stranger = Door(door.path, door.port)
    answer = await stranger.ask(stranger.head("POST /v1/nothing HTTP/1.1", JSON, "content-length: 1000000"))
    refused(answer, "not_found" if door.path else "unauthenticated")


# many ----------------------------------------------------------------------------------------------------------------


async def test_idle_connections_are_bounded_and_others_go_on(server: ServerProcess, door: Door) -> None:
    """Some say nothing, some a part of a head, some have asked once."""
    before = sockets(server)
    async with contextlib.AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(door.talk()) for _ in range(5 * MOST)]
        for number, talk in enumerate(talks):
            if number % 3:
                await talk.say((b"GET /health HTTP/1.1\r\nx: ", door.head("GET /health HTTP/1.1"))[number % 3 - 1])
        for _ in range(20):
            assert await door.is_well()
        assert sockets(server) - before <= MOST + 2


async def until_well(door: Door) -> None:
    """The server needs a moment until it has seen that clients have left."""
    for _ in range(100):
        if await door.is_well():
            return
        await asyncio.sleep(0.05)
    pytest.fail("the server has not recovered")


async def test_a_flood_of_requests_is_answered(door: Door) -> None:
    """By every connection there may be; of more some are told to come again, or hung up on before they have asked."""

    async def one(number: int, *codes: str) -> int:
        answered = 0
        async with door.talk() as talk:
            for turn in range(20):
                ask = door.post(NO_SANDBOX) if turn % 2 else door.head(f"GET /v1/sandboxes/{number} HTTP/1.1")
                if not await talk.say(ask) or (answer := await talk.answer()) is None:
                    break
                assert answer.error() in ("invalid_argument", "not_found", *codes)
                answered += 1
        return answered

    answered = await asyncio.gather(*(one(number) for number in range(MOST - 4)))
    assert answered == [20] * (MOST - 4)
    more = await asyncio.gather(*(one(number, "no_capacity") for number in range(4 * MOST)))
    assert sum(more) > 0
    await until_well(door)


@pytest.mark.parametrize("what", ["requests", "empty lines", "a trailer", "an extension of a chunk", "a rest"])
async def test_what_has_no_end_is_cut_and_not_kept(door: Door, what: str) -> None:
    """As much as it takes; the server keeps nothing of it."""
    chunked = door.head("POST /v1/sandboxes HTTP/1.1", JSON, CHUNKED)
    begin, piece = {
        "requests": (b"", b"GET /nothing HTTP/1.1\r\n\r\n" * 40_000),
        "empty lines": (b"", b"\r\n" * 500_000),
        "a trailer": (chunked + b"2\r\n{}\r\n0\r\nx: ", b"a" * MIB),
        "an extension of a chunk": (chunked + b"2;x=", b"a" * MIB),
        "a rest": (b"\0 no request\r\n\r\n", b"a" * MIB),
    }[what]
    async with door.talk() as talk:
        await talk.say(begin)
        for _ in range(10_000):
            if not await talk.say(piece):
                return
            await asyncio.sleep(0.01)
        pytest.fail("it has no end")
