"""Where the checks make their instances: an engine, a way to name what is made, and a session with each agent."""

import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from belljar.base.files import remove_tree
from belljar.base.tasks import in_thread
from belljar.model.errors import Error
from belljar.model.process import Exit, Output, ProcessInfo, ProcessSpec, PtySize, Stream
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Engine, Instance, InstanceSpec
from belljar.node.guest.guest import Guest

__all__ = ("Bed", "Box", "Outcome", "command")

_HELLO = 20.0
SMALL = Limits(cpus=1, memory=256 << 20, disk=256 << 20, pids=256)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended and all that it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes
    out_of_memory: bool

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Box:
    """A running instance and a session with its agent."""

    engine: Engine
    instance: Instance
    guest: Guest

    async def run(
        self,
        *argv: str,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Outcome:
        """To its end."""
        spec = command(*argv, env=env, stdin=input is not None, cwd=cwd, user=user)
        pieces: dict[Stream, list[bytes]] = {Stream.STDOUT: [], Stream.STDERR: []}
        exit = Exit(0)
        async for event in self.guest.start_attached(spec, input or b""):
            if isinstance(event, Output):
                pieces[event.stream].append(event.data)
            elif isinstance(event, Exit):
                exit = event
        return Outcome(
            exit.returncode, b"".join(pieces[Stream.STDOUT]), b"".join(pieces[Stream.STDERR]), exit.out_of_memory
        )

    async def sh(self, script: str, *, user: str | None = None) -> Outcome:
        return await self.run("/bin/sh", "-c", script, user=user)

    async def start(self, *argv: str, pty: PtySize | None = None) -> ProcessInfo:
        return await self.guest.start(command(*argv, pty=pty))

    async def seen(self, process: int, text: bytes, stream: Stream = Stream.STDOUT, *, offset: int = 0) -> int:
        """Reads a stream from `offset` until `text` was in it; the offset behind it. Raises ValueError at the end."""
        gathered = b""
        async with contextlib.aclosing(self.guest.output(process, {stream: offset})) as events:
            async for event in events:
                if isinstance(event, Output):
                    gathered += event.data
                    if (place := gathered.find(text)) >= 0:
                        return offset + place + len(text)
        raise ValueError(f"{text!r} did not come; this did: {gathered[-500:]!r}")


@dataclass(frozen=True, slots=True)
class Bed:
    """`spec` gives everything of a new instance from its id and limits (folders need not exist); `successor` makes a second
    engine object on the same state, as a server after a crash would; `scratch` is an empty folder for checkpoints.
    """

    engine: Engine
    spec: Callable[[str, Limits], InstanceSpec]
    successor: Callable[[], Engine]
    scratch: Path

    def new_spec(self, limits: Limits = SMALL) -> InstanceSpec:
        spec = self.spec(f"cf{secrets.token_hex(6)}", limits)
        spec.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return spec

    @contextlib.asynccontextmanager
    async def made(self, limits: Limits = SMALL) -> AsyncGenerator[Instance]:
        """Created, not started; deleted at the end, and its folder with it."""
        spec = self.new_spec(limits)
        instance = Instance(spec)
        try:
            instance = await self.engine.prepare(spec)
            instance = await self.engine.create(instance)
            yield instance
        finally:
            await self.engine.delete(instance)
            await in_thread(remove_tree, spec.folder)

    @contextlib.asynccontextmanager
    async def box(self, limits: Limits = SMALL) -> AsyncGenerator[Box]:
        async with self.made(limits) as instance:
            await self.engine.start(instance, None)
            async with self.session(self.engine, instance) as box:
                await box.guest.configure(hostname="conformance", pids=limits.pids, workdir="/")
                yield box

    @contextlib.asynccontextmanager
    async def session(self, engine: Engine, instance: Instance) -> AsyncGenerator[Box]:
        guest = await Guest.open(engine.open_channel(instance), on_lost=_lost, timeout=_HELLO)
        try:
            yield Box(engine, instance, guest)
        finally:
            await guest.close()

    def restored(self, instance: Instance) -> Instance:
        """As a successor reads it: what the driver keeps in it went through JSON."""
        return replace(instance, details=json.loads(json.dumps(dict(instance.details))))

    def with_engine(self, engine: Engine) -> Self:
        return replace(self, engine=engine)


def command(
    *argv: str,
    env: Mapping[str, str] | None = None,
    pty: PtySize | None = None,
    stdin: bool = True,
    cwd: str | None = None,
    user: str | None = None,
) -> ProcessSpec:
    return ProcessSpec(secrets.token_hex(8), argv, dict(env or {}), cwd, user, stdin, pty)


def _lost(reason: str, message: str) -> None:
    """Every call of the session fails with it; there is nobody else to tell."""


async def fails_with(kind: type[Error], box: Box, spec: ProcessSpec) -> str:
    """What came instead of the error, or nothing."""
    try:
        info = await box.guest.start(spec)
    except kind:
        return ""
    except Error as error:
        return f"{type(error).__name__}: {error}"
    return f"it started as {info.pid}"
