"""Who may come over HTTP, and how much they may bring."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command
from tests.compat.mcp.clients import TOKEN, HttpServer, http_server

pytestmark = pytest.mark.node

BEARER = {"authorization": f"Bearer {TOKEN}"}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture(scope="module")
def server(environ: dict[str, str]) -> Iterator[HttpServer]:
    with http_server(environ) as found:
        yield found


def initialize() -> dict[str, object]:
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"x-api-key": TOKEN},
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_nobody_comes_in_without_the_token(method: str, headers: dict[str, str], server: HttpServer) -> None:
    refused = httpx2.request(method, server.url, headers=headers | ACCEPT)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in refused.text


def test_the_token_in_the_url_does_not_count(server: HttpServer) -> None:
    assert httpx2.post(f"{server.url}?token={TOKEN}&access_token={TOKEN}", json=initialize()).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "http://localhost:6274"}, 200),
        ({}, 200),
    ],
)
def test_a_page_from_elsewhere_is_refused_even_with_the_token(
    headers: dict[str, str], status: int, server: HttpServer
) -> None:
    answer = httpx2.post(server.url, json=initialize(), headers=BEARER | ACCEPT | headers)
    assert answer.status_code == status


def test_only_the_one_path_is_there(server: HttpServer) -> None:
    for path in ("/", "/v1/sandboxes", "/mcp/../v1/sandboxes", "/mcpx"):
        assert httpx2.get(server.url.replace("/mcp", path), headers=BEARER).status_code == 404


def test_a_large_body_is_refused_before_it_is_kept(server: HttpServer) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (17 << 20) + b'"}'
    assert httpx2.post(server.url, content=body, headers=BEARER | ACCEPT).status_code == 413
    assert httpx2.post(server.url, json=initialize(), headers=BEARER | ACCEPT).status_code == 200


def test_what_is_no_message_is_refused_and_the_next_is_answered(server: HttpServer) -> None:
    modern = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call"}
    for more in ({}, modern):
        for body in (b"", b"nonsense", b"[]", b"[" * 100_000, b"\xff", b'{"id":1}'):
            answer = httpx2.post(server.url, content=body, headers=BEARER | ACCEPT | more)
            assert 400 <= answer.status_code < 500, (body[:20], answer.status_code)
    assert httpx2.post(server.url, json=initialize(), headers=BEARER | ACCEPT).status_code == 200


def test_half_of_a_request_does_not_hold_up_the_others(server: HttpServer) -> None:
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    half = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    try:
        for one in half:
            one.sendall(
                b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer nope\r\ncontent-length: 99\r\n\r\n{"
            )
        assert httpx2.post(server.url, json=initialize(), headers=BEARER | ACCEPT).status_code == 200
    finally:
        for one in half:
            one.close()


def test_other_machines_are_let_in_only_with_tls_or_on_purpose(belljar: Command) -> None:
    line = ("mcp", "--http", "--port", "0", "--token-env", "TOKEN")
    refused = belljar(*line, "--host", "0.0.0.0", "--domain", "box.example", status=1, TOKEN=TOKEN)
    assert b"--insecure" in refused.stderr
    unnamed = belljar(*line, "--host", "0.0.0.0", "--insecure", status=2, TOKEN=TOKEN)
    assert b"--domain" in unnamed.stderr


def test_a_named_host_is_served_under_its_name(environ: dict[str, str]) -> None:
    with http_server(environ, "--host", "0.0.0.0", "--domain", "box.example", "--insecure") as server:
        assert server.url.startswith("http://box.example:")
        here = server.url.replace("box.example", "127.0.0.1")
        for host, status in (("box.example", 200), ("box.example:8586", 200), ("127.0.0.1", 421)):
            headers = BEARER | ACCEPT | {"host": host}
            assert httpx2.post(here, json=initialize(), headers=headers).status_code == status


def test_tls_is_spoken_with_a_certificate(environ: dict[str, str], tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*line.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    with http_server(environ, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with httpx2.Client(verify=ssl.create_default_context(cafile=cert)) as http:
            assert http.post(server.url, json=initialize(), headers=BEARER | ACCEPT).status_code == 200


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "ünicode-is-not-for-headers"])
def test_a_token_that_is_easy_or_impossible_is_refused(token: str, belljar: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)
    refused = belljar("mcp", "--http", "--port", "0", "--token-file", "token", status=1)
    assert b"token" in refused.stderr
    belljar("mcp", "--http", "--port", "0", "--token-env", "TOKEN", status=1, TOKEN=token)


def test_a_token_is_made_for_its_owner_alone_and_kept(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    tokens: list[str] = []
    for _ in range(2):
        process = subprocess.Popen(
            [*BELLJAR, "mcp", "--http", "--port", "0", "--json", "--token-file", str(file)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        tokens.append(file.read_text().strip())
        answer = httpx2.post(url, json=initialize(), headers=ACCEPT | {"authorization": f"bearer {tokens[-1]}"})
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=15)
        assert tokens[-1].encode() not in said, "it is in its file: a log need not have it"
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) >= 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_place_for_it_the_token_is_told_on_stderr(environ: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*BELLJAR, "mcp", "--http", "--port", "0", "--json"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["pid"] == process.pid
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=15)
    token = said.decode().partition("token: ")[2].split()[0]
    assert len(token) >= 40
