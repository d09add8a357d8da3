"""`belljar snapshot …`: taking, finding, comparing, carrying and deleting snapshots."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import belljar
from belljar.base.units import format_duration, format_size
from belljar.cli import options, parse
from belljar.cli.choose import sandbox_named, snapshot_named
from belljar.cli.console import UsageProblem, ago, confirm, plain, print_data, print_json, say, table, until
from belljar.cli.interrupts import interruptible
from belljar.cli.meter import metered
from belljar.cli.tree import draw, there
from belljar.model.snapshot import SnapshotKind

__all__ = ("app",)

app = typer.Typer(help="Keep moments of sandboxes, and start from them.", no_args_is_help=True, suggest_commands=False)
_SIGNS = {"added": "+", "modified": "~", "deleted": "-"}
_SUFFIX = ".belljar"
SnapshotName = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Id or name.")]


@app.command(
    "create",
    epilog="Examples:  belljar snapshot create web before-upgrade   ·   belljar snapshot create web --memory --ttl 7d   ·   "
    "belljar snapshot create web data --path /srv/data",
)
def _create(
    ref: options.SandboxName,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A name, free of other snapshots'.")] = None,
    memory: Annotated[bool, typer.Option("--memory", "-M", help="Processes and all, not the files alone.")] = False,
    path: Annotated[str | None, typer.Option("--path", "-p", help="One directory alone, to be mounted.")] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", help="It is deleted after this: 90s, 5m, 7d.")] = None,
    label: options.Label = None,
    as_json: options.Json = False,
) -> None:
    """Keep this moment of a sandbox, which goes on, and print the snapshot's id."""
    if memory and path is not None:
        raise UsageProblem("--memory and --path exclude each other")
    sandbox = sandbox_named(ref)
    with interruptible():
        kept = sandbox.snapshot(
            name,
            memory=memory,
            path=path,
            ttl=parse.duration(ttl) if ttl else None,
            labels=parse.labels_of(label or []),
        )
    if as_json:
        print_json(_as_json(kept.last_info))
        return
    info = kept.last_info
    say(f"kept {format_size(info.size)}; the sandbox stood still for {format_duration(info.paused)}")
    print_data(kept.id)


