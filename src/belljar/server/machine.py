"""The node of this machine: which engine, and what it needs. Part of the wiring."""

import contextlib
import os
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from belljar.base.home import cache_home
from belljar.model.errors import ImageNotFound, PermissionDenied
from belljar.node.api import NodeApi
from belljar.node.artifacts import Store, state_store
from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.engine.gvisor.build import EngineBuild
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.guest.runtime import GuestRuntime
from belljar.node.image.catalog import Image
from belljar.node.instance import Instance
from belljar.node.machine import Machine, Reserve
from belljar.node.net.slots import SlotPool
from belljar.node.progress import PlainProgress
from belljar.node.service import NodeService
from belljar.node.setup import Installation, engine_named, runtime_named, set_up, tidy
from belljar.node.snapshot.filesystem import Filesystems
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.sources import agent_sources
from belljar.node.storage.keys import read_keys
from belljar.server.settings import Settings

__all__ = ("NO_RUNTIME", "FakeImages", "FakeKept", "check_rights", "open_machine", "open_node")


def check_rights(settings: Settings) -> None:
    """Raises PermissionDenied with the one command to run."""
    if settings.engine == "gvisor" and os.geteuid() != 0:
        raise PermissionDenied("gVisor needs root to make sandboxes", hint="run: sudo belljar serve")


@contextlib.asynccontextmanager
async def open_node(settings: Settings, instance: Instance) -> AsyncGenerator[NodeApi]:
    """The node, with every sandbox of an earlier server adopted. Leaving it leaves the sandboxes running."""
    async with open_machine(settings, instance) as machine, NodeService(machine) as node:
        yield node


@contextlib.asynccontextmanager
async def open_machine(settings: Settings, instance: Instance) -> AsyncGenerator[Machine]:
    """What the node makes sandboxes with; the first time this makes engine, runtime and image, which takes minutes."""
    reserve = Reserve(settings.disk_reserve, settings.memory_reserve)
    instance.make_run()
    key = settings.store_key.get_secret_value() if settings.store_key is not None else None
    keys = read_keys(settings.store_key_file, key)
    async with SnapshotStore(instance.home, instance.run, keys=keys, url=settings.store_url) as snapshots:
        if settings.engine == "fake":
            engine, images = FakeEngine(instance.run), FakeImages()
            async with Filesystems(engine, None, snapshots, instance.ready, reserve.disk) as filesystems:
                yield Machine(
                    *(instance, engine, "fake", images, NO_RUNTIME, None),
                    *(FakeKept(images), snapshots, filesystems),
                    reserve=reserve,
                    logs_days=settings.logs_days,
                    logs_size=settings.logs_size,
                )
            return
        made = await set_up(instance.home, PlainProgress())
        kept = _Kept(instance.home, made)
        engine = GvisorEngine(instance.run, instance.cgroup, kept.build)
        own = state_store(instance.home)
        filesystems = Filesystems(engine, own, snapshots, instance.ready, reserve.disk)
        async with SlotPool(instance) as slots, filesystems:
            yield Machine(
                *(instance, engine, made.engine.key, made.images, made.runtime, slots),
                *(kept, snapshots, filesystems),
                reserve=reserve,
                templates=Store(cache_home(), behind=own),
                pool=settings.pool,
                cool_after=settings.cool_after,
                logs_days=settings.logs_days,
                logs_size=settings.logs_size,
            )


class _Kept:
    """What the state directory has of earlier releases. Each is looked through once: a runtime of 3,000 files takes 30 ms."""

    def __init__(self, home: Path, made: Installation) -> None:
        self._home = home
        self._made = made
        self._builds: dict[str, EngineBuild] = {}
        self._runtimes: dict[str, GuestRuntime] = {}

    def build(self, key: str) -> EngineBuild:
        """Raises NotFound."""
        known = self._builds.get(key)
        if known is None or not known.folder.is_dir():
            known = self._builds[key] = engine_named(self._home, key)
        return known

    def check_build(self, key: str) -> None:
        self.build(key)

    def runtime(self, key: str) -> GuestRuntime:
        known = self._runtimes.get(key)
        if known is None or not known.folder.is_dir():
            known = self._runtimes[key] = runtime_named(self._home, key)
        return known

    def image(self, key: str, name: str) -> Image:
        return self._made.images.keyed(key, name)

    async def tidy(self, needed: Collection[str]) -> list[str]:
        removed = await tidy(self._home, self._made, needed)
        for key in removed:
            self._builds.pop(key, None)
            self._runtimes.pop(key, None)
        return removed


NO_RUNTIME = GuestRuntime("fake", Path("/"), (), {}, {}, str(agent_sources() / "belljar_kernel" / "start.py"))


@dataclass(frozen=True, slots=True)
class _FakeImage:
    """The machine itself, as the fake engine shows it."""

    name: str
    key: str = "fake"
    path: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    workdir: str = "/"


class FakeImages:
    def get(self, name: str) -> _FakeImage:
        if name not in self.names():
            raise ImageNotFound(f"there is no image {name[:80]!r}", hint=f"images here: {', '.join(self.names())}")
        return _FakeImage(name)

    def names(self) -> tuple[str, ...]:
        return ("base", "code")


@dataclass(frozen=True, slots=True)
class FakeKept:
    images: FakeImages

    def check_build(self, key: str) -> None:
        """There is one."""

    def runtime(self, key: str) -> GuestRuntime:
        return NO_RUNTIME

    def image(self, key: str, name: str) -> _FakeImage:
        return self.images.get(name)

    async def tidy(self, needed: Collection[str]) -> list[str]:
        return []
