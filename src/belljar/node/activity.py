"""Whether somebody uses a sandbox, and for how long nobody has: what its idle timer goes by."""

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from belljar.model.process import OutputEvent, ProcessInfo, ProcessSpec
from belljar.node.api import GuestApi

__all__ = ("Activity", "used")

_WAIT = 3600.0


class Activity:
    """A context manager that may be entered by many at once: while one is inside, the sandbox is in use.

    Times are those of the machine's monotonic clock, which goes on over a restart of the server and knows no jumps.
    """

    def __init__(self, monotonic: Callable[[], float], file: Path) -> None:
        """`file`: where a successor of this server finds it, once `keep` was asked."""
        self._now = monotonic
        self._file = file
        self._users = 0
        self._last = monotonic()
        self._kept = False

    def __enter__(self) -> None:
        self._users += 1
        if self._users == 1:
            self._note()

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if self._users == 0:
            self._last = self._now()
            self._note()

    def idle(self) -> float:
        """Seconds since the last use ended; 0 while it is used."""
        return 0.0 if self._users else max(self._now() - self._last, 0.0)

    def keep(self, kept: bool) -> None:
        """Whether it is written down at each change."""
        if kept and not self._kept:
            self._kept = True
            self._note()
        elif not kept:
            self._kept = False
            self._file.unlink(missing_ok=True)

    def recall(self) -> None:
        """Goes on from what an earlier server wrote down in this boot of the machine. One that was used to the last is counted
        as used until now: its users come back."""
        try:
            self._last = min(float(self._file.read_text()), self._now())
        except (OSError, ValueError):
            self._last = self._now()

    def _note(self) -> None:
        """A server that dies half-way leaves an empty file, which says that it was in use."""
        if self._kept:
            with contextlib.suppress(OSError):  # a full disk must fail no call
                self._file.write_text("" if self._users else repr(self._last))

    async def last_as_long_as(self, guest: GuestApi, process: int) -> None:
        """In use until that process has ended. Raises what waiting for it raises."""
        with self:
            while (await guest.wait(process, timeout=_WAIT)).returncode is None:
                pass


def used(awake: Callable[[], Awaitable[GuestApi]], activity: Activity, keep_alive: Callable[[int], None]) -> GuestApi:
    """A guest whose every call, and each stream while it is open, is a use, and wakes it where it rests: `awake` gives the one
    that runs now. `keep_alive` is told of processes that want it.
    """
    return cast(GuestApi, _Used(awake, activity, keep_alive))


class _Used:
    def __init__(
        self, awake: Callable[[], Awaitable[GuestApi]], activity: Activity, keep_alive: Callable[[int], None]
    ) -> None:
        self._awake = awake
        self._activity = activity
        self._keep_alive = keep_alive

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        with self._activity:
            info = await (await self._awake()).start(spec)
            if spec.keep_alive:
                self._keep_alive(info.id)
            return info

    async def start_attached(
        self, spec: ProcessSpec, input: bytes | None = b""
    ) -> AsyncGenerator[ProcessInfo | OutputEvent, None]:
        async with contextlib.aclosing(self._followed("start_attached", spec, input)) as events:
            async for event in events:
                if spec.keep_alive and isinstance(event, ProcessInfo):
                    self._keep_alive(event.id)
                yield event

    def __getattr__(self, name: str) -> Callable[..., Any]:
        how = self._awaited if inspect.iscoroutinefunction(getattr(GuestApi, name)) else self._followed
        return functools.partial(how, name)

    async def _awaited(self, name: str, *args: Any, **more: Any) -> Any:
        with self._activity:
            return await getattr(await self._awake(), name)(*args, **more)

    async def _followed(self, name: str, *args: Any, **more: Any) -> AsyncGenerator[Any, None]:
        with self._activity:
            async with contextlib.aclosing(getattr(await self._awake(), name)(*args, **more)) as events:
                async for event in events:
                    yield event
