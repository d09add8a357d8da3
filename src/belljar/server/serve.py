"""A server from its start to its end."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.types import ASGIApp

from belljar.base.files import write_atomic
from belljar.base.home import SHARED_SOCKET, ServerFile, remove_server_file, write_server_file
from belljar.base.log import get_logger
from belljar.control.product import Product
from belljar.front.native.app import native_app
from belljar.front.native.metrics import Metrics
from belljar.model.audit import Act
from belljar.model.errors import Conflict
from belljar.node.instance import instance_of
from belljar.server.hold import EMBEDDED, SERVE, held_home
from belljar.server.listen import Tls, check_address, serving, tcp_socket, unix_socket
from belljar.server.settings import Settings
from belljar.server.stacks import told_on_signal
from belljar.server.state_files import key_file
from belljar.server.tracing import traced
from belljar.server.wiring import OpenNode, wired

__all__ = ("Options", "serve")

_DEFAULT_HOME = Path("/var/lib/belljar")
_LOOK_SECONDS = 0.5
_THREADS = 64
"""For calls that block. asyncio's own number is cores + 4: six slow disks or forks would hold up all else on a small machine."""
_log = get_logger("server")


@dataclass(frozen=True, slots=True)
class Options:
    """`embedded`: the unix socket alone, and it leaves when idle. `domain`: the name under which clients reach it."""

    home: Path
    embedded: bool = False
    host: str = "127.0.0.1"
    port: int = 8585
    insecure: bool = False
    tls: Tls | None = None
    domain: str | None = None


async def serve(
    options: Options, settings: Settings, open_node: OpenNode, on_ready: Callable[[ServerFile], None]
) -> None:
    """Returns when it was asked to end; sandboxes stay. Raises Error when it cannot start."""
    if not options.embedded:
        check_address(options.host, tls=options.tls, insecure=options.insecure)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="blocking"))
    stop = _Stop()
    with stop.on_signals(), told_on_signal():
        try:
            await _serve(options, settings, open_node, on_ready, stop)
        except asyncio.CancelledError:
            if not stop.asked.is_set():
                raise
            _log.info("asked to end before it was ready")


async def _serve(
    options: Options,
    settings: Settings,
    open_node: OpenNode,
    on_ready: Callable[[ServerFile], None],
    stop: "_Stop",
) -> None:
    home = options.home
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(held_home(home, role=EMBEDDED if options.embedded else SERVE))
        await stack.enter_async_context(traced(settings))
        instance = instance_of(home)
        product, live = await stack.enter_async_context(wired(settings, instance, open_node))
        path = instance.run / "api.sock"
        door = _Door(stack, options, product, settings.max_connections, path)
        metrics = await stack.enter_async_context(Metrics(product))
        app = door.app = native_app(product, stop.asked.set, metrics, door)
        sockets = [stack.enter_context(unix_socket(path))]
        if not options.embedded and os.geteuid() == 0 and home == _DEFAULT_HOME:
            sockets.append(stack.enter_context(unix_socket(SHARED_SOCKET, group=True)))
        connections = await stack.enter_async_context(
            serving(app, sockets, listener="unix", connections=settings.max_connections)
        )
        if not options.embedded:
            await door.open()
        said = door.said
        write_server_file(home, said)
        stack.callback(remove_server_file, home)
        # What start-up made stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.enable()
        stop.is_ready()
        on_ready(said)
        if options.embedded:
            await _until_idle(stop.asked, settings.idle_exit, lambda: connections() + live() + door.is_open)
        else:
            await stop.asked.wait()
        _log.info("leaving", sandboxes=live())


class _Stop:
    """SIGTERM, Ctrl-C or a request. Before the server is ready (the first set-up takes minutes) it is broken off."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._starting = asyncio.current_task()

    def is_ready(self) -> None:
        self._starting = None

    @contextlib.contextmanager
    def on_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        if self._starting is not None and not self.asked.is_set():
            self._starting.cancel()
        self.asked.set()


class _Door:
    """The TCP listener: there from the start, or (of an embedded server) opened when somebody asks for one."""

    app: ASGIApp

    def __init__(self, stack: AsyncExitStack, options: Options, product: Product, connections: int, path: Path) -> None:
        """`stack`: what ends with the server."""
        self._stack = stack
        # Whatever was set for a `serve`: nobody said here that other machines may come in.
        own = {"host": "127.0.0.1", "tls": None, "domain": None}
        self._options = replace(options, **own) if options.embedded else options
        self._product = product
        self._connections = connections
        self._opening = asyncio.Lock()
        self.said = ServerFile(os.getpid(), str(path), options.embedded)

    @property
    def key_file(self) -> str:
        return str(key_file(self._options.home))

    @property
    def is_open(self) -> bool:
        return self.said.url is not None

    async def open(self) -> tuple[str, bool]:
        async with self._opening:
            if self.said.url is not None:
                return self.said.url, False
            url = await self._open()
            self.said = replace(self.said, url=url)
            if self._options.embedded:
                write_server_file(self._options.home, self.said)
                _log.info("listening", url=url)
            return url, True

    async def _open(self) -> str:
        """There is a key before anybody can ask."""
        options = self._options
        made = self._listening()
        try:
            await _first_key(self._product, options.home)
            door = serving(self.app, [made], listener="tcp", tls=options.tls, connections=self._connections)
            await self._stack.enter_async_context(door)
        except BaseException:
            made.close()
            raise
        host, port = options.domain or options.host, made.getsockname()[1]
        return f"{'https' if options.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def _listening(self) -> socket.socket:
        """An embedded one takes the usual port if it is free: what was told of it holds for the next server too."""
        options = self._options
        if options.embedded:
            with contextlib.suppress(Conflict):
                return tcp_socket(options.host, options.port)
            return tcp_socket(options.host, 0)
        return tcp_socket(options.host, options.port)


async def _first_key(product: Product, home: Path) -> None:
    file = key_file(home)
    if len(product.keys) and file.exists():
        return
    # Also when the file was removed: a key cannot be had back from its digest, and without one nobody could ask.
    made, secret = await product.keys.make("first")
    act = Act(
        workspace=made.workspace,
        key=None,
        via="server",
        peer=None,
        method="POST",
        route="/v1/keys",
        target=f"/v1/keys/{made.id}",
        status=201,
    )
    await product.audit.write(act)
    write_atomic(file, f"{secret}\n".encode(), mode=0o600)
    _log.info("made an API key", file=str(file))


async def _until_idle(stop: asyncio.Event, patience: float, busy: Callable[[], int]) -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()
    while not stop.is_set():
        if busy():
            last = loop.time()
        elif loop.time() - last >= patience:
            _log.info("nobody needs this server any more", seconds=patience)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_LOOK_SECONDS, patience)):
                await stop.wait()
