"""What set-up says while it works: each step with its seconds and what it downloaded."""

import contextlib
import sys
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Protocol, TextIO

__all__ = ("PlainProgress", "Progress", "Silent", "Step", "size_text")


class Step(Protocol):
    """One step that runs. Calls come from any thread."""

    def say(self, text: str) -> None:
        """What it is doing now."""
        ...

    def downloaded(self, text: str) -> None:
        """What came over the network, for the line at its end."""
        ...


class Progress(Protocol):
    """Several steps may run at once."""

    def step(self, name: str) -> AbstractContextManager[Step]: ...

    def found(self, name: str, text: str) -> None:
        """A step that was not necessary, because its result is there."""
        ...


class Silent:
    @contextlib.contextmanager
    def step(self, name: str) -> Generator[Step]:
        yield _SilentStep()

    def found(self, name: str, text: str) -> None:
        pass


class _SilentStep:
    def say(self, text: str) -> None:
        pass

    def downloaded(self, text: str) -> None:
        pass


class PlainProgress:
    """Lines on a text stream, standard error by default."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, name: str) -> Generator[Step]:
        started = time.monotonic()
        running = _PlainStep(self, name)
        try:
            yield running
        except BaseException as error:
            self.line(f"{name}: {_how_it_ended(error)} after {time.monotonic() - started:.1f} s")
            raise
        tail = f", downloaded {', '.join(running.downloads)}" if running.downloads else ""
        self.line(f"{name}: done in {time.monotonic() - started:.1f} s{tail}")

    def found(self, name: str, text: str) -> None:
        self.line(f"{name}: {text}")

    def line(self, text: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):
            print(text, file=self._stream, flush=True)


class _PlainStep:
    def __init__(self, progress: PlainProgress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.downloads: list[str] = []

    def say(self, text: str) -> None:
        self._progress.line(f"{self._name}: {text} …")

    def downloaded(self, text: str) -> None:
        self.downloads.append(text)


def _how_it_ended(error: BaseException) -> str:
    return "failed" if isinstance(error, Exception) else "stopped"


def size_text(size: int) -> str:
    """Bytes for people: ``33.0 MB``."""
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
