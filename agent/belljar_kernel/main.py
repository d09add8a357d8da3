"""Puts a kernel together: descriptors out of the way, the backend of the language, the loop."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import resource
import sys
import traceback
from typing import TYPE_CHECKING

from belljar_kernel.backend import Backend, Refused
from belljar_kernel.hostcalls import HostCalls
from belljar_kernel.kernel import Kernel
from belljar_kernel.lines import Writer, encode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("main",)

_REFUSED = 69


def main(language: str) -> int:
    last_words = os.fdopen(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3), "w")
    try:
        reading, writing = _take_protocol()
        faulthandler.enable(last_words)
        writer = Writer(writing)
        calls = HostCalls()
        try:
            backend = _backend_of(language)(language, calls)
        except Refused as refusal:
            said = {"kind": "refused", "code": refusal.code, "message": refusal.message}
            writer.send(encode({**said, "hint": refusal.hint} if refusal.hint else said))
            return _REFUSED
        Kernel(backend, reading, writer, calls).run()
    except BaseException:
        # Descriptor 2 may be the code's by now.
        traceback.print_exc(file=last_words)
        raise
    return 0


def _backend_of(language: str) -> Callable[[str, HostCalls], Backend]:
    if language == "python":
        from belljar_kernel.python import open_backend
    else:
        from belljar_kernel.jupyter import open_backend
    return open_backend


def _take_protocol() -> tuple[int, int]:
    """Moves what the host speaks through to high numbers, closed for programs, and leaves an empty 0 and a 1 that is 2's."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    high = max(3, (1024 if soft == resource.RLIM_INFINITY else min(soft, 1024)) - 16)
    reading, writing = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, high) for number in (0, 1))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return reading, writing
