"""One context: its kernel, the executions that wait for it, their clocks, and what happens when a kernel ends."""

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.model.code import (
    CodeSpec,
    ContextInfo,
    ContextSpec,
    ContextState,
    Done,
    HostCall,
    Raised,
    Status,
    decode_event,
)
from belljar.model.errors import (
    Conflict,
    DeadlineExceeded,
    Error,
    LimitExceeded,
    NotFound,
    SandboxGone,
    error_from_code,
)
from belljar.node.guest.contexts.execution import Execution
from belljar.node.guest.contexts.kernel import Kernel, KernelProcesses
from belljar.node.guest.contexts.lines import KernelFault
from belljar.node.guest.contexts.renewal import Renewal
from belljar.node.guest.contexts.state import MAX_QUEUED, State

__all__ = ("Context",)

_KEPT = 8
"""Executions that ended and can still be asked for."""
_START_SECONDS = 60.0
_HISTORY_SECONDS = 5.0
"""For a kernel to say to a new server what it is doing; one whose code holds the interpreter's lock cannot."""
_GRACE_SECONDS = 5.0
"""From an interrupt that must work to the end of the kernel."""
_LOOK_SECONDS = 0.05
_LEFT_SECONDS = 30.0
"""For a client that lost its connection to come back to its execution."""
_FIT_SECONDS = 2.0
"""For a warm kernel to become what somebody asked for; after that a new one is started."""
_log = get_logger("node.contexts")


