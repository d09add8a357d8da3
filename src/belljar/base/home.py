"""Where state and caches live, and how a server's whereabouts are written down."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from belljar.base.files import write_atomic

__all__ = (
    "SHARED_SOCKET",
    "ServerFile",
    "cache_home",
    "make_home",
    "read_server_file",
    "remove_server_file",
    "state_home",
    "write_server_file",
)

SHARED_SOCKET = Path("/run/belljar/api.sock")
"""Of a root server, for the members of group `belljar`."""
_SERVER_FILE = "server.json"


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What a running server says of itself in its state directory. Believe it only while `socket` answers."""

    pid: int
    socket: str
    embedded: bool
    url: str | None = None
    """Of its TCP listener, if it has one."""


def state_home(environ: Mapping[str, str] = os.environ) -> Path:
    """``$BELLJAR_HOME``, else /var/lib/belljar for root, else ~/.local/share/belljar. Not made here."""
    if chosen := environ.get("BELLJAR_HOME"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/belljar")
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "belljar"


def cache_home(environ: Mapping[str, str] = os.environ) -> Path:
    """``$BELLJAR_CACHE``, else under ``$XDG_CACHE_HOME``, else /var/cache/belljar for root, else ~/.cache/belljar."""
    if chosen := environ.get("BELLJAR_CACHE"):
        return Path(chosen).absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "belljar"
    return Path("/var/cache/belljar") if os.geteuid() == 0 else Path.home() / ".cache/belljar"


def make_home(home: Path) -> None:
    """Makes the state directory, for its owner alone but for passing through: a sandbox's kernel gives up its rights
    before it executes a file of the engine that is kept here. What is secret has a mode of its own.
    """
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    if home.stat().st_uid == os.geteuid() and home.stat().st_mode & 0o777 != 0o711:
        home.chmod(0o711)


def write_server_file(home: Path, server: ServerFile) -> None:
    write_atomic(home / _SERVER_FILE, json.dumps(asdict(server)).encode(), mode=0o644)


def read_server_file(home: Path) -> ServerFile | None:
    """None when there is none, or one that cannot be read."""
    try:
        return ServerFile(**json.loads((home / _SERVER_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remove_server_file(home: Path) -> None:
    """By the server that wrote it, at its end."""
    (home / _SERVER_FILE).unlink(missing_ok=True)
