"""The sandboxes that this process made: how many, for how long, and their end."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import belljar
from belljar.base.units import format_duration
from belljar.integrations.mcp.policy import LEASE_SECONDS, Policy
from belljar.integrations.mcp.results import SandboxView, clean
from belljar.model.errors import Error, InvalidArgument, LimitExceeded, NotFound

__all__ = ("Box", "Boxes")

_END_SECONDS = 30.0
_LOOK_SECONDS = 60.0
_REMEMBERED = 100
_LISTED = 200


@dataclass(slots=True)
class Box:
    """A sandbox and its use. `made` and `used` on the monotonic clock; `calls`: so many run in it now."""

    sandbox: belljar.AsyncSandbox
    note: str
    made: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    calls: int = 0


class Boxes:
    """Owner of all that it makes, the unfinished included. `owner` is a label on them, for whoever looks from outside."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.owner = secrets.token_hex(4)
        self._boxes: dict[str, Box] = {}
        self._making: set[asyncio.Task[Box]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._ended: dict[str, str] = {}
        self._default: str | None = None
        self._choosing = asyncio.Lock()

    # making and finding ----------------------------------------------------------------------------------------------

    async def create(self, image: str | None = None, note: str | None = None) -> Box:
        """Raises LimitExceeded at the bound, and what the server says. One whose caller left is ended again."""
        image = image or self.policy.images[0]
        if image not in self.policy.images:
            raise InvalidArgument(f"no image {image[:80]!r} here", hint=f"images: {', '.join(self.policy.images)}")
        if len(self._boxes) + len(self._making) >= self.policy.sandboxes:
            raise LimitExceeded(
                f"{self.policy.sandboxes} sandboxes are all that this server gives at once",
                hint="end_sandbox ends one that is no longer needed; list_sandboxes shows them",
            )
        task = asyncio.create_task(self._make(image, note or ""), name="making a sandbox")
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._end_unwanted(task))
            raise

    async def _make(self, image: str, note: str) -> Box:
        policy = self.policy
        labels = {"mcp": self.owner}
        sandbox = await belljar.AsyncSandbox.create(
            image,
            cpu=policy.cpu,
            memory=policy.memory,
            disk=policy.disk,
            network=policy.network,
            labels=labels,
            lifetime=min(LEASE_SECONDS, policy.lifetime),
        )
        box = Box(sandbox, note)
        self._boxes[sandbox.id] = box
        return box

    @contextlib.asynccontextmanager
    async def using(self, sandbox_id: str | None) -> AsyncGenerator[tuple[belljar.AsyncSandbox, str | None]]:
        """The sandbox for one call, and a line for the model when it is a new one instead of one that ended.

        Raises NotFound for one that was not made here, whether or not it exists.
        """
        word = None
        if sandbox_id is None:
            box, word = await self._default_box()
        elif sandbox_id in self._boxes:
            box = self._boxes[sandbox_id]
        elif self.policy.all_sandboxes:
            box = Box(await belljar.AsyncSandbox.get(sandbox_id), "")
        else:
            raise self._unknown(sandbox_id)
        box.calls += 1
        try:
            yield box.sandbox, word
        except NotFound as error:
            if error.code == "sandbox_gone":
                self._forget(box.sandbox.id, error.message)
            raise
        finally:
            box.calls -= 1
            box.used = time.monotonic()

    async def _default_box(self) -> tuple[Box, str | None]:
        if not self.policy.default_sandbox:
            raise InvalidArgument("sandbox_id is needed", hint="create_sandbox makes a sandbox and says its id")
        async with self._choosing:
            if self._default in self._boxes:
                return self._boxes[self._default], None
            before, self._default = self._default, None
            box = await self.create(note="default")
            self._default = box.sandbox.id
        if before is None:
            return box, None
        why = self._ended.get(before, "it was ended")
        return box, f"[a new sandbox: the files and state of the one before are gone ({why})]"

    async def views(self) -> list[SandboxView]:
        """Those that a client may use, newest first."""
        if self.policy.all_sandboxes:
            return [self._view(found) async for found in belljar.AsyncSandbox.list(limit=_LISTED)]
        for box in list(self._boxes.values()):
            await self._look(box)
        return [self._view(box.sandbox) for box in reversed(self._boxes.values())]

    def _view(self, sandbox: belljar.AsyncSandbox) -> SandboxView:
        info = sandbox.last_info
        box = self._boxes.get(sandbox.id)
        return SandboxView(
            sandbox_id=sandbox.id,
            status=str(info.status),
            image=clean(info.image),
            network=info.network,
            created=info.created,
            note=box.note if box else clean(info.name or ""),
            default=sandbox.id == self._default,
        )

    def view(self, box: Box) -> SandboxView:
        return self._view(box.sandbox)

    # ending ----------------------------------------------------------------------------------------------------------

    async def end(self, sandbox_id: str) -> None:
        """Raises NotFound for one that was not made here."""
        if sandbox_id in self._boxes:
            box = self._boxes[sandbox_id]
            await box.sandbox.terminate()
            self._forget(sandbox_id, "end_sandbox ended it")
        elif self.policy.all_sandboxes:
            await (await belljar.AsyncSandbox.get(sandbox_id)).terminate()
        else:
            raise self._unknown(sandbox_id)

    async def watch(self) -> None:
        """Renews leases, and ends what is idle or at the end of its life. Never returns."""
        policy = self.policy
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, policy.idle / 4, policy.lifetime / 4))
            for box in list(self._boxes.values()):
                with contextlib.suppress(Error):  # the server is away: the lease has room for many tries
                    await self._renew(box)

    async def _renew(self, box: Box) -> None:
        now = time.monotonic()
        left = self.policy.lifetime - (now - box.made)
        if box.calls == 0 and now - box.used >= self.policy.idle:
            await box.sandbox.terminate()
            self._forget(box.sandbox.id, f"nobody used it for {format_duration(self.policy.idle)}")
        elif left > LEASE_SECONDS:
            await self._told_of_end(box, box.sandbox.update(lifetime=LEASE_SECONDS))
        else:
            await self._look(box)

    async def _look(self, box: Box) -> None:
        with contextlib.suppress(Error):
            await self._told_of_end(box, box.sandbox.info())

    async def _told_of_end(self, box: Box, asked: Awaitable[Any]) -> None:
        try:
            await asked
        except NotFound as error:
            self._forget(box.sandbox.id, error.message)
            return
        if box.sandbox.status.is_end:
            ended = box.sandbox.ended
            self._forget(box.sandbox.id, f"it ended: {ended.reason}" if ended else "it ended")

    async def aclose(self) -> None:
        """Ends all of them, at the same time, also those that are still being made."""
        unfinished = list(self._making)
        for task in unfinished:
            self._spawn(self._end_unwanted(task))
        for box in list(self._boxes.values()):
            self._spawn(self._end_quietly(box))
        if self._ending:
            _, late = await asyncio.wait(set(self._ending), timeout=_END_SECONDS)
            for task in (*late, *unfinished):
                task.cancel()

    async def _end_unwanted(self, making: "asyncio.Task[Box]") -> None:
        with contextlib.suppress(Error):
            await self._end_quietly(await making)

    async def _end_quietly(self, box: Box) -> None:
        self._boxes.pop(box.sandbox.id, None)
        with contextlib.suppress(Error):  # its lease ends it then
            await box.sandbox.terminate()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _forget(self, sandbox_id: str, why: str) -> None:
        if self._boxes.pop(sandbox_id, None) is None:
            return
        self._ended[sandbox_id] = clean(why)
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _unknown(self, sandbox_id: str) -> Error:
        if why := self._ended.get(sandbox_id):
            return NotFound(f"the sandbox {sandbox_id} has ended: {why}", hint="create_sandbox makes a new one")
        return NotFound(
            f"no sandbox {clean(sandbox_id)!r} here",
            hint="list_sandboxes shows those there are; create_sandbox makes one",
        )
