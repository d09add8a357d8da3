"""The members: made ahead, claimed once, freed by their owner."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.model.errors import Error
from belljar.model.sandbox import Limits, Network, SandboxSpec
from belljar.node.guest.guest import Guest
from belljar.node.holding import Holding, begin, configuration, connect, free, make, plan
from belljar.node.machine import Machine, available_memory
from belljar.node.origin import Origin, Shape, shape_of
from belljar.node.origins import Origins
from belljar.node.pool.demand import Demand

__all__ = ("Claimed", "Pool")

_log = get_logger("node.pool")
_SHARE = 8
"""One part in so many of the memory that is available may wait."""
_MEMBER = 96 << 20
"""Bytes that a member counts as: a little more than the biggest of our images' takes (91 MiB measured, `code`)."""
_MOST = 16
_FIRST = 0.3
"""Seconds after the start of a server: whoever started it comes first."""
_LOOK = 1.0
_QUIET = 0.05
_PATIENCE = 2.0
_BACKOFF = 30.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A member as its new owner gets it. `guest` None: it was created and not begun. The origin's paths may be gone by now."""

    holding: Holding
    guest: Guest | None
    origin: Origin


@dataclass(slots=True)
class _Member:
    holding: Holding
    guest: Guest | None
    origin: Origin


