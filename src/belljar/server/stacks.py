"""What every task and thread of this process waits for, on request: `kill -USR2` of a server that seems to hang."""

import asyncio
import contextlib
import faulthandler
import linecache
import signal
import sys
from collections.abc import Generator, Iterator
from types import CodeType
from typing import TextIO

__all__ = ("told_on_signal", "write_stacks")

_DEEPEST = 50


@contextlib.contextmanager
def told_on_signal() -> Generator[None]:
    """SIGUSR2 writes the threads to stderr at once, and the tasks as soon as the loop has its turn."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, write_stacks, sys.stderr)
    # Written by the handler itself, which then passes the signal on to the loop.
    faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR2)
        loop.remove_signal_handler(signal.SIGUSR2)


def write_stacks(file: TextIO) -> None:
    """One block for each task of the running loop: its name, and the awaits from the outermost to the innermost."""
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    lines = [f"{len(tasks)} tasks:"]
    for task in tasks:
        lines.append(f"Task {task.get_name()}:")
        lines.extend(
            f'  File "{code.co_filename}", line {line} in {code.co_name}{_text(code, line)}'
            for code, line in _awaits(task)
        )
    file.write("\n".join(lines) + "\n")
    file.flush()


def _awaits(task: "asyncio.Task[object]") -> Iterator[tuple[CodeType, int]]:
    """A task's own stack ends at its outermost coroutine while it waits: what that awaits has to be followed."""
    waiting: object = task.get_coro()
    for _ in range(_DEEPEST):
        for kind in ("cr", "ag", "gi"):
            if (code := getattr(waiting, f"{kind}_code", None)) is not None:
                break
        else:
            return
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            return
        yield code, frame.f_lineno
        waiting = getattr(waiting, f"{kind}_await", None) or getattr(waiting, f"{kind}_yieldfrom", None)


def _text(code: CodeType, line: int) -> str:
    text = linecache.getline(code.co_filename, line).strip()
    return f": {text}" if text else ""
