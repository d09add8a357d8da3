"""Routes of the server itself, keys, and what holds for every route."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import httpx2
import pytest
from tests.api.conftest import Front, unix_client

from belljar.front.native.app import native_app, native_routes
from belljar.front.native.metrics import Metrics
from belljar.model.errors import LimitExceeded
from belljar.model.key import Scope
from belljar.server.listen import serving, unix_socket


async def test_health_says_who_answers(front: Front):
    said = (await front.http.get("/health")).json()
    assert (said["status"], said["pid"]) == ("ok", os.getpid())


async def test_info_says_what_is_missing_and_why(front: Front):
    said = (await front.http.get("/v1/info")).json()
    assert (said["engine"], said["images"], said["capabilities"]) == (
        "scripted",
        ["base"],
        {"isolation": "there is none"},
    )


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer x", "Basic x", "Bearer \xff", "bjk_x", "Bearer " + "x" * 5000]
)
async def test_a_tcp_listener_asks_for_a_key(front: Front, header: str | None):
    async with httpx2.AsyncClient(base_url=front.tcp) as http:
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        for method, path in (
            ("GET", "/v1/sandboxes"),
            ("GET", "/openapi.json"),
            ("POST", "/v1/shutdown"),
            ("GET", "/x"),
        ):
            answer = await http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"]
        assert (await http.get("/health")).status_code == 200


async def test_a_key_opens_the_same_workspace_but_not_the_shutdown(front: Front):
    made = await front.sandbox()
    _, key = await front.product.keys.make("test")
    async with httpx2.AsyncClient(base_url=front.tcp, headers={"Authorization": f"Bearer {key}"}) as http:
        assert [item["id"] for item in (await http.get("/v1/sandboxes")).json()["items"]] == [made["id"]]
        answer = await http.post("/v1/shutdown", json={"sandboxes": True})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert front.stops == []
    assert front.node.known[str(made["id"])].ended is None


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_shutdown_ends_the_server_and_if_asked_the_sandboxes(front: Front, all_of_them: bool):
    made = [str((await front.sandbox())["id"]) for _ in range(3)]
    assert (await front.http.post("/v1/shutdown", json={"sandboxes": all_of_them})).json() == {}
    assert front.stops == [None]
    assert {front.node.known[id].status.is_end for id in made} == {all_of_them}
    assert (await front.http.post("/v1/shutdown", json={})).status_code == 400


async def test_unknown_addresses_and_methods_have_the_form_of_errors(front: Front):
    for method, path, status, code in (
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/sandboxes/", 404, "not_found"),
        ("GET", "/v1/x/%ff%00", 404, "not_found"),
        ("PUT", "/v1/sandboxes", 405, "not_supported"),
        ("DELETE", "/v1/sandboxes", 405, "not_supported"),
    ):
        answer = await front.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
    assert answer.headers["allow"] == "GET, POST"


async def test_a_request_keeps_the_id_that_its_caller_gave(front: Front):
    answer = await front.http.get("/v1/info", headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "é"):
        answer = await front.http.get("/v1/info", headers={"x-request-id": bad.encode()})
        assert answer.headers["x-request-id"] != bad


async def test_a_refusal_says_when_to_try_again(front: Front, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise LimitExceeded("too many requests", retry_after=1.4)

    monkeypatch.setattr(front.node, "info", refuse)
    monkeypatch.setattr(front.product.keys, "check", refuse)
    async with httpx2.AsyncClient(base_url=front.tcp) as http:
        for answer in (await front.http.get("/v1/info"), await http.get("/v1/info")):
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
            error = answer.json()["error"]
            assert (error["code"], error["retryable"], error["retry_after"]) == ("limit_exceeded", True, 1.4)


async def test_junk_instead_of_http_harms_nobody(front: Front):
    for junk in (b"\0" * 10_000, b"\xff" * 100 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 200_000):
        reader, writer = await asyncio.open_unix_connection(str(front.socket))
        writer.write(junk)
        writer.write_eof()
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
    assert (await front.http.get("/health")).status_code == 200


def test_the_description_covers_every_route_with_our_form_of_errors():
    said = native_routes().openapi()
    routes = [(method, path, route) for path, methods in said["paths"].items() for method, route in methods.items()]
    assert len(routes) == 85
    for method, path, route in routes:
        assert route["summary"], (method, path)
        assert "422" not in route["responses"]
        assert route["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
        assert any(status.startswith("2") for status in route["responses"])
    assert "HTTPValidationError" not in said["components"]["schemas"]


async def talk(front: Front, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What the server says to these bytes, until it closes."""
    reader, writer = await asyncio.open_unix_connection(str(front.socket))
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_what_is_no_http_gets_an_error_of_our_form(front: Front):
    said = await talk(front, b"\x16\x03\x01 hello\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_argument"


async def test_a_head_without_an_end_is_cut(front: Front):
    endless = (b"x-a: " + b"a" * 65_000 + b"\r\n" for _ in range(100))
    said = await talk(front, b"GET /health HTTP/1.1\r\n", *endless)
    assert said.startswith(b"HTTP/1.1 400 ") or said == b""
    said = await talk(front, b"GET /", *(b"a" * 65_000 for _ in range(100)))
    assert said.startswith(b"HTTP/1.1 400 ") or said == b""
    assert (await front.http.get("/health")).status_code == 200


async def test_a_connection_that_never_asks_is_closed(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("belljar.server.http.HEAD_SECONDS", 0.2)
    assert await talk(front) == b""
    assert (await talk(front, b"GET /health HT")).startswith(b"HTTP/1.1 408 ")
    asked = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    said = await talk(front, asked, b"GET /hea", pause=0.05)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1") == 2
    assert b"HTTP/1.1 408 " in said


async def test_a_long_answer_is_not_cut_by_the_deadline_of_its_head(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("belljar.server.http.HEAD_SECONDS", 0.1)
    await front.sandbox(name="box")
    front.node.inside.hold = asyncio.Event()
    asking = asyncio.create_task(front.http.get("/v1/sandboxes/box/processes/7/wait?timeout=5"))
    await asyncio.sleep(0.5)
    front.node.inside.hold.set()
    assert (await asking).json()["returncode"] == 0


class Opened:
    """A listener that can be opened, once."""

    key_file = "/state/key"

    def __init__(self) -> None:
        self.opened = 0

    async def open(self) -> tuple[str, bool]:
        self.opened += 1
        return "http://127.0.0.1:8585", self.opened == 1


async def test_only_who_is_at_the_unix_socket_has_the_server_listen(front: Front):
    answer = await front.http.post("/v1/listener", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_supported"), "this one has no listener"
    assert (await front.http.post("/v1/listener", json={"host": "0.0.0.0"})).status_code == 400
    _, key = await front.product.keys.make("test", scope=Scope.ADMIN)
    async with httpx2.AsyncClient(base_url=front.tcp, headers={"Authorization": f"Bearer {key}"}) as http:
        answer = await http.post("/v1/listener", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")


async def test_a_listener_is_opened_once_and_its_place_told_again(front: Front, tmp_path: Path):
    door = Opened()
    async with Metrics(front.product) as metrics:
        app = native_app(front.product, lambda: None, metrics, door)
        with unix_socket(tmp_path / "s") as socket:
            async with serving(app, [socket], listener="unix"), unix_client(tmp_path / "s") as http:
                said = [(await http.post("/v1/listener", json={})).json() for _ in range(2)]
    assert [one["opened"] for one in said] == [True, False]
    assert {(one["url"], one["key_file"]) for one in said} == {("http://127.0.0.1:8585", "/state/key")}
