"""The Engine protocol over ordinary processes: the real agent runs on this machine, as this user, with no walls around it.

So everything above the engine runs without root and in no time, with the same pipes, the same agent, and instances that
outlive the process that made them.
"""

import asyncio
import contextlib
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from belljar.base import proc
from belljar.base.files import close_descriptors, remove_tree, write_atomic
from belljar.base.tasks import in_thread, opened_in_thread, to_the_end, wait_until
from belljar.model.errors import EngineFailed, NotSupported
from belljar.model.sandbox import Limits
from belljar.node.engine.api import (
    Capabilities,
    Capability,
    Channel,
    GuestExit,
    HostObject,
    Instance,
    InstanceSpec,
    InstanceState,
    NetworkAttachment,
    Usage,
)
from belljar.node.engine.fake.files import pack, unpack
from belljar.node.engine.fake.plan import FakePlan
from belljar.node.engine.fake.processes import Marked, marks_with
from belljar.node.engine.pipes import error_text, make_pipes, open_agent_end, open_channel, open_error, remove_pipes
from belljar.node.engine.process import HostProcess, process_of, reap, wait_end
from belljar.node.sources import agent_sources, wire_sources

__all__ = ("FakeEngine",)

_STATE = "fake.json"
_MARK = "BELLJAR_FAKE"
_PAGES = "pages.img"


