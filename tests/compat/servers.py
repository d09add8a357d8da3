"""A real server for a program of its own: a state directory that nobody else uses, and nothing left of it at the end."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2

from belljar.base.home import cache_home, read_server_file

__all__ = ("real_server",)

_ROOT = Path(__file__).parents[2]
_BELLJAR = [sys.executable, "-c", "from belljar.cli.main import main; main()"]


@contextlib.contextmanager
def real_server(**settings: str) -> Iterator[dict[str, str]]:
    """Variables that lead to a running server on gVisor, to be given to a subprocess. `settings` are added for the server too.

    At the end the server and its sandboxes are ended, and anything left on this machine is an AssertionError.
    """
    # Not pytest's own folder: sandboxes' kernels run without rights and must be able to pass through.
    with tempfile.TemporaryDirectory(prefix="bj-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BELLJAR_")}
        environ |= {
            "BELLJAR_HOME": f"{folder}/home",
            "BELLJAR_CACHE": str(cache_home()),
            "BELLJAR_IDLE_EXIT": "1h",
            "PYTHONPATH": str(_ROOT / "src"),
        } | settings
        try:
            _belljar(environ, "sandbox", "ls", timeout=1800)  # starts the server; the very first sets this machine up
            assert _engine(Path(folder) / "home") == "gvisor", "its sandboxes would be processes of this machine"
            yield environ
        finally:
            _belljar(environ, "down", timeout=120)
            _belljar(environ, "doctor", "--leaks", timeout=120)  # fails when anything is left without an owner
            _belljar(environ, "down", "--purge", "--yes", timeout=120)
        assert not (Path(folder) / "home").exists()


def _engine(home: Path) -> str:
    server = read_server_file(home)
    assert server is not None
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=server.socket), base_url="http://belljar") as http:
        return http.get("/v1/info").json()["engine"]


def _belljar(environ: Mapping[str, str], *words: str, timeout: float) -> None:
    done = subprocess.run(
        [*_BELLJAR, *words], env=dict(environ), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
