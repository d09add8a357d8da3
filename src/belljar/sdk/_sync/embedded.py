# Made by scripts/make_sync.py from _async/embedded.py: do not edit.
"""Starts the server that belongs to a client: where none is configured, the first call brings one up."""

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from belljar.base.files import LockHeld, lock_file
from belljar.base.home import make_home
from belljar.base.proc import start_daemon
from belljar.sdk._sync import flow
from belljar.sdk.errors import ServerUnreachable
from belljar.sdk.patience import tell
from belljar.sdk.places import Settings
from belljar.sdk.server_log import LogTail

__all__ = ("start_embedded",)
_FIRST_SETUP_SECONDS = 3600.0
"The very first start builds engine and images: minutes. It ends early when the server's process ends."
_OTHER_SECONDS = 2.0
_STEP = 0.02


class _Daemon(Protocol):
    returncode: int | None

    def poll(self) -> int | None: ...


_started: list[_Daemon] = []
"Kept, so that one that ended is reaped."


@atexit.register
def _let_go() -> None:
    """The server outlives this process on purpose: Python need not warn of a child that it forgot."""
    for one in _started:
        if one.poll() is None:
            one.returncode = 0


def start_embedded(settings: Settings, answers: Callable[[], bool]) -> None:
    """Returns when `answers` says so. Of several clients one starts it, the others wait.

    Raises ServerUnreachable with the last lines of the server's log when it ended instead.
    """
    home = settings.home
    try:
        make_home(home)
        tail = LogTail(home / "server.log")
    except OSError as error:
        raise ServerUnreachable(
            f"cannot keep state in {home}: {error.strerror}", hint="export BELLJAR_HOME=…   (a folder you may write)"
        ) from error
    deadline = time.monotonic() + _FIRST_SETUP_SECONDS
    while time.monotonic() < deadline:
        try:
            with lock_file(home / "start.lock", about="starting the server"):
                if not answers():
                    _start(home, tail, answers, deadline)
                return
        except LockHeld:
            for line in tail.lines():
                tell(line)
            flow.sleep(_STEP)
    raise ServerUnreachable(f"the server did not start within {_FIRST_SETUP_SECONDS:g} s", hint=f"see {tail.path}")


def _start(home: Path, tail: LogTail, answers: Callable[[], bool], deadline: float) -> None:
    tail.rotate()
    process = start_daemon(
        [sys.executable, "-m", "belljar.server", "--embedded"], log=tail.path, env=_environment(home)
    )
    _started[:] = [one for one in _started if one.poll() is None] + [process]
    while time.monotonic() < deadline:
        flow.sleep(_STEP)
        ended = process.poll() is not None
        if answers():
            return
        for line in tail.lines():
            tell(line)
        if ended:
            if _another_answers(answers):
                return
            raise ServerUnreachable(
                f"the server ended while it started (status {process.returncode}):\n{tail.last()}",
                hint=f"belljar doctor   (its log: {tail.path})",
            )
    raise ServerUnreachable(f"the server did not start in time:\n{tail.last()}", hint=f"its log: {tail.path}")


def _another_answers(answers: Callable[[], bool]) -> bool:
    """One that ended may have lost to a server that was just starting."""
    until = time.monotonic() + _OTHER_SECONDS
    while time.monotonic() < until:
        if answers():
            return True
        flow.sleep(0.1)
    return False


def _environment(home: Path) -> dict[str, str]:
    environ = dict(os.environ)
    environ["BELLJAR_HOME"] = str(home)
    if search := environ.get("PYTHONPATH"):
        environ["PYTHONPATH"] = os.pathsep.join((str(Path(entry).absolute()) for entry in search.split(os.pathsep)))
    for name in ("BELLJAR_URL", "BELLJAR_API_KEY"):
        with contextlib.suppress(KeyError):
            del environ[name]
    return environ
