"""`belljar env VENDOR`: the variables that point that vendor's clients at this server."""

import os
import shlex
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from belljar.base.home import state_home
from belljar.cli import options
from belljar.cli.console import UsageProblem, fail, print_data, print_json, say
from belljar.cli.suggest import did_you_mean
from belljar.cli.vendors import VENDORS, Place, Vendor

__all__ = ("add_to",)

_TRUSTED = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where this shell's own clients look for certificates."""


def add_to(app: typer.Typer) -> None:
    app.command(
        "env",
        epilog='Examples:  eval "$(belljar env native)"   ·   belljar env native --json   ·   belljar env native --unset',
    )(_env)


def _env(
    vendor: Annotated[str, typer.Argument(metavar="VENDOR", help=f"Whose clients: {', '.join(VENDORS)}.")],
    unset: Annotated[bool, typer.Option("--unset", help="Print what takes the variables away again.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the variables that point a vendor's clients at this server, as lines for a shell.

    Where no server listens on TCP the one of this machine opens a port on loopback, and stays until `belljar down`.
    """
    chosen = _vendor(vendor)
    if unset:
        if as_json:
            print_json(chosen.names())
        for name in chosen.names() if not as_json else ():
            print_data(f"unset {name}")
        return
    found = chosen.environment(_place())
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print_data(f"export {name}={shlex.quote(value)}")


def _vendor(word: str) -> Vendor:
    if word not in VENDORS:
        known = "\n    ".join(f"{name}: {vendor.about}" for name, vendor in VENDORS.items())
        raise UsageProblem(f"there is no vendor {word!r}", did_you_mean(word, VENDORS) or f"there is\n    {known}")
    return VENDORS[word]


def _place() -> Place:
    url = os.environ.get("BELLJAR_URL", "")
    if urlsplit(url).scheme in ("http", "https"):
        key = os.environ.get("BELLJAR_API_KEY")
        if not key:
            fail(
                "BELLJAR_URL is set, and BELLJAR_API_KEY is not", "export BELLJAR_API_KEY=…   (belljar key create NAME)"
            )
        return Place(url.rstrip("/"), key, _authorities(url))
    url, file = _listener()
    return Place(url, _key(file), _authorities(url))


def _listener() -> tuple[str, Path]:
    """The address of this machine's server, and where its first key is."""
    from belljar.sdk._sync.link import shared_link  # brings the HTTP client

    answer = shared_link().call("POST", "/v1/listener", json={}, timeout=60.0)
    if answer["opened"]:
        say(f"the server listens on {answer['url']} now, and stays until: belljar down")
    return answer["url"], Path(answer["key_file"])


def _key(file: Path) -> str:
    if key := os.environ.get("BELLJAR_API_KEY"):
        return key
    try:
        return file.read_text().strip()
    except OSError as error:
        fail(
            f"the server's key cannot be read: {error.strerror}: {file}",
            "belljar key create NAME, then export BELLJAR_API_KEY=…   (or ask the owner of " + str(state_home()) + ")",
        )


def _authorities(url: str) -> str | None:
    """What this shell trusts: a client that is pointed at an address with TLS has to trust it as well."""
    if not url.startswith("https:"):
        return None
    return next((value for name in _TRUSTED if (value := os.environ.get(name))), None)
