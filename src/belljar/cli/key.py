"""`belljar key …`: who may come in through the TCP listener."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

import belljar
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, ago, confirm, plain, print_data, print_json, say, table, until
from belljar.cli.suggest import did_you_mean
from belljar.model.errors import NotFound
from belljar.model.key import Scope

__all__ = ("app",)

app = typer.Typer(help="Make and revoke the API keys of a server.", no_args_is_help=True, suggest_commands=False)
_SCOPES = [scope.value for scope in Scope]


@app.command(
    "create",
    epilog="Examples:  belljar key create ci   ·   export BELLJAR_API_KEY=$(belljar key create laptop --expires 30d)",
)
def _create(
    name: Annotated[str, typer.Argument(help="What it is for, for people.")],
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="read looks; run also makes, changes and ends; admin also makes keys and reads the audit log.",
        ),
    ] = Scope.RUN.value,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="For example 12h or 30d. Default: never.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", metavar="NAME", help="Whose; another than one's own for operators.")
    ] = None,
    sandboxes: options.MaxSandboxes = None,
    cpus: options.MaxCpus = None,
    memory: options.MaxMemory = None,
    disk: options.MaxDisk = None,
    creates: options.Creates = None,
    requests: options.Requests = None,
    as_json: options.Json = False,
) -> None:
    """Make a key and print it. It is shown this once: the server keeps a digest."""
    if scope not in _SCOPES:
        raise UsageProblem(f"--scope is {', '.join(_SCOPES)}, not {scope!r}", did_you_mean(scope, _SCOPES))
    quota = parse.quota(sandboxes=sandboxes, cpus=cpus, memory=memory, disk=disk, creates=creates, requests=requests)
    ttl = None if expires is None else parse.duration(expires)
    made = belljar.Key.create(name, scope=scope, ttl=ttl, quota=quota, workspace=workspace)
    if as_json:
        print_json(asdict(made.last_info) | {"secret": made.secret})
        return
    print_data(made.secret or "")
    say(f"this is {made.id}; it is not shown again. To use it: BELLJAR_URL=… BELLJAR_API_KEY=…")


@app.command("ls", epilog="Examples:  belljar key ls   ·   belljar key ls --all --json")
def _list(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also revoked and expired ones.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List keys, the newest first."""
    now = time.time()
    infos = [key.last_info for key in belljar.Key.list()]
    infos = [info for info in infos if everything or _state(info, now) == "valid"]
    if as_json:
        print_json([asdict(info) for info in infos])
    elif quiet:
        for info in infos:
            print_data(info.id)
    else:
        rows = [
            (
                *(info.id, plain(info.name), info.scope, ago(info.created), ago(info.used) if info.used else "never"),
                until(info.expires) if info.expires else "never",
                _state(info, now),
            )
            for info in infos
        ]
        table(("ID", "NAME", "SCOPE", "CREATED", "USED", "EXPIRES", "STATE"), rows)


@app.command("revoke", epilog="Example:  belljar key revoke ci --yes")
def _revoke(
    words: Annotated[list[str], typer.Argument(metavar="KEY…", help="Ids, or names that only one valid key has.")],
    yes: options.Yes = False,
) -> None:
    """Revoke keys: from now on nobody gets in with them."""
    known = list(belljar.Key.list())
    found = [_meant(word, known) for word in words]
    confirm(f"Revoke {', '.join(f'{key.name} ({key.id})' for key in found)}?", yes=yes)
    for key in found:
        key.revoke()
        say(f"revoked {key.id}")


def _meant(word: str, known: "list[belljar.Key]") -> "belljar.Key":
    """Raises NotFound, with what was probably meant."""
    for key in known:
        if key.id == word:
            return key
    now = time.time()
    named = [key for key in known if key.name == word and _state(key.last_info, now) == "valid"]
    if len(named) > 1:
        raise UsageProblem(f"{len(named)} keys are called {word!r}", f"say which: {', '.join(key.id for key in named)}")
    if not named:
        names = [key.name for key in known if _state(key.last_info, now) == "valid"]
        raise NotFound(f"there is no key {word}", hint=did_you_mean(word, names) or "belljar key ls")
    return named[0]


def _state(info: "belljar.KeyInfo", now: float) -> str:
    if info.revoked is not None:
        return "revoked"
    return "expired" if info.expires is not None and info.expires <= now else "valid"
