"""Signals that end the command, as exceptions: what it holds is put down on the way out."""

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

__all__ = ("Interrupted", "interruptible")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants the command to end. No Exception: nothing that carries on may catch it."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Ctrl-C, SIGTERM and a hang-up raise Interrupted in here, once; a second one ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in _ENDING:
            signal.signal(one, signal.SIG_DFL)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
