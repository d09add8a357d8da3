"""The processes of the users: operations on them, and what happens when they end."""

from __future__ import annotations

import os
from time import monotonic, time

from belljar_agent.api import Refused, refusal_of
from belljar_agent.arguments import flag, number, object_of, optional_number, text
from belljar_agent.input import WINDOW
from belljar_agent.process import Process
from belljar_agent.starting import make_order, resize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from belljar.wire.agent import AgentSession
    from belljar_agent.api import Answer, Args
    from belljar_agent.launching import Launching
    from belljar_agent.loop import Loop
    from belljar_agent.settings import Settings

    Reply = Callable[[Answer | None, Refused | None], object]

__all__ = ("Processes",)

_HANG_UP = 1
_ENDED_KEPT = 64
_ENDED_OUTPUT = 64 << 20
_PIPE_GRACE = 0.2
_MAX_WINDOW = 1 << 20


class Processes:
    """The table. `launching` is set by the owner before the first start."""

    launching: Launching

    def __init__(self, loop: Loop, session: AgentSession, settings: Settings) -> None:
        self._loop = loop
        self._session = session
        self._settings = settings
        self._by_id: dict[int, Process] = {}
        self._by_key: dict[str, Process] = {}
        self._by_outer: dict[int, Process] = {}
        self._doomed: set[int] = set()
        self._starting: dict[str, list[tuple[Args, Reply]]] = {}
        self._ended: list[Process] = []
        self._streams: dict[int, Callable[[], object]] = {}
        """What to do when the server cancels a stream."""
        self._inputs: dict[int, Process] = {}
        self._next_id = 1

    # operations ------------------------------------------------------------------------------------------------------

    def start(self, args: Args, reply: Reply) -> None:
        """Answers when the process runs. A known key gives the process that is there."""
        key = text(args, "key")
        known = self._by_key.get(key)
        if known is not None:
            self._attach_and_reply(known, args, reply)
            return
        waiting = self._starting.get(key)
        if waiting is not None:
            waiting.append((args, reply))
            return
        order = make_order(self._loop, self._settings, args)
        self._starting[key] = [(args, reply)]

        def started(outer: int, inner: int) -> None:
            process = Process(
                self._next_id,
                key,
                order.argv,
                order.user,
                time(),
                order.stdin,
                order.stdout,
                order.stderr,
                terminal=order.terminal is not None,
                keep_alive=order.keep_alive,
            )
            self._next_id += 1
            process.outer = outer
            process.pid = inner
            self._by_id[process.id] = process
            self._by_key[key] = process
            self._by_outer[outer] = process
            process.out_of_memory = outer in self._doomed
            for each_args, each_reply in self._starting.pop(key):
                self._attach_and_reply(process, each_args, each_reply)
            if not self._starting:
                self._doomed.clear()

        def failed(code: str, message: str) -> None:
            for output in (order.stdout, order.stderr):
                output.close()
            order.stdin.close()
            for _, each_reply in self._starting.pop(key):
                each_reply(None, Refused(code, message))
            if not self._starting:
                self._doomed.clear()

        self.launching.start(
            order.words,
            order.env,
            order.cwd,
            order.identity,
            order.terminal,
            order.fds,
            started,
            failed,
        )

    def list(self, _args: Args) -> Answer:
        return {"processes": [process.info() for process in self._by_id.values()]}

    def show(self, args: Args) -> Answer:
        return self._find(args).info()

    def attach(self, args: Args) -> Answer:
        process = self._find(args)
        self._attach(process, args)
        return process.info()

    def detach(self, args: Args) -> Answer:
        process = self._find(args)
        for output in (process.stdout, process.stderr):
            output.detach()
        return {}

    def stdin(self, args: Args) -> Answer:
        """Opens the way in. `closed`: the process takes no input (any more), and no stream was opened."""
        process = self._find(args)
        entry = process.stdin
        offset = number(args, "offset", 0)
        if offset > entry.taken:
            raise Refused("conflict", f"input was taken up to {entry.taken}, not to {offset}")
        if not entry.open:
            return {"offset": entry.taken, "credit": entry.taken, "closed": True}
        id = number(args, "stream", least=1, most=0xFFFF_FFFF)
        try:
            stream = self._session.open_in(id, offset=entry.taken, window=WINDOW, waiting=entry.waiting)
        except ValueError as error:
            raise Refused("invalid_argument", str(error)) from None

        def done(error: tuple[str, str] | None) -> None:
            self._inputs.pop(id, None)
            self._streams.pop(id, None)
            self._session.end_in(id, result={"offset": entry.taken}, error=error)

        def cancelled() -> None:
            self._inputs.pop(id, None)
            entry.forget()

        entry.attach(stream, done)
        self._inputs[id] = process
        self._streams[id] = cancelled
        return {"offset": entry.taken, "credit": stream.granted, "closed": False}

    def signal(self, args: Args) -> Answer:
        process = self._find(args)
        which = number(args, "signal", least=0, most=64)
        group = flag(args, "group")
        try:
            if group and self._group_is_own(process):
                if which == _HANG_UP and process.terminal:
                    from belljar_agent.hangup import hang_up

                    outer = self._settings.outer
                    hang_up(process.outer, outer.proc if outer else None)
                else:
                    os.killpg(process.outer, which)
            elif process.returncode is None:
                os.kill(process.outer, which)
        except ProcessLookupError:
            return {}
        except OSError as error:
            raise refusal_of(error, f"signal {which}") from None
        return {}

    def resize(self, args: Args) -> Answer:
        process = self._find(args)
        cols = number(args, "cols", least=1, most=4096)
        rows = number(args, "rows", least=1, most=4096)
        if not process.terminal:
            raise Refused("conflict", "the process has no terminal")
        if process.stdout.fd is not None:
            try:
                resize(process.stdout.fd, cols, rows)
            except OSError as error:
                raise refusal_of(error, "resize") from None
        return {}

    def forget(self, _args: Args) -> Answer:
        """Those that have ended, as if they had never been."""
        for process in self._ended:
            del self._by_id[process.id]
            self._by_key.pop(process.key, None)
            process.close()
        self._ended.clear()
        self._next_id = max(self._by_id, default=0) + 1
        return {}

    def let_go(self, _args: Args) -> Answer:
        """Readers of an earlier session will not come back: they read from another sandbox, of which this is a clone."""
        self.release()
        return {}

    # the session -----------------------------------------------------------------------------------------------------

    def data(self, stream: int, data: bytes) -> bool:
        """Bytes for a process's input; False if the stream is none of ours."""
        process = self._inputs.get(stream)
        if process is None:
            return False
        process.stdin.take(data)
        return True

    def end_of_data(self, stream: int) -> bool:
        process = self._inputs.get(stream)
        if process is None:
            return False
        process.stdin.end()
        return True

    def cancelled(self, stream: int) -> bool:
        action = self._streams.pop(stream, None)
        if action is None:
            return False
        action()
        return True

    def session_lost(self) -> None:
        """The server is gone: readers' processes wait for its successor for a while."""
        self._streams.clear()
        self._inputs.clear()
        for waiting in self._starting.values():
            del waiting[:]
        for process in self._by_id.values():
            process.stdin.forget()
            process.stdout.hold()
            process.stderr.hold()

    def release(self) -> None:
        """Nobody came: no process waits for a reader any more."""
        for process in self._by_id.values():
            process.stdout.release()
            process.stderr.release()

    def server_silent(self) -> None:
        """It may be dead: readers are ended, so that no process waits for it."""
        for process in self._by_id.values():
            process.stdout.detach("the server said nothing for too long")
            process.stderr.detach("the server said nothing for too long")

    # the launcher ----------------------------------------------------------------------------------------------------

    def ended(self, outer: int, returncode: int) -> None:
        process = self._by_outer.pop(outer, None)
        if process is None:
            return
        process.returncode = returncode
        process.ended = time()
        process.stdin.close()
        outputs = (process.stdout, process.stderr)
        for output in outputs:
            output.drain()
        self._session.tell({"event": "exit", "process": process.info()})
        if not all(output.closed for output in outputs):
            self._loop.at(monotonic() + _PIPE_GRACE, lambda: [output.settle() for output in outputs])
        self._ended.append(process)
        self._forget_old()

    def namespace_lost(self) -> None:
        for outer in list(self._by_outer):
            self.ended(outer, -9)
        self._session.tell({"event": "namespace_lost"})

    @property
    def running(self) -> bool:
        return bool(self._by_outer)

    def out_of_memory(self, tree: list[int]) -> list[Process]:
        """Notes the reason of their end, also for those whose start is not known here yet: a bomb can be that quick."""
        known = [process for process in map(self._by_outer.get, tree) if process is not None]
        for process in known:
            process.out_of_memory = True
        if self._starting:
            self._doomed.update(tree)
        return known

    # ------------------------------------------------------------------------------------------------------------------

    def _attach_and_reply(self, process: Process, args: Args, reply: Reply) -> None:
        try:
            self._attach(process, args)
        except Refused as refused:
            reply(None, refused)
        else:
            reply(process.info(), None)

    def _attach(self, process: Process, args: Args) -> None:
        """`stdout` and `stderr` are a stream's id, or ``{stream, from}``."""
        window = number(args, "window", 0, most=_MAX_WINDOW)
        wanted: list[tuple[str, int, int]] = []
        for name in ("stdout", "stderr"):
            value: object = args.get(name)
            if isinstance(value, dict):
                place = object_of(args, name) or {}
                wanted.append((name, number(place, "stream", least=1, most=0xFFFF_FFFF), number(place, "from", 0)))
            elif (stream := optional_number(args, name, least=1, most=0xFFFF_FFFF)) is not None:
                wanted.append((name, stream, 0))
        for name, stream, offset in wanted:
            output = process.output(name)
            if offset > output.ring.end:
                raise Refused("conflict", f"{name} has {output.ring.end} bytes, not {offset}")
            try:
                out = self._session.open_out(stream, output.pull, offset=output.start_of(offset), window=window)
            except ValueError as error:
                raise Refused("invalid_argument", str(error)) from None
            output.attach(out, lambda stream=stream: self._streams.pop(stream, None))
            self._streams[stream] = output.cancelled

    def _find(self, args: Args) -> Process:
        id = optional_number(args, "id")
        if id is not None:
            process = self._by_id.get(id)
            if process is None:
                raise Refused("not_found", f"no process {id}")
            return process
        pid = number(args, "pid")
        for process in reversed(self._by_id.values()):
            if process.pid == pid:
                return process
        raise Refused("not_found", f"no process with pid {pid}")

    def _group_is_own(self, process: Process) -> bool:
        """The group outlives its leader; a number that somebody else has got since is left alone."""
        other = self._by_outer.get(process.outer)
        return other is None or other is process

    def _forget_old(self) -> None:
        ended = self._ended
        kept = sum(process.kept for process in ended)
        while ended and (len(ended) > _ENDED_KEPT or (kept > _ENDED_OUTPUT and len(ended) > 1)):
            oldest = ended.pop(0)
            kept -= oldest.kept
            del self._by_id[oldest.id]
            self._by_key.pop(oldest.key, None)
            oldest.close()
