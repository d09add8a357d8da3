"""`belljar sandbox fork`, `rollback`, `mount`, `unmount`: what branches off a sandbox, and what is put into it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

import belljar
from belljar.cli import options, parse
from belljar.cli.choose import sandbox_named, snapshot_named
from belljar.cli.console import UsageProblem, confirm, print_data, print_json, say, table
from belljar.cli.interrupts import interruptible

__all__ = ("add_to",)


def add_to(app: typer.Typer) -> None:
    app.command(
        "fork",
        epilog="Examples:  belljar sandbox fork web   ·   belljar sandbox fork web -n 5 --name try --label job=7",
    )(_fork)
    app.command("rollback", epilog="Example:  belljar sandbox rollback web before-upgrade")(_rollback)
    app.command(
        "mount",
        epilog="Examples:  belljar sandbox mount web data /srv/data   ·   belljar sandbox mount web (lists them)",
    )(_mount)
    app.command("unmount", epilog="Example:  belljar sandbox unmount web /srv/data")(_unmount)


def _fork(
    ref: options.SandboxName,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 1,
    name: Annotated[str | None, typer.Option("--name", help="A name; with several -1, -2… is added.")] = None,
    env: options.Env = None,
    label: options.Label = None,
    network: Annotated[str | None, typer.Option("--network", help="open or none; default: as it has.")] = None,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", help="They end after this: 90s, 5m, 1h, or none; default: as it had.")
    ] = None,
    cpu: Annotated[float | None, typer.Option("--cpu", help="Cores; 0.5 is half of one.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "-m", callback=parse.size, help="Memory, for example 512MiB.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make sandboxes that go on from this moment of one, with all that runs in it, and print their ids."""
    asked: dict[str, Any] = {"name": name, "network": network, "cpu": cpu, "memory": memory}
    if env:
        asked["env"] = parse.env_of(env)
    if label:
        asked["labels"] = parse.labels_of(label)
    if lifetime is not None:
        asked["lifetime"] = None if lifetime == "none" else parse.duration(lifetime)
    sandbox = sandbox_named(ref)
    with interruptible():
        made = sandbox.fork(count, return_exceptions=True, **asked)
    children = [one for one in made if isinstance(one, belljar.Sandbox)]
    if as_json:
        print_json([asdict(child.last_info) for child in children])
    else:
        for child in children:
            print_data(child.id)
    failures = [one for one in made if not isinstance(one, belljar.Sandbox)]
    for failure in failures:
        say(f"belljar: {failure}")
    if failures:
        say(f"{len(failures)} of {count} could not be made")
        raise typer.Exit(1)


def _rollback(
    ref: options.SandboxName,
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Id or name.")],
    yes: options.Yes = False,
) -> None:
    """Go back to a snapshot. What runs in the sandbox, and what was written since, is gone."""
    sandbox, kept = sandbox_named(ref), snapshot_named(snapshot)
    confirm(f"Go back with {sandbox.name or sandbox.id} to {kept.name or kept.id}? What it did since is lost.", yes=yes)
    sandbox.rollback(kept)
    say(f"{sandbox.name or sandbox.id} goes on from {kept.name or kept.id}")


def _mount(
    ref: options.SandboxName,
    snapshot: Annotated[str | None, typer.Argument(metavar="[SNAPSHOT]", help="Of a directory: id or name.")] = None,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="Where it is to appear.")] = None,
    as_json: options.Json = False,
) -> None:
    """Mount a private copy of a directory snapshot; without one, list what is mounted."""
    if (snapshot is None) != (path is None):
        raise UsageProblem("where is it to appear?", f"belljar sandbox mount {ref} {snapshot} PATH")
    sandbox = sandbox_named(ref)
    if snapshot is not None and path is not None:
        sandbox.mount(snapshot_named(snapshot), path)
        say(f"mounted {snapshot} at {path}")
        return
    mounts = sandbox.mounts()
    if as_json:
        print_json([{"path": place, "snapshot": id} for place, id in mounts.items()])
    else:
        table(("PATH", "SNAPSHOT"), mounts.items())


def _unmount(
    ref: options.SandboxName,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Where it is mounted.")],
    yes: options.Yes = False,
) -> None:
    """Take away what was mounted, with all that was written to it."""
    sandbox = sandbox_named(ref)
    confirm(f"Unmount {path}? What was written to it is lost.", yes=yes)
    sandbox.unmount(path)
    say(f"unmounted {path}")