class FakeEngine:
    """`run` is the folder whose instances this engine owns; `plan` says for each spec how it misbehaves (may be changed)."""

    def __init__(self, run: Path, plan: Callable[[InstanceSpec], FakePlan] | None = None) -> None:
        self._run = run
        self.plan: Callable[[InstanceSpec], FakePlan] = plan or (lambda _: FakePlan())

    @property
    def name(self) -> str:
        return "fake"

    @property
    def platform(self) -> str:
        return "processes"

    async def capabilities(self) -> Capabilities:
        no = Capability(False, "the fake engine runs ordinary processes of this machine")
        files = Capability(False, "a checkpoint of the fake engine has files and no processes")
        return Capabilities(
            isolation=no, checkpoint=files, pause=Capability(True), network=no, limits=no, live_mounts=no
        )

    async def prepare(self, spec: InstanceSpec) -> Instance:
        await in_thread(self._prepare, spec)
        return Instance(spec)

    async def create(self, instance: Instance, *, timeout: float = 30.0) -> Instance:
        plan = self.plan(instance.spec)
        await asyncio.sleep(min(plan.create_delay, timeout))
        if plan.create_delay > timeout:
            raise EngineFailed(f"creating {instance.spec.id} took longer than {timeout:g} s")
        if plan.create_error is not None:
            raise plan.create_error
        if await in_thread(_read_state, instance) is None:
            await in_thread(_write_state, instance, None)
        return instance

    async def start(self, instance: Instance, network: NetworkAttachment | None, *, timeout: float = 30.0) -> None:
        plan = self.plan(instance.spec)
        await asyncio.sleep(min(plan.start_delay, timeout))
        if plan.start_delay > timeout:
            raise EngineFailed(f"starting {instance.spec.id} took longer than {timeout:g} s")
        if plan.start_error is not None:
            raise plan.start_error
        state = await in_thread(_read_state, instance)
        if state is None:
            raise EngineFailed(f"{instance.spec.id} is not created")
        if state.process is None:
            await to_the_end(in_thread(self._start, instance, plan))

    async def restore(
        self, instance: Instance, source: Path, network: NetworkAttachment | None, *, timeout: float = 60.0
    ) -> None:
        """The files of the checkpoint, and an agent that starts anew."""
        state = await in_thread(_read_state, instance)
        if state is None or state.process is None:
            await in_thread(unpack, source / _PAGES, instance.spec.overlay / "root")
        await self.start(instance, network, timeout=timeout)

    async def checkpoint(self, instance: Instance, target: Path, *, timeout: float = 120.0) -> None:
        """The files alone: no process survives it. The names are those of gVisor's."""
        await in_thread(_checkpoint, instance, target)

    async def save_files(
        self, instance: Instance, target: Path, *, limit: int = 1 << 60, timeout: float = 300.0
    ) -> float:
        await in_thread(pack, instance.spec.overlay / "root", target, limit)
        return 0.0

    async def ready_files(self, source: Path, target: Path) -> None:
        raise NotSupported("the fake engine starts from the tar itself")

    async def pause(self, instance: Instance, *, timeout: float = 10.0) -> None:
        await in_thread(self._marked(instance.spec.id).signal, signal.SIGSTOP)

    async def resume(self, instance: Instance, *, timeout: float = 10.0) -> None:
        await in_thread(self._marked(instance.spec.id).signal, signal.SIGCONT)

    async def state(self, instance: Instance, *, timeout: float = 5.0) -> str:
        state = await in_thread(_read_state, instance)
        if state is None:
            return InstanceState.ABSENT
        if state.process is None:
            return InstanceState.CREATED
        return InstanceState.RUNNING if process_of(state.process.pid) == state.process else InstanceState.DEAD

    async def wait(self, instance: Instance) -> GuestExit:
        error = await opened_in_thread(close_descriptors, open_error, instance.spec.folder)
        try:
            # While it is created and not started there is no process to wait for yet.
            await wait_until(lambda: _has_begun(instance), timeout=math.inf)
            state = await in_thread(_read_state, instance)
            if state is not None and state.process is not None:
                await wait_end(state.process)
                reap(state.process.pid)
            return GuestExit(message="" if error is None else await in_thread(error_text, error))
        finally:
            if error is not None:
                os.close(error)

    def open_channel(self, instance: Instance) -> Channel:
        try:
            return open_channel(instance.spec.folder)
        except OSError as error:
            raise EngineFailed(f"opening the pipes of {instance.spec.id}: {error}") from error

    async def usage(self, instance: Instance) -> Usage:
        return await in_thread(_usage, self._marked(instance.spec.id))

    async def cpu_time(self, instance: Instance) -> int | None:
        return round((await self.usage(instance)).cpu_seconds * 1e6) or None

    async def limit(self, instance: Instance, limits: Limits) -> None:
        return

    async def show(self, instance: Instance, limits: Limits) -> None:
        plan = self.plan(instance.spec)
        await asyncio.sleep(plan.show_delay)
        if plan.show_error is not None:
            raise plan.show_error

    async def delete(self, instance: Instance, *, timeout: float = 30.0) -> None:
        if self.plan(instance.spec).stays:
            raise EngineFailed(f"{instance.spec.id} stays, as planned")
        state = await in_thread(_read_state, instance)
        await in_thread(self._marked(instance.spec.id, state and state.process).kill, timeout)
        if state is not None and state.process is not None:
            await wait_end(state.process)
            reap(state.process.pid)
        await in_thread(_remove_files, instance)

    async def residue(self) -> list[HostObject]:
        return await in_thread(self._residue)

    async def close(self) -> None:
        return

    # ------------------------------------------------------------------------------------------------------------------

    def _prepare(self, spec: InstanceSpec) -> None:
        for folder in (spec.folder, spec.overlay, spec.overlay / "root"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if spec.upper is not None:
            unpack(spec.upper, spec.overlay / "root")
        make_pipes(spec.folder)

    def _start(self, instance: Instance, plan: FakePlan) -> None:
        spec = instance.spec
        pipes = open_agent_end(spec.folder)
        try:
            # Its parent is this process or, after that one's death, whoever takes orphans.
            process = proc.start_daemon(self._words(spec, plan), stdio=pipes, env=self._environment(spec))
        except OSError as error:
            raise EngineFailed(f"starting {spec.id}: {error}") from error
        finally:
            for fd in pipes:
                os.close(fd)
        # We reap it ourselves by its id: the object must not warn of a child that still runs when it goes.
        process.returncode = 0
        _write_state(instance, process_of(process.pid) or HostProcess(process.pid, 0))

    def _words(self, spec: InstanceSpec, plan: FakePlan) -> list[str]:
        if plan.crash_on_start:
            return ["/bin/sh", "-c", "echo crashed as planned >&2; exit 3"]
        if plan.never_answers:
            return ["/bin/sleep", "1000000"]
        if plan.talks_nonsense:
            return ["/bin/sh", "-c", "while :; do echo nonsense; sleep 0.01; done"]
        agent = [
            sys.executable,
            "-S",
            "-s",
            "-B",
            "-m",
            "belljar_agent",
            "--plain",
            "--root",
            str(spec.overlay / "root"),
        ]
        if plan.dies_after is None:
            return agent
        # A command in the background of a script reads from nowhere unless it is told otherwise.
        script = f"exec 3<&0; {shlex.join(agent)} <&3 & sleep {plan.dies_after}; kill -9 $!"
        return ["/bin/sh", "-c", script]

    def _environment(self, spec: InstanceSpec) -> dict[str, str]:
        search = f"{agent_sources()}:{wire_sources().parents[1]}"
        return {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": search, _MARK: f"{self._run}/{spec.id}"}

    def _marked(self, id: str, first: HostProcess | None = None) -> Marked:
        return Marked(f"{_MARK}={self._run}/{id}", first)

    def _residue(self) -> list[HostObject]:
        prefix = f"{_MARK}={self._run}/"
        found = [HostObject("process", str(process.pid), value) for process, value in marks_with(prefix)]
        found.extend(HostObject("file", str(file), file.parent.name) for file in self._run.rglob(_STATE))
        return found


@dataclass(frozen=True, slots=True)
class _State:
    """Created, and started if there is a process."""

    process: HostProcess | None


def _read_state(instance: Instance) -> _State | None:
    try:
        data = json.loads((instance.spec.folder / _STATE).read_bytes())
    except FileNotFoundError:
        return None
    return _State(HostProcess(data["pid"], data["started"]) if data else None)


async def _has_begun(instance: Instance) -> bool:
    state = await in_thread(_read_state, instance)
    return state is None or state.process is not None


def _write_state(instance: Instance, process: HostProcess | None) -> None:
    data = None if process is None else {"pid": process.pid, "started": process.started}
    write_atomic(instance.spec.folder / _STATE, json.dumps(data).encode(), durable=False)


def _checkpoint(instance: Instance, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for name in ("checkpoint.img", "pages_meta.img"):
        (target / name).write_bytes(b"fake\n")
    (target / _PAGES).unlink(missing_ok=True)  # room may have been taken in its name
    pack(instance.spec.overlay / "root", target / _PAGES, 1 << 60)


def _remove_files(instance: Instance) -> None:
    remove_pipes(instance.spec.folder)
    remove_tree(instance.spec.folder / _STATE)
    remove_tree(instance.spec.overlay)


def _usage(group: Marked) -> Usage:
    memory, cpu, count = 0, 0.0, 0
    for process in group.processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            folder = Path(f"/proc/{process.pid}")
            memory += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            # its own time, and that of the children whose end it has taken
            cpu += sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
            count += 1
    return Usage(memory, cpu, count)
