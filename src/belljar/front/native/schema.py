"""What comes in and goes out, as the OpenAPI shows it. Unknown fields are refused."""

import base64
import binascii
import hashlib
import json
import secrets
import signal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from belljar.control.changes import KEEP, Changes
from belljar.control.origins import Wanted
from belljar.front.native.text import Duration, RawText, Size, Text
from belljar.model.errors import InvalidArgument, TooLarge
from belljar.model.process import ProcessSpec, PtySize
from belljar.model.sandbox import DEFAULT_IMAGE, Network, OnTimer

__all__ = (
    "CreateSandbox",
    "Resize",
    "RunProcess",
    "SendSignal",
    "Shutdown",
    "StartProcess",
    "UpdateSandbox",
)

MAX_INPUT = 1 << 20
_SHELL = ("/bin/sh", "-c")
_OnTimer = Literal["terminate", "pause", "standby", "stop"]
_Mode = Annotated[int, Field(ge=0, le=0o7777)]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class CreateSandbox(In):
    """Sizes are bytes or text such as ``512MiB``, durations seconds or text such as ``5m``; a null lifetime is unlimited.
    `on_lifetime` is done when its lifetime is over, `on_idle` when nobody has used it for so long as `idle` says.

    `image`: of an image or of a template. `snapshot`: id or name of one to go on from. What is not given is as in the snapshot,
    or without one 1 CPU, 1 GiB of memory, 10 GiB of disk, 1024 pids. `pool` false: made anew. `reseed` false: the
    random generators of its code go on as in the snapshot.
    """

    image: Annotated[Text, Field(max_length=512, examples=["base"])] = DEFAULT_IMAGE
    snapshot: Annotated[Text | None, Field(max_length=64)] = None
    name: Annotated[Text | None, Field(description="1 to 63 lower-case letters, digits and inner hyphens")] = None
    cpu: FiniteFloat | None = None
    memory: Annotated[Size | None, Field(examples=["1GiB"])] = None
    disk: Annotated[Size | None, Field(examples=["10GiB"])] = None
    pids: int | None = None
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    workdir: Text | None = None
    user: Text | None = None
    network: Literal["open", "none"] = "open"
    lifetime: Annotated[Duration | None, Field(examples=["1h"])] = 3600.0
    idle: Annotated[Duration | None, Field(examples=["5m"])] = None
    on_lifetime: _OnTimer = "terminate"
    on_idle: _OnTimer = "pause"
    pool: bool = True
    reseed: bool = True

    def wanted(self) -> Wanted:
        wanted = Wanted(
            image=self.image,
            snapshot=self.snapshot,
            name=self.name,
            cpus=self.cpu,
            memory=self.memory,
            disk=self.disk,
            pids=self.pids,
            env=self.env,
            labels=self.labels,
            workdir=self.workdir,
            user=self.user,
            network=Network(self.network),
            lifetime=self.lifetime,
            idle=self.idle,
            on_lifetime=OnTimer(self.on_lifetime),
            on_idle=OnTimer(self.on_idle),
            pool=self.pool,
            reseed=self.reseed,
        )
        wanted.spec()  # what is not legal is refused before anything begins
        return wanted

    def digest(self) -> str:
        """Equal for requests that ask for the same."""
        said = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()


class UpdateSandbox(In):
    """What is not named stays. `lifetime` counts from now on, null is unlimited; a null `idle` is never. `labels` replace those
    that are there.

    `cpu`, `memory` and `pids` hold at once. Programs see the new memory, and as many processors as before. Less memory than is in
    use is a conflict. The disk of a sandbox that runs cannot be changed.
    """

    lifetime: Duration | None = None
    idle: Duration | None = None
    labels: dict[str, str] | None = None
    cpu: FiniteFloat | None = None
    memory: Annotated[Size | None, Field(examples=["2GiB"])] = None
    disk: Size | None = None
    pids: int | None = None

    def changes(self) -> Changes:
        said = self.model_fields_set
        return Changes(
            lifetime=self.lifetime if "lifetime" in said else KEEP,
            idle=self.idle if "idle" in said else KEEP,
            labels=self.labels,
            cpus=self.cpu,
            memory=self.memory,
            disk=self.disk,
            pids=self.pids,
        )


