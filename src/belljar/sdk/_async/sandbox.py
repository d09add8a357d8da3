"""The sandbox, as its owner holds it."""

import builtins
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

from belljar.base.ids import new_id
from belljar.base.units import Duration, Size
from belljar.model.file import Change
from belljar.model.process import ProcessInfo, PtySize, Stream
from belljar.model.sandbox import DEFAULT_IMAGE, Ended, Network, OnTimer, Status
from belljar.model.stats import StatsPoint
from belljar.sdk._async.attachment import AsyncAttachment
from belljar.sdk._async.branching import AsyncBranching
from belljar.sdk._async.code import AsyncCodeRun
from belljar.sdk._async.context import AsyncContext
from belljar.sdk._async.files import AsyncFiles
from belljar.sdk._async.link import AsyncLink, shared_link
from belljar.sdk._async.path import AsyncSandboxPath
from belljar.sdk._async.process import AsyncProcess
from belljar.sdk._async.running import AsyncRun
from belljar.sdk._async.snapshot import AsyncSnapshot
from belljar.sdk._async.template import AsyncTemplate
from belljar.sdk.answers import context_of, logs_of, process_of, sandbox_of, stats_of, stats_point_of
from belljar.sdk.asking import KEEP, change_body, context_body, duration_of, new_key, process_body, sandbox_body, url
from belljar.sdk.executions import Execution, Result
from belljar.sdk.pure import PathLike, path_text
from belljar.sdk.values import Command, CompletedProcess, Progress, SandboxInfo, SandboxLogs, SandboxStats

__all__ = ("AsyncSandbox",)

_CREATE_SECONDS = 600.0
_END_SECONDS = 120.0
_TURN_SECONDS = 300.0
_CONTEXT_SECONDS = 120.0
_PAGE = 100


