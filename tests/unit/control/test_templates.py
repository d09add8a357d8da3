"""Templates over a scripted node, and the program that looks whether they are ready, on this machine."""

import asyncio
import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.control.conftest import Control, Plant

from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.control import probe
from belljar.control.origins import Wanted
from belljar.control.snapshots import SnapshotChanges
from belljar.control.store.templates import TemplateRecord
from belljar.model.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DiskFull,
    InvalidArgument,
    NotFound,
    NotSupported,
    TemplateFailed,
)
from belljar.model.process import Exit, Output, ProcessInfo, ProcessSpec, Stream, StreamState
from belljar.model.sandbox import SandboxSpec, Status
from belljar.model.template import Ready, TemplateSpec

HOME = "default"
WEB = TemplateSpec("web", image="base", command="serve", ready=Ready(port=8000))


def live(plant: Plant) -> list[str]:
    return [id for id, box in plant.node.known.items() if box.ended is None]


async def test_a_template_is_a_memory_snapshot_of_a_sandbox_that_has_ended(plant: Plant):
    async with plant.control() as control:
        made = await control.templates.create(HOME, replace(WEB, env={"A": "1"}, labels={"a": "b"}))
        assert made.snapshot is not None
        kept = await control.snapshots.get(HOME, made.snapshot)
        assert (kept.snapshot.template, kept.labels, made.size) == (True, {"a": "b"}, 100)
        assert live(plant) == []
        argvs = [spec.argv for spec, _ in plant.node.inside.started]
        assert argvs[0] == ("/bin/sh", "-c", "serve")
        assert (argvs[1][0], json.loads(argvs[1][-1])["what"]) == ("python3", "port")
        box = await control.sandboxes.create(HOME, Wanted(image="web", env={"B": "2"}))
        assert (box.spec.snapshot, box.spec.image, box.spec.env) == (made.snapshot, "base", {"A": "1", "B": "2"})
    async with plant.control() as control:
        assert await control.templates.get(HOME, "web") == made
        assert [one.spec.name for one in await control.templates.list(HOME)] == ["web"]
        assert await control.templates.list("other") == []
        with pytest.raises(NotFound):
            await control.templates.get("other", "web")


async def _lives(plant: Plant) -> bool:
    return bool(live(plant))


async def test_the_same_recipe_gives_what_is_there_and_another_one_only_if_it_may(plant: Plant):
    async with plant.control() as control:
        first = await control.templates.create(HOME, WEB)
        again = await control.templates.create(HOME, replace(WEB, ready=replace(WEB.ready, timeout=9)))
        assert again.snapshot == first.snapshot
        other = replace(WEB, command="serve better")
        with pytest.raises(AlreadyExists, match="another recipe"):
            await control.templates.create(HOME, other)
        second = await control.templates.create(HOME, other, overwrite=True)
        assert list(plant.node.kept) == [second.snapshot]
        assert (await control.templates.get(HOME, "web")).spec.command == "serve better"
        assert first.snapshot is not None
        with pytest.raises(NotFound, match="replaced"):
            await control.snapshots.get(HOME, first.snapshot)


async def test_one_recipe_is_made_once_for_all_who_ask_and_says_how_far_it_is(plant: Plant):
    async with plant.control() as control:
        plant.node.inside.hold = asyncio.Event()
        calls = [asyncio.create_task(control.templates.create(HOME, WEB)) for _ in range(3)]
        assert await wait_until(lambda: _has_step(control, "waiting for port 8000"), timeout=5)
        with pytest.raises(Conflict, match="another recipe"):
            await control.templates.create(HOME, replace(WEB, command="x"))
        assert [one.step for one in await control.templates.list(HOME)] == ["waiting for port 8000"]
        plant.node.inside.hold.set()
        first, *others = await asyncio.gather(*calls)
        assert all(other == first for other in others)
        assert plant.node.creates == 1


async def _has_step(control: Control, step: str) -> bool:
    return [one.step for one in await control.templates.list(HOME)] == [step]


async def test_giving_up_one_that_is_made_leaves_nothing_and_an_earlier_one_alone(plant: Plant):
    async with plant.control() as control:
        first = await control.templates.create(HOME, WEB)
        plant.node.inside.hold = asyncio.Event()
        call = asyncio.create_task(control.templates.create(HOME, replace(WEB, command="x"), overwrite=True))
        assert await wait_until(lambda: _lives(plant), timeout=5)
        await control.templates.delete(HOME, "web")
        with pytest.raises(Cancelled):
            await call
        assert live(plant) == []
        assert (await control.templates.get(HOME, "web")).snapshot == first.snapshot
        await control.templates.delete(HOME, "web")
        with pytest.raises(NotFound):
            await control.templates.get(HOME, "web")
        with pytest.raises(NotFound):
            await control.templates.delete(HOME, "web")
        assert plant.node.kept == {}
    assert await plant.templates.all() == []