@app.command("ls", epilog="Examples:  belljar snapshot ls   ·   belljar snapshot ls --kind memory --json")
def _list(
    kind: Annotated[SnapshotKind | None, typer.Option("--kind", "-k", help="Of this kind alone.")] = None,
    sandbox: Annotated[str | None, typer.Option("--sandbox", help="Taken of the sandbox with this id.")] = None,
    label: options.Label = None,
    image: Annotated[str | None, typer.Option("--image", "-i", help="Of sandboxes from this image.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List snapshots, the newest first."""
    labels = parse.labels_of(label or [])
    found = belljar.Snapshot.list(kind=kind, sandbox=sandbox, labels=labels, image=image, limit=limit)
    infos = [one.last_info for one in found]
    if as_json:
        print_json([_as_json(info) for info in infos])
    elif quiet:
        for info in infos:
            print_data(info.id)
    else:
        rows = [
            (
                info.id,
                info.name or "",
                _kind(info),
                format_size(info.size),
                format_size(info.stored),
                ago(info.created),
                until(info.expires),
            )
            for info in infos
        ]
        table(("ID", "NAME", "KIND", "SIZE", "STORED", "CREATED", "EXPIRES"), rows)


@app.command("show", epilog="Example:  belljar snapshot show before-upgrade --json")
def _show(ref: SnapshotName, as_json: options.Json = False) -> None:
    """Show all that is known of a snapshot."""
    info = snapshot_named(ref).last_info
    if as_json:
        print_json(_as_json(info))
        return
    facts: list[tuple[str, str]] = [
        ("id", info.id),
        ("name", info.name or ""),
        ("kind", _kind(info)),
        ("path", info.path or ""),
        ("sandbox", info.sandbox),
        ("image", info.image),
        ("parent", info.parent or ""),
        ("size", format_size(info.size)),
        ("stored", format_size(info.stored)),
        ("created", ago(info.created)),
        ("expires", until(info.expires)),
        ("paused", format_duration(info.paused) if info.paused else ""),
        ("cpu", f"{info.cpu:g}"),
        ("memory", format_size(info.memory)),
        ("disk", format_size(info.disk)),
        *((f"label {key}", value) for key, value in info.labels.items()),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value:
            print_data(f"{name:<{width}}  {plain(value)}")


@app.command("tree", epilog="Examples:  belljar snapshot tree   ·   belljar snapshot tree web")
def _tree(
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help="A sandbox or snapshot whose family is meant.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="What has gone too.")] = False,
    as_json: options.Json = False,
) -> None:
    """Draw who came from whom: sandboxes, snapshots, forks, with their sizes and ages.

    What has gone is shown where something came from it that is there.
    """
    trees = belljar.Snapshot.lineages(ref)
    if not everything:
        trees = [kept for tree in trees if (kept := there(tree)) is not None]
    if as_json:
        print_json([asdict(tree) for tree in trees])
    elif trees:
        draw(trees)
    else:
        say("there is no snapshot")


@app.command("diff", epilog="Example:  belljar snapshot diff before-upgrade | grep '^- '")
def _diff(ref: SnapshotName, as_json: options.Json = False) -> None:
    """List what a filesystem snapshot changed on its image: + added, ~ modified, - deleted."""
    for change in snapshot_named(ref).diff():
        if as_json:
            print_data(json.dumps(asdict(change)))
        else:
            size = f"  {format_size(change.size)}" if change.size else ""
            mark = "/" if change.kind == "directory" else "@" if change.kind == "symlink" else ""
            print_data(f"{_SIGNS[change.change]} {plain(change.path)}{mark}{size}")


@app.command("export", epilog="Example:  belljar snapshot export before-upgrade ./before.belljar")
def _export(
    ref: SnapshotName,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; default: NAME.belljar here.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    yes: options.Yes = False,
) -> None:
    """Write a snapshot into one file, to be brought in elsewhere."""
    kept = snapshot_named(ref)
    target = file or Path(f"{kept.name or kept.id}{_SUFFIX}")
    if target.is_dir():
        target = target / f"{kept.name or kept.id}{_SUFFIX}"
    if not target.parent.is_dir():
        raise UsageProblem(f"there is no folder {str(target.parent)!r} here")
    if target.exists():
        confirm(f"Write over {target}?", yes=yes)
    with interruptible(), metered(f"{ref} → {target}", shown=not quiet and sys.stderr.isatty()) as progress:
        kept.export(target, progress=progress)
    print_data(str(target))


@app.command("import", epilog="Example:  belljar snapshot import before.belljar --name before-upgrade")
def _import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="A name, free of other snapshots'.")] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", help="It is deleted after this: 90s, 5m, 7d.")] = None,
    label: options.Label = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Bring in a snapshot from a file, and print its id."""
    if not file.is_file():
        raise UsageProblem(f"there is no file {str(file)!r} here")
    labels = parse.labels_of(label or [])
    seconds = parse.duration(ttl) if ttl else None
    with interruptible(), metered(f"{file} →", shown=not quiet and sys.stderr.isatty()) as progress:
        kept = belljar.Snapshot.load(file, name, labels=labels, ttl=seconds, progress=progress)
    print_data(kept.id)


@app.command("rm", epilog="Examples:  belljar snapshot rm before-upgrade   ·   belljar snapshot rm --all --yes")
def _remove(
    refs: Annotated[list[str] | None, typer.Argument(metavar="SNAPSHOT…", help="Ids or names.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every one that no template is made of.")] = False,
    yes: options.Yes = False,
) -> None:
    """Delete snapshots. What was made from them goes on."""
    if bool(refs) == everything:
        raise UsageProblem("which snapshots? Name them, or say --all")
    found = (
        [one for one in belljar.Snapshot.list() if not one.last_info.template]
        if everything
        else [snapshot_named(ref) for ref in refs or []]
    )
    if not found:
        say("there is no snapshot")
        return
    names = ", ".join(one.name or one.id for one in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    confirm(f"Delete {names}{more}?", yes=yes)
    for one in found:
        one.delete()
        say(f"deleted {one.name or one.id}")


def _kind(info: "belljar.SnapshotInfo") -> str:
    return f"{info.kind} (template)" if info.template else str(info.kind)


def _as_json(info: "belljar.SnapshotInfo") -> dict[str, Any]:
    return asdict(info)
