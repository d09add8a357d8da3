"""A kernel as the guest runtime lays it out, on each Python of this machine that it is for, over pipes."""

import asyncio
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from belljar.base.home import cache_home
from belljar.node.artifacts import Store
from belljar.node.guest.kernels import find_or_fetch_packages, put_kernel
from belljar.node.progress import Silent

__all__ = ("OLDER", "PYTHONS", "Event", "KernelProcess", "kernel", "kernel_folder", "kernel_of", "on_each_python")

Event = dict[str, Any]
LIMIT = 30.0


def _pythons() -> tuple[dict[str, str], list[str]]:
    """Version → program, one of each that a kernel is for; and programs that are too old."""
    places = [Path(sys.executable), *sorted((Path.home() / ".pyenv/versions").glob("*/bin/python"))]
    names = ("python3", *(f"python3.{minor}" for minor in range(7, 20)))
    places += [Path(found) for name in names if (found := shutil.which(name))]
    fit: dict[str, str] = {}
    older: list[str] = []
    for place in places:
        words = [str(place), "-c", "import sys; print(*sys.version_info[:2])"]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
        if len(said) == 2:
            version = int(said[0]), int(said[1])
            if version >= (3, 9):
                fit.setdefault(f"{version[0]}.{version[1]}", str(place))
            else:
                older.append(str(place))
    return fit, older


PYTHONS, OLDER = _pythons()
on_each_python = pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)


class KernelProcess:
    """Speaks the protocol with one kernel. Each wait has a limit."""

    def __init__(self, words: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd)
        self.longest = 0
        self.raw: list[bytes] = []
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._number = 0
        self._words = b""
        threading.Thread(target=self._read, daemon=True).start()
        self._listening = threading.Thread(target=self._read_words, daemon=True)
        self._listening.start()

    def send(self, **line: Any) -> None:
        self.send_bytes(json.dumps(line).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hello(self) -> Event:
        self.send(op="hello", session="s")
        while (event := self.next())["kind"] != "state":
            pass
        return event

    def next(self, limit: float = LIMIT) -> Event:
        event = self._events.get(timeout=limit)
        assert event is not None, f"the kernel ended: {self.end()}"
        return event

    def start(self, code: str, **more: Any) -> str:
        self._number += 1
        key = f"k{self._number}"
        self.send(op="execute", key=key, code=code, **more)
        return key

    def events(self, key: str, limit: float = LIMIT) -> list[Event]:
        """All events of an execution, with `done`."""
        found: list[Event] = []
        until = time.monotonic() + limit
        while True:
            event = self.next(until - time.monotonic())
            if event.get("key") == key:
                found.append(event)
                assert event["seq"] == len(found), "a number is missing"
                if event["kind"] == "done":
                    return found

    def run(self, code: str, **more: Any) -> "Ran":
        return Ran(self.events(self.start(code, **more)))

    def until(self, key: str, kind: str) -> Event:
        while (event := self.next()).get("key") != key or event["kind"] != kind:
            pass
        return event

    def end(self) -> tuple[int, str]:
        """Waits for it; its exit status and what it said on descriptor 2."""
        status = self.process.wait(LIMIT)
        self._listening.join(LIMIT)
        return status, self._words.decode(errors="replace")

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError, ValueError):
                assert stream is not None
                if stream is self.process.stdin:
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def memory(self) -> int:
        """Bytes resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _read(self) -> None:
        assert self.process.stdout is not None
        parts: list[str] = []
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                self.longest = max(self.longest, len(line))
                value = json.loads(line)
                if "piece" in value:
                    parts.append(value["piece"])
                    if value["more"]:
                        continue
                    value, parts = json.loads("".join(parts)), []
                else:
                    assert not parts, "a line between two pieces"
                self._events.put(value)
        self._events.put(None)

    def _read_words(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stderr:
                self._words += line


class Ran:
    """What an execution said."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.status = events[-1]["status"]
        self.count = events[-1]["count"]
        self.out = self._text("stdout")
        self.err = self._text("stderr")
        self.results = [event for event in events if event["kind"] == "result"]
        errors = [event for event in events if event["kind"] == "error"]
        assert len(errors) <= 1
        self.error = errors[0] if errors else None

    @property
    def main(self) -> dict[str, Any]:
        (found,) = [event["data"] for event in self.results if event["main"]]
        return found

    @property
    def text(self) -> str:
        return self.main["text/plain"]

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.results if not event["main"]]

    def _text(self, kind: str) -> str:
        return "".join(event["text"] for event in self.events if event["kind"] == kind)


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the guest runtime has it; IPython comes from the store of the set-up."""
    packages = asyncio.run(find_or_fetch_packages(Store(cache_home()), Silent()))
    folder = tmp_path_factory.mktemp("runtime") / "kernel"
    put_kernel(packages.folder, folder)
    return folder


@pytest.fixture
def kernel_of(kernel_folder: Path, tmp_path: Path) -> Iterator[Callable[..., KernelProcess]]:
    """Starts kernels, in a folder and a home of their own."""
    made: list[KernelProcess] = []

    def start(python: str = sys.executable, language: str = "python", **env: str) -> KernelProcess:
        words = [python, str(kernel_folder / "start.py"), "--context", "c", "--language", language]
        plain = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        made.append(KernelProcess(words, {**plain, "HOME": str(tmp_path), **env}, tmp_path))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def kernel(kernel_of: Callable[..., KernelProcess]) -> KernelProcess:
    return kernel_of()