class Context:
    """All calls are the owner's, in one event loop. `close` ends the kernel; without it the kernel lives on for a successor."""

    def __init__(
        self, spec: ContextSpec, processes: KernelProcesses, landmark: str, tasks: TaskSet, hidden: set[int]
    ) -> None:
        self.spec = spec
        self._processes = processes
        self._landmark = landmark
        self._tasks = tasks
        self._hidden = hidden
        """Processes of warm kernels, also of those that ended without ever becoming somebody's."""
        self._kernel: Kernel | None = None
        self._starting = asyncio.Lock()
        self._executions: OrderedDict[str, Execution] = OrderedDict()
        self._state: asyncio.Future[None] | None = None
        """Done when the newest session's `state` has come."""
        self._session = ""
        self._finding = False
        self._timer: asyncio.TimerHandle | None = None
        self._refused: Error | None = None
        self._why = ""
        """Why we end the kernel, if we do."""
        self._forgotten: frozenset[str] = frozenset()
        """Executions that ended under an earlier server, and their events are not kept."""
        self._warm = self._replacing = self._cloned = False
        self._count = 0
        self._restarts = 0
        self._closed = False

    @property
    def info(self) -> ContextInfo:
        kernel = self._kernel
        busy = self._finding or bool(self._waiting())
        state = ContextState.DEAD if kernel is None else ContextState.BUSY if busy else ContextState.IDLE
        return ContextInfo(
            id=self.spec.id,
            language=self.spec.language,
            state=state,
            count=self._count,
            restarts=self._restarts,
            pid=kernel.info.pid if kernel else None,
            cwd=self.spec.cwd,
            user=kernel.info.user if kernel else self.spec.user,
        )

    @property
    def process(self) -> int | None:
        """The agent's id of its kernel, while that lives."""
        return self._kernel.info.id if self._kernel is not None else None

    def owns(self, process: int) -> bool:
        return self.process == process

    @property
    def is_warm(self) -> bool:
        """Its kernel lives, and was started before anybody asked for it."""
        return self._warm and self._kernel is not None

    async def ready(self) -> ContextInfo:
        """Returns when a kernel has answered. Raises what `Kernel.start` raises, and NotSupported when it refuses."""
        await self._live()
        state = self._state
        assert state is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(state)
        except TimeoutError:
            raise DeadlineExceeded(f"the kernel did not answer within {_START_SECONDS:g} s") from None
        return self.info

    def adopt(self, kernel: Kernel) -> None:
        """Goes on with a kernel that is there already. Until its `state` has come, what it says is history."""
        self._finding = True
        self._begin(kernel)
        self._tasks.start(self._greet(kernel), name=f"greeting of context {self.spec.id}")

    async def found(self, *, timeout: float) -> bool:
        """Whether the kernel that was adopted has said within `timeout` seconds what it is doing."""
        if self._finding and self._state is not None:
            await asyncio.wait([self._state], timeout=timeout)
        return not self._finding

    async def warm(self, modules: Sequence[str], *, timeout: float) -> None:
        """Starts the kernel, and imports those of `modules` that the image has. Raises as `ready`, and DeadlineExceeded."""
        if self._kernel is None:
            await self.ready()
        if (kernel := self._kernel) is None:
            raise Conflict("the kernel ended before it was warm")
        try:
            async with asyncio.timeout(timeout):
                await (await kernel.ask({"op": "warm", "modules": list(modules)}))
        except TimeoutError:
            raise DeadlineExceeded(f"the kernel was not warm within {timeout:g} s") from None
        self._become_warm()

    def take(self, spec: ContextSpec) -> None:
        """Somebody asks for what was warm until now: its kernel becomes the one of `spec`, or a new one is started."""
        self.spec = spec

    async def renew(self, renewal: Renewal, *, timeout: float) -> None:
        """Returns when it is on its way to the kernel, before all that is sent later. A kernel that does not take it in
        `timeout` seconds is ended. Raises SandboxGone."""
        kernel = self._kernel
        self._cloned = True
        self._leave_running()
        if kernel is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await kernel.ask(renewal.request())
        except SandboxGone:
            raise
        except (Error, TimeoutError):
            self._why = "it did not take what its sandbox has become"
            await kernel.kill()

    async def execute(self, spec: CodeSpec) -> Execution:
        """The execution with this key, begun if it is not known. Raises LimitExceeded, and as `ready`."""
        await self._history_read()
        if (known := self._executions.get(spec.key)) is not None and not known.abandoned:
            self._resume(known, spec)
            return known
        if spec.key in self._forgotten:
            raise _lost()
        if len(self._waiting()) >= MAX_QUEUED:
            raise LimitExceeded(f"{MAX_QUEUED} executions wait in this context", hint="create another context")
        execution = self._executions[spec.key] = Execution(spec, left=self._was_left)
        try:
            kernel = await self._live()
            try:
                await self._send_execute(kernel, spec)
            except Conflict:
                # It takes no input: it has just ended, or closed what it is told through. Its end is told by its reader.
                await kernel.kill()
        except Error:
            self._executions.pop(spec.key, None)
            raise
        except BaseException:
            self._was_left(execution)
            raise
        self._arm()
        return execution

    async def interrupt(self, key: str | None) -> None:
        """The execution with this key, or the one that runs. Fine when there is none."""
        waiting = self._waiting()
        if self._kernel is not None and waiting:
            await self._kernel.send({"op": "interrupt", "key": key or waiting[0].key})

    async def answer(self, key: str, call: str, *, value: str | None, error: Mapping[str, str] | None) -> None:
        """Raises NotFound when nothing waits for it (any more)."""
        await self._history_read()
        execution = self._executions.get(key)
        if execution is None or call not in execution.calls or self._kernel is None:
            raise NotFound("no such call waits for an answer")
        execution.calls.discard(call)
        said = {"value": value} if error is None else {"error": dict(error)}
        await self._kernel.send({"op": "reply", "call": call} | said)
        self._arm()

    async def restart(self) -> ContextInfo:
        """Ends the kernel and what runs, and starts a new one."""
        await self._end_kernel("it was restarted")
        return await self.ready()

    async def close(self) -> None:
        self._closed = True
        await self._end_kernel("its context was closed")

    def leave(self, error: Error) -> None:
        """The kernel lives on; whoever waits here gets `error`."""
        if self._kernel is not None:
            self._ended(self._kernel, None, error)
        if self._timer is not None:
            self._timer.cancel()

    # the kernel ------------------------------------------------------------------------------------------------------

    async def _history_read(self) -> None:
        """After a crash of the server the first callers come before the kernel's history: what it waits for is not known yet."""
        if self._finding and self._state is not None:
            await asyncio.wait([self._state], timeout=_HISTORY_SECONDS)

    async def _live(self) -> Kernel:
        async with self._starting:
            if self._closed:
                raise NotFound("the context was closed")
            if self._warm and self._kernel is not None:
                await self._become(self._kernel)
            kernel = self._kernel
            if kernel is None:
                kernel = await Kernel.start(self._processes, self.spec, self._landmark)
                self._begin(kernel)
                with contextlib.suppress(Conflict):  # it has ended already, and its reader tells why
                    await kernel.hello(self._session, self.spec.env)
            return kernel

    def _become_warm(self) -> None:
        if self._kernel is not None:
            self._warm = True
            self._hidden.add(self._kernel.info.id)

    async def _become(self, kernel: Kernel) -> None:
        """Makes a warm kernel the one that was asked for, or ends it."""
        self._warm, self._replacing = False, True
        try:
            if await kernel.become(self.spec, timeout=_FIT_SECONDS):
                self._hidden.discard(kernel.info.id)
            else:
                await self._end_kernel("another one is needed")
        finally:
            self._replacing = False

    def _begin(self, kernel: Kernel) -> None:
        self._kernel, self._refused, self._why, self._count = kernel, None, "", 0
        self._state = asyncio.get_running_loop().create_future()
        self._state.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._session = secrets.token_hex(8)
        self._tasks.start(self._read(kernel), name=f"kernel of context {self.spec.id}")

    async def _greet(self, kernel: Kernel) -> None:
        """One that reads nothing, for what is in its way already, may be greeted late or never."""
        try:
            await kernel.hello(self._session)
        except Error as error:
            _log.warning("a kernel did not take its new server", context=self.spec.id, error=str(error))

    async def _read(self, kernel: Kernel) -> None:
        async def said(event: Mapping[str, Any], size: int) -> None:
            if self._kernel is kernel:  # not one that was killed, and is not read to its end yet
                await self._said(event, size)

        try:
            why = await kernel.read(said)
        except Error as error:  # the sandbox has ended, or its agent
            self._ended(kernel, None, error)
            return
        self._ended(kernel, self._why or why, self._refused)

    def _ended(self, kernel: Kernel, why: str | None, error: Error | None) -> None:
        if self._kernel is not kernel:
            return
        self._kernel = None
        # Whoever asks for a warm one never sees that there was another.
        self._restarts += not (self._warm or self._replacing)
        self._finding = self._warm = False
        # One that is being replaced was told of none of them.
        for execution in self._waiting() if error is not None or not self._replacing else ():
            if error is not None:
                execution.fail(error)
            else:
                execution.end("KernelDied", f"the kernel of context {self.spec.id} is gone, and its state: {why}")
        if self._state is not None and not self._state.done():
            self._state.set_exception(error or Conflict(f"the kernel ended before it was ready: {why}"))
        self._arm()

    async def _end_kernel(self, why: str) -> None:
        kernel = self._kernel
        if kernel is None:
            return
        self._why = why
        await kernel.kill()
        deadline = asyncio.get_running_loop().time() + _GRACE_SECONDS
        while self._kernel is kernel:
            if asyncio.get_running_loop().time() > deadline:
                # Its end comes after all it had said before: nobody waits for that.
                _log.warning("a killed kernel is still being read", context=self.spec.id)
                self._ended(kernel, why, None)
                return
            await asyncio.sleep(0.005)

    # what it says ----------------------------------------------------------------------------------------------------

    async def _said(self, event: Mapping[str, Any], size: int) -> None:
        match event.get("kind"):
            case "state":
                self._took_state(event)
            case "refused":
                words = [str(event.get(name, ""))[:1000] for name in ("message", "hint")]
                self._refused = error_from_code("not_supported", words[0], hint=words[1] or None)
            case "renewed" | "warmed":
                self._took_answer(event)
            case _:
                await self._took_event(event, size)

    def _took_state(self, event: Mapping[str, Any]) -> None:
        if event.get("session") != self._session:
            return
        if self._finding:
            self._found(State.of(event))
        self._finding = False
        self._forget_old()
        if self._state is not None and not self._state.done():
            self._state.set_result(None)
        self._arm()

    def _took_answer(self, event: Mapping[str, Any]) -> None:
        if (kernel := self._kernel) is not None:
            kernel.answered(event)
            if self._warm and kernel.unfit:
                self._tasks.start(kernel.kill(), name=f"end of warm kernel {self.spec.id}")

    def _found(self, state: State) -> None:
        """All that the kernel said before has been read: what is not over by now runs, waits, or its end was lost."""
        self._forgotten = state.ended
        if state.warm and not self._executions:
            self._become_warm()
        # Also those that have said nothing yet.
        for key in (*([state.running] if state.running else ()), *state.queued):
            if key not in self._executions:
                self._executions[key] = Execution(CodeSpec(key, ""), left=self._was_left)
                self._executions[key].found = True
        for execution in self._waiting():
            execution.calls &= state.calls
            if execution.key in state.ended:
                execution.fail(_lost())
            elif execution.key == state.running:
                execution.running_since = asyncio.get_running_loop().time() - state.elapsed
            if not execution.followed and not execution.over:
                self._was_left(execution)

    def _leave_running(self) -> None:
        """What runs in a clone was begun for somebody who follows it in another sandbox: it goes on, unheard."""
        for execution in self._waiting():
            if execution.found and not execution.is_followed:
                execution.ignore()

    async def _took_event(self, event: Mapping[str, Any], size: int) -> None:
        key = event.get("key")
        execution = self._executions.get(key) if isinstance(key, str) else None
        if execution is None:
            if not self._finding or not isinstance(key, str):
                return  # of one that was forgotten, or made up
            execution = self._executions[key] = Execution(CodeSpec(key, ""), left=self._was_left)
            execution.found = True
        try:
            said = decode_event(event)
        except ValueError as error:
            raise KernelFault(f"a bad event: {str(error)[:200]}") from None
        if not self._finding:
            await execution.room()
        if execution.timed_out:
            if isinstance(said, Raised):
                said = _timeout(said.seq, execution)
            elif isinstance(said, Done) and not execution.raised:
                execution.add(_timeout(said.seq, execution), 0)
                said = Done(said.seq + 1, Status.ERROR, said.count)
        if not execution.add(said, size):
            return
        match said:
            case Done():
                self._count = max(self._count, said.count)
                self._forget_old()
                self._arm()
            case HostCall():
                self._arm()
            case _:
                pass

    # clocks ----------------------------------------------------------------------------------------------------------

    def _waiting(self) -> list[Execution]:
        return [execution for execution in self._executions.values() if not execution.over]

    def _arm(self) -> None:
        """The clock of the execution that runs goes while it does not wait for the host; all others stand still."""
        now = asyncio.get_running_loop().time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for index, execution in enumerate(self._waiting()):
            runs = index == 0 and not execution.calls
            if not runs and execution.running_since is not None and execution.remaining is not None:
                execution.remaining -= now - execution.running_since
                execution.running_since = None
            elif runs and not execution.timed_out:
                execution.running_since = execution.running_since if execution.running_since is not None else now
                if execution.remaining is not None:
                    left = execution.remaining - (now - execution.running_since)
                    self._timer = asyncio.get_running_loop().call_later(max(left, 0.0), self._expire, execution)

    def _expire(self, execution: Execution) -> None:
        if not execution.over:
            execution.timed_out = True
            said = f"it did not stop {_GRACE_SECONDS:g} s after its limit of {execution.spec.timeout:g} s"
            self._tasks.start(self._stop(execution, "timeout", said), name=f"timeout of {execution.key}")

    def _was_left(self, execution: Execution) -> None:
        if execution.found and self._cloned:
            execution.ignore()
            return
        self._tasks.start(self._wait_for_return(execution), name=f"return to {execution.key}")

    async def _wait_for_return(self, execution: Execution) -> None:
        await asyncio.sleep(_LEFT_SECONDS)
        if not execution.is_followed and not execution.over and not (execution.found and self._cloned):
            execution.abandon()
            await self._stop(execution, "abandoned", f"it went on {_GRACE_SECONDS:g} s after its caller had left")

    async def _stop(self, execution: Execution, reason: str, otherwise: str) -> None:
        """Interrupts it; a kernel that cannot be interrupted ends."""
        kernel = self._kernel
        if kernel is None:
            return
        with contextlib.suppress(TimeoutError, Error):
            async with asyncio.timeout(_GRACE_SECONDS):
                await kernel.send({"op": "interrupt", "key": execution.key, "reason": reason})
        waited = 0.0
        while not execution.over and self._kernel is kernel:
            await asyncio.sleep(_LOOK_SECONDS)
            # A kernel that waits for a slow follower has maybe stopped long ago.
            waited += _LOOK_SECONDS / (12 if execution.is_full else 1)
            if waited > _GRACE_SECONDS:
                _log.info("a kernel cannot be interrupted and ends", context=self.spec.id, reason=reason)
                await self._end_kernel(otherwise)

    # ---------------------------------------------------------------------------------------------------------------

    def _resume(self, known: Execution, spec: CodeSpec) -> None:
        """A client came back to it; one that an earlier server began is known by its key only."""
        if known.found:
            known.found, known.spec, known.remaining = False, spec, spec.timeout
            self._arm()

    async def _send_execute(self, kernel: Kernel, spec: CodeSpec) -> None:
        request: dict[str, Any] = {"op": "execute", "key": spec.key, "code": spec.code}
        if spec.env:
            request["env"] = dict(spec.env)
        if spec.silent:
            request["silent"] = True
        await kernel.send(request)

    def _forget_old(self) -> None:
        over = [key for key, execution in self._executions.items() if execution.over and not execution.is_followed]
        for key in over[:-_KEPT]:
            del self._executions[key]


def _lost() -> Conflict:
    return Conflict(
        "how this execution ended was lost with the server that ran it", hint="the state of the context is kept"
    )


def _timeout(seq: int, execution: Execution) -> Raised:
    return Raised(seq, "TimeoutError", f"the code was interrupted after {execution.spec.timeout:g} s", "")