class AsyncSandbox(AsyncBranching):
    """A Linux machine of its own under gVisor. Make one with `create`, find one with `get` and `list`.

    >>> async with await AsyncSandbox.create() as sandbox:
    ...     done = await sandbox.run(["python3", "-c", "print(6*7)"], timeout=10)
    ...     print(done.stdout)
    42
    """

    def __init__(self, link: AsyncLink, info: SandboxInfo) -> None:
        """Not for users: see `create` and `get`."""
        super().__init__(link, info)
        self._files = AsyncFiles(link, ("sandboxes", info.id))

    # making and finding ----------------------------------------------------------------------------------------------

    @classmethod
    async def create(
        cls,
        image: str | AsyncSnapshot | AsyncTemplate = DEFAULT_IMAGE,
        *,
        name: str | None = None,
        cpu: float | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
        pids: int | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        network: str | Network = "open",
        lifetime: Duration | None = "1h",
        idle: Duration | None = None,
        on_lifetime: str | OnTimer = "terminate",
        on_idle: str | OnTimer = "pause",
        pool: bool = True,
        reseed: bool = True,
        idempotency_key: str | None = None,
    ) -> Self:
        """Returns when the sandbox is running.

        `image`: the name of an image or a template, a template, or a snapshot. `cpu` (cores), `memory`, `disk` (bytes, or text
        such as ``"512MiB"``) and `pids` are by default 1.0, 1GiB, 10GiB and 1024, or as in the snapshot or template; `env` is
        added to that one's. `lifetime`: seconds, ``"5m"`` or a timedelta from the start, after which `on_lifetime` is done;
        None is unlimited. `on_idle` is done when nobody has used it for `idle`; a use is a call, a stream while it is open,
        and a process with `keep_alive` while it runs. Either is ``"terminate"``, ``"pause"``, ``"standby"`` or ``"stop"``: see
        these methods. `network`: ``"open"`` (the internet, no private addresses) or
        ``"none"``. `workdir` and `user` default to the image's. `pool` False: made anew, none that waits. `reseed` False:
        the global random generators of its code go on as in the snapshot, instead of each clone's its own way. A second
        call with the same `idempotency_key` gives the same sandbox.
        Raises InvalidArgument, ImageNotFound, NotFound (the snapshot), AlreadyExists (the name), NoCapacity, ServerUnreachable.

        >>> sandbox = await AsyncSandbox.create(memory="256MiB", network="none", labels={"job": "7"})
        """
        body = sandbox_body(
            image=image.name if isinstance(image, AsyncTemplate) else image if isinstance(image, str) else None,
            snapshot=image.id if isinstance(image, AsyncSnapshot) else None,
            name=name,
            cpu=cpu,
            memory=memory,
            disk=disk,
            pids=pids,
            env=env,
            labels=labels,
            workdir=workdir,
            user=user,
            network=network,
            lifetime=lifetime,
            idle=idle,
            on_lifetime=on_lifetime,
            on_idle=on_idle,
            pool=pool,
            reseed=reseed,
        )
        link = await shared_link()
        headers = {"idempotency-key": idempotency_key or new_key()}
        answer = await link.call("POST", url("sandboxes"), json=body, headers=headers, timeout=_CREATE_SECONDS)
        return cls(link, sandbox_of(answer))

    @classmethod
    async def get(cls, id_or_name: str) -> Self:
        """The sandbox with this id, or the living one with this name. Raises NotFound."""
        link = await shared_link()
        return cls(link, sandbox_of(await link.call("GET", url("sandboxes", path_text(id_or_name)))))

    @classmethod
    async def list(
        cls,
        *,
        status: str | Status | None = None,
        labels: Mapping[str, str] | None = None,
        image: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Self]:
        """Sandboxes, newest first; the living ones unless `status` is given (``"all"``: ended ones too).

        >>> [sandbox.id async for sandbox in AsyncSandbox.list(labels={"job": "7"})]
        ['sb01…']
        """
        link = await shared_link()
        wanted = {
            "status": str(status) if status is not None else None,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
            "image": image,
        }
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = await link.call("GET", url("sandboxes", limit=size, cursor=cursor, **wanted))
            for item in page["items"]:
                yield cls(link, sandbox_of(item))
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return

    # what it is ------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def name(self) -> str | None:
        return self._info.name

    @property
    def status(self) -> Status:
        """As last seen; `refresh` looks again."""
        return self._info.status

    @property
    def ended(self) -> Ended | None:
        """Reason and time of its end, as last seen; None while it lives."""
        return self._info.ended

    @property
    def last_info(self) -> SandboxInfo:
        """All of it, as last seen."""
        return self._info

    async def info(self) -> SandboxInfo:
        """All that the server knows of it now. Raises NotFound."""
        self._info = sandbox_of(await self._link.call("GET", self._url()))
        return self._info

    async def refresh(self) -> Self:
        """Brings `status`, `ended` and `name` up to date."""
        await self.info()
        return self

    async def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        lifetime: Duration | None = KEEP,
        idle: Duration | None = KEEP,
        cpu: float | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
        pids: int | None = None,
    ) -> SandboxInfo:
        """Replaces the labels, gives it `lifetime` from now on (None: unlimited), another `idle` (None: never), or other limits,
        at once. What is not named stays.

        Programs see the new memory, and as many processors as before. Raises Conflict (more memory is in use, or a snapshot, fork
        or rollback goes on), LimitExceeded (the quota), NoCapacity, NotSupported (the disk of one that runs; one that an earlier
        release made); then nothing is changed.
        """
        body = change_body(labels=labels, lifetime=lifetime, idle=idle, cpu=cpu, memory=memory, disk=disk, pids=pids)
        self._info = sandbox_of(await self._link.call("PATCH", self._url(), json=body))
        return self._info

    async def stats(self) -> SandboxStats:
        """What it uses now, as the host counts it."""
        return stats_of(await self._link.call("GET", self._url("stats")))

    async def stats_history(self, since: Duration | None = None) -> builtins.list[StatsPoint]:
        """What it used lately, the oldest point first: one a minute of the last day, those of the last hour closer together
        (every 30 s, unless the server is set otherwise). `since`: so far back (``"10m"``, seconds, a timedelta); all by
        default. Of a running one, since its server started.

        >>> for point in await sandbox.stats_history("5m"):
        ...     print(point.at, point.cpu_seconds, point.memory)
        """
        seconds = duration_of(since)
        at = None if seconds is None else max(0.0, time.time() - seconds)
        answer = await self._link.call("GET", self._url("stats", "history", since=at))
        return [stats_point_of(item) for item in answer["items"]]

    async def logs(self, limit: int | None = None) -> SandboxLogs:
        """Its newest events, and the last output (`limit` bytes of each stream) of its newest processes; after its end as long as
        they are kept. Raises NotFound when they are not any more."""
        return logs_of(await self._link.call("GET", self._url("logs", limit=limit)))

    async def pause(self) -> None:
        """It stands still in memory and takes no processor; its lifetime and its idle time stand still too. The next call into
        it wakes it. Idempotent.

        Raises Conflict (it rests deeper, or a snapshot, fork or rollback of it goes on), SandboxGone; as do `standby` and `stop`,
        which also raise NoCapacity and DiskFull: then it is as it was.
        """
        await self._turn("pause")

    async def standby(self) -> None:
        """Its memory is on the disk when this returns, and it takes no more of the machine, also over a reboot. The next call
        into it wakes it where it was: processes, variables and open files go on, connections to the outside do not."""
        await self._turn("standby")

    async def stop(self) -> None:
        """Its files are on the disk when this returns; what ran in it is gone. The next call into it starts it from them."""
        await self._turn("stop")

    async def resume(self) -> None:
        """Returns when it runs, from whatever rest. Any call into it does the same. Idempotent. Raises NoCapacity, DiskFull,
        SnapshotCorrupt, SnapshotIncompatible (the engine of a standby is gone), SandboxGone; then it rests on."""
        await self._turn("resume")

    async def start(self) -> None:
        """The same as `resume`, for one that was stopped."""
        await self.resume()

    async def _turn(self, verb: str) -> None:
        self._info = sandbox_of(await self._link.call("POST", self._url(verb), timeout=_TURN_SECONDS))

    async def terminate(self) -> None:
        """Ends it and frees all it held. Idempotent."""
        self._info = sandbox_of(await self._link.call("DELETE", self._url(), timeout=_END_SECONDS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.terminate()

    def __repr__(self) -> str:
        named = f" name={self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{named} {self.status}>"

    # processes -------------------------------------------------------------------------------------------------------

    @overload
    async def run(
        self,
        command: Command,
        *,
        input: str | bytes | None = None,
        timeout: Duration | None = None,
        check: bool = False,
        text: Literal[True] = True,
        cwd: PathLike | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
    ) -> CompletedProcess[str]: ...

    @overload
    async def run(
        self,
        command: Command,
        *,
        input: str | bytes | None = None,
        timeout: Duration | None = None,
        check: bool = False,
        text: Literal[False],
        cwd: PathLike | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        on_stdout: Callable[[bytes], Any] | None = None,
        on_stderr: Callable[[bytes], Any] | None = None,
    ) -> CompletedProcess[bytes]: ...

    async def run(
        self,
        command: Command,
        *,
        input: str | bytes | None = None,
        timeout: Duration | None = None,
        check: bool = False,
        text: bool = True,
        cwd: PathLike | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        on_stdout: Callable[[Any], Any] | None = None,
        on_stderr: Callable[[Any], Any] | None = None,
    ) -> CompletedProcess[Any]:
        """Runs a command to its end, as `subprocess.run`. A string goes to ``/bin/sh -c``, a list is the command's words.

        `input` is given to stdin, which is empty otherwise. `on_stdout` and `on_stderr` get each piece as it comes. With `text`
        output is str (UTF-8, what is none of it replaced; line ends as ``\\n``), else bytes. `env` is added to the sandbox's.
        A return code other than 0 is a result; with `check` it raises ProcessFailed. After `timeout` the whole process group is
        killed and ProcessTimeout has the output so far. Raises NotFound (no such program or cwd), SandboxGone.

        >>> (await sandbox.run("echo $HOME; exit 3")).returncode
        3
        """
        run = AsyncRun(
            self._link,
            self.id,
            command,
            input=input.encode(errors="surrogateescape") if isinstance(input, str) else input,
            timeout=duration_of(timeout),
            text=text,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            user=user,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )
        done = await run.result()
        if check:
            done.check_returncode()
        return done

    async def popen(
        self,
        command: Command,
        *,
        stdin: bool = True,
        pty: bool = False,
        cols: int = 80,
        rows: int = 24,
        cwd: PathLike | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        keep_alive: bool = False,
    ) -> AsyncProcess:
        """Starts a command and returns at once, as `subprocess.Popen` with pipes.

        `pty`: it gets a terminal of `cols` by `rows`. `stdin` False: its input is empty. `keep_alive`: it counts as activity
        while it runs. Raises NotFound (no such program or cwd), PermissionDenied, LimitExceeded (pids), SandboxGone.

        >>> proc = await sandbox.popen("python3 -m http.server", keep_alive=True)
        >>> await proc.detach()
        """
        start = process_body(
            command,
            key=new_key(),
            stdin=stdin,
            env=env,
            cwd=cwd,
            user=user,
            pty=PtySize(cols, rows) if pty else None,
            keep_alive=keep_alive,
        )
        offsets = {Stream.STDOUT: 0} if pty else {Stream.STDOUT: 0, Stream.STDERR: 0}
        joint = AsyncAttachment(self._link, self.id, start=start, offsets=offsets)
        try:
            info = await joint.open()
        except BaseException:
            await joint.aclose()
            raise
        return AsyncProcess(self._link, self.id, info, args=command, joint=joint, stdin=stdin)

    async def processes(self) -> builtins.list[ProcessInfo]:
        """Those running and the newest that ended."""
        answer = await self._link.call("GET", self._url("processes"))
        return [process_of(item) for item in answer["items"]]

    async def process(self, pid: int, from_offset: int = 0) -> AsyncProcess:
        """Attaches to a process that runs (or ended lately) by the number that `ps` shows.

        Its output comes from `from_offset` of each stream on, or from the oldest byte that is kept (16 MiB per stream while
        nobody was attached); `stdout.dropped` says how much was lost before. Raises NotFound.
        """
        info = process_of(await self._link.call("GET", self._url("processes", str(pid), by="pid")))
        return AsyncProcess(self._link, self.id, info, from_offset=from_offset)

    # code ------------------------------------------------------------------------------------------------------------

    async def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        context: "AsyncContext | str | None" = None,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        silent: bool = False,
        user: str | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        on_result: Callable[[Result], Any] | None = None,
        on_call: Callable[[str, str], Any] | None = None,
    ) -> Execution:
        """Runs code with the state that earlier calls left behind, and returns what it showed, printed and raised.

        Without a `context` it runs in the sandbox's own one for the language (and the `user`). Other languages than Python need
        a Jupyter kernel in the image. `env` holds for this call. `silent`: nothing is counted or shown. `timeout` counts the
        code's own time; then it is interrupted, keeps its state, and `error` is a ``TimeoutError``. When its kernel dies `error`
        is ``KernelDied``, and the next call starts anew. `on_stdout`, `on_stderr` and `on_result` get each piece as it comes.
        `on_call(name, payload)` answers ``belljar_host.call(name, payload)`` of the code; what it raises is raised there.
        Raises NotSupported (no such language in the image), NotFound (no such context), SandboxGone.

        >>> await sandbox.run_code("x = 20")
        >>> (await sandbox.run_code("x + 1")).text
        '21'
        """
        create: dict[str, Any] | None = None
        if isinstance(context, AsyncContext):
            where = context.id
        elif context is not None:
            where = context
        else:
            where = language if user is None else f"{language}.{user.replace(':', '.')}"
            create = context_body(where, language, user=user)
        run = AsyncCodeRun(
            self._link,
            self.id,
            where,
            code,
            create=create,
            timeout=duration_of(timeout),
            env=env,
            silent=silent,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            on_result=on_result,
            on_call=on_call,
        )
        return await run.result()

    async def create_context(
        self,
        language: str = "python",
        cwd: PathLike | None = None,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> AsyncContext:
        """A place of its own for code to run in. Raises NotSupported (no such language in the image), NotFound (no such cwd).

        >>> context = await sandbox.create_context("bash", cwd="/tmp")
        """
        body = context_body(new_id("cx"), language, cwd=cwd, env=env, user=user)
        answer = await self._link.call("POST", self._url("contexts"), json=body, timeout=_CONTEXT_SECONDS)
        return AsyncContext(self._link, self.id, context_of(answer))

    async def contexts(self) -> builtins.list[AsyncContext]:
        """Those that there are; the sandbox's own ones bear the name of their language."""
        answer = await self._link.call("GET", self._url("contexts"))
        return [AsyncContext(self._link, self.id, context_of(item)) for item in answer["items"]]

    # files -----------------------------------------------------------------------------------------------------------

    def path(self, path: PathLike) -> AsyncSandboxPath:
        """A path inside, with the methods of `pathlib.Path`. Relative ones start at the workdir."""
        return AsyncSandboxPath(self._files, path)

    async def upload(
        self,
        local: str | os.PathLike[str],
        remote: PathLike,
        *,
        user: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Copies from this machine into the sandbox.

        A file becomes the file `remote` (or lies inside, if that is a directory or ends with a slash); a folder's content goes
        into the directory `remote`. What is copied belongs to `user` (the sandbox's by default). `progress(done, total)` in
        bytes.
        """
        await self._files.upload(Path(local), path_text(remote), user=user, progress=progress)

    async def download(
        self,
        remote: PathLike,
        local: str | os.PathLike[str],
        *,
        skip_unsafe: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Copies from the sandbox to this machine, as `upload` the other way round.

        Nothing lands outside of `local`: an entry that would (a link that leaves it, ``..``, a device) raises UnsafeEntry, or is
        left out with `skip_unsafe`.
        """
        await self._files.download(path_text(remote), Path(local), skip_unsafe=skip_unsafe, progress=progress)

    async def watch(self, path: PathLike, *, recursive: bool = False) -> AsyncIterator[Change]:
        """Changes below `path` from now on, until you leave the loop."""
        async for change in self.path(path).watch(recursive=recursive):
            yield change
