"""Belljar as a user has it: SDK, unix socket, server, node, warm pool. A state directory of its own, purged at the end."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import belljar
from belljar.base.home import ServerFile, read_server_file
from belljar.node.holding import owned
from belljar_saved import saved_cases
from measure import idle_memory
from rounds import Case, Sampler, Side

__all__ = ("Server", "belljar_side")

_ODD = {
    "create + echo, CPU 0.7": {"cpu": 0.7},
    "create + echo, own env": {"env": {"MODE": "bench"}},
    "create + echo, own user": {"user": "user"},
    # Nobody waits in these classes, and nobody shall: the pool learns what is asked for.
    "create + echo, pool empty but for one created": {"pool": False},
    "create + echo, 3 CPUs, nobody waits": {"cpu": 3, "pool": False},
    "create + echo, disk 3 GiB, nobody waits": {"disk": "3GiB", "pool": False},
}
_QUIET = 0.6
_PATIENCE = 60.0
_OTHERS = 5.0
"""Seconds: so long is waited for others' work on this machine to pause."""


@contextmanager
def belljar_side(home: Path) -> Iterator[Side]:
    """The environment names `home` as the state directory until the end."""
    with _environment(home):
        server = Server(home)
        try:
            server.start()
            yield Side("Belljar", _cases(server))
        finally:
            subprocess.run([Path(sys.executable).parent / "belljar", "down", "--purge", "--yes"], check=True)


