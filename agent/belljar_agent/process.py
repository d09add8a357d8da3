"""One process of a user, running or ended."""

from __future__ import annotations

from belljar_agent.input import Input
from belljar_agent.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ("Process",)

_SHOWN_BYTES = 4096
_SHOWN_WORDS = 64


class Process:
    """`pid` is what the sandbox sees, `outer` what the agent sees. With `terminal`, `stdout` reads its master."""

    def __init__(
        self,
        id: int,
        key: str,
        argv: list[str],
        user: str,
        started: float,
        stdin: Input,
        stdout: Output,
        stderr: Output,
        *,
        terminal: bool,
        keep_alive: bool = False,
    ) -> None:
        self.id = id
        self.key = key
        self.argv = _shown(argv)
        self.user = user
        self.started = started
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = terminal
        self.keep_alive = keep_alive
        self.pid = 0
        self.outer = 0
        self.returncode: int | None = None
        self.ended: float | None = None
        self.out_of_memory = False

    def info(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "pid": self.pid,
            "argv": self.argv,
            "user": self.user,
            "started": self.started,
            "pty": self.terminal,
            "keep_alive": self.keep_alive,
            "returncode": self.returncode,
            "ended": self.ended,
            "out_of_memory": self.out_of_memory,
            "stdin": self.stdin.taken,
            "stdout": self.stdout.state(),
            "stderr": self.stderr.state(),
        }

    def output(self, name: str) -> Output:
        return self.stdout if name == "stdout" else self.stderr

    @property
    def kept(self) -> int:
        """Bytes of output held."""
        return self.stdout.ring.size + self.stderr.ring.size

    def close(self) -> None:
        """Forgets it with all it holds."""
        self.stdin.close()
        self.stdout.close()
        self.stderr.close()


def _shown(argv: list[str]) -> list[str]:
    """What lists tell of the arguments: 2 MiB of them in every answer would help nobody."""
    words: list[str] = []
    room = _SHOWN_BYTES
    for word in argv[:_SHOWN_WORDS]:
        if len(word) > room:
            words.append(word[:room] + "…")
            return words
        words.append(word)
        room -= len(word)
    if len(argv) > _SHOWN_WORDS:
        words.append("…")
    return words
