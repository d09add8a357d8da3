"""A real server on a state directory of its own, ended and looked after at the end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

import belljar
from belljar.base.home import read_server_file
from belljar.base.proc import is_alive
from belljar.base.tasks import wait_until
from belljar.node.instance import instance_of
from belljar.node.purge import purge
from belljar.node.residue import leaks
from belljar.sdk._sync.link import shared_link
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

__all__ = ("Host", "host")

_BACK = 30.0


@dataclass(frozen=True, slots=True)
class Host:
    """This machine with its own state directory; the SDK starts (and starts again) the embedded server."""

    home: Path
    first: int = 0

    @property
    def pid(self) -> int:
        return int(self._server["pid"])

    @property
    def _server(self) -> dict[str, str]:
        return json.loads((self.home / "server.json").read_text())

    def engine(self) -> str:
        """As the server itself says it: the fake engine's "sandboxes" are processes of this machine."""
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=self._server["socket"]), base_url="http://belljar"
        ) as http:
            return http.get("/v1/info").json()["engine"]

    def server_lives(self) -> None:
        """It is the one that was there all the time."""
        assert self.pid == self.first, "the server was started again"
        assert belljar.Sandbox.list() is not None

    def kill_server(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def back_after_kill(self) -> float:
        """Kills the server; seconds until its successor said that it listens (some client must want one)."""
        before, started = self.pid, time.monotonic()
        os.kill(before, signal.SIGKILL)
        while self.pid == before:
            assert time.monotonic() - started < _BACK, "no client started the server again"
            time.sleep(0.02)
        return time.monotonic() - started

    def leaks(self) -> list[str]:
        """Host objects of this state directory that no living sandbox owns, as `doctor --leaks` lists them."""
        return [f"{thing.kind} {thing.name}" for thing in leaks(instance_of(self.home))]


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    # Not pytest's own folder: sandboxes' kernels run without rights and must be able to pass through.
    folder = Path(tempfile.mkdtemp(prefix="bj-", dir="/tmp"))
    folder.chmod(0o755)
    home = folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BELLJAR_") and name != "BELLJAR_CACHE"]:
            patch.delenv(name)
        patch.setenv("BELLJAR_HOME", str(home))
        yield home
        asyncio.run(_purge(home))
        assert not home.exists()
        shutil.rmtree(folder)


async def _purge(home: Path) -> None:
    if server := read_server_file(home):
        with contextlib.suppress(ProcessLookupError):  # the last test may have killed it
            os.kill(server.pid, signal.SIGTERM)

        async def left() -> bool:
            return not is_alive(server.pid)

        assert await wait_until(left, timeout=10)
    async with open_machine(read_settings(home), instance_of(home)) as machine:
        await purge(machine)


@pytest.fixture
def host(home: Path) -> Iterator[Host]:
    """Asserts afterwards that nothing of the test is left on the machine."""
    belljar.Sandbox.create(network="none").terminate()  # a server runs, all is set up
    # What these tests run would end this machine's own processes if there were no walls around it.
    assert shared_link().call("GET", "/v1/info")["engine"] == "gvisor"
    made = replace(Host(home), first=Host(home).pid)
    assert made.engine() == "gvisor", "abuse would hit this machine"
    others = {sandbox.id for sandbox in belljar.Sandbox.list()}  # of fixtures around the test
    yield made
    for sandbox in belljar.Sandbox.list():
        if sandbox.id not in others:
            sandbox.terminate()
    assert made.leaks() == []
