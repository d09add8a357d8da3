"""Looks, inside a sandbox, for a port, a URL or a process that a template waits for. Python 3.6 on, the standard library alone.

Control sends this file's text along: ``python3 -c TEXT JSON``. It ends with 0 when it is so, with 75 when time is up, having
printed what it saw last.
"""
# pyright: basic

import http.client
import json
import socket
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ("look", "main")

_TIME_UP = 75
_LAST_WORDS = 4000
_ATTEMPT = 5.0


def main(words):
    check = json.loads(words[0])
    until = time.monotonic() + check["timeout"]
    while True:
        seen = look(check, max(min(_ATTEMPT, until - time.monotonic()), 0.1))
        if seen is None:
            return 0
        if time.monotonic() + check["interval"] > until:
            sys.stdout.write(seen[-_LAST_WORDS:])
            return _TIME_UP
        time.sleep(check["interval"])


def look(check, seconds):
    """None when it is so, else what was seen instead."""
    what, value = check["what"], check["value"]
    return {"port": _port, "url": _url, "process": _process}[what](value, seconds)


def _port(port, seconds):
    said = ""
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            return None
        except OSError as error:
            said = said or f"port {port}: {error}"
    return said


def _url(url, seconds):
    parts = urlsplit(url)
    try:
        if parts.scheme == "https":
            # Whether it answers is asked, not who it is: certificates of a service that starts are often its own.
            context = ssl._create_unverified_context()
            link = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=context)
        else:
            link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
        link.request("GET", (parts.path or "/") + ("?" + parts.query if parts.query else ""))
        status = link.getresponse().status
        link.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url}: {error or type(error).__name__}"
    return None if 200 <= status < 400 else f"{url} answered {status}"


def _process(name, seconds):
    for place in Path("/proc").glob("[0-9]*"):
        try:
            first = (place / "cmdline").read_bytes().split(b"\0")[0]
            short = (place / "comm").read_bytes().strip()
        except OSError:
            continue  # it has just ended
        if name.encode() in (first.rpartition(b"/")[2], short):
            return None
    return f"no process is called {name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
