"""A real server process on a state directory, over the real node and the fake engine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import httpx2
from tests.api.conftest import unix_client

from belljar.base.home import ServerFile, read_server_file
from belljar.node.instance import instance_of

__all__ = ("READY_SECONDS", "ServerProcess")

READY_SECONDS = 40.0
"""Not a target (that is 1.5 s, see bench/): what a busy test machine may take."""


class ServerProcess:
    """`words`: arguments of the command line."""

    def __init__(
        self, home: Path, *words: str, environ: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.home = home
        self.environ = environ
        self._err = (log or home.parent / f"{home.name}.err").open("ab+")
        own = {"BELLJAR_HOME": str(home), "BELLJAR_ENGINE": "fake", "BELLJAR_DISK_RESERVE": "1MiB"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "belljar.server", *words],
            stdout=subprocess.PIPE,
            stderr=self._err,
            env=dict(os.environ) | own | {"BELLJAR_MEMORY_RESERVE": "1MiB"} | dict(environ or {}),
            cwd="/",
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """Everything on its standard error so far."""
        return Path(self._err.name).read_text()

    def ready(self) -> ServerFile:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            server = read_server_file(self.home)
            if server is not None and server.pid == self.pid:
                return server
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"not ready in time: {self.said()}"
            time.sleep(0.02)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncGenerator[httpx2.AsyncClient]:
        async with unix_client(Path(self.ready().socket)) as http:
            yield http

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Its exit status, and how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(15), time.monotonic() - started

    def wait(self, timeout: float = READY_SECONDS) -> int:
        return self.process.wait(timeout)

    def line(self) -> dict[str, object]:
        """What it said on standard output."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._err.close()


async def wipe(home: Path, environ: Mapping[str, str] | None = None) -> None:
    """Ends the sandboxes that are left on a state directory, with a server of its own; nothing may remain of them."""
    if not (home / "instance").exists():
        return
    run = instance_of(home).run
    if any((run / "sandboxes").glob("*")):
        last = ServerProcess(home, "--embedded", environ=environ)
        try:
            async with last.client() as http:
                await http.post("/v1/shutdown", json={"sandboxes": True})
            assert last.wait() == 0, last.said()
        finally:
            last.close()
    left = list((run / "sandboxes").glob("*"))
    shutil.rmtree(run, ignore_errors=True)
    assert left == []
