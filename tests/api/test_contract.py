"""What the OpenAPI says, tried with generated requests: every answer has a status and a form that it describes.

Over the scripted node, never the fake engine: that one would run the commands that are made up here on this machine.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from tests.api.scripted_node import ScriptedNode

from belljar.base.log import set_up_logging
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.front.native.app import native_app, native_routes
from belljar.front.native.metrics import Metrics
from belljar.model.sandbox import SandboxSpec
from belljar.node.api import NodeApi
from belljar.node.instance import Instance
from belljar.server.listen import serving, tcp_socket
from belljar.server.settings import Settings
from belljar.server.wiring import DATABASE, wired

BOX, PROCESS, CONTEXT = "box", 7, "python"
SLICE, LONG = 3, 400
"""Requests per route that are made up beside those at the edges, which are always there; a few hundred find the rare."""

schema = schemathesis.openapi.from_dict(native_routes().openapi())


@schemathesis.serializer("application/x-tar")
def as_octets(context, value):  # type: ignore[no-untyped-def]
    return value if isinstance(value, bytes) else str(value).encode()


class Live:
    """A server in a thread of its own: the generated calls are blocking ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""
        self.key = ""
        self._ready = threading.Event()
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        node = ScriptedNode()

        @contextlib.asynccontextmanager
        async def open_node(settings: Settings, instance: Instance) -> AsyncGenerator[NodeApi]:
            yield node

        stop = asyncio.Event()
        self._stop = asyncio.get_running_loop(), stop
        async with wired(Settings(), Instance("test02", self.home), open_node) as (product, _):
            _, self.key = await product.keys.make("test")
            await product.sandboxes.create("default", SandboxSpec(name=BOX))
            socket = tcp_socket("127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
            async with serving(native_app(product, stop.set, Metrics(product)), [socket], listener="tcp"):
                self._ready.set()
                await stop.wait()

    def __enter__(self) -> "Live":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        loop, stop = self._stop
        loop.call_soon_threadsafe(stop.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    set_up_logging("error", json=True)
    home = tmp_path_factory.mktemp("contract")
    upgrade(Sqlite(home / DATABASE))
    with Live(home) as server:
        yield server


def ask(case, live: Live) -> None:  # type: ignore[no-untyped-def]
    # What is legal is said in sentences, not in patterns: a refusal of well-formed data is no fault.
    excluded = [positive_data_acceptance]
    if case.meta.generation.mode is GenerationMode.POSITIVE and case.method != "DELETE":
        # Made-up names meet nobody: all that is well-formed goes to a sandbox and a process that are there.
        known = {"ref": BOX, "id": CONTEXT if "/contexts/" in case.path else PROCESS}
        case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
        # Of an address that was changed it counts the letters with their percent signs, and finds a legal one too long.
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=live.url,
        headers={"Authorization": f"Bearer {live.key}"},
        excluded_checks=excluded,
    )


ROUTES = {route.ok().label: route.ok() for route in schema.get_all_operations()}


def bounds(examples: int, **more: object) -> hypothesis.settings:
    health = list(hypothesis.HealthCheck)
    return hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=health, **more
    )


def asking(label: str):  # type: ignore[no-untyped-def]
    """A test of one route: its parameters' and fields' edges, and some more."""

    def test(case, live: Live):  # type: ignore[no-untyped-def]
        ask(case, live)

    return schema.include(name=label).parametrize()(bounds(SLICE, derandomize=True)(test))


for _label in ROUTES:
    # Each under a name of its own: pytest-xdist takes tests of the same name for one, and would run the first.
    _name = re.sub(r"\W+", "_", _label).strip("_").lower()
    globals()[f"test_answers_of_{_name}_are_as_described"] = asking(_label)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", ROUTES)
def test_so_are_many_more(label: str, mode: GenerationMode, live: Live) -> None:
    """Others each time."""

    @bounds(LONG)
    @hypothesis.given(case=ROUTES[label].as_strategy(generation_mode=mode))
    def one(case) -> None:  # type: ignore[no-untyped-def]
        ask(case, live)

    if mode is GenerationMode.NEGATIVE and not ROUTES[label].body and not list(ROUTES[label].iter_parameters()):
        return  # nothing that could be wrong
    one()
