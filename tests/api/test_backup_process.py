"""Backup and restore of whole servers: real processes, the real node, the fake engine, and the command."""

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.api.process import ServerProcess, wipe
from tests.api.sdk.belljar_command import Command
from tests.api.test_backup import unpacked
from tests.postgres import ONLY_SQLITE

from belljar.base.home import read_server_file
from belljar.base.tasks import wait_until
from belljar.model.audit import entries_of, verify

Start = Callable[..., ServerProcess]
BIG = random.Random(5).randbytes(6 << 20)
"""More than sockets hold: whoever does not read it keeps a backup from its end."""


@pytest.fixture
def another(stored: str | None, request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    """Where the store of a second server is, as its environment."""
    if stored is None:
        yield {}
        return
    with request.getfixturevalue("cluster").database(empty=True) as url:
        yield {"BELLJAR_DATABASE": url}


@pytest.fixture
async def start(state: Path, another: dict[str, str]) -> AsyncGenerator[Start]:
    """Its servers end before their databases go."""
    made: list[ServerProcess] = []

    def start_one(name: str = "home", **more: Any) -> ServerProcess:
        made.append(ServerProcess(state / name, "--embedded", **more))
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    for home, environ in {server.home: server.environ for server in made}.items():
        await wipe(home, environ)


@pytest.fixture
def command(state: Path, tmp_path: Path) -> Command:
    own = {"BELLJAR_HOME": str(state / "home"), "BELLJAR_ENGINE": "fake"}
    return Command(dict(os.environ) | own, tmp_path)


async def box_with(http: httpx2.AsyncClient, path: str, content: bytes, **fields: object) -> str:
    made = await http.post("/v1/sandboxes", json=fields)
    assert made.status_code == 201, made.text
    id = made.json()["id"]
    put = await http.put(f"/v1/sandboxes/{id}/files/content?path={path}&upload=u", content=content)
    assert put.status_code == 200, put.text
    return id


async def keep(http: httpx2.AsyncClient, box: str, **fields: object) -> str:
    made = await http.post(f"/v1/sandboxes/{box}/snapshots", json=fields)
    assert made.status_code == 201, made.text
    return made.json()["id"]


async def items(http: httpx2.AsyncClient, path: str) -> Any:
    return (await http.get(path)).json()["items"]


def places(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.home / "snapshots").iterdir()}


