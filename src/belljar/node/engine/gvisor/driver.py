"""gVisor behind the Engine protocol: the command line makes and deletes, everything between goes over the control socket."""

import asyncio
import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from belljar.base.files import close_descriptors, remove_tree
from belljar.base.mounts import unmount_below
from belljar.base.tasks import in_thread, opened_in_thread
from belljar.model.errors import EngineFailed, InvalidArgument, NotSupported
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
from belljar.node.engine.gvisor import control
from belljar.node.engine.gvisor.build import EngineBuild
from belljar.node.engine.gvisor.cgroup import Cgroups, find_hierarchies
from belljar.node.engine.gvisor.failures import deadline, engine_failed, translated
from belljar.node.engine.gvisor.kernel import find_kernel
from belljar.node.engine.gvisor.layout import (
    PAUSED,
    READY,
    SAVING,
    make_files,
    panic_text,
    remove_files,
    root_of,
    socket_of,
    state_file,
)
from belljar.node.engine.gvisor.network import network_arguments
from belljar.node.engine.gvisor.ready import make_ready
from belljar.node.engine.gvisor.residue import engine_processes, residue
from belljar.node.engine.gvisor.runsc import Runsc
from belljar.node.engine.gvisor.saving import finished, saved
from belljar.node.engine.gvisor.spec import shown_cpus
from belljar.node.engine.pipes import error_text, open_channel, open_error
from belljar.node.engine.process import (
    HostProcess,
    become_subreaper,
    dead_children,
    kill_process,
    process_of,
    reap,
    reap_ending,
    wait_end,
    written_by,
)

__all__ = ("CHECKPOINT_FILES", "GvisorEngine")

CHECKPOINT_FILES = ("checkpoint.img", "pages_meta.img", "pages.img")
"""In the order in which their descriptors travel."""
_SHOW = 5.0
_ID: Final = re.compile(r"[a-z0-9]{1,40}")
_STATES = {1: InstanceState.CREATED, 2: InstanceState.RUNNING, 3: InstanceState.DEAD}