class Server:
    """The server of a state directory, seen from beside it."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def start(self) -> None:
        """It starts with its first sandbox; templates and pool come after."""
        for image in ("base", "code"):
            with belljar.Sandbox.create(image=image):
                pass
            self.settle()

    @property
    def file(self) -> ServerFile:
        found = read_server_file(self._home)
        if found is None:
            raise RuntimeError("no server runs")
        return found

    @property
    def run(self) -> Path:
        return Path(self.file.socket).parent

    def waiting(self) -> frozenset[str]:
        """Ids of those that nobody has claimed yet, the one that is just being made among them."""
        return owned(self.run)

    def settle(self) -> None:
        """Until the pool has members and has not changed for a while, and the machine has time, if it gets any. Raises
        TimeoutError after a minute.
        """
        began = since = time.monotonic()
        before, busy = self.waiting(), _busy()
        while time.monotonic() < began + _PATIENCE:
            time.sleep(0.1)
            now, still = self.waiting(), time.monotonic() - since
            others = _busy() - busy > 0.2 + 0.2 * still and time.monotonic() < began + _OTHERS
            if now != before or not now or others:
                since, before, busy = time.monotonic(), now, _busy()
            elif still > _QUIET:
                return
        raise TimeoutError(f"the pool does not come to rest: {len(self.waiting())} wait")


def _cases(server: Server) -> dict[str, Case]:
    return {
        "hit": lambda: _hit(server),
        "echo": lambda: _first("create + echo, pool empty", ["/bin/echo", "hi"]),
        "node": lambda: _first("create + node -v, pool empty", ["node", "-v"]),
        "odd": lambda: _odd(server),
        "exec": _exec,
        "code": lambda: _code(server),
        "burst": lambda: _burst(server),
        "idle": lambda: _idle(server),
        **saved_cases(),
    }


@contextmanager
def _hit(server: Server) -> Iterator[Sampler]:
    server.start()  # again, if it was idle while others were prepared
    raw = _Raw(server.file.socket)

    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for row, command in (
            ("create + echo, pool hit", ["/bin/echo", "hi"]),
            ("create + node -v, pool hit", ["node", "-v"]),
        ):
            server.settle()
            started = time.perf_counter()
            sandbox = belljar.Sandbox.create(image="base")
            created = time.perf_counter()
            sandbox.run(command, check=True)
            found[row] = time.perf_counter() - started
            found["create, pool hit, SDK"] = created - started
            sandbox.terminate()
        server.settle()
        started = time.perf_counter()
        made = raw.call("POST", "/v1/sandboxes", {"image": "base"})
        found["create, pool hit, server side"] = time.perf_counter() - started
        raw.call("DELETE", f"/v1/sandboxes/{made['id']}")
        return found

    yield sample
    raw.close()


@contextmanager
def _first(row: str, command: list[str]) -> Iterator[Sampler]:
    """Of a class that has no member, not even one that was only created."""

    def sample() -> dict[str, float]:
        started = time.perf_counter()
        sandbox = belljar.Sandbox.create(image="base", memory="700MiB", pool=False)
        created = time.perf_counter()
        sandbox.run(command, check=True)
        answered = time.perf_counter()
        sandbox.terminate()
        return {
            row: answered - started,
            "create, pool empty": created - started,
            "terminate": time.perf_counter() - answered,
        }

    yield sample


@contextmanager
def _odd(server: Server) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for row, how in _ODD.items():
            server.settle()
            started = time.perf_counter()
            sandbox = belljar.Sandbox.create(image="base", **how)  # type: ignore[arg-type]
            sandbox.run(["/bin/echo", "hi"], check=True)
            found[row] = time.perf_counter() - started
            sandbox.terminate()
        return found

    yield sample


@contextmanager
def _exec() -> Iterator[Sampler]:
    with belljar.Sandbox.create(image="base") as sandbox:

        def sample() -> dict[str, float]:
            started = time.perf_counter()
            sandbox.run(["/bin/true"], check=True)
            return {"exec true": time.perf_counter() - started}

        yield sample


@contextmanager
def _code(server: Server) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        server.settle()
        started = time.perf_counter()
        sandbox = belljar.Sandbox.create(image="code")
        created = time.perf_counter()
        assert sandbox.run_code("1+1").text == "2"
        first = time.perf_counter()
        sandbox.run_code("1+1")
        after = time.perf_counter()
        sandbox.terminate()
        return {
            "create code + first run_code, pool hit": first - started,
            "run_code, first call of a sandbox": first - created,
            "run_code, next call": after - first,
        }

    yield sample


@contextmanager
def _burst(server: Server) -> Iterator[Sampler]:
    def one(_: int) -> belljar.Sandbox | None:
        try:
            return belljar.Sandbox.create(image="base")
        except belljar.Error as error:
            print(f"one of the burst: {error}", file=sys.stderr)
            return None

    def sample() -> dict[str, float]:
        server.settle()
        started = time.perf_counter()
        with ThreadPoolExecutor(100) as threads:
            made = list(threads.map(one, range(100)))
        wall = time.perf_counter() - started
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda sandbox: sandbox.terminate(), filter(None, made)))
        return {
            "burst of 100 creates: success": float(sum(sandbox is not None for sandbox in made)),
            "burst of 100 creates: wall": wall,
        }

    yield sample


@contextmanager
def _idle(server: Server) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        server.settle()
        made: list[belljar.Sandbox] = []
        file, folder = server.file, str(server.run)

        def start(_: int) -> None:
            # Not from the pool: its members were there before, and the next ones come while this one is looked at.
            made.append(belljar.Sandbox.create(image="base", pool=False))

        found = idle_memory(start, 10, folder, server=file.pid)
        for sandbox in made:
            sandbox.terminate()
        return {
            "idle memory, unshared": found.unshared,
            "idle memory, fall of what is available": found.dropped,
        }

    yield sample


class _Raw:
    """The server asked by HTTP alone, on a connection that stays open: what a create costs without the SDK."""

    def __init__(self, path: str) -> None:
        self._connection = http.client.HTTPConnection("belljar")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self._connection.request(
            method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
        )
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return json.loads(said) if said else None

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _environment(home: Path) -> Iterator[None]:
    before = dict(os.environ)
    os.environ["BELLJAR_HOME"] = str(home)
    for name in ("BELLJAR_URL", "BELLJAR_API_KEY", "BELLJAR_POOL"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _busy() -> float:
    """Seconds that this machine's processors have worked."""
    with open("/proc/stat", encoding="ascii") as file:
        numbers = [int(word) for word in file.readline().split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")