class Pty(In):
    cols: int = 80
    rows: int = 24


class StartProcess(In):
    """Either `argv`, or `command` for ``/bin/sh -c``. A second start with the same `key` gives the process that is there."""

    key: Annotated[Text | None, Field(min_length=1, max_length=64)] = None
    argv: Annotated[list[RawText] | None, Field(examples=[["python3", "-c", "print(6*7)"]])] = None
    command: RawText | None = None
    env: dict[str, RawText] = {}
    cwd: RawText | None = None
    user: Text | None = None
    stdin: Annotated[bool, Field(description="False: its stdin is empty.")] = True
    pty: Pty | None = None
    keep_alive: Annotated[bool, Field(description="Counts as activity while it runs.")] = False

    def spec(self) -> ProcessSpec:
        if (self.argv is None) == (self.command is None):
            raise InvalidArgument("say either argv or command")
        argv = tuple(self.argv) if self.argv is not None else (*_SHELL, self.command or "")
        return ProcessSpec(
            key=secrets.token_hex(16) if self.key is None else self.key,
            argv=argv,
            env=self.env,
            cwd=self.cwd,
            user=self.user,
            stdin=self._wants_stdin(),
            pty=PtySize(self.pty.cols, self.pty.rows) if self.pty else None,
            keep_alive=self.keep_alive,
        )

    def _wants_stdin(self) -> bool:
        return self.stdin


