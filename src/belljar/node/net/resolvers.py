"""The host's own resolvers, as its /etc/resolv.conf names them now."""

import ipaddress
from pathlib import Path

__all__ = ("MAX_RESOLVERS", "Resolvers", "parse_resolv_conf")

MAX_RESOLVERS = 3
"""As the C library does."""
_LONGEST_FILE = 1 << 16


class Resolvers:
    """Reads the file again when it changed: a laptop that moves between networks gets other resolvers."""

    def __init__(self, file: Path = Path("/etc/resolv.conf")) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ("127.0.0.1",)

    def current(self) -> tuple[str, ...]:
        """Addresses, IPv4 or IPv6 (with its zone), in order. Without a file, the C library's default: this host."""
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                with open(self._file, "rb") as file:
                    self._servers = parse_resolv_conf(file.read(_LONGEST_FILE).decode(errors="replace"))
                self._seen = seen
        except OSError:
            self._servers = ("127.0.0.1",)
            self._seen = None
        return self._servers


def parse_resolv_conf(text: str) -> tuple[str, ...]:
    """The addresses of its `nameserver` lines; what is no address is passed over."""
    servers: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            continue
        servers.append(words[1])
    return tuple(servers[:MAX_RESOLVERS]) or ("127.0.0.1",)
