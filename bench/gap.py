"""A program that is measured while it is stopped and copied: a heap, and a note of the longest time it did not run.

It looks at its clock each 2 ms (or only when it is asked, if it does not tick). Asked with a word on a line of its standard
input, it answers with a line: the word, and the longest gap in milliseconds since it was asked before. For the inside of a
sandbox; standard library only.
"""

import itertools
from typing import Protocol

__all__ = ("Reads", "Writes", "ask", "gap_program")

_GAP = """
import os, select, time
heap = bytearray().join(os.urandom(1 << 20) for _ in range({mib}))
worst, last = 0.0, time.perf_counter()
while True:
    ready = select.select([0], [], [], {tick})[0]
    now = time.perf_counter()
    worst, last = max(worst, now - last), now
    if ready:
        word = os.read(0, 4096).strip()
        if not word:
            break
        os.write(1, b"%s %.3f\\n" % (word, worst * 1e3))
        worst, last = 0.0, time.perf_counter()
"""
_TICK = 0.002
_numbers = itertools.count()


class Writes(Protocol):
    def write(self, data: bytes, /) -> int | None: ...


class Reads(Protocol):
    def readline(self) -> bytes: ...


def gap_program(mib: int, *, ticking: bool = True) -> str:
    """Its source, for Python; `mib`: what it holds in memory. One that does not tick costs nothing, and knows no gaps."""
    return _GAP.format(mib=mib, tick=_TICK if ticking else None)


def ask(stdin: Writes, stdout: Reads) -> float:
    """Milliseconds that the program did not run, at most, since it was asked before. Raises EOFError when it has ended."""
    word = b"q%d" % next(_numbers)
    stdin.write(word + b"\n")
    while line := stdout.readline():
        # A copy may say once more what its original had said already.
        if line.startswith(word + b" "):
            return float(line.split()[1])
    raise EOFError("the program inside has ended")