class RunProcess(StartProcess):
    """As the start of a process, but with an empty stdin unless said otherwise.

    `input` (base64, at most 1 MiB) is given to its stdin, which is then closed; with `stdin` alone it stays open for writes.
    """

    stdin: bool = False
    input: Annotated[str | None, Field(json_schema_extra={"format": "byte"})] = None

    def input_bytes(self) -> bytes | None:
        if self.input is None:
            return None
        try:
            data = base64.b64decode(self.input, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument("input is not base64") from None
        if len(data) > MAX_INPUT:
            raise TooLarge(
                f"input has at most {MAX_INPUT >> 20} MiB", hint="start a process and write its stdin in parts"
            )
        return data

    def _wants_stdin(self) -> bool:
        return self.stdin or self.input is not None


class SendSignal(In):
    """`signal` is a number or a name such as ``SIGTERM`` or ``INT``."""

    signal: Annotated[int | Text, Field(examples=["SIGTERM"])]
    group: bool = False

    def number(self) -> int:
        if isinstance(self.signal, int):
            if not 1 <= self.signal <= 64:
                raise InvalidArgument(f"a signal has a number from 1 to 64, not {self.signal}")
            return self.signal
        name = self.signal.upper()
        try:
            return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
        except KeyError:
            raise InvalidArgument(f"no signal {self.signal[:40]!r}", hint="say for example SIGTERM or 15") from None


class Resize(In):
    cols: int
    rows: int

    def size(self) -> PtySize:
        return PtySize(self.cols, self.rows)


class Shutdown(In):
    sandboxes: Annotated[bool, Field(description="True: end every sandbox first.")]


class Listen(In):
    pass


class Backup(In):
    with_keys: Annotated[bool, Field(description="Also the first API key and the keys of snapshots.")] = False
    content: Annotated[bool, Field(description="False: leave out what an object store has.")] = True


class MakeDirectory(In):
    path: RawText
    parents: bool = False
    exist_ok: bool = False
    mode: _Mode = 0o777
    user: Text | None = None


class Remove(In):
    path: RawText
    recursive: bool = False
    missing_ok: bool = False


class Move(In):
    source: RawText
    target: RawText


class Chmod(In):
    path: RawText
    mode: _Mode
    recursive: bool = False


class Chown(In):
    """`user` as for ``chown``: ``name``, ``uid`` or ``name:group``."""

    path: RawText
    user: Text
    recursive: bool = False


class Symlink(In):
    path: RawText
    target: RawText
    user: Text | None = None


class Hardlink(In):
    path: RawText
    target: RawText


class Touch(In):
    path: RawText
    exist_ok: bool = True
    user: Text | None = None


class Out(BaseModel):
    """Answers gain fields over time: readers ignore those they do not know."""


class EndedOut(Out):
    reason: str
    at: float
    message: str


class SandboxOut(Out):
    """Times in seconds since 1970, sizes in bytes, `lifetime` in seconds or null."""

    id: str
    name: str | None
    image: str
    status: Literal[
        "creating", "running", "paused", "standby", "stopped", "terminating", "terminated", "failed", "lost"
    ]
    created: float
    started: float | None
    expires: float | None
    ended: EndedOut | None
    cpu: float
    memory: int
    disk: int
    pids: int
    env: dict[str, str]
    labels: dict[str, str]
    workdir: str | None
    user: str | None
    network: Literal["open", "none"]
    lifetime: float | None
    idle: float | None
    on_lifetime: _OnTimer
    on_idle: _OnTimer
    snapshot: str | None
    parent: str | None


class SandboxPage(Out):
    items: list[SandboxOut]
    next: str | None


class UsageOut(Out):
    """Bytes and seconds, as the host counts them. `disk`: what its files take on the host."""

    memory: int
    memory_limit: int
    cpu_seconds: float
    cpus: float
    processes: int
    disk: int


class StatsPointOut(Out):
    """`at`: seconds since 1970. `cpu_seconds`, `received_bytes` and `sent_bytes` only grow; the others are as they were then."""

    at: float
    cpu_seconds: float
    memory: int
    disk: int
    received_bytes: int
    sent_bytes: int
    processes: int


class StatsHistory(Out):
    """`every`: seconds between the newest points."""

    every: float
    items: list[StatsPointOut]


class StreamStateOut(Out):
    """`start`: the oldest offset that is kept; `end`: the bytes written so far; `dropped`: those lost."""

    start: int
    end: int
    dropped: int
    closed: bool


class ProcessOut(Out):
    """`returncode` is null while it runs and negative for a signal; `stdin` is the offset of input taken so far."""

    id: int
    pid: int
    argv: list[str]
    user: str
    started: float
    pty: bool
    keep_alive: bool
    returncode: int | None
    ended: float | None
    out_of_memory: bool
    stdin: int
    stdout: StreamStateOut
    stderr: StreamStateOut


class ProcessList(Out):
    items: list[ProcessOut]


class TailOut(Out):
    """`attached`: somebody reads its output, which was left alone. Text is decoded as UTF-8 with replacement characters."""

    process: ProcessOut
    attached: bool
    stdout: str
    stderr: str


class FileOut(Out):
    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime: float
    target: str | None


class FilePage(Out):
    items: list[FileOut]
    next: str | None


class OffsetOut(Out):
    offset: int


class EntriesOut(Out):
    entries: int


class Empty(Out):
    pass


class HealthOut(Out):
    status: Literal["ok"]
    version: str
    pid: int


class ListenerOut(Out):
    """`opened`: this call opened it."""

    url: str
    key_file: str
    opened: bool


class InfoOut(Out):
    """`capabilities`: name → empty when available, else the reason why not."""

    version: str
    api: int
    engine: str
    engine_build: str
    images: list[str]
    capabilities: dict[str, str]


class ErrorOut(Out):
    code: str
    message: str
    hint: str | None = None
    retryable: bool
    retry_after: float | None = Field(
        None, ge=0, description="Seconds until the same call may work, where that is known."
    )
    request_id: str
    trace_id: str | None = Field(None, description="Of the trace, where the server's traces are collected.")


class ErrorBody(Out):
    error: ErrorOut


Json = dict[str, Any]
