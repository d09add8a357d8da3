"""Cells of other languages, by a Jupyter kernel beside this process and the image's own jupyter_client."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from belljar_kernel.backend import ERROR, INTERRUPTED, OK, Backend, Outcome, Refused
from belljar_kernel.capture import Capture
from belljar_kernel.interrupts import Process, children, interrupt_children
from belljar_kernel.jupyter_events import Failure, Telling, explain, failure_of, stream_of
from belljar_kernel.jupyter_specs import choose, environment_cells, renewal_cell
from belljar_kernel.limits import LATE_CHARACTERS
from belljar_kernel.renewal import Unfit, reseed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from belljar_kernel.backend import Cell
    from belljar_kernel.hostcalls import HostCalls
    from belljar_kernel.renewal import Renewal

__all__ = ("open_backend",)

_START = 55.0
"""Seconds; the host waits for 60."""
_ASK = 0.5
_QUIET = 2.0
"""Seconds without a word after which a cell has ended of whose two last messages only one came: the other was lost, or its
kernel failed on it."""
_NO_ANSWER = "the kernel could not run this code, and did not say why"
_AGAIN = 1.0
"""Seconds after which a cell that goes on is interrupted again: the first time its kernel may not have begun with it."""
_LOOK = 200
_GATHER = 4
"""Milliseconds of quiet that end a piece of output: a kernel may send every line of a thousand by itself."""
_FENCE = 60.0
_DIED = 71
_BATCH = 256
_MESSAGES = 20_000
"""Of output that wait; when there are more a kernel throws away what is newer."""
_NO_CLIENT = "pip install jupyter-client ipykernel and the language's kernel in the image, or use the image code"


def open_backend(language: str, calls: HostCalls) -> Backend:
    """Starts the kernel. Raises Refused when the image has none for the language, or it does not start."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise Refused(f"this image runs Python alone: it has no jupyter_client ({error})", hint=_NO_CLIENT) from error
    try:
        specs = {name: found["spec"] for name, found in KernelSpecManager().get_all_specs().items()}
    except Exception as error:
        raise Refused(f"the image's Jupyter kernels cannot be listed: {error}") from error
    # As a handler, which programs do not inherit: a kernel that ignores SIGINT could not be interrupted.
    signal.signal(signal.SIGINT, lambda *_: None)
    return _Jupyter(choose(language, specs), specs)


class _Void:
    """A cell for what a kernel writes while it starts: warnings that interest nobody unless it fails."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, stream: str, text: str) -> bool:
        self.text = (self.text + text)[-2000:]
        return True


class _Raw:
    """What came through descriptors 1 and 2: a kernel that is interrupted complains there, and not for its code."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def write(self, stream: str, text: str) -> bool:
        return self._cell.interrupted or self._cell.write(stream, text)


