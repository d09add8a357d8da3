"""The `belljar` command, as tests call it."""

import subprocess
import sys
from pathlib import Path

from tests.api.sdk.terminal import Terminal

__all__ = ("BELLJAR", "Command")

BELLJAR = [sys.executable, "-c", "from belljar.cli.main import main; main()"]


class Command:
    """The `belljar` command on one state directory."""

    def __init__(self, environ: dict[str, str], cwd: Path) -> None:
        self.environ = environ
        self.cwd = cwd

    def __call__(
        self, *words: str, input: bytes = b"", status: int | None = 0, **environ: str
    ) -> "subprocess.CompletedProcess[bytes]":
        """Runs it to its end; `status` is the one that is expected (None: any)."""
        done = subprocess.run(
            [*BELLJAR, *words],
            input=input,
            capture_output=True,
            env=self.environ | environ,
            cwd=self.cwd,
            timeout=60,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, (done.returncode, done.stdout, done.stderr.decode())
        return done

    def start(self, *words: str, **options: object) -> "subprocess.Popen[bytes]":
        pipes: dict[str, object] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(  # pyright: ignore[reportCallIssue]
            [*BELLJAR, *words],
            env=self.environ,
            cwd=self.cwd,
            **(pipes | options),  # pyright: ignore[reportArgumentType]
        )

    def terminal(self, *words: str, **environ: str) -> Terminal:
        return Terminal([*BELLJAR, *words], env=self.environ | environ, cwd=self.cwd)