async def test_one_whose_snapshot_fails_leaves_nothing(plant: Plant):
    async with plant.control() as control:
        plant.node.snapshot_failure = DiskFull("full")
        with pytest.raises(DiskFull):
            await control.templates.create(HOME, WEB)
        assert (live(plant), await control.templates.list(HOME), plant.node.kept) == ([], [], {})
    assert await plant.templates.all() == []


async def test_one_that_its_server_did_not_survive_is_ended_at_the_next_start(plant: Plant):
    async with plant.control() as control:
        box = await control.sandboxes.create(HOME, SandboxSpec())
        kept = await control.templates.create(HOME, WEB)
    half = TemplateRecord(new_id("tp"), HOME, replace(WEB, name="half"), box.id, 1.0)
    await plant.templates.begin(half)
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, box.id)).status is Status.TERMINATED
        assert [one.spec.name for one in await control.templates.list(HOME)] == ["web"]
    assert kept.snapshot is not None
    del plant.node.kept[kept.snapshot]
    async with plant.control() as control:
        assert await control.templates.list(HOME) == []


async def test_what_a_template_is_made_of_is_deleted_with_it_alone(plant: Plant):
    async with plant.control() as control:
        made = await control.templates.create(HOME, WEB)
        assert made.snapshot is not None
        with pytest.raises(Conflict, match="template web"):
            await control.snapshots.delete(HOME, made.snapshot)
        with pytest.raises(Conflict, match="template web"):
            await control.snapshots.update(HOME, made.snapshot, SnapshotChanges(ttl=5))
        await control.templates.delete(HOME, "web")
        with pytest.raises(NotFound, match="deleted"):
            await control.snapshots.get(HOME, made.snapshot)


async def test_a_template_does_not_take_the_name_of_an_image(plant: Plant):
    async with plant.control() as control:
        with pytest.raises(AlreadyExists, match="image"):
            await control.templates.create(HOME, replace(WEB, name="base"))
        assert plant.node.creates == 0


class Played:
    """A guest whose processes end as the test says, by the first word of what they run: status and words."""

    def __init__(self, **ends: tuple[int | None, bytes]) -> None:
        self.ends = ends
        self.runs: list[ProcessInfo] = []
        self.killed: list[int] = []

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        word = spec.argv[2].split()[0] if spec.argv[0] == "/bin/sh" else spec.argv[0]
        if word not in self.ends:
            raise NotFound(f"no program {word}")
        status, words = self.ends[word]
        info = ProcessInfo(len(self.runs), 1, (word,), "root", 1.0, stdout=StreamState(0, len(words)))
        self.runs.append(replace(info, returncode=status))
        return info

    async def stat(self, path: str, *, follow: bool = True) -> object:
        if path not in self.ends:
            raise NotFound(f"no {path}")
        return path

    async def detach(self, ref: int) -> None: ...

    async def wait(self, ref: int, *, timeout: float) -> ProcessInfo:
        await asyncio.sleep(0.01)
        return self.runs[ref]

    async def process(self, ref: int) -> ProcessInfo:
        return self.runs[ref]

    async def output(self, ref: int, offsets: object):  # type: ignore[no-untyped-def]
        yield Output(Stream.STDOUT, 0, self.ends[self.runs[ref].argv[0]][1])
        yield Exit(0)

    async def signal(self, ref: int, number: int, *, group: bool = False) -> None:
        self.killed.append(ref)


