"""Which store a server process uses: one for a state directory, one server for a database, nothing left after a purge."""

import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import psycopg
import pytest
from tests.api.process import ServerProcess, wipe
from tests.api.sdk.belljar_command import Command
from tests.postgres import ONLY_POSTGRES, Cluster

Start = Callable[..., ServerProcess]


@pytest.fixture
async def start(state: Path) -> AsyncGenerator[Start]:
    made: list[ServerProcess] = []

    def start_one(name: str = "home", *words: str, **environ: str) -> ServerProcess:
        made.append(ServerProcess(state / name, *(words or ("--embedded",)), environ=environ))
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    for home, environ in {server.home: server.environ for server in made}.items():
        await wipe(home, environ)


def refused(server: ServerProcess) -> str:
    assert server.wait() == 1
    said = server.said()
    assert "Traceback" not in said
    server.close()
    return said


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


@ONLY_POSTGRES
async def test_a_state_directory_has_one_store(start: Start, state: Path, cluster: Cluster):
    home = state / "home"
    first = start()
    first.ready()
    mark = (home / "database").read_text()
    assert mark.startswith("postgresql://belljar@127.0.0.1:")
    assert not (home / "belljar.db").exists()
    assert first.end()[0] == 0
    assert "no database is set" in refused(start("home", BELLJAR_DATABASE=""))
    with cluster.database(empty=True) as another:
        said = refused(start("home", BELLJAR_DATABASE=another))
        assert "remove the file database" in said
        assert database_of(another) in said
    second = start()
    second.ready()
    assert second.end()[0] == 0
    (home / "database").rename(home / "belljar.db")
    assert "belljar restore" in refused(start())
    (home / "belljar.db").rename(home / "database")


@ONLY_POSTGRES
async def test_a_second_server_on_the_same_database_is_refused_until_the_first_is_dead(start: Start):
    first = start("home")
    async with first.client() as http:
        assert (await http.post("/v1/keys", json={"name": "kept"})).status_code == 201
        assert "another server uses the database" in refused(start("other"))
    first.kill()
    second = start("home")
    async with second.client() as http:
        assert [key["name"] for key in (await http.get("/v1/keys")).json()["items"]] == ["kept"]


@ONLY_POSTGRES
async def test_an_address_on_the_command_line_works_and_its_password_is_nowhere(
    start: Start, state: Path, stored: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("BELLJAR_DATABASE")
    address = stored.replace("belljar@", "belljar:hunter2@")
    gone = start("gone", "--embedded", "--database", address.replace(f":{cluster.port}/", ":1/"))
    assert "cannot be reached" in (said := refused(gone))
    server = start("home", "--embedded", "--database", address)
    async with server.client() as http:
        assert (await http.get("/v1/info")).status_code == 200
    assert server.end()[0] == 0
    files = [path for path in state.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert "hunter2" not in said + server.said() + "".join(path.read_bytes().decode("latin-1") for path in files)
    monkeypatch.setenv("BELLJAR_DATABASE", stored)


@ONLY_POSTGRES
async def test_a_purge_takes_the_tables_along_or_says_that_they_are_left(state: Path, tmp_path: Path, cluster: Cluster):
    with cluster.database(empty=True) as url:

        def left() -> int:
            with psycopg.connect(url) as raw:
                found = raw.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
            assert found is not None
            return int(found[0])

        for address, note in (
            (None, b"no database is set"),
            (url.replace(f":{cluster.port}/", ":1/"), b"are left"),
            (url, b""),
        ):
            own = {"BELLJAR_HOME": str(state / "home"), "BELLJAR_ENGINE": "fake"}
            server = ServerProcess(state / "home", "--embedded", environ={"BELLJAR_DATABASE": url})
            server.ready()
            assert left() > 0
            assert server.end()[0] == 0
            server.close()
            command = Command(dict(os.environ) | own | {"BELLJAR_DATABASE": address or ""}, tmp_path)
            said = command("down", "--purge", "--yes").stderr
            assert (note in said, b"note:" in said) == (True, address != url), said
            assert not (state / "home").exists()
        assert left() == 0