async def test_a_restored_server_has_what_the_old_one_had(
    start: Start, command: Command, state: Path, another: dict[str, str]
) -> None:
    old = start(environ={"BELLJAR_COOL_AFTER": "0s"})
    target = command.cwd / "belljar.tar.zst"
    async with old.client() as http:
        assert (await http.post("/v1/workspaces", json={"id": "team", "quota": {"sandboxes": 3}})).status_code == 201
        key = (await http.post("/v1/keys", json={"name": "ci", "scope": "run", "workspace": "team"})).json()
        await http.post("/v1/keys", json={"name": "ops", "scope": "admin"})
        box = await box_with(http, "/kept", BIG[: 1 << 20], name="web", labels={"a": "b"})
        kept = await keep(http, box, name="moment", labels={"c": "d"}, ttl=86400)
        gone = await keep(http, box, name="gone")
        await http.delete(f"/v1/snapshots/{gone}")
        said = json.loads((await asyncio.to_thread(command, "backup", str(target), "--json")).stdout)
        assert (said["file"], said["left_out"]) == (str(target), {})
        assert target.stat().st_mode & 0o777 == 0o600
        elsewhere = [word for url in another.values() for word in ("--database", url)]
        done = await asyncio.to_thread(command, "restore", str(target), "--home", str(state / "new"), *elsewhere)
        assert done.stdout.decode().strip() == str(state / "new")
        assert b"2 workspaces, 2 keys, 1 snapshots, 0 templates; 1 sandboxes that ran are lost" in done.stderr
        new = start("new", environ=another)
        async with new.client() as there:
            assert await items(there, "/v1/keys") == await items(http, "/v1/keys")
            spaces = [
                [
                    {name: item[name] for name in ("id", "created", "quota")}
                    for item in await items(one, "/v1/workspaces")
                ]
                for one in (http, there)
            ]
            assert spaces[0] == spaces[1]
            assert len(spaces[0]) == 2
            names = ("id", "name", "kind", "labels", "expires", "created", "size", "sandbox")
            for one in (http, there):
                (found,) = await items(one, "/v1/snapshots")
                assert (found["id"], found["name"]) == (kept, "moment")
            assert [[item[name] for name in names] for item in await items(there, "/v1/snapshots")] == [
                [item[name] for name in names] for item in await items(http, "/v1/snapshots")
            ]
            log, new_log = [(await one.get("/v1/audit/export")).content.splitlines(True) for one in (http, there)]
            assert len(new_log) == len(log) - 1, "the backup's own entry is not in it"
            assert log[: len(new_log)] == new_log
            assert verify(entries_of(new_log)).broken is None
            lost = (await there.get(f"/v1/sandboxes/{box}")).json()
            assert (lost["status"], lost["ended"]["reason"]) == ("lost", "restored")
            assert "backup" in lost["ended"]["message"]
            assert (await http.get(f"/v1/sandboxes/{box}")).json()["status"] == "running"
            twin = (await there.post("/v1/sandboxes", json={"snapshot": "moment"})).json()["id"]
            assert (await there.get(f"/v1/sandboxes/{twin}/files/content?path=/kept")).content == BIG[: 1 << 20]
            # The log goes on where the copy ended.
            after = (await there.get("/v1/audit/export")).content.splitlines(True)
            assert len(after) == len(new_log) + 1
            assert verify(entries_of(after)).broken is None
        assert (old.home / "instance").read_text() != (new.home / "instance").read_text()
        assert (old.home / "snapshots.owner").read_text() != (new.home / "snapshots.owner").read_text()
    assert key["secret"].startswith("bjk_")


@ONLY_SQLITE  # the next server would have the same database
async def test_everything_goes_on_while_a_backup_is_made(start: Start, command: Command, state: Path) -> None:
    server = start()
    async with server.client() as http, server.client() as other:
        box = await box_with(http, "/big", BIG, name="web")
        kept = [await keep(http, box, name=f"s{number}") for number in range(3)]
        parts: list[bytes] = []
        async with http.stream("POST", "/v1/backup", json={}) as answer:
            assert answer.status_code == 200
            pieces = answer.aiter_raw()
            parts.append(await anext(pieces))
            for id in kept[1:]:
                assert (await other.delete(f"/v1/snapshots/{id}")).status_code == 200
            late = await keep(other, box, name="late")
            await box_with(other, "/x", b"1", name="newer")
            assert [item["id"] for item in await items(other, "/v1/snapshots")] == [late, kept[0]]
            assert places(server) >= set(kept), "what the backup needs is on the disk"
            parts += [piece async for piece in pieces]
        data = b"".join(parts)
        _, files, end = unpacked(data)
        assert {name.split("/")[1] for name in files if name.startswith("snapshots/")} == set(kept)
        assert end["left_out"] == {}

        async def are_gone() -> bool:
            return places(server) == {kept[0], late}

        assert await wait_until(are_gone, timeout=20)
    await asyncio.to_thread(command, "restore", "-", "--home", str(state / "new"), input=data)
    new = start("new")
    async with new.client() as there:
        assert {item["id"] for item in await items(there, "/v1/snapshots")} == set(kept)
        for id in kept:
            twin = (await there.post("/v1/sandboxes", json={"snapshot": id})).json()["id"]
            assert (await there.get(f"/v1/sandboxes/{twin}/files/content?path=/big")).content == BIG
        assert (await there.get("/v1/sandboxes/newer")).status_code == 404


