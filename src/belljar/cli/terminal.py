"""This process's terminal joined with one in a sandbox: raw, resized with the window, put back at the end however it ends."""

import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Generator, Mapping
from queue import SimpleQueue
from types import FrameType

import belljar
from belljar.cli.console import fail, say
from belljar.cli.escape import Escape
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.cli.pipes import write_all
from belljar.model.errors import Error

__all__ = ("attached_terminal",)

_CHUNK = 64 << 10
_PASSED_ON = ("TERM", "COLORTERM", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR")


def attached_terminal(
    sandbox: "belljar.Sandbox",
    command: list[str],
    *,
    env: Mapping[str, str],
    user: str | None = None,
    cwd: str | None = None,
) -> int:
    """Runs the command with a terminal and returns its return code; 129 (hang-up) when this terminal goes away."""
    if not (os.isatty(0) and os.isatty(1)):
        fail("this needs a terminal", hint="belljar sandbox exec SANDBOX COMMAND works without one", code=2)
    size = _size()
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    process = sandbox.popen(
        command, pty=True, cols=size.columns, rows=size.lines, env={"TERM": "xterm-256color"} | passed | dict(env),
        user=user, cwd=cwd,
    )  # fmt: skip
    keys = _Keys(process)
    try:
        with interruptible(), _raw(), _resizing(process):
            keys.start()
            while data := process.stdout.read1():
                write_all(1, data)
        return process.wait()
    except Interrupted as interrupted:
        _hang_up(process)
        raise interrupted
    except OSError:  # our own terminal has gone
        _hang_up(process)
        return -signal.SIGHUP
    finally:
        if keys.left:
            say("left; the command inside was hung up")


class _Keys:
    """What is typed, passed on byte for byte; the escape is watched for on the way."""

    def __init__(self, process: "belljar.Process") -> None:
        self.left = False
        self._process = process
        self._escape = Escape()

    def start(self) -> None:
        threading.Thread(target=self._pump, name="belljar-keys", daemon=True).start()

    def _pump(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            while data := os.read(0, _CHUNK):
                passed, leave = self._escape.feed(data)
                if passed:
                    stdin.write(passed)
                if leave:
                    self.left = True
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            _hang_up(self._process)
        except OSError:  # the terminal has gone, or the command has ended
            if not isinstance(sys.exception(), BrokenPipeError):
                _hang_up(self._process)
        except (Error, ValueError):
            pass  # told by the reader of the output


def _hang_up(process: "belljar.Process") -> None:
    """What a terminal does when it goes away."""
    with contextlib.suppress(Error):
        process.send_signal(signal.SIGHUP, group=True)


@contextlib.contextmanager
def _raw() -> Generator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> os.terminal_size:
    """The window's, whatever COLUMNS says, which may be of another one. Raises OSError when the terminal has gone."""
    size = os.get_terminal_size(0)
    return size if size.columns and size.lines else os.terminal_size((80, 24))


@contextlib.contextmanager
def _resizing(process: "belljar.Process") -> Generator[None]:
    """Each SIGWINCH sends the new size, in a thread: a handler must not wait for a server.

    A second signal can come in the middle of the handler: SimpleQueue.put may be entered again, Event.set waits for itself.
    """
    changed: SimpleQueue[bool] = SimpleQueue()  # of False: that was the last

    def note(number: int, frame: FrameType | None) -> None:
        changed.put(True)

    def send() -> None:
        while changed.get():
            with contextlib.suppress(Error, OSError):  # OSError: the terminal has gone
                size = _size()
                process.resize(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, note)
    threading.Thread(target=send, name="belljar-size", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        changed.put(False)
