"""The longest that a process may run."""

import contextlib
import signal
import threading
from types import TracebackType
from typing import Self

import belljar
from belljar.model.errors import Error

__all__ = ("Deadline",)


class Deadline:
    """Kills the whole process group after `seconds` (None: never); `passed` says that it did."""

    def __init__(self, process: "belljar.Process", seconds: float | None) -> None:
        self.passed = False
        self._process = process
        self._timer = threading.Timer(seconds, self._pass) if seconds is not None else None

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        with contextlib.suppress(Error):
            self._process.send_signal(signal.SIGKILL, group=True)
