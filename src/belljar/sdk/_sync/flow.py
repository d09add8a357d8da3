"""What the sync SDK does otherwise than the async one. Written by hand, with the names of the other."""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from belljar.sdk.feed import ChunkFile

__all__ = (
    "Lock",
    "Shared",
    "Worker",
    "at_end",
    "call",
    "consume",
    "in_thread",
    "in_threads",
    "outcomes",
    "shielded",
    "sleep",
)

T = TypeVar("T")

Lock = threading.Lock
sleep = time.sleep
_JOIN = 5.0
_AT_ONCE = 16


class Worker:
    """One piece of work beside the caller's, `delay` seconds from now; its owner ends it with `stop`."""

    def __init__(self, work: Callable[..., None], *args: Any, delay: float = 0.0) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work, args, delay), name="belljar", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[..., None], args: tuple[Any, ...], delay: float) -> None:
        if not self._stopped.wait(delay):
            work(*args)

    def stop(self) -> None:
        """Keeps it from starting, or waits until it ends: a thread cannot be cancelled, so its work has to end by itself."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN)


class Shared:
    """Things that live as long as the process; a forked child starts with none, because connections cannot be shared."""

    def __init__(self) -> None:
        self._all: dict[Any, Any] = {}
        os.register_at_fork(after_in_child=self._all.clear)

    def here(self) -> dict[Any, Any]:
        return self._all


def at_end(close: Callable[[], None]) -> None:
    """Has `close` called when the process ends."""
    atexit.register(close)


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the user's, and returns its result."""
    return function(*args)


def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    return function(*args, **keywords)


def in_threads(blocking: Iterator[bytes]) -> Iterator[bytes]:
    yield from blocking


def consume(chunks: Iterator[bytes], consumer: Callable[[BinaryIO], T]) -> T:
    """Gives `consumer` the chunks as a file."""
    return consumer(ChunkFile(lambda: next(chunks, b"")))  # pyright: ignore[reportArgumentType]


def shielded(work: Callable[[], None], *, timeout: float) -> None:
    """Does `work` while an exception is on its way; its failure is no news then. Its own deadlines keep it short."""
    with contextlib.suppress(Exception):
        work()


def outcomes(work: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """What became of each, at most 16 at the same time."""
    from concurrent.futures import ThreadPoolExecutor  # 10 ms, and few need it

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(one) for one in work]
    return [future.exception() or future.result() for future in futures]