class Pool:
    """An async context manager: leaving frees every member. `busy` says whether somebody waits for a sandbox right now."""

    def __init__(self, machine: Machine, origins: Origins, busy: Callable[[], bool]) -> None:
        self._machine = machine
        self._origins = origins
        self._busy = busy
        self._most = _most(machine)
        self._demand: Demand[Shape] = Demand(self._most)
        self._specs: dict[Shape, SandboxSpec] = {}
        self._hot: dict[Shape, list[_Member]] = {}
        self._warm: dict[Shape, list[_Member]] = {}
        self._failed: dict[Shape, float] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        if self._most:
            self._tasks.start(self._keep_filled(), name="pool")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        await asyncio.gather(*(self._drain(shape, 0, 0) for shape in {*self._hot, *self._warm}))

    def stand(self, spec: SandboxSpec) -> None:
        """A class of which one always waits."""
        if self._most and (shape := self._origins.shape(spec)) is not None:
            self._specs[shape] = _anybody(spec)
            self._demand.stand(shape, time.monotonic())
            self._wake.set()

    def claim(self, spec: SandboxSpec) -> Claimed | None:
        """One of the spec's class, if any waits: the caller's from now on. The pool notes that somebody came."""
        if not self._most or not spec.pool or (shape := self._origins.shape(spec)) is None:
            return None
        self._specs[shape] = _anybody(spec)
        self._demand.asked(shape, time.monotonic())
        self._wake.set()
        for members in (self._hot.get(shape), self._warm.get(shape)):
            if members:
                member = members.pop()
                return Claimed(member.holding, member.guest, member.origin)
        return None

    def created(self, origin: Origin, limits: Limits) -> Holding | None:
        """A member that was only created, for whatever stands on its image and has its shape: the caller's from now on, and to
        begin with these limits. The pool notes those that no class of an image would do for.
        """
        if not self._most or origin.upper is not None:
            return None
        shape = shape_of(f"image:{origin.image_key}", limits)
        if origin.key != shape.origin:
            self._specs.setdefault(shape, SandboxSpec(origin.image.name, limits=limits))
            self._demand.began(shape, time.monotonic())
        self._wake.set()
        members = self._warm.get(shape, [])
        for member in members:
            spec = member.holding.instance.spec
            there = (spec.root, spec.build, spec.runtime, spec.argv)
            if there == (origin.root, origin.build, origin.runtime.folder, origin.runtime.argv):
                members.remove(member)
                instance = member.holding.instance
                return replace(member.holding, instance=replace(instance, spec=replace(spec, limits=limits)))
        return None

    def waiting(self) -> tuple[int, int]:
        """Hot and warm members."""
        return sum(map(len, self._hot.values())), sum(map(len, self._warm.values()))

    async def _keep_filled(self) -> None:
        await asyncio.sleep(_FIRST)
        while True:
            try:
                done = await self._step()
            except Exception:  # noqa: BLE001 (the task's boundary: a pool that stopped would only be seen as slowness)
                _log.exception("the pool cannot be filled for now")
                done = True
            if done:
                self._wake.clear()
                try:
                    async with asyncio.timeout(_LOOK):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _step(self) -> bool:
        """Makes or frees one member; True when there was nothing to do."""
        now = time.monotonic()
        wishes = self._demand.wishes(now)
        for shape in {*self._hot, *self._warm} - set(wishes):
            await self._drain(shape, 0, 0)
            for known in (self._hot, self._warm, self._specs):
                known.pop(shape, None)
        for shape, wish in wishes.items():
            hot, warm = self._hot.setdefault(shape, []), self._warm.setdefault(shape, [])
            await self._drain(shape, wish.hot, wish.warm)
            if now < self._failed.get(shape, 0.0):
                continue
            if (len(hot) < wish.hot or len(warm) < wish.warm) and self._affordable():
                await self._rest()
                await self._add(shape, hot if len(hot) < wish.hot else warm)
                return False
        return True

    def _affordable(self) -> bool:
        hot, warm = self.waiting()
        return (hot + warm // 2 + 1) * _MEMBER <= available_memory() // _SHARE

    async def _rest(self) -> None:
        """Until nobody waits for a sandbox and the machine has some time, but not for ever."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            before = _idle_seconds()
            await asyncio.sleep(_QUIET)
            if not self._busy() and _idle_seconds() - before >= _QUIET / 2:
                return

    async def _add(self, shape: Shape, members: list[_Member]) -> None:
        spec, hot = self._specs[shape], members is self._hot.get(shape)
        try:
            ready = not hot or await self._origins.template(spec)
            # Where the image's name stands for something else by now, nobody can ask for this class any more.
            if ready and self._origins.shape(spec) == shape:
                async with self._machine.starts, self._origins.open(spec) as origin:
                    if origin.checkpoint is not None or not hot:
                        members.append(await self._member(origin, spec, hot=hot))
                        return
            self._failed[shape] = time.monotonic() + _BACKOFF
        except (Error, OSError) as error:
            self._failed[shape] = time.monotonic() + _BACKOFF
            _log.warning("no member for the pool", image=spec.image, error=str(error))

    async def _member(self, origin: Origin, spec: SandboxSpec, *, hot: bool) -> _Member:
        machine = self._machine
        planned = plan(machine, origin, origin.fitted(spec.limits))
        try:
            holding = await make(machine, planned, Network.OPEN)
            if not hot:
                return _Member(holding, None, origin)
            await begin(machine, holding, origin)
            guest = await connect(machine, holding.instance, on_lost=lambda reason, message: None)
            try:
                await guest.configure(**configuration(origin, spec, planned.id, holding.slot))
                await guest.find_contexts()
                await guest.prime()
                guest.stand_still(True)
                await machine.engine.pause(holding.instance)
            except BaseException:
                await guest.close(None)
                raise
            return _Member(holding, guest, origin)
        except BaseException:
            await asyncio.shield(self._free(planned))
            raise

    async def _drain(self, shape: Shape, hot: int, warm: int) -> None:
        surplus: list[_Member] = []
        for members, count in ((self._hot.get(shape, []), hot), (self._warm.get(shape, []), warm)):
            surplus += members[: max(0, len(members) - count)]
            del members[: max(0, len(members) - count)]
        await asyncio.gather(*(self._end(member) for member in surplus))

    async def _end(self, member: _Member) -> None:
        if member.guest is not None:
            await member.guest.close(None)
        await self._free(member.holding)

    async def _free(self, holding: Holding) -> None:
        try:
            await free(self._machine, holding)
        except (Error, OSError) as error:
            _log.error("a member of the pool could not be freed", member=holding.id, error=str(error))


def _anybody(spec: SandboxSpec) -> SandboxSpec:
    """What the members of a class are made for: nothing of who asked first."""
    return SandboxSpec(spec.image, spec.snapshot, limits=spec.limits)


def _most(machine: Machine) -> int:
    if machine.templates is None:
        return 0
    return min(_MOST, available_memory() // _SHARE // _MEMBER) if machine.pool is None else machine.pool


def _idle_seconds() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[4]) / os.sysconf("SC_CLK_TCK")
