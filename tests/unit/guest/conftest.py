"""A guest whose agent is played by the test: honest where it uses the wire's own agent end, hostile where it writes bytes."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from belljar.node.engine.api import Channel
from belljar.node.guest.contexts.kernel import KERNEL
from belljar.node.guest.guest import Guest
from belljar.wire.agent import AgentSession
from belljar.wire.events import AgentEvent, Hello, Request


class Played:
    """The agent's end of two FIFOs. `on` maps an operation to what is answered; `events` are all that came."""

    def __init__(self, folder: Path) -> None:
        for name in ("in", "out"):
            os.mkfifo(folder / name)
        self.folder = folder
        self.reading = os.open(folder / "in", os.O_RDWR | os.O_NONBLOCK)
        self.writing = os.open(folder / "out", os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.session = AgentSession("played", [], 1.0)
        self.events: list[AgentEvent] = []
        self.on: dict[str, Callable[[Request], Any]] = {}
        self.lost: list[tuple[str, str]] = []
        self.gone = asyncio.Event()
        self.deaf = False
        self.mute = False
        self._within = False
        """A frame of somebody else's is half written: answers wait."""
        asyncio.get_running_loop().add_reader(self.reading, self._readable)

    def channel(self) -> Channel:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        return Channel(os.open(self.folder / "out", flags), os.open(self.folder / "in", flags))

    async def guest(self, timeout: float = 5.0) -> Guest:
        return await Guest.open(self.channel(), on_lost=self._lost, timeout=timeout)

    def _lost(self, reason: str, message: str) -> None:
        self.lost.append((reason, message))
        self.gone.set()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.reading, 1 << 20)
            if self.deaf:
                return
            for event in self.session.receive(data):
                self.events.append(event)
                if isinstance(event, Hello):
                    self.deaf = self.deaf or self.mute
                if isinstance(event, Request):
                    self._answer(event)
            self.flush()

    def _answer(self, request: Request) -> None:
        handler = self.on.get(request.op)
        if handler is None:
            self.session.refuse(request.id, "not_supported", f"no {request.op} here")
        elif (answer := handler(request)) is not None:
            self.session.respond(request.id, answer)

    def flush(self) -> None:
        """What the pipe takes now, the rest when it can."""
        loop = asyncio.get_running_loop()
        loop.remove_writer(self.writing)
        if self._within:
            return
        while buffers := self.session.buffers():
            try:
                self.session.wrote(os.writev(self.writing, buffers))
            except BlockingIOError:
                loop.add_writer(self.writing, self.flush)
                return

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self.reading)

    async def flood(self, data: bytes, times: int) -> None:
        """Writes bytes as fast as the server takes them."""
        view = memoryview(data)
        for _ in range(times):
            at = 0
            while at < len(view) and not self.lost:
                try:
                    at += os.write(self.writing, view[at:])
                    self._within = at < len(view)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            self._within = False
            self.flush()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.reading)
        asyncio.get_running_loop().remove_writer(self.writing)
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    made = Played(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def guest(played: Played) -> AsyncIterator[Guest]:
    opened = await played.guest()
    yield opened
    await opened.close()


class Real:
    """The real agent as an ordinary process, its root a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.folder = folder
        for name in ("in", "out"):
            os.mkfifo(folder / name)
        ends = [os.open(folder / name, os.O_RDWR) for name in ("in", "out")]
        for end in ends:
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 20)
        repo = Path(__file__).parents[3]
        self.errors = folder / "errors"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-B", "-m", "belljar_agent", "--plain", "--root", str(self.root)],
                stdin=ends[0],
                stdout=ends[1],
                stderr=errors,
                env={"PYTHONPATH": f"{repo / 'agent'}:{repo / 'src'}", "PATH": os.environ["PATH"]},
                cwd=self.root,
            )
        for end in ends:
            os.close(end)
        self.lost: list[tuple[str, str]] = []

    async def guest(self, timeout: float = 10.0, kernel: str = KERNEL) -> Guest:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        channel = Channel(os.open(self.folder / "out", flags), os.open(self.folder / "in", flags))
        return await Guest.open(
            channel,
            on_lost=lambda reason, message: self.lost.append((reason, message)),
            timeout=timeout,
            kernel=kernel,
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.errors.read_text() == ""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    made = Real(tmp_path)
    yield made
    made.end()


@pytest.fixture
async def inside(real: Real) -> AsyncIterator[Guest]:
    """A guest with the real agent behind it."""
    opened = await real.guest()
    yield opened
    assert not real.lost
    await opened.close()


PROCESS: dict[str, Any] = {
    "id": 1,
    "pid": 7,
    "argv": ["true"],
    "user": "root",
    "started": 1.5,
    "pty": False,
    "returncode": None,
    "ended": None,
    "out_of_memory": False,
    "stdin": 0,
    "stdout": {"start": 0, "end": 0, "dropped": 0, "closed": False},
    "stderr": {"start": 0, "end": 0, "dropped": 0, "closed": False},
}
