"""Where a server is looked for, and what is said when there is none."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from tests.unit.sdk.scripted import ScriptedServer

import belljar
from belljar.base.home import ServerFile, write_server_file
from belljar.sdk import places
from belljar.sdk._sync import embedded
from belljar.sdk._sync.link import shared_link
from belljar.sdk.patience import listen
from belljar.sdk.places import Settings, find, settings_from
from belljar.sdk.server_log import LogTail


@pytest.fixture(autouse=True)
def no_shared_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "SHARED_SOCKET", tmp_path / "shared.sock")


def settings(home: Path, url: str | None = None, *, may_start: bool = True) -> Settings:
    return Settings(url, None, home, may_start)


def test_a_named_server_comes_first(server: ScriptedServer) -> None:
    place = find(settings(server.path.parent, "http://example.org:8585/"))
    assert place is not None
    assert place.url == "http://example.org:8585"
    assert place.is_remote


def test_the_server_of_the_state_directory_comes_before_the_shared_one(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "shared.sock").touch()
    own = find(settings(server.path.parent))
    assert own is not None
    assert own.socket == str(server.path)
    other = find(settings(tmp_path / "none"))
    assert other is not None
    assert other.socket == str(tmp_path / "shared.sock")


def test_a_bad_address_says_what_a_good_one_is(tmp_path: Path) -> None:
    with pytest.raises(belljar.InvalidArgument, match=r"http://127\.0\.0\.1:8585"):
        find(settings(tmp_path, "ftp://x"))


def test_a_shared_socket_that_is_not_for_this_user_names_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared.sock").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(belljar.PermissionDenied, match="usermod -aG belljar"):
        find(settings(tmp_path, may_start=False))


def test_without_root_the_one_command_is_named(tmp_path: Path) -> None:
    link = belljar.sdk._sync.link.Link(settings(tmp_path, may_start=False))
    with pytest.raises(belljar.ServerUnreachable, match="sudo belljar serve") as caught:
        link.call("GET", "/v1/info")
    assert str(tmp_path) in str(caught.value)


def test_a_named_server_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    link = belljar.sdk._sync.link.Link(settings(tmp_path, "http://127.0.0.1:9"))
    with pytest.raises(belljar.ServerUnreachable, match="BELLJAR_URL"):
        link.call("GET", "/v1/info")
    link.close()


def test_a_key_travels_with_each_call(server: ScriptedServer) -> None:
    link = belljar.sdk._sync.link.Link(Settings(f"unix://{server.path}", "k1", server.path.parent, True))
    link.call("GET", "/v1/sandboxes")
    link.close()
    assert "authorization" not in {name.lower() for name in server.headers[-1]}  # the socket itself is the right


def test_the_environment_is_read_anew(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shared_link()
    monkeypatch.setenv("BELLJAR_URL", f"unix://{server.path}")
    assert shared_link() is not first
    assert settings_from().url == f"unix://{server.path}"


FAKE_SERVER = """
import json, os, sys, time, pathlib, threading
sys.path[:0] = json.loads(os.environ["TEST_PATH"])
from pathlib import Path
from belljar.base.files import lock_file
from belljar.base.home import ServerFile, write_server_file
from tests.unit.sdk.scripted import ScriptedServer
home = Path(os.environ["BELLJAR_HOME"])
print("base image: done in 1.0 s", file=sys.stderr, flush=True)
with lock_file(home / "lock"):
    with open(home / "starts", "a") as file:
        file.write("x")
    time.sleep(0.3)
    script = ScriptedServer(home / "api.sock")
    script.start()
    write_server_file(home, ServerFile(os.getpid(), str(script.path), embedded=True))
    (home / "pid").write_text(str(os.getpid()))
    time.sleep(15)
"""


@pytest.fixture
def startable(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state directory without a server, and a Python whose `belljar.server` is the one above."""
    server.kill()
    home = server.path.parent
    for file in home.iterdir():
        file.unlink()
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{FAKE_SERVER}'\n".replace("'", "'", 1))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("TEST_PATH", json.dumps([str(Path.cwd()), *sys.path]))
    monkeypatch.setenv("BELLJAR_ENGINE", "fake")
    yield home
    for one in embedded._started:
        one.kill()
        one.wait()
    embedded._started.clear()


def test_the_first_call_starts_a_server_and_tells_what_it_does(startable: Path) -> None:
    told: list[str] = []
    stop = listen(told.append)
    assert belljar.Sandbox.create().id
    stop()
    assert told == ["base image: done in 1.0 s"]
    assert (startable / "starts").read_text() == "x"


async def test_of_two_clients_one_starts_it(startable: Path) -> None:
    async def create() -> str:
        return await asyncio.to_thread(lambda: belljar.Sandbox.create().id)

    shared_link()
    assert len(await asyncio.gather(create(), create(), create())) == 3
    assert (startable / "starts").read_text() == "x"


# The HTTP client of the sync side leaves closing a socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_embedded_server_that_was_killed_is_started_again(startable: Path) -> None:
    sandbox = belljar.Sandbox.create()
    embedded._started[0].kill()
    embedded._started[0].wait()
    assert sandbox.info().name == "web"
    assert (startable / "starts").read_text() == "xx"


def test_a_server_that_cannot_start_shows_its_last_words(
    startable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "failing"
    program.write_text("#!/bin/sh\necho engine: cannot be built >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(embedded, "_OTHER_SECONDS", 0.1)
    with pytest.raises(belljar.ServerUnreachable, match="engine: cannot be built"):
        belljar.Sandbox.create()


def test_a_log_shows_plain_lines_and_bad_news(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    file.write_text("old\n")
    tail = LogTail(file)
    with open(file, "a") as log:
        log.write('step one\n{"event": "fine", "level": "info"}\n{"event": "bad", "level": "error"}\nhalf')
    assert tail.lines() == ["step one", "error: bad"]
    with open(file, "a") as log:
        log.write(" line\n")
    assert tail.lines() == ["half line"]
    assert tail.last().splitlines()[-1] == "  half line"


def test_a_server_file_of_a_dead_server_is_no_server(tmp_path: Path) -> None:
    write_server_file(tmp_path, ServerFile(1, str(tmp_path / "gone.sock"), embedded=True))
    assert find(settings(tmp_path)) is None


def test_a_shared_socket_in_a_closed_folder_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert find(settings(tmp_path)) is None


def test_whoever_names_a_state_directory_gets_no_other_server(tmp_path: Path) -> None:
    """Also in the middle of a call whose server was killed: its sandboxes are not the shared server's."""
    (tmp_path / "shared.sock").touch()
    named = settings_from({"BELLJAR_HOME": str(tmp_path / "mine"), "BELLJAR_ENGINE": "fake"})
    assert find(named) is None
    anybody = settings_from({"HOME": str(tmp_path), "BELLJAR_ENGINE": "fake"})
    assert anybody.shared
