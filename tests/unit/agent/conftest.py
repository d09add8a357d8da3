"""An agent as an ordinary process over two named pipes, and a client that speaks the wire to it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from belljar.wire.events import Data, Ended, Happened, Response, ServerEvent, Welcomed
from belljar.wire.inflow import InStream
from belljar.wire.outbox import BufferedOut
from belljar.wire.server import ServerSession

ROOT = Path(__file__).resolve().parents[3]
SEARCH = f"{ROOT / 'agent'}:{ROOT / 'src'}"
sys.path.insert(0, str(ROOT / "agent"))


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Reading:
    """An incoming stream: what came so far, and its end."""

    def __init__(self, stream: InStream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.start: int | None = None
        self.ended: Ended | None = None
        self.auto = True


class Client:
    """A server, as far as the wire goes. All calls block until done or `timeout` seconds have passed."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.nonce = os.urandom(16).hex()
        self.session = ServerSession(self.nonce, now=time.monotonic(), wall_time=time.time())
        self.readings: dict[int, Reading] = {}
        self.ends: dict[int, Ended] = {}
        self.responses: dict[int, Response] = {}
        self.events: list[dict[str, Any]] = []
        self.welcome: Welcomed | None = None

    def hello(self, timeout: float = 10.0) -> Welcomed:
        self.until(lambda: self.welcome is not None, timeout)
        assert self.welcome is not None
        return self.welcome

    def ask(self, op: str, timeout: float = 20.0, **args: Any) -> dict[str, Any]:
        return self.answer(self.session.request(op, args), timeout)

    def answer(self, request: int, timeout: float = 20.0) -> dict[str, Any]:
        self.until(lambda: request in self.responses, timeout)
        response = self.responses.pop(request)
        if response.error is not None:
            raise Refused(*response.error)
        assert response.ok is not None
        return response.ok

    def reading(self, *, offset: int = 0, window: int = 1 << 20, floating: bool = False) -> Reading:
        stream = self.session.open_in(offset=offset, window=window, floating=floating)
        self.readings[stream.id] = reading = Reading(stream)
        return reading

    def start(self, *argv: str, key: str | None = None, attach: bool = True, **args: Any) -> dict[str, Any]:
        """Starts a process; with `attach` its outputs are in ``out`` and ``err`` of the answer."""
        args.setdefault("stdin", False)
        if attach:
            out, err = self.reading(), self.reading()
            args.update(stdout=out.stream.id, stderr=err.stream.id, window=1 << 20)
        process = self.ask("start", key=key or os.urandom(8).hex(), argv=list(argv), **args)
        if attach:
            process["out"], process["err"] = out, err
        return process

    def run(self, *argv: str, timeout: float = 20.0, **args: Any) -> tuple[int, bytes, bytes]:
        process = self.start(*argv, **args)
        out, err = process["out"], process["err"]
        self.until(lambda: out.ended and err.ended and self.exit_of(process["id"]), timeout)
        return self.exit_of(process["id"])["returncode"], bytes(out.data), bytes(err.data)

    def exit_of(self, id: int) -> Any:
        for event in self.events:
            if event["event"] == "exit" and event["process"]["id"] == id:
                return event["process"]
        return None

    def wait(self, id: int, timeout: float = 20.0) -> Any:
        self.until(lambda: self.exit_of(id), timeout)
        return self.exit_of(id)

    def out(self) -> BufferedOut:
        return self.session.open_out()

    def ended(self, stream: int, timeout: float = 20.0) -> Ended:
        self.until(lambda: stream in self.ends, timeout)
        return self.ends[stream]

    def until(self, done: Callable[[], Any], timeout: float = 20.0) -> None:
        limit = time.monotonic() + timeout
        while not done():
            left = limit - time.monotonic()
            if left <= 0:
                raise TimeoutError("the agent did not do it in time")
            self.turn(min(left, 0.2))

    def idle(self, seconds: float) -> None:
        """Goes on listening and sending for a while."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self.turn(min(left, 0.05))

    def turn(self, wait: float) -> None:
        now = time.monotonic()
        self.session.tick(now)
        buffers = self.session.buffers()
        readable, writable, _ = select.select([self.read_fd], [self.write_fd] if buffers else [], [], wait)
        if writable:
            with contextlib.suppress(BlockingIOError):
                self.session.wrote(os.writev(self.write_fd, buffers))
        if readable:
            for event in self.session.receive(os.read(self.read_fd, 1 << 18), time.monotonic()):
                self.event(event)

    def event(self, event: ServerEvent) -> None:
        if isinstance(event, Welcomed):
            self.welcome = event
        elif isinstance(event, Response):
            self.responses[event.request] = event
        elif isinstance(event, Data):
            reading = self.readings[event.stream]
            if reading.start is None:
                reading.start = event.offset
            reading.data += event.data
            if reading.auto:
                reading.stream.consumed(len(event.data))
        elif isinstance(event, Ended):
            self.ends[event.stream] = event
            if event.stream in self.readings:
                self.readings[event.stream].ended = event
        elif isinstance(event, Happened):
            self.events.append(event.event)


class Agent:
    """The process and its pipes; `connect` is a new server each time."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        for name in ("in", "out"):
            os.mkfifo(folder / name)
        self.write_fd = os.open(folder / "in", os.O_RDWR | os.O_NONBLOCK)
        self.read_fd = os.open(folder / "out", os.O_RDWR | os.O_NONBLOCK)
        self._log = (folder / "log").open("w+b")
        theirs = os.open(folder / "in", os.O_RDWR), os.open(folder / "out", os.O_RDWR)
        self.process = subprocess.Popen(
            [*words, "--plain", "--root", str(self.root)],
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=self._log,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": SEARCH},
            start_new_session=True,
        )
        for fd in theirs:
            os.close(fd)

    def connect(self) -> Client:
        client = Client(self.read_fd, self.write_fd)
        client.hello()
        return client

    def write(self, data: bytes) -> None:
        """Raw bytes into the pipe to the agent."""
        while data:
            select.select([], [self.write_fd], [], 10)
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self.write_fd, data) :]

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.read_fd)
        os.close(self.write_fd)
        log = self.log()
        self._log.close()
        assert "Traceback" not in log, log


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    plain = Agent(tmp_path, [sys.executable, "-S", "-s", "-B", "-m", "belljar_agent"])
    yield plain
    plain.close()


@pytest.fixture
def agent_of(tmp_path: Path) -> Iterator[Callable[[list[str]], Agent]]:
    """An agent that is started by other words."""
    made: list[Agent] = []

    def make(words: list[str]) -> Agent:
        made.append(Agent(tmp_path, words))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(agent: Agent) -> Client:
    return agent.connect()
