"""A sandbox that lives as long as the process that made it: renewed while it runs, gone soon after it was killed."""

import contextlib
import threading
import time
import weakref
from typing import Any

import belljar

__all__ = ("Lease",)

_SECONDS = 900.0
_EVERY = 240.0


class Lease:
    """Owns a sandbox: ends it with `release`, when `owner` is collected, and at the end of the interpreter."""

    def __init__(self, sandbox: "belljar.Sandbox", owner: Any, *, most: float | None) -> None:
        """`most`: seconds from now on after which it is not renewed again, None for no limit."""
        self._ended = threading.Event()
        # The thread and the finalizer hold the sandbox, not the owner: else the owner would never be collected.
        threading.Thread(target=_renew, args=(sandbox, self._ended, most), name="belljar-lease", daemon=True).start()
        self._finalizer = weakref.finalize(owner, _end, sandbox, self._ended)

    @staticmethod
    def first(most: float | None) -> float:
        """The lifetime to create a sandbox with."""
        return _SECONDS if most is None else min(_SECONDS, most)

    def release(self) -> None:
        """Idempotent."""
        self._finalizer()


def _renew(sandbox: "belljar.Sandbox", ended: threading.Event, most: float | None) -> None:
    until = None if most is None else time.monotonic() + most
    while not ended.wait(_EVERY):
        left = _SECONDS if until is None else min(_SECONDS, until - time.monotonic())
        if left < 1:
            return
        try:
            sandbox.update(lifetime=left)
        except belljar.NotFound:  # also SandboxGone: it ended
            return
        except belljar.Error:
            continue


def _end(sandbox: "belljar.Sandbox", ended: threading.Event) -> None:
    ended.set()
    with contextlib.suppress(belljar.Error):  # its lease ends it
        sandbox.terminate()
