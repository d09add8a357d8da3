"""Makes the launcher. Imports next to nothing, because it is the first thing the agent does: both then start side by side."""

from __future__ import annotations

import _socket
import gc
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ("Outer", "fork_launcher")


class Outer:
    """Descriptors that only the agent and its launcher have: `proc`, and what the first launcher makes and hands over.

    `pids` is the cgroup that limits the users (None: there is no such thing), `boot_id` the file that they see as theirs.
    """

    __slots__ = ("boot_id", "pids", "proc")

    def __init__(self) -> None:
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.pids: int | None = None
        self.boot_id: int | None = None

    def descriptors(self) -> list[int]:
        """Those that a launcher needs."""
        return [fd for fd in (self.proc, self.pids, self.boot_id) if fd is not None]


def fork_launcher(outer: Outer | None) -> tuple[int, _socket.socket]:
    """Its pid and our end of its socket. `outer` None: plain mode, no namespaces. 10 to 15 ms in gVisor, once."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    gc.freeze()  # what is here now is shared with the child for ever: the collector must not write into it
    pid = os.fork()
    if not pid:
        _be_launcher(theirs, outer)
    theirs.close()
    return pid, ours


def _be_launcher(link: _socket.socket, outer: Outer | None) -> None:
    """In the child: keeps nothing of the agent but its link. Never returns."""
    status = 1
    try:
        kept = sorted({link.fileno(), *(outer.descriptors() if outer else ())})
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        low = 3
        for fd in [*kept, 1 << 16]:
            os.closerange(low, fd)
            low = fd + 1
        if outer is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        from belljar_agent.launcher import Launcher

        Launcher(link, outer).run()
        status = 0
    except BaseException as error:  # noqa: BLE001 - there is no caller to raise to
        os.write(2, f"belljar launcher: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)
