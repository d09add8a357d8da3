"""The server as a process: start, end, death, succession. The node is the real one, its engine the fake one."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import httpx2
import psycopg
import pytest
from tests.api.process import READY_SECONDS, ServerProcess, wipe
from tests.postgres import ONLY_SQLITE

from belljar.base import proc
from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.control.store.tables import Base
from belljar.model.framing import Decoder, Piece
from belljar.model.process import Exit, Output
from belljar.server.main import EXIT_HELD, main

Start = Callable[..., ServerProcess]


@pytest.fixture
async def start(state: Path) -> AsyncGenerator[Start]:
    """Starts servers on one state directory; at the end nothing of it may be left."""
    made: list[ServerProcess] = []

    def start_one(*words: str, **more: object) -> ServerProcess:
        made.append(ServerProcess(state / "home", *words, **more))  # type: ignore[arg-type]
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    await wipe(state / "home")


def contents(home: Path, stored: str | None) -> str:
    """All that the store has, as it lies."""
    if stored is None:
        return (home / "belljar.db").read_bytes().decode("latin-1")
    with psycopg.connect(stored) as store:
        return str([store.execute(f"TABLE {name}".encode()).fetchall() for name in Base.metadata.tables])


async def create(http: httpx2.AsyncClient, **fields: object) -> str:
    answer = await http.post("/v1/sandboxes", json=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def run(http: httpx2.AsyncClient, ref: str, command: str) -> list[Piece]:
    answer = await http.post(f"/v1/sandboxes/{ref}/run", json={"command": command, "stdin": False})
    assert answer.status_code == 200, answer.text
    return list(Decoder().feed(answer.content))


def text(pieces: list[Piece]) -> bytes:
    return b"".join(piece.data for piece in pieces if isinstance(piece, Output))


async def test_it_says_where_it_listens_and_asks_for_a_key_there(start: Start, state: Path, stored: str | None):
    server = start("--port", "0", "--json")
    said = server.line()
    file = server.ready()
    assert said == {"url": file.url, "pid": server.pid, "state": str(state / "home")}
    assert f"listening on {file.url}" in server.said()
    assert stat.S_IMODE(Path(file.socket).stat().st_mode) == 0o600
    key_file = state / "home" / "key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert str(key_file) in server.said()
    key = key_file.read_text().strip()
    assert key not in server.said()
    assert (stored is None) == (state / "home" / "belljar.db").exists()
    assert key not in contents(state / "home", stored)
    async with httpx2.AsyncClient(base_url=str(file.url)) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/v1/info")).status_code == 401
        assert (await http.get("/v1/info", headers={"Authorization": f"Bearer {key}"})).json()["engine"] == "fake"
    assert server.end()[0] == 0
    again = start("--port", "0")
    again.ready()
    assert key_file.read_text().strip() == key


async def test_an_embedded_one_has_the_unix_socket_alone(start: Start, state: Path):
    server = start("--embedded")
    file = server.ready()
    assert (file.embedded, file.url) == (True, None)
    assert not (state / "home" / "key").exists()
    async with server.client() as http:
        id = await create(http)
        assert text(await run(http, id, "echo $((6*7))")) == b"42\n"


async def test_sigterm_ends_it_in_time_and_keeps_the_sandboxes(start: Start):
    first = start("--embedded")
    async with first.client() as http:
        id = await create(http, name="kept", labels={"a": "b"})
        process = (
            await http.post(f"/v1/sandboxes/{id}/processes", json={"command": "sleep 0.5; echo late; sleep 60"})
        ).json()
        async with http.stream("GET", f"/v1/sandboxes/{id}/processes/{process['id']}/output?stdout=0"):
            status, seconds = await asyncio.to_thread(first.end)
    assert (status, seconds < 5) == (0, True), first.said()
    assert not Path(first.home / "server.json").exists()
    second = start("--embedded")
    async with second.client() as http:
        found = (await http.get("/v1/sandboxes/kept")).json()
        assert (found["id"], found["status"], found["labels"]) == (id, "running", {"a": "b"})
        await asyncio.sleep(0.6)
        again = (await http.get(f"/v1/sandboxes/{id}/processes/{process['id']}")).json()
        assert (again["pid"], again["returncode"], again["stdout"]["end"]) == (process["pid"], None, 5)


async def test_kill_9_loses_no_sandbox_no_process_and_no_byte(start: Start):
    first = start("--embedded")
    key = new_id("k")
    lines = 2000
    command = (
        f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); [ $((i % 200)) = 0 ] && sleep 0.05; done; exit 3"
    )
    async with first.client() as http:
        ids = [await create(http) for _ in range(3)]
        got = b""
        decoder = Decoder()
        with pytest.raises(httpx2.HTTPError):
            body = {"command": command, "key": key}
            async with http.stream("POST", f"/v1/sandboxes/{ids[0]}/run", json=body) as answer:
                async for data in answer.aiter_raw():
                    got += text(list(decoder.feed(data)))
                    if len(got) > 3000 and first.process.poll() is None:
                        first.kill()
    second = start("--embedded")
    async with second.client() as http:
        alive = (await http.get("/v1/sandboxes")).json()["items"]
        assert sorted(item["id"] for item in alive if item["status"] == "running") == sorted(ids)
        # As the SDK does: the same start again gives the process, then its output from where it broke off.
        started = await http.post(f"/v1/sandboxes/{ids[0]}/processes", json={"command": command, "key": key})
        number = started.json()["id"]
        answer = await http.get(f"/v1/sandboxes/{ids[0]}/processes/{number}/output?stdout={len(got)}")
        rest = list(Decoder().feed(answer.content))
        assert rest[-1] == Exit(3)
        whole = got + text(rest)
        assert whole == b"".join(b"line %d\n" % number for number in range(lines))
        assert text(await run(http, ids[1], "echo still")) == b"still\n"


async def test_a_create_is_repeated_across_a_kill(start: Start):
    first = start("--embedded")
    headers = {"Idempotency-Key": "once"}
    async with first.client() as http:
        made = (await http.post("/v1/sandboxes", json={}, headers=headers)).json()
    first.kill()
    second = start("--embedded")
    async with second.client() as http:
        again = (await http.post("/v1/sandboxes", json={}, headers=headers)).json()
        assert again["id"] == made["id"]
        other = await http.post("/v1/sandboxes", json={"pids": 50}, headers=headers)
        assert other.status_code == 409


async def test_a_kill_in_the_middle_of_a_create_leaves_nothing_half(start: Start):
    first = start("--embedded")
    headers = {"Idempotency-Key": "cut"}
    with pytest.raises(httpx2.HTTPError):
        async with first.client() as http:
            asking = asyncio.create_task(http.post("/v1/sandboxes", json={"name": "cut"}, headers=headers))
            await asyncio.sleep(0.03)
            first.kill()
            await asking
    second = start("--embedded")
    async with second.client() as http:
        made = await http.post("/v1/sandboxes", json={"name": "cut"}, headers=headers)
        assert (made.status_code, made.json()["status"]) == (201, "running"), made.text
        live = (await http.get("/v1/sandboxes")).json()["items"]
        assert [item["name"] for item in live] == ["cut"]
        assert text(await run(http, "cut", "echo here")) == b"here\n"


@ONLY_SQLITE
async def test_a_second_server_is_refused_and_told_who_holds_the_directory(start: Start, state: Path):
    first = start("--port", "0")
    first.ready()
    for words in (("--port", "0"), ("--embedded",)):
        second = start(*words)
        assert second.wait() == EXIT_HELD
        assert f"process {first.pid} (serve)" in second.said()
    assert first.process.poll() is None
    other = ServerProcess(state / "other", "--port", "0")
    try:
        assert other.ready().url != first.ready().url
    finally:
        other.close()
        await wipe(state / "other")


async def test_serve_takes_over_from_an_embedded_one(start: Start):
    embedded = start("--embedded")
    async with embedded.client() as http:
        id = await create(http)
    serve = start("--port", "0")
    async with serve.client() as http:
        assert text(await run(http, id, "echo kept")) == b"kept\n"
    assert embedded.wait() == 0, embedded.said()
    assert serve.ready().embedded is False
    late = start("--embedded")
    assert late.wait() == EXIT_HELD


async def test_an_embedded_one_leaves_when_nobody_needs_it(start: Start):
    idle = {"BELLJAR_IDLE_EXIT": "1.5s"}
    server = start("--embedded", environ=idle)
    async with server.client() as http:
        id = await create(http)
    await asyncio.sleep(2.5)
    assert server.process.poll() is None, "it left although a sandbox lived"
    async with server.client() as http:
        await http.delete(f"/v1/sandboxes/{id}")
        await asyncio.sleep(2.5)
        assert server.process.poll() is None, "it left although a client was there"
    assert await asyncio.to_thread(server.wait, 10) == 0


async def test_shutdown_ends_server_and_sandboxes(start: Start):
    server = start("--embedded")
    async with server.client() as http:
        ids = [await create(http) for _ in range(2)]
        pids = [
            (await http.post(f"/v1/sandboxes/{id}/processes", json={"command": "sleep 60"})).json()["pid"] for id in ids
        ]
        assert all(proc.is_alive(pid) for pid in pids)
        assert (await http.post("/v1/shutdown", json={"sandboxes": True})).status_code == 200
    assert await asyncio.to_thread(server.wait, 10) == 0
    assert not any(proc.is_alive(pid) for pid in pids)


async def test_a_host_that_others_reach_needs_tls_or_a_word(start: Start):
    refused = start("--host", "0.0.0.0", "--port", "0")
    assert refused.wait() == 1
    assert "--insecure" in refused.said()
    allowed = start("--host", "0.0.0.0", "--port", "0", "--insecure")
    assert str(allowed.ready().url).startswith("http://0.0.0.0:")


async def test_tls_is_1_2_at_least_and_leaves_the_unix_socket_plain(start: Start, state: Path):
    certificate, key = state / "cert.pem", state / "key.pem"
    proc.run_sync(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {certificate}".split()
    )
    server = start("--port", "0", "--domain", "localhost", "--tls-cert", str(certificate), "--tls-key", str(key))
    url = str(server.ready().url)
    assert url.startswith("https://localhost:")
    context = ssl.create_default_context(cafile=str(certificate))
    async with httpx2.AsyncClient(verify=context) as http:
        assert (await http.get(f"{url}/health")).json()["status"] == "ok"
        assert (await http.get(f"{url}/v1/info")).status_code == 401
    async with server.client() as http:
        assert (await http.get("/v1/info")).status_code == 200
    old = ssl.create_default_context(cafile=str(certificate))
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with httpx2.AsyncClient(verify=old) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(f"{url}/health")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tls-cert", "/nothing"), "--tls-key"),
        (("--tls-cert", "/nothing", "--tls-key", "/nothing"), "certificate"),
        (("--port", "70000"), "port"),
        (("--host", "no.such.host.invalid"), "no address"),
    ],
)
async def test_a_wrong_command_line_is_told_in_words(start: Start, words: tuple[str, ...], said: str):
    server = start(*words)
    assert server.wait() == 1
    assert said in server.said()
    assert "Traceback" not in server.said()


@ONLY_SQLITE
async def test_a_port_that_is_taken_is_told_in_words(start: Start, state: Path):
    first = start("--port", "0")
    port = str(first.ready().url).rpartition(":")[2]
    other = ServerProcess(state / "other", "--port", port)
    try:
        assert other.wait() == 1
        assert f"port {port}" in other.said()
        assert "Traceback" not in other.said()
    finally:
        other.close()
        await wipe(state / "other")


@pytest.mark.parametrize(
    ("config", "said"),
    [("port = 'x'", "port"), ("colour = 1", "colour"), ("= 3", "config.toml"), ("idle_exit = 'soon'", "soon")],
)
async def test_a_setting_that_is_wrong_is_named(start: Start, state: Path, config: str, said: str):
    (state / "home").mkdir()
    (state / "home" / "config.toml").write_text(config)
    server = start()
    assert server.wait() == 1
    assert said in server.said()
    assert "Traceback" not in server.said()


async def test_settings_come_from_the_file_and_the_environment_wins(start: Start, state: Path):
    (state / "home").mkdir()
    (state / "home" / "config.toml").write_text("host = '127.0.0.2'\nport = 0\n")
    server = start()
    assert str(server.ready().url).startswith("http://127.0.0.2:")
    assert server.end()[0] == 0
    other = start(environ={"BELLJAR_HOST": "127.0.0.3"})
    assert str(other.ready().url).startswith("http://127.0.0.3:")


@pytest.mark.parametrize("mode", [0o777, 0o700])
def test_gvisor_without_root_is_refused_with_the_command_to_run(
    mode: int, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("BELLJAR_HOME", str(state / "home"))
    monkeypatch.setenv("BELLJAR_ENGINE", "gvisor")
    state.chmod(mode)
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        assert main([]) == 1
    finally:
        os.seteuid(before)
    assert "sudo belljar serve" in capsys.readouterr().err
    assert not (state / "home").exists()


def test_the_unit_keeps_the_sandboxes_over_a_restart(state: Path):
    server = ServerProcess(state / "home", "--print-unit")
    try:
        out, _ = server.process.communicate(timeout=30)
        assert b"KillMode=process" in out
        assert b"Delegate=yes" in out
        assert b"-m belljar.server" in out
    finally:
        server.close()


async def test_ctrl_c_is_an_ordered_end(start: Start):
    server = start("--port", "0")
    server.ready()
    assert server.end(signal.SIGINT)[0] == 0
    assert "Traceback" not in server.said()


async def test_a_store_of_a_newer_release_is_refused_in_words(start: Start, state: Path, stored: str | None):
    (state / "home").mkdir()
    if stored is None:
        shutil.copy(state / "belljar.db", state / "home")
    opened = psycopg.connect(stored) if stored else sqlite3.connect(state / "home" / "belljar.db")
    with contextlib.closing(opened) as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
        store.commit()
    newer = start("--embedded")
    assert newer.wait() == 1
    assert "newer Belljar" in newer.said()
    assert "Traceback" not in newer.said()


@contextlib.contextmanager
def deaf_server(home: Path) -> Generator[subprocess.Popen[bytes]]:
    """A process that holds the state directory as an embedded server does, and answers nobody."""
    script = "import sys, time, pathlib; from belljar.base.files import lock_file\n"
    script += "with lock_file(pathlib.Path(sys.argv[1]), about='embedded'): print('held', flush=True); time.sleep(60)"
    home.mkdir()
    with subprocess.Popen([sys.executable, "-c", script, str(home / "lock")], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"held\n"
        yield deaf
        deaf.kill()


async def test_an_end_before_it_is_ready_is_an_ordered_one(start: Start, state: Path):
    with deaf_server(state / "home") as deaf:
        server = start("--port", "0")
        assert await wait_until(lambda: has_said(server, "taking over"), timeout=READY_SECONDS)
        status, seconds = await asyncio.to_thread(server.end)
        assert deaf.poll() is None
    assert (status, seconds < 5) == (0, True)
    assert "Traceback" not in server.said()


async def test_serve_ends_an_embedded_one_that_does_not_answer(start: Start, state: Path):
    with deaf_server(state / "home") as deaf:
        server = start("--port", "0")
        assert await asyncio.to_thread(deaf.wait, READY_SECONDS) == -signal.SIGTERM
        assert (await asyncio.to_thread(server.ready)).embedded is False


async def has_said(server: ServerProcess, words: str) -> bool:
    return words in server.said()


async def test_a_state_directory_that_cannot_be_is_told_in_words(state: Path):
    (state / "file").write_text("")
    server = ServerProcess(state / "file" / "home", "--embedded", log=state / "log")
    try:
        assert server.wait() == 1
        assert "Not a directory" in server.said()
        assert "Traceback" not in server.said()
    finally:
        server.close()


async def test_a_server_tells_on_request_what_it_waits_for(start: Start) -> None:
    server = start("--embedded")
    async with server.client() as http:
        ref = await create(http)
        os.kill(server.pid, signal.SIGUSR2)

        async def told() -> bool:
            return " tasks:" in server.said()

        assert await wait_until(told, timeout=READY_SECONDS)
        assert "most recent call first" in server.said()
        assert "in _until_idle: await stop.wait()" in server.said()
        assert (await http.get(f"/v1/sandboxes/{ref}")).status_code == 200