class _Jupyter:
    """One kernel and its sockets. All but `interrupt` belongs to the main thread."""

    def __init__(self, name: str, specs: Mapping[str, Mapping[str, Any]]) -> None:
        import zmq
        from jupyter_client.manager import KernelManager

        self._zmq = zmq
        self._again: Any = zmq.NOBLOCK
        self._last_words = os.dup(2)
        self._folder = tempfile.mkdtemp(prefix="belljar-kernel-")
        self.language = str(specs[name].get("language") or name)
        self.language_version = ""
        self._own = _object(_object(specs[name].get("metadata")).get("belljar"))
        self._by_message = specs[name].get("interrupt_mode") == "message"
        self._count = 0
        self._interrupted = 0.0
        self._older: frozenset[Process] = frozenset()
        self._sending = threading.Lock()
        start, capture = _Void(), Capture()
        self._capture = capture
        capture.begin(start)  # type: ignore[arg-type]
        self._manager: Any = KernelManager(kernel_name=name, connection_file=os.path.join(self._folder, "kernel.json"))
        try:
            self._manager.start_kernel(env=dict(os.environ), cwd=os.getcwd(), preexec_fn=_die_with_parent())
            self._process: Any = self._manager.provisioner.process
            self._open()
            if isinstance(prepare := self._own.get("prepare"), str):
                self._wait(self._ask(prepare, silent=True), _Nobody())
        except Exception as error:
            capture.end()
            self.close()
            words = f"\n{start.text.strip()}" if start.text.strip() else ""
            raise Refused(f"the Jupyter kernel {name} does not start: {error}{words}", code="internal") from error
        capture.end()

    def execute(self, cell: Cell) -> Outcome:
        self._older = children() if self._by_message else frozenset()
        self._interrupted = time.monotonic()
        if cell.interrupted:
            return self._failed(cell, None, None)
        cells = environment_cells(self.language, cell.env) if cell.env else None
        if cell.env and cells is None:
            why = f"variables for one cell cannot be set in {self.language}; set them when the context is made"
            cell.error("NotSupported", why, why)
            return Outcome(ERROR, self._count)
        telling = Telling(cell)
        self._capture.begin(_Raw(cell))  # type: ignore[arg-type]
        self._late(cell)
        if cells is not None:
            self._wait(self._ask(cells.before, silent=True), _Nobody())
        reply = self._wait(self._ask(cell.code, silent=cell.silent), telling, cell)
        self._fence(telling)
        if cells is not None:
            self._wait(self._ask(cells.after, silent=True), _Nobody())
        self._capture.end()
        count = reply.get("execution_count")
        if isinstance(count, int) and not cell.silent:
            self._count = count
        if reply.get("status") == "ok" and telling.failure is None:
            return Outcome(OK, self._count)
        return self._failed(cell, telling.failure, reply)

    def interrupt(self, cell: Cell) -> None:
        with contextlib.suppress(Exception):
            self._interrupt(first=True)

    def renew(self, renewal: Renewal) -> None:
        if renewal.reseed:
            reseed()  # of this process, which makes ids and keys
        code = renewal_cell(self.language, renewal)
        if code is None and (renewal.env or renewal.cwd or renewal.reseed):
            raise Unfit(f"{self.language} cannot be told while it runs")
        if code and self._wait(self._ask(code, silent=True), _Nobody()).get("status") != "ok":
            raise Unfit(f"{self.language} did not take it")

    def warm(self, modules: Sequence[str]) -> None:
        """Starting it was all."""

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._manager.shutdown_kernel(now=True)
        self._capture.flush()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _failed(self, cell: Cell, failure: Failure | None, reply: Mapping[str, Any] | None) -> Outcome:
        if cell.interrupted:
            traceback = failure.traceback if failure is not None else ""
            if cell.timed_out is not None:
                cell.error("TimeoutError", cell.timed_out, traceback)
            else:
                cell.error("KeyboardInterrupt", "", traceback)
            return Outcome(INTERRUPTED, self._count)
        failure = failure or explain(self._own.get("explain"), cell.code) or failure_of(reply or {})
        cell.error(failure.name, failure.value, failure.traceback)
        return Outcome(ERROR, self._count)

    def _open(self) -> None:
        """Connects, and waits until the kernel answers and is heard. Raises RuntimeError."""
        zmq = self._zmq
        self._session = self._manager.session
        self._control_session = self._session.clone()
        self._manager.context.setsockopt(zmq.RCVHWM, _MESSAGES)
        self._shell, self._iopub = self._manager.connect_shell(), self._manager.connect_iopub()
        self._stdin, self._control = self._manager.connect_stdin(), self._manager.connect_control()
        self._poller = zmq.Poller()
        for socket in (self._shell, self._iopub, self._stdin):
            self._poller.register(socket, zmq.POLLIN)
        deadline = time.monotonic() + _START
        asked = 0.0
        info: Mapping[str, Any] | None = None
        heard = False
        while not (info and heard):
            now = time.monotonic()
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with status {self._process.returncode}")
            if now > deadline:
                raise RuntimeError(f"it did not answer in {_START:g} s")
            if now - asked > _ASK:
                self._session.send(self._shell, "kernel_info_request", {})
                asked = now
            self._poller.poll(_LOOK // 4)
            for message in self._take(self._iopub):
                heard = heard or bool(message)
            for message in self._take(self._shell):
                if message["header"]["msg_type"] == "kernel_info_reply":
                    info = message["content"]
        self.language_version = str(_object(info.get("language_info")).get("version", ""))

    def _ask(self, code: str, *, silent: bool) -> str:
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        return self._session.send(self._shell, "execute_request", content)["header"]["msg_id"]

    def _wait(self, request: str, telling: Telling | _Nobody, cell: Cell | None = None) -> Mapping[str, Any]:
        """Gives on what the kernel says until it is idle again, and returns its reply. Ends the process when the kernel ends."""
        reply: Mapping[str, Any] | None = None
        idle = False
        word = time.monotonic()
        while reply is None or not idle:
            if self._poller.poll(_GATHER if telling.waiting else _LOOK):
                word = time.monotonic()
            else:
                telling.flush()
                if self._process.poll() is not None and not self._poller.poll(0):
                    self._die()
                if (idle or reply is not None) and time.monotonic() - word > _QUIET:
                    break
            for message in self._take(self._iopub):
                kind, content = message["header"]["msg_type"], message["content"]
                if kind == "status":
                    ours = message["parent_header"].get("msg_id") == request
                    idle = idle or (ours and content.get("execution_state") == "idle")
                else:
                    telling.take(kind, content)
            for message in self._take(self._shell):
                if message["parent_header"].get("msg_id") == request:
                    reply = message["content"]
            for message in self._take(self._stdin):
                if message["header"]["msg_type"] == "input_request":  # which was not allowed
                    self._session.send(self._stdin, "input_reply", {"value": ""}, parent=message)
            if cell is not None and cell.interrupted and time.monotonic() - self._interrupted > _AGAIN:
                with contextlib.suppress(Exception):
                    self._interrupt(first=False)
        telling.flush()
        return {"status": "error", "ename": "KernelError", "evalue": _NO_ANSWER} if reply is None else reply

    def _fence(self, telling: Telling) -> None:
        """Of a kernel that says that it is idle before all output has come: a cell of our own whose message comes behind it."""
        if not isinstance(code := self._own.get("fence"), str):
            return
        telling.fenced = False
        self._wait(self._ask(code, silent=True), telling)
        quiet = time.monotonic() + _QUIET
        longest = quiet + _FENCE
        while not telling.fenced and time.monotonic() < min(quiet, longest):
            if self._poller.poll(_GATHER):
                quiet = time.monotonic() + _QUIET
            for message in self._take(self._iopub):
                telling.take(message["header"]["msg_type"], message["content"])
        telling.flush()

    def _take(self, socket: Any) -> list[dict[str, Any]]:
        """What is there now, a batch of it at most. Messages that cannot be read or are of another kernel are dropped."""
        found: list[dict[str, Any]] = []
        for _ in range(_BATCH):
            try:
                _, message = self._session.recv(socket, self._again)
            except (ValueError, TypeError, KeyError):
                continue
            if message is None:
                break
            if isinstance(message.get("content"), dict):
                found.append(message)
        return found

    def _late(self, cell: Cell) -> None:
        """Output that came since the last cell ended belongs to this one, the newest of it."""
        kept: deque[tuple[str, str]] = deque()
        size = 0
        while messages := self._take(self._iopub):
            for message in messages:
                if message["header"]["msg_type"] == "stream":
                    stream, text = stream_of(message["content"])
                    kept.append((stream, text[-LATE_CHARACTERS:]))
                    size += len(kept[-1][1])
                    while size > LATE_CHARACTERS:
                        size -= len(kept.popleft()[1])
        for stream, text in kept:
            cell.write(stream, text)

    def _interrupt(self, *, first: bool) -> None:
        self._interrupted = time.monotonic()
        if not self._by_message:
            os.killpg(self._process.pid, signal.SIGINT)  # its own group: Jupyter gives each kernel one
            return
        # Code that waits for a program goes on when that ends, and its kernel would end what goes on without a word.
        if first and children() - self._older:
            interrupt_children(self._older)
            return
        with self._sending:
            self._control_session.send(self._control, "interrupt_request", {})

    def _die(self) -> None:
        """Without its kernel this process is of no use: its end is what tells the host, its last words why."""
        status = self._process.returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self._capture.end()
        with contextlib.suppress(OSError):
            os.write(self._last_words, f"the Jupyter kernel for {self.language} ended with {how}\n".encode())
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(_DIED)


class _Nobody:
    """For cells of our own, whose output nobody waits for."""

    waiting = False

    def take(self, kind: str, content: Mapping[str, Any]) -> None: ...
    def flush(self) -> None: ...


def _die_with_parent() -> Callable[[], None]:
    """A kernel is a session of its own, which the end of this process's group does not reach."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG

    return ask


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
