"""Where a server may be: looked up in order, nothing started and nothing asked here."""

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from belljar.base.home import SHARED_SOCKET, read_server_file, state_home
from belljar.model.errors import InvalidArgument, PermissionDenied
from belljar.sdk.errors import ServerUnreachable

__all__ = ("Place", "Settings", "find", "listens", "may_start", "settings_from", "unreachable")

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides which server is meant. `url` None: the one of this machine."""

    url: str | None
    key: str | None
    home: Path
    may_start: bool
    """Whether this user can run a server with real sandboxes."""
    shared: bool = True
    """Whether the root server's socket will do. Not for somebody who named a state directory of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server: a unix `socket`, or a `url`. `embedded`: started by a client and started again when it is gone."""

    socket: str | None
    url: str
    embedded: bool = False

    @property
    def is_remote(self) -> bool:
        return self.socket is None

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.url).hostname in _LOOPBACK


def settings_from(environ: Mapping[str, str] = os.environ) -> Settings:
    can_start = may_start(environ)
    return Settings(
        url=environ.get("BELLJAR_URL") or None,
        key=environ.get("BELLJAR_API_KEY") or None,
        home=state_home(environ),
        may_start=can_start,
        shared=not (environ.get("BELLJAR_HOME") and can_start),
    )


def may_start(environ: Mapping[str, str] = os.environ) -> bool:
    """gVisor's sandboxes need root on the host; the fake engine does not."""
    return os.geteuid() == 0 or environ.get("BELLJAR_ENGINE") == "fake"


def find(settings: Settings) -> Place | None:
    """The first place that looks alive, or None: then one has to be started.

    Raises InvalidArgument for a BELLJAR_URL that is none, PermissionDenied when only a root server's socket is there and
    this user may not use it.
    """
    if settings.url is not None:
        return _named(settings.url)
    server = read_server_file(settings.home)
    if server is not None and _is_there(Path(server.socket)) and os.access(server.socket, os.W_OK):
        return Place(server.socket, "http://belljar", server.embedded)
    if settings.shared and _is_there(SHARED_SOCKET):
        if os.access(SHARED_SOCKET, os.W_OK):
            return Place(str(SHARED_SOCKET), "http://belljar")
        if not settings.may_start:
            raise PermissionDenied(
                f"a server runs, but {getpass.getuser()} may not use its socket {SHARED_SOCKET}",
                hint=f"sudo usermod -aG belljar {getpass.getuser()}   (then log in again)",
            )
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that is closed to this user
        return False


def listens(place: Place) -> bool:
    """Whether somebody listens on a unix socket: 20 µs, while the HTTP client takes a millisecond to find that nobody does."""
    if place.socket is None:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(place.socket)
        except OSError:
            return False
    return True


def _named(url: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return Place(parts.path, "http://belljar")
    if parts.scheme in ("http", "https") and parts.hostname:
        return Place(None, url.rstrip("/"))
    raise InvalidArgument(
        f"BELLJAR_URL is no address of a server: {url[:100]!r}",
        hint="export BELLJAR_URL=http://127.0.0.1:8585   (or unix:///path/of/api.sock)",
    )


def unreachable(settings: Settings, why: str) -> ServerUnreachable:
    """The error that says what was tried and the one command that helps."""
    if settings.url is not None:
        return ServerUnreachable(
            f"no server answers at BELLJAR_URL={settings.url}: {why}",
            hint="belljar serve   (on that machine), or unset BELLJAR_URL to use this one",
        )
    tried = f"tried the server of {settings.home} and {SHARED_SOCKET}"
    if not settings.may_start:
        return ServerUnreachable(
            f"no server answers ({tried}), and starting one with real sandboxes needs root", hint="sudo belljar serve"
        )
    return ServerUnreachable(f"no server answers ({tried}): {why}", hint="belljar doctor")
