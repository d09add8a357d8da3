"""How long a client waits for a server that vanished, and where people are told what happens meanwhile."""

import time
from collections.abc import Callable

__all__ = ("RECONNECT_SECONDS", "Patience", "listen", "tell")

RECONNECT_SECONDS = 30.0
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

_listeners: list[Callable[[str], None]] = []


class Patience:
    """One call's. Its clock starts with the first failure and stops when something came of it."""

    def __init__(self, seconds: float = RECONNECT_SECONDS) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._tries = 0

    def left(self) -> float:
        """Seconds; the first call starts the clock."""
        if self._since is None:
            self._since = time.monotonic()
        return self._since + self._seconds - time.monotonic()

    def waited(self) -> float:
        """Seconds since the first failure."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def pause(self) -> float:
        """Seconds to sleep before the next try: growing, because a server needs its time to start."""
        self._tries += 1
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 1.5 ** (self._tries - 1))

    def end(self) -> None:
        """Nobody waits any more."""
        self._seconds = 0.0

    def reset(self) -> None:
        self._since = None
        self._tries = 0


def listen(listener: Callable[[str], None]) -> Callable[[], None]:
    """Has lines about slow things (the first set-up, a lost server) given to `listener`; returns what ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def tell(line: str) -> None:
    for listener in _listeners:
        listener(line)
