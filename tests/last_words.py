"""What the server of a failed test has to say: a fault that comes once in a hundred runs is not seen a second time."""

import contextlib
import os
import signal
import time
from pathlib import Path

from belljar.base.home import read_server_file

__all__ = ("last_words",)

_BYTES = 60_000
_SECONDS = 1.0


def last_words(home: Path) -> str:
    """The end of its log, after what its tasks and threads wait for."""
    server = read_server_file(home)
    if server is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGUSR2)
            time.sleep(_SECONDS)
    try:
        return (home / "server.log").read_bytes()[-_BYTES:].decode(errors="replace")
    except OSError as error:
        return f"no log: {error}"