@pytest.mark.parametrize(
    ("guest", "ready", "kind", "said"),
    [
        (Played(serve=(1, b"no such file")), Ready(), TemplateFailed, "ended with 1:\nno such file"),
        (Played(serve=(None, b"busy")), Ready(timeout=0.05), TemplateFailed, "within 0.05 s:\nbusy"),
        (
            Played(serve=(7, b"bad port"), python3=(None, b"")),
            Ready(port=1),
            TemplateFailed,
            "ended with 7 before there was port 1:\nbad port",
        ),
        (
            Played(serve=(None, b"starting"), python3=(75, b"port 1: refused")),
            Ready(port=1, timeout=3),
            TemplateFailed,
            "no port 1 within 3 s:\nport 1: refused\nthe command said:\nstarting",
        ),
        (Played(serve=(None, b""), python=(1, b"broken")), Ready(url="http://x"), NotSupported, "broken"),
        (
            Played(serve=(None, b"starting")),
            Ready(file="/x", timeout=0.1, interval=0.02),
            TemplateFailed,
            "no file /x within 0.1 s:\nno /x\nthe command said:\nstarting",
        ),
        (
            Played(serve=(None, b""), ask=(3, b"not yet")),
            Ready(command="ask", timeout=0.1, interval=0.02),
            TemplateFailed,
            "no command ask within 0.1 s:\nask ended with 3:\nnot yet",
        ),
        (
            Played(serve=(None, b""), ask=(None, b"hangs")),
            Ready(command="ask", timeout=0.1, interval=0.05),
            TemplateFailed,
            "ask did not end within 0.1 s:\nhangs",
        ),
        (Played(serve=(None, b"")), Ready(process="x"), NotSupported, "no Python"),
    ],
)
async def test_one_that_does_not_become_ready_says_what_was_seen_and_said(
    plant: Plant, guest: Played, ready: Ready, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plant.node, "guest", lambda id: guest)
    async with plant.control() as control:
        with pytest.raises(kind) as caught:
            await control.templates.create(HOME, replace(WEB, ready=ready))
        assert said in str(caught.value)
        assert (live(plant), plant.node.kept) == ([], {})


@pytest.mark.parametrize(
    ("guest", "ready"),
    [
        (Played(**{"serve": (None, b""), "/x": (0, b"")}), Ready(file="/x")),
        (Played(serve=(None, b""), ask=(0, b"")), Ready(command="ask")),
        (Played(serve=(0, b"")), Ready()),
        (Played(serve=(0, b""), python3=(0, b"")), Ready(process="x")),
    ],
)
async def test_one_whose_check_holds_is_made(
    plant: Plant, guest: Played, ready: Ready, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plant.node, "guest", lambda id: guest)
    async with plant.control() as control:
        assert (await control.templates.create(HOME, replace(WEB, ready=ready))).snapshot


async def test_where_the_image_has_no_python_the_agents_own_looks(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    guest = Played(**{"serve": (None, b""), "for": (0, b"")})
    monkeypatch.setattr(plant.node, "guest", lambda id: guest)
    async with plant.control() as control:
        assert (await control.templates.create(HOME, WEB)).snapshot


@pytest.mark.parametrize(
    "ready",
    [
        {"port": 1, "file": "/x"},
        {"port": 0},
        {"port": 65536},
        {"url": "ftp://x"},
        {"file": "relative"},
        {"command": ""},
        {"process": "\0"},
        {"timeout": 0},
        {"timeout": 4000},
        {"interval": 0},
    ],
)
def test_a_check_that_cannot_be_is_refused(ready: dict[str, object]):
    with pytest.raises(InvalidArgument):
        Ready(**ready)  # type: ignore[arg-type]


# what looks ----------------------------------------------------------------------------------------------------------


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def look(what: str, value: object, seconds: float = 2.0) -> str | None:
    return probe.look({"what": what, "value": value}, seconds)


def test_it_sees_ports_and_urls(port: int):
    assert look("port", port) is None
    assert look("url", f"http://127.0.0.1:{port}/200") is None
    assert look("url", f"http://127.0.0.1:{port}/302") is None
    assert look("url", f"http://127.0.0.1:{port}/503") == f"http://127.0.0.1:{port}/503 answered 503"
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    assert "refused" in (look("port", closed) or "")
    assert "refused" in (look("url", f"http://127.0.0.1:{closed}/") or "")
    assert look("url", "http://127.0.0.1:notaport/") is not None


def test_it_sees_processes():
    assert look("process", Path(sys.executable).name) is None
    assert look("process", "no-such-process") == "no process is called no-such-process"


def test_it_ends_with_what_it_saw_last_when_time_is_up():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    check = {"what": "port", "value": port, "timeout": 0.3, "interval": 0.1}
    words = [sys.executable, "-S", "-E", "-s", "-B", "-c", Path(probe.__file__).read_text()]
    done = subprocess.run([*words, json.dumps(check)], capture_output=True, text=True, check=False)
    assert (done.returncode, "refused" in done.stdout) == (75, True)
    waiting = subprocess.Popen([*words, json.dumps(check | {"timeout": 20})])
    with socket.create_server(("127.0.0.1", port)):
        assert waiting.wait(20) == 0
