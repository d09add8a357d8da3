"""The agent itself: the session with the server on one side, processes and files on the other."""

from __future__ import annotations

import os
from time import monotonic, time

from belljar.wire.agent import AgentSession
from belljar.wire.events import Cancelled, Data, Ended, Hello, Request
from belljar_agent import __version__
from belljar_agent.api import Refused
from belljar_agent.launching import Launching
from belljar_agent.loop import READ, WRITE, Loop
from belljar_agent.processes import Processes
from belljar_agent.settings import Settings
from belljar_agent.transfers import SINKS, SOURCES, Transfers, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from belljar.wire.events import AgentEvent
    from belljar_agent.api import Answer, Args, Steps
    from belljar_agent.forking import Outer
    from belljar_agent.loop import Task, Timer

__all__ = ("Service",)

_READ_SIZE = 262_144
_BURST = 8
"""Frames written in one turn before others are looked at."""
_GRACE = 30.0
"""Seconds for which readers' processes wait after their server vanished; also when a silent server counts as dead."""
_HOUSEKEEPING = 10.0
_STOOD = 5.0
"""Seconds by which the clock was late when the sandbox itself stood still, and the server's silence says nothing."""
_QUIET = 5.0


class Service:
    """`outer` None: plain mode."""

    def __init__(self, root: str, outer: Outer | None) -> None:
        self._outer = outer
        isolated = [] if outer is None else ["users", "namespaces", *(["pids"] if _has_cgroups(outer) else [])]
        features = ["clones", *(isolated or ["plain"])]
        self.loop = Loop(self._fault)
        self._session = AgentSession(f"belljar-agent/{__version__}", features, time())
        self.settings = Settings(root, plain=outer is None, outer=outer)
        self._processes = Processes(self.loop, self._session, self.settings)
        self.launching = self._processes.launching = Launching(self.loop, outer, self)
        self._transfers = Transfers(self.loop, self._session, self.settings)
        self._tasks: dict[int, Task] = {}
        self._heard = self._kept_house = monotonic()
        self._silent = False
        self._blocked = False
        self._ready = False
        self._early: list[Request] = []
        """Requests that came before the launcher was there."""
        self.on_start: Callable[[], object] = _nothing
        self.on_limit: Callable[[], object] = _nothing
        self._reported = 0
        self._release: Timer | None = None
        self._files_used = False
        self._answers: dict[str, Callable[[Args], Answer]] = {
            "configure": self.settings.configure,
            "limit": self._limit,
            "release": self._processes.let_go,
            "forget": self._processes.forget,
            "processes": self._processes.list,
            "process": self._processes.show,
            "attach": self._processes.attach,
            "detach": self._processes.detach,
            "stdin": self._processes.stdin,
            "signal": self._processes.signal,
            "resize": self._processes.resize,
        }

    @property
    def running(self) -> bool:
        """Processes that were started run, or are about to."""
        return self._processes.running or self.launching.busy

    def run(self) -> None:
        """Until the pipe from the server ends, which a named one never does."""
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        self.loop.watch(0, READ, self._readable)
        self.loop.each_turn = self._flush
        self.loop.after(_HOUSEKEEPING, self._housekeeping)
        self.loop.run()

    # bytes -----------------------------------------------------------------------------------------------------------

    def _readable(self, _events: int) -> None:
        try:
            data = os.read(0, _READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self.loop.stop()
            return
        self._heard = monotonic()
        self._silent = False
        for event in self._session.receive(data):
            self._event(event)
        if not self._session.reading:
            self.loop.unwatch(0)

    def _flush(self) -> None:
        if self._blocked:
            return
        session = self._session
        for _ in range(_BURST):
            buffers = session.buffers()
            if not buffers:
                break
            try:
                session.wrote(os.writev(1, buffers))
            except BlockingIOError:
                self._blocked = True
                self.loop.watch(1, WRITE, self._writable)
                return
        else:
            self.loop.soon(_nothing)  # there is more: do not wait
        if session.reading:
            self.loop.watch(0, READ, self._readable)

    def _writable(self, _events: int) -> None:
        self._blocked = False
        self.loop.unwatch(1)

    # events ----------------------------------------------------------------------------------------------------------

    def _event(self, event: AgentEvent) -> None:
        if isinstance(event, Data):
            if not self._processes.data(event.stream, event.data):
                self._transfers.data(event.stream, event.data)
        elif isinstance(event, Request):
            self._request(event.id, event.op, event.args)
        elif isinstance(event, Ended):
            if not self._processes.end_of_data(event.stream):
                self._transfers.end_of_data(event.stream)
        elif isinstance(event, Cancelled):
            self._cancelled(event.id)
        elif isinstance(event, Hello):
            self._session_lost()

    def _request(self, id: int, op: str, args: Args) -> None:
        if not self._ready:
            self._early.append(Request(id, op, args))
            return
        try:
            if op == "start":
                self.on_start()
                self._processes.start(args, lambda ok, refused: self._reply(id, ok, refused))
                return
            answer = self._answers.get(op)
            if answer is not None:
                self._session.respond(id, answer(args))
            elif op in SOURCES:
                self._settle(id, self._transfers.open_source(op, args))
            elif op in SINKS:
                self._files_used = True
                self._session.respond(id, self._transfers.open_sink(op, args))
            elif op == "quiesce":
                self._work(id, self._quiesce())
            else:
                self._file_operation(id, op, args)
        except Exception as error:  # noqa: BLE001 - every fault is an answer, never the end of the agent
            self._session.refuse(id, *self._failure(error))

    def _file_operation(self, id: int, op: str, args: Args) -> None:
        from belljar_agent import files  # imported when first needed: an agent that starts fast answers first

        self._files_used = True
        operation = files.OPERATIONS.get(op)
        if operation is None:
            raise Refused("not_supported", f"this agent has no operation {op[:64]!r}")
        self._settle(id, operation(self.settings, args))

    def _settle(self, id: int, result: Answer | Steps) -> None:
        if isinstance(result, dict):
            self._session.respond(id, result)
        else:
            self._work(id, result)

    def _work(self, id: int, steps: Any) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            self._tasks.pop(id, None)
            if error is not None:
                self._session.refuse(id, *self._failure(error))
            else:
                self._session.respond(id, result)

        self._tasks[id] = self.loop.work(steps, done)

    def _reply(self, id: int, ok: Answer | None, refused: Refused | None) -> None:
        if refused is not None:
            self._session.refuse(id, refused.code, refused.message)
        elif ok is not None:
            self._session.respond(id, ok)

    def _cancelled(self, id: int) -> None:
        self._early = [request for request in self._early if request.id != id]
        task = self._tasks.pop(id, None)
        if task is not None:
            task.cancel()
        elif not self._processes.cancelled(id):
            self._transfers.cancelled(id)

    def _session_lost(self) -> None:
        self._early.clear()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._transfers.session_lost()
        self._processes.session_lost()
        if self._release is not None:
            self._release.cancel()
        self._release = self.loop.after(_GRACE, self._processes.release)

    def _limit(self, args: Args) -> Answer:
        answer = self.settings.limit(args)
        self.on_limit()
        return answer

    def _quiesce(self) -> Any:
        """Waits until no start and no upload is half done. Raises Refused after a while."""
        from belljar_agent import files

        until = monotonic() + _QUIET
        while self.launching.busy or self._transfers.busy or len(self._tasks) > 1:
            if monotonic() > until:
                raise Refused("conflict", "operations are still under way")
            yield
        files.quiesce()
        self.settings.prepare()
        nothing: Answer = {}
        return nothing

    # what happens inside ---------------------------------------------------------------------------------------------

    def ready(self) -> None:
        self._ready = True
        early, self._early = self._early, []
        for request in early:
            self._request(request.id, request.op, request.args)

    def ended(self, outer: int, returncode: int) -> None:
        self._processes.ended(outer, returncode)

    def namespace_lost(self) -> None:
        self._processes.namespace_lost()

    def out_of_memory(self, pid: int, tree: list[int], name: str) -> None:
        """The guard ended `tree`, whose top is the outer `pid`."""
        known = self._processes.out_of_memory(tree)
        event: dict[str, Any] = {"event": "out_of_memory", "pid": known[0].pid if known else 0, "name": name}
        if known:
            event["id"] = known[0].id
        self._session.tell(event)

    def _housekeeping(self) -> None:
        now = monotonic()
        if now > self._kept_house + _HOUSEKEEPING + _STOOD:
            self._heard = now
        self._kept_house = now
        if not self._silent and now - self._heard > _GRACE:
            self._silent = True
            self._processes.server_silent()
        if self._files_used:
            from belljar_agent import files

            files.housekeeping(now)
        self.loop.after(_HOUSEKEEPING, self._housekeeping)

    def _failure(self, error: BaseException) -> tuple[str, str]:
        code, message = failure(error)
        if code == "internal":
            self._fault(error)
        return code, message

    def _fault(self, error: BaseException) -> None:
        """A fault of our own, for the engine's log: bounded, and it never ends the agent."""
        self._reported += 1
        if self._reported <= 100:
            import traceback

            text = "".join(traceback.format_exception(error))
            try:
                os.write(2, text[-4000:].encode("utf-8", "replace"))
            except OSError:
                return


def _has_cgroups(outer: Outer) -> bool:
    fd = os.open("filesystems", os.O_RDONLY | os.O_CLOEXEC, dir_fd=outer.proc)
    try:
        return b"\tcgroup2\n" in os.read(fd, 65_536)
    finally:
        os.close(fd)


def _nothing() -> None:
    """Keeps the loop from waiting."""
