"""The contexts of one sandbox, by id: made, found again after a crash of the server, and ended."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.model.code import CodeEvent, CodeSpec, ContextInfo, ContextSpec
from belljar.model.errors import Conflict, Error, InvalidArgument, LimitExceeded, NotFound, NotSupported
from belljar.model.process import ProcessInfo
from belljar.node.guest.contexts.context import Context
from belljar.node.guest.contexts.kernel import Kernel, KernelProcesses, context_of
from belljar.node.guest.contexts.renewal import Renewal

__all__ = ("Contexts",)

_MAX_CONTEXTS = 64
_SHORT = 4096
"""Bytes that a kernel has said in all, if it may be one that nobody has asked for yet."""
_WARM_SECONDS = 0.5
"""For such a kernel to say so."""
_log = get_logger("node.contexts")


class Contexts:
    """`landmark`: the kernel's program as the sandbox sees it, by which kernels are known among the processes."""

    def __init__(self, processes: KernelProcesses, landmark: str) -> None:
        self._processes = processes
        self._landmark = landmark
        self._all: dict[str, Context] = {}
        self._warm: dict[str, Context] = {}
        """Their kernels run, and nobody has asked for them."""
        self._hidden: set[int] = set()
        """Processes of warm kernels, also of those that ended without ever becoming somebody's."""
        self._found = False
        self._tasks = TaskSet(_failed)
        self._finding = asyncio.Lock()

    async def find(self) -> None:
        """Goes on with the kernels that an earlier server of this sandbox started, or that were running when the snapshot was
        taken of which this is a clone. Raises what listing processes raises."""
        self._found = True
        newest: dict[str, tuple[ContextSpec, ProcessInfo]] = {}
        for info in sorted(await self._processes.processes(), key=lambda info: info.id):
            with contextlib.suppress(InvalidArgument):
                spec = context_of(info.argv, self._landmark)
                if spec is not None and info.returncode is None and not self.owns(info.id):
                    newest.pop(spec.id, None)
                    newest[spec.id] = (spec, info)
        found = list(newest.values())[-_MAX_CONTEXTS:]
        await asyncio.gather(*(self._adopt(spec, info) for spec, info in found))

    async def _adopt(self, spec: ContextSpec, info: ProcessInfo) -> None:
        context = self._all[spec.id] = Context(spec, self._processes, self._landmark, self._tasks, self._hidden)
        context.adopt(Kernel.adopt(self._processes, info))
        if info.stdout.end <= _SHORT and await context.found(timeout=_WARM_SECONDS) and context.is_warm:
            self._warm[spec.id] = self._all.pop(spec.id)

    async def warm(self, language: str, modules: Sequence[str], *, timeout: float) -> None:
        """Starts the kernel of the default context of a language before anybody asks for it: nobody sees it until then."""
        context = Context(ContextSpec(language, language), self._processes, self._landmark, self._tasks, self._hidden)
        self._warm[language] = context
        try:
            await context.warm(modules, timeout=timeout)
        except BaseException:
            del self._warm[language]
            await context.close()
            raise

    async def prime(self, *, timeout: float) -> None:
        """Lets warm kernels run for a moment. One that does not answer within `timeout` seconds is left to its first caller."""
        with contextlib.suppress(Error):
            await asyncio.gather(*(context.warm((), timeout=timeout) for context in self._warm.values()))

    async def wake(self, renewal: Renewal, *, user: str | None, timeout: float) -> None:
        """Tells every kernel that its sandbox is another one now. Warm ones of another `user` are ended. `cwd` is for warm
        ones: what others changed to is their state."""
        if not self._found:
            await self.find()
        for id, context in list(self._warm.items()):
            if user is not None and context.info.user != user:
                self._end_warm(self._warm.pop(id))
        elsewhere = replace(renewal, cwd=None)
        told = [context.renew(renewal, timeout=timeout) for context in self._warm.values()]
        told += [context.renew(elsewhere, timeout=timeout) for context in self._all.values()]
        await asyncio.gather(*told)

    def owns(self, process: int) -> bool:
        """Whether this process is the kernel of a context: nobody else may read from it or write to it."""
        return any(context.owns(process) for context in (*self._all.values(), *self._warm.values()))

    def hides(self, process: int) -> bool:
        """Whether this process is, or was to its end, a kernel that nobody has asked for."""
        return process in self._hidden

    def all(self) -> list[ContextInfo]:
        return [context.info for context in self._all.values()]

    def get(self, id: str) -> ContextInfo:
        """Raises NotFound."""
        return self._one(id).info

    async def create(self, spec: ContextSpec) -> ContextInfo:
        """Returns when its kernel has answered. The same id again gives the context that is there.

        Raises NotSupported (the image has no such language), NotFound (no such cwd), Conflict (the id with another language).
        """
        context = self._made(spec)
        try:
            return await context.ready()
        except Error:
            self._drop(context)
            raise

    async def restart(self, id: str) -> ContextInfo:
        return await self._one(id).restart()

    async def close(self, id: str) -> None:
        """One that is not there is fine."""
        if (context := self._all.get(id)) is not None:
            await context.close()
            self._all.pop(id, None)

    async def execute(
        self, id: str, code: CodeSpec, *, after: int, create: ContextSpec | None
    ) -> AsyncGenerator[CodeEvent, None]:
        context = self._one(id) if create is None or id in self._all else self._made(create)
        try:
            execution = await context.execute(code)
            async with contextlib.aclosing(execution.follow(after)) as events:
                async for event in events:
                    yield event
        except NotSupported:
            self._drop(context)
            raise

    async def interrupt(self, id: str, key: str | None) -> None:
        await self._one(id).interrupt(key)

    async def answer(self, id: str, key: str, call: str, *, value: str | None, error: Mapping[str, str] | None) -> None:
        """Raises NotFound when nothing waits for it (any more)."""
        await self._one(id).answer(key, call, value=value, error=error)

    async def leave(self, error: Error) -> None:
        """Forgets them; the kernels live on for a successor. What is followed ends with `error`."""
        await self._tasks.close()
        for context in (*self._all.values(), *self._warm.values()):
            context.leave(error)
        self._all.clear()
        self._warm.clear()

    def _end_warm(self, context: Context) -> None:
        self._tasks.start(context.close(), name=f"end of warm kernel {context.spec.id}")

    def _drop(self, context: Context) -> None:
        """One that never had a kernel is none."""
        if context.info.pid is None and self._all.get(context.spec.id) is context:
            del self._all[context.spec.id]

    def _one(self, id: str) -> Context:
        if (context := self._all.get(id)) is None:
            raise NotFound(f"no context {id[:64]!r}")
        return context

    def _made(self, spec: ContextSpec) -> Context:
        if (known := self._all.get(spec.id)) is not None:
            if known.spec.language != spec.language:
                raise Conflict(f"context {spec.id} speaks {known.spec.language}")
            return known
        if len(self._all) >= _MAX_CONTEXTS:
            raise LimitExceeded(f"a sandbox has at most {_MAX_CONTEXTS} contexts", hint="close one")
        made = self._warm.pop(spec.id, None)
        if made is not None and made.is_warm and made.spec.language == spec.language:
            made.take(spec)
        else:
            if made is not None:
                self._end_warm(made)
            made = Context(spec, self._processes, self._landmark, self._tasks, self._hidden)
        self._all[spec.id] = made
        return made


def _failed(name: str, error: BaseException) -> None:
    _log.error("a task of a context failed", task=name, exc_info=error)
