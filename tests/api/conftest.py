"""Servers for the tests: `front` in this process on a scripted node."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from blockbuster import blockbuster_ctx
from tests.api.scripted_node import ScriptedNode

from belljar.base.log import set_up_logging
from belljar.control.product import Product
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.front.native.app import native_app
from belljar.front.native.metrics import Metrics
from belljar.node.api import NodeApi
from belljar.node.instance import Instance
from belljar.server.listen import serving, tcp_socket, unix_socket
from belljar.server.settings import Settings
from belljar.server.wiring import DATABASE, wired

__all__ = ("Front", "front", "state", "unix_client")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: the steps of the schema take 300 ms."""
    file = tmp_path_factory.mktemp("store") / DATABASE
    upgrade(Sqlite(file))
    return file


@pytest.fixture
def state(stored: str | None, empty_store: Path, monkeypatch: pytest.MonkeyPatch):
    """With a store of each kind. A short one: paths of sockets have at most 108 bytes."""
    set_up_logging("info", json=True)
    with tempfile.TemporaryDirectory(prefix="bj-api-") as folder:
        if stored is None:
            shutil.copy(empty_store, folder)
        else:
            monkeypatch.setenv("BELLJAR_DATABASE", stored)
        yield Path(folder)


def unix_client(socket: Path) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(socket), verify=False), base_url="http://belljar", timeout=20
    )


@dataclass
class Front:
    http: httpx2.AsyncClient
    node: ScriptedNode
    product: Product
    socket: Path
    tcp: str
    stops: list[None]

    async def sandbox(self, **fields: object) -> dict[str, object]:
        answer = await self.http.post("/v1/sandboxes", json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
async def front(state: Path) -> AsyncGenerator[Front]:
    node = ScriptedNode()

    @contextlib.asynccontextmanager
    async def open_node(settings: Settings, instance: Instance) -> AsyncGenerator[NodeApi]:
        yield node

    stops: list[None] = []
    instance = Instance("test01", state)
    async with wired(Settings(), instance, open_node) as (product, _), Metrics(product) as metrics:
        tcp = tcp_socket("127.0.0.1", 0)
        app = native_app(product, lambda: stops.append(None), metrics)
        with unix_socket(state / "api.sock") as socket:
            async with (
                serving(app, [socket], listener="unix"),
                serving(app, [tcp], listener="tcp"),
                unix_client(state / "api.sock") as http,
            ):
                url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
                # A blocking call in the event loop fails the test; starting and ending may read a file.
                with blockbuster_ctx(["belljar.front", "belljar.control"]):
                    yield Front(http, node, product, state / "api.sock", url, stops)
