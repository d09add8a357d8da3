"""Templates of images: the memory of a guest of each image in its first moment, made once per machine and kept in the cache."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread
from belljar.model.errors import Error
from belljar.model.sandbox import Limits, Network, SandboxSpec
from belljar.node.artifacts import Store, key_of
from belljar.node.holding import begin, configuration, connect, free, make, plan
from belljar.node.machine import ImageEntry, Machine
from belljar.node.origin import Origin, shown_cpus

__all__ = ("KIND", "Templates", "processor")

_log = get_logger("node.templates")
KIND = "template"
_EDITION = "1"
_MEMORY = 1 << 30
_WARM = {"code": "python"}
"""Image → language of the context that already runs in its template."""
_WARM_LIMIT = 60.0
_FILES = "memory"
_AGAIN = 60.0
"""Seconds until one that could not be made is tried again."""
_TIDY_AFTER = 30.0
_UNUSED = 14 * 86400.0
_MOST = 32


def processor() -> tuple[str, ...]:
    """The features that programs may have found and use from then on: a memory snapshot needs all of them again."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return tuple(sorted(value.split()))
    return ()


class Templates:
    """`store` None: an engine without checkpoints, so there are none. An async context manager: leaving ends what is made."""

    def __init__(self, machine: Machine, store: Store | None) -> None:
        self._machine = machine
        self._store = store
        self._ready: dict[str, Path] = {}
        self._making: dict[str, asyncio.Task[Path]] = {}
        self._failed: dict[str, float] = {}
        # What goes wrong with one is told where it is awaited.
        self._tasks = TaskSet(lambda name, error: _log.debug("a task failed", task=name, error=str(error)))
        self._processor = hashlib.sha256(" ".join(processor()).encode()).hexdigest()

    async def __aenter__(self) -> Self:
        if self._store is not None:
            self._tasks.start(self._tidy(self._store), name="old templates")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def find(self, image: ImageEntry, limits: Limits) -> Path | None:
        """The folder of the template, if it is there. The first look for one costs a few milliseconds."""
        if self._store is None:
            return None
        inputs = self._inputs(image, limits)
        key = key_of(KIND, inputs)
        known = self._ready.get(key)
        if known is not None and known.is_dir():
            return known
        self._ready.pop(key, None)  # somebody wiped the cache
        artifact = self._store.get(KIND, key) if key not in self._making else None
        if artifact is None:
            return None
        _use(artifact.folder)
        self._ready[key] = artifact.folder / _FILES
        return self._ready[key]

    async def want(self, image: ImageEntry, origin: Origin, limits: Limits) -> Path | None:
        """Makes it if it is not there, which takes seconds. None where that cannot be done now; the reason is logged."""
        if (found := self.find(image, limits)) is not None or self._store is None:
            return found
        inputs = self._inputs(image, limits)
        key = key_of(KIND, inputs)
        if time.monotonic() < self._failed.get(key, 0.0):
            return None
        if key not in self._making:
            self._making[key] = self._tasks.start(
                self._make(self._store, key, inputs, origin, limits), name=f"template of {image.name}"
            )
            self._making[key].add_done_callback(lambda _: self._making.pop(key, None))
        try:
            self._ready[key] = await asyncio.shield(self._making[key])
        except (Error, OSError) as error:
            self._failed[key] = time.monotonic() + _AGAIN
            _log.error("an image has no template for now: its sandboxes boot", image=image.name, error=str(error))
            return None
        return self._ready[key]

    async def _tidy(self, store: Store) -> None:
        """Removes those that nobody on this machine has used for long: each change of an image, agent or engine leaves one."""
        await asyncio.sleep(_TIDY_AFTER)
        found = await in_thread(store.list, KIND)
        now = time.time()
        used = sorted(((artifact.folder.stat().st_mtime, artifact.key) for artifact in found), reverse=True)
        for number, (at, key) in enumerate(used):
            if key not in self._ready and (at < now - _UNUSED or number >= _MOST):
                await store.remove(KIND, key)

    def _inputs(self, image: ImageEntry, limits: Limits) -> Mapping[str, str]:
        return {
            "image": image.key,
            "engine": self._machine.build,
            "runtime": self._machine.runtime.key,
            "platform": self._machine.engine.platform,
            "processor": self._processor,
            "cpus": str(shown_cpus(limits)),
            "disk": str(limits.disk),
            "warm": _WARM.get(image.name, ""),
            "edition": _EDITION,
        }

    async def _make(self, store: Store, key: str, inputs: Mapping[str, str], origin: Origin, limits: Limits) -> Path:
        started = time.monotonic()

        async def build(folder: Path) -> Mapping[str, str]:
            await self._take(folder / _FILES, origin, limits)
            return {"name": origin.image.name}

        artifact = await store.make(KIND, inputs, build, room=512 << 20)
        _use(artifact.folder)
        _log.info("a template is ready", image=origin.image.name, seconds=round(time.monotonic() - started, 2))
        return artifact.folder / _FILES

    async def _take(self, folder: Path, origin: Origin, limits: Limits) -> None:
        """Boots a guest, lets it get ready, and writes its memory down."""
        machine = self._machine
        limits = Limits(cpus=float(shown_cpus(limits)), memory=_MEMORY, disk=limits.disk)
        spec = SandboxSpec(origin.image.name, limits=limits, network=Network.NONE)
        planned = plan(machine, origin, limits)
        try:
            holding = await make(machine, planned, None)
            await begin(machine, holding, origin)
            guest = await connect(machine, holding.instance, on_lost=lambda reason, message: None)
            try:
                await guest.configure(**configuration(origin, spec, "template", None))
                if language := _WARM.get(origin.image.name):
                    await guest.warm(language, timeout=_WARM_LIMIT)
                await guest.quiesce()
                guest.stand_still(True)
                await machine.engine.checkpoint(holding.instance, folder)
            finally:
                await guest.close(None)
        finally:
            await asyncio.shield(free(machine, planned))


def _use(folder: Path) -> None:
    """Its time says when it was used last; nothing in it changes."""
    with contextlib.suppress(OSError):
        os.utime(folder)