class GvisorEngine:
    """`run` is a short folder of our own on tmpfs (control sockets live below it), `cgroup` the parent of all instances'
    groups, `resolve` finds an engine build by its key and raises EngineFailed or NotFound when it is not here.
    """

    def __init__(self, run: Path, cgroup: str, resolve: Callable[[str], EngineBuild]) -> None:
        self._roots = run / "r"
        self._cgroup = cgroup
        self._runsc = Runsc(resolve)
        self._saving: set[str] = set()
        self._groups = Cgroups(find_hierarchies(Path("/proc/self/mountinfo").read_text()))

    @property
    def name(self) -> str:
        return "gvisor"

    @property
    def platform(self) -> str:
        return f"systrap/{platform.machine()}"

    async def capabilities(self) -> Capabilities:
        yes = Capability(True)
        limits = Capability(not self._groups.problem, self._groups.problem)
        return Capabilities(isolation=yes, checkpoint=yes, pause=yes, network=yes, limits=limits, live_mounts=yes)

    async def prepare(self, spec: InstanceSpec) -> Instance:
        if not _ID.fullmatch(spec.id):
            raise InvalidArgument(f"an instance id is 1 to 40 lower-case letters and digits, not {spec.id[:60]!r}")
        root = root_of(self._roots, spec.build)
        if len(os.fsencode(socket_of(root, spec.id))) > control.MAX_SOCKET_PATH:
            raise EngineFailed(f"{root} is too long a path for control sockets", hint="use a shorter run folder")
        try:
            await in_thread(self._prepare, spec, root)
        except OSError as error:
            raise translated(f"preparing {spec.id}", error) from error
        return Instance(spec, {"root": str(root)})

    async def create(self, instance: Instance, *, timeout: float = 30.0) -> Instance:
        spec, root = instance.spec, self._root(instance)
        kernel, _ = await in_thread(find_kernel, root, spec.id)
        if kernel is None:
            become_subreaper()
            groups = () if self._groups.problem else self._groups.folders(spec.cgroup)
            await self._runsc.create(spec, root, groups, timeout=timeout)
            kernel, _ = await in_thread(find_kernel, root, spec.id)
            if kernel is None:
                raise EngineFailed(
                    f"creating {spec.id}: the kernel ended at once: {panic_text(spec.folder) or 'it said nothing'}"
                )
        return replace(instance, details={**instance.details, "pid": str(kernel.pid), "started": str(kernel.started)})

    async def start(self, instance: Instance, network: NetworkAttachment | None, *, timeout: float = 30.0) -> None:
        if await self.state(instance) == InstanceState.RUNNING:
            return
        async with deadline(f"starting {instance.spec.id}", timeout):
            await self._set_network(instance, network, restoring=False, timeout=timeout)
            await self._call(instance, "containerManager.StartRoot", instance.spec.id, timeout=timeout)
            await self.limit(instance, instance.spec.limits)
        await in_thread(remove_tree, instance.spec.overlay / READY)  # open in the kernel, if it was there

    async def restore(
        self, instance: Instance, source: Path, network: NetworkAttachment | None, *, timeout: float = 60.0
    ) -> None:
        try:
            files = await opened_in_thread(close_descriptors, _open_all, source, os.O_RDONLY)
        except OSError as error:
            raise translated(f"opening the checkpoint {source.name}", error) from error
        try:
            async with deadline(f"restoring {instance.spec.id}", timeout):
                await self._set_network(instance, network, restoring=True, timeout=timeout)
                argument = {"HavePagesFile": True, "HaveDeviceFile": False, "Background": False}
                await self._call(instance, "containerManager.Restore", argument, descriptors=files, timeout=timeout)
                await self.limit(instance, instance.spec.limits)
        finally:
            close_descriptors(files)

    async def checkpoint(self, instance: Instance, target: Path, *, timeout: float = 120.0) -> None:
        files: list[int] = []
        done = False
        try:
            await in_thread(lambda: target.mkdir(0o700, exist_ok=True))
            # Not truncated: its owner may have taken room for the pages.
            files = await opened_in_thread(close_descriptors, _open_all, target, os.O_RDWR | os.O_CREAT)
            argument = {
                "key": None,
                "metadata": {"compression": "none"},
                "have_pages_file": True,
                "Resume": True,
                "app_mf_exclude_committed_zero_pages": False,
            }
            await self._call(instance, "containerManager.Checkpoint", argument, descriptors=files, timeout=timeout)
            done = True
        except control.KernelRefused as error:
            raise engine_failed(error.message) from error
        except OSError as error:
            raise translated(f"writing the checkpoint {target.name}", error) from error
        finally:
            close_descriptors(files)
            if not done and files:
                await in_thread(remove_tree, target)

    async def save_files(
        self, instance: Instance, target: Path, *, limit: int = 1 << 60, timeout: float = 300.0
    ) -> float:
        kernel = await in_thread(self._kernel, instance)
        if kernel is None:
            raise control.KernelGone(f"saving the files of {instance.spec.id}: its kernel is gone")
        async with deadline(f"saving the files of {instance.spec.id}", timeout):
            try:
                async with saved(kernel, instance.spec.overlay, target) as files, self._standing(instance) as stood:
                    argument = {"exit_after_saving": False, "use_checkpoint_gofer": False}
                    await self._call(
                        instance, "containerManager.FSSave", argument, descriptors=files.descriptors, timeout=timeout
                    )
                    await files.fill(limit)
            except control.KernelRefused as error:
                raise engine_failed(error.message) from error
            except OSError as error:
                raise translated(f"saving the files of {instance.spec.id}", error) from error
        return stood()

    async def ready_files(self, source: Path, target: Path) -> None:
        try:
            await finished(lambda go_on: make_ready(source, target, go_on))
        except BaseException as error:
            await asyncio.shield(in_thread(remove_tree, target))
            if isinstance(error, OSError):
                raise translated(f"making {source.name} ready", error) from error
            raise

    @contextlib.asynccontextmanager
    async def _standing(self, instance: Instance) -> AsyncGenerator[Callable[[], float]]:
        """Still inside; what is given tells for how long it stood. The note tells a successor to let it go on."""
        folder, id = instance.spec.folder, instance.spec.id
        began = ended = time.monotonic()
        if await in_thread((folder / PAUSED).exists):
            yield lambda: ended - began
            return
        self._saving.add(id)
        try:
            await in_thread((folder / SAVING).touch, 0o600)
            began = ended = time.monotonic()
            await self.pause(instance)
            yield lambda: ended - began
        finally:
            await asyncio.shield(self._go_on(instance))
            ended = time.monotonic()
            self._saving.discard(id)

    async def _go_on(self, instance: Instance) -> None:
        try:
            await self.resume(instance)
        finally:
            await in_thread((instance.spec.folder / SAVING).unlink, True)

    async def pause(self, instance: Instance, *, timeout: float = 10.0) -> None:
        # The kernel counts its pauses, and one resume too many is its death: so it is written down. A server that dies
        # between the call and the note leaves a guest that stands still, which its successor sees by its silence.
        note = instance.spec.folder / PAUSED
        if not await in_thread(note.exists):
            await self._call(instance, "containerManager.Pause", timeout=timeout)
            await in_thread(note.touch, 0o600)

    async def resume(self, instance: Instance, *, timeout: float = 10.0) -> None:
        note = instance.spec.folder / PAUSED
        if await in_thread(note.exists):
            await in_thread(note.unlink)
            await self._call(instance, "containerManager.Resume", timeout=timeout)

    async def state(self, instance: Instance, *, timeout: float = 5.0) -> str:
        root, id = self._root(instance), instance.spec.id
        if await in_thread(self._kernel, instance) is None:
            return InstanceState.DEAD if await in_thread(state_file(root, id).exists) else InstanceState.ABSENT
        if id not in self._saving and await in_thread((instance.spec.folder / SAVING).exists):
            await self._go_on(instance)  # its server died while it saved files
        try:
            answer = await self._call(instance, "containerManager.ContainerRuntimeState", id, timeout=timeout)
        except control.KernelGone:
            return InstanceState.DEAD
        return _STATES.get(answer if isinstance(answer, int) else 0, InstanceState.DEAD)

    async def wait(self, instance: Instance) -> GuestExit:
        # Held open while waiting: what a pipe holds is lost when the last one closes it.
        error = await opened_in_thread(close_descriptors, open_error, instance.spec.folder)
        try:
            kernel = await in_thread(self._kernel, instance)
            if kernel is not None:
                await wait_end(kernel)
            reap(int(instance.details.get("pid", 0)))
            message = await in_thread(panic_text, instance.spec.folder)
            if not message and error is not None:
                message = await in_thread(error_text, error)
            return GuestExit(await in_thread(self._groups.was_out_of_memory, instance.spec.cgroup), message)
        finally:
            if error is not None:
                os.close(error)

    def open_channel(self, instance: Instance) -> Channel:
        try:
            return open_channel(instance.spec.folder)
        except OSError as error:
            raise translated(f"opening the pipes of {instance.spec.id}", error) from error

    async def usage(self, instance: Instance) -> Usage:
        return await in_thread(self._usage, instance)

    async def cpu_time(self, instance: Instance) -> int | None:
        return await in_thread(self._groups.cpu_time, instance.spec.cgroup)

    async def limit(self, instance: Instance, limits: Limits) -> None:
        try:
            await in_thread(self._groups.limit, instance.spec.cgroup, limits)
        except OSError as error:
            raise translated(f"limiting {instance.spec.id}", error) from error

    async def show(self, instance: Instance, limits: Limits) -> None:
        config = {"memory": min(limits.memory, _machine_memory()), "cpus": shown_cpus(limits)}
        session = {"name": "Default", "sinks": [{"name": "limits", "config": config}]}
        try:
            # See live.go of our engine; `Force`: in the place of an earlier one.
            argument = {"Config": session, "Force": True}
            await self._call(instance, "containerManager.CreateTraceSession", argument, timeout=_SHOW)
        except control.KernelRefused as error:
            raise NotSupported(
                f"the memory that {instance.spec.id} sees cannot be changed: {error.message}",
                hint="its engine is of an earlier release: snapshot it, and go on from there in a new sandbox",
            ) from error

    async def delete(self, instance: Instance, *, timeout: float = 30.0) -> None:
        spec = instance.spec
        async with deadline(f"deleting {spec.id}", timeout):
            try:
                kernel, gofer = await in_thread(self._processes, instance)
                if kernel is not None and await in_thread(kill_process, kernel):
                    await wait_end(kernel)
                # The rest: gofer, and a runsc that was at work when its server died.
                killed = await self._groups.kill(spec.cgroup, timeout=timeout)
                if self._groups.problem:
                    await self._kill_named(spec.id)
                await reap_ending(int(instance.details.get("pid", 0)), kernel.pid if kernel else 0, gofer, *killed)
                # What an interrupted create had begun and nobody wrote down has become this process's child, and may be dead.
                reap(*await in_thread(dead_children, spec.cgroup))
                await in_thread(remove_files, spec, self._roots)
                await self._groups.remove(spec.cgroup)
            except OSError as error:
                raise translated(f"deleting {spec.id}", error) from error

    async def residue(self) -> list[HostObject]:
        return await in_thread(residue, self._roots, self._cgroup, self._groups)

    async def close(self) -> None:
        await in_thread(self._close)

    # ------------------------------------------------------------------------------------------------------------------

    def _usage(self, instance: Instance) -> Usage:
        kernel = self._kernel(instance)
        disk = 0 if kernel is None else written_by(kernel, instance.spec.overlay)
        return replace(self._groups.usage(instance.spec.cgroup), disk=disk)

    def _prepare(self, spec: InstanceSpec, root: Path) -> None:
        make_files(spec, root)
        if not self._groups.problem:
            self._groups.make(spec.cgroup)
            self._groups.limit(spec.cgroup, spec.limits, cpu=False)

    async def _set_network(
        self, instance: Instance, network: NetworkAttachment | None, *, restoring: bool, timeout: float
    ) -> None:
        await self._call(
            instance,
            "containerManager.SetNetworkArgs",
            network_arguments(network, restoring=restoring),
            descriptors=() if network is None else (network.socket,),
            timeout=timeout,
        )

    async def _call(
        self,
        instance: Instance,
        method: str,
        argument: control.Json = None,
        *,
        descriptors: tuple[int, ...] | list[int] = (),
        timeout: float,
    ) -> control.Json:
        path = socket_of(self._root(instance), instance.spec.id)
        try:
            return await control.call(path, method, argument, descriptors=descriptors, timeout=timeout)
        except control.KernelGone as error:
            words = await in_thread(panic_text, instance.spec.folder)
            raise control.KernelGone(f"{error.message}; {words}" if words else error.message) from error

    async def _kill_named(self, id: str) -> None:
        for process, _, owner in await in_thread(engine_processes, self._roots):
            if owner == id and await in_thread(kill_process, process):
                await wait_end(process)
                reap(process.pid)

    def _processes(self, instance: Instance) -> tuple[HostProcess | None, int]:
        """The kernel and its gofer's number, also of an instance that only its id is known of."""
        known = self._kernel(instance)
        for root in self._roots.glob("*"):
            kernel, gofer = find_kernel(root, instance.spec.id)
            if kernel is not None or gofer:
                return known or kernel, gofer
        return known, 0

    def _kernel(self, instance: Instance) -> HostProcess | None:
        with contextlib.suppress(KeyError, ValueError):
            known = HostProcess(int(instance.details["pid"]), int(instance.details["started"]))
            return known if process_of(known.pid) == known else None
        # Its maker died before it could write the number down: runsc has.
        return find_kernel(self._root(instance), instance.spec.id)[0]

    def _root(self, instance: Instance) -> Path:
        return Path(instance.details.get("root") or root_of(self._roots, instance.spec.build))

    def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for root in self._roots.iterdir():
                if any(entry.name.endswith(".state") for entry in root.iterdir()):
                    continue
                unmount_below(root)  # the empty network namespace that runsc keeps for its gofers
                shutil.rmtree(root)
            if not any(self._roots.iterdir()):
                self._roots.rmdir()
        if not self._groups.children(self._cgroup):
            for folder in self._groups.folders(self._cgroup):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _open_all(folder: Path, flags: int) -> list[int]:
    opened: list[int] = []
    try:
        opened.extend(os.open(folder / name, flags | os.O_CLOEXEC, 0o600) for name in CHECKPOINT_FILES)
    except OSError:
        close_descriptors(opened)
        raise
    return opened