async def test_kill_9_in_the_middle_leaves_no_hold_and_nothing_half(start: Start) -> None:
    first = start()
    async with first.client() as http, first.client() as other:
        box = await box_with(http, "/big", BIG)
        kept, deleted = await keep(http, box), await keep(http, box)
        with pytest.raises(httpx2.HTTPError):
            async with http.stream("POST", "/v1/backup", json={}) as answer:
                pieces = answer.aiter_raw()
                data = await anext(pieces)
                assert (await other.delete(f"/v1/snapshots/{deleted}")).status_code == 200
                assert places(first) == {kept, deleted}
                first.kill()
                async for piece in pieces:
                    data += piece
    second = start()
    async with second.client() as http:
        assert [item["id"] for item in await items(http, "/v1/snapshots")] == [kept]
        assert places(second) == {kept}
        assert [path.name for path in second.home.glob(".*")] == []
        assert len(unpacked((await http.post("/v1/backup", json={})).content)[1]) > 2


@contextlib.asynccontextmanager
async def cut_after(server: ServerProcess, most: int, end: asyncio.Event) -> AsyncGenerator[str]:
    """An address behind which an answer stops after so many bytes, and breaks off when the event is set."""
    socket = server.ready().socket

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (data := await reader.read(min(left, 65536))):
            left -= len(data)
            writer.write(data)
            await writer.drain()
        if left <= 0:
            await end.wait()
        writer.transport.abort()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, to_server = await asyncio.open_unix_connection(socket)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, to_server, 1 << 40), pump(inner, writer, most))

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as proxy:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("who", ["connection", "client"])
async def test_a_backup_that_breaks_off_leaves_no_file_of_its_name(start: Start, command: Command, who: str) -> None:
    server = start()
    end = asyncio.Event()
    target = command.cwd / "b.tar.zst"
    target.write_bytes(b"the one of yesterday")
    async with server.client() as http, cut_after(server, 2 << 20, end) as url:
        box = await box_with(http, "/big", BIG)
        kept = await keep(http, box)
        command.environ["BELLJAR_URL"] = url
        running = command.start("backup", str(target), "--yes")

        async def has_begun() -> bool:
            return any(path.stat().st_size > 1 << 20 for path in command.cwd.glob(".b.tar.zst.*.part"))

        assert await wait_until(has_begun, timeout=30)
        await http.delete(f"/v1/snapshots/{kept}")
        assert places(server) == {kept}
        if who == "client":
            running.kill()
        end.set()
        said = (await asyncio.to_thread(running.communicate, timeout=30))[1]
        if who == "connection":
            assert (running.returncode, b"broke off" in said) == (1, True), said
            assert [path.name for path in command.cwd.iterdir()] == ["b.tar.zst"]
        assert target.read_bytes() == b"the one of yesterday"

        async def is_let_go() -> bool:
            return places(server) == set()

        assert await wait_until(is_let_go, timeout=20)


async def test_lines_that_make_no_sense_and_files_that_are_none(start: Start, command: Command, state: Path) -> None:
    assert b"either" in command("backup", "-", "--json", status=2).stderr
    assert b"is a folder" in command("backup", ".", status=2).stderr
    assert b"no folder" in command("backup", "no/such/b.tar.zst", status=2).stderr
    assert b"no file" in command("restore", "no-such", "--home", str(state / "x"), status=2).stderr
    (command.cwd / "junk").write_bytes(b"junk" * 1000)
    said = command("restore", "junk", "--home", str(state / "x"), status=1).stderr
    assert b"cannot be restored" in said
    assert not (state / "x").exists()
    server = start()
    server.ready()
    said = command("restore", "junk", "--home", str(server.home), status=1).stderr
    assert b"not an empty folder" in said
    piped = (await asyncio.to_thread(command, "backup", "-")).stdout
    assert "belljar.db" in unpacked(piped)[1]
    assert read_server_file(server.home) is not None
    assert (
        b"nowhere else"
        in (await asyncio.to_thread(command, "backup", "x.tar.zst", "--without-content", status=1)).stderr
    )
    assert not (command.cwd / "x.tar.zst").exists()
