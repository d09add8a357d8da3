"""`belljar sandbox …`: making, listing, showing and ending sandboxes; its other verbs have modules of their own."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

import belljar
from belljar.base.units import format_size
from belljar.cli import branching, copying, execute, options, parse, shell, stats
from belljar.cli.choose import origin, sandbox_named
from belljar.cli.console import UsageProblem, ago, confirm, plain, print_data, print_json, say, table, until
from belljar.model.events import event_json
from belljar.model.sandbox import DEFAULT_IMAGE, OnTimer

__all__ = ("app",)

app = typer.Typer(help="Make, use and end sandboxes.", no_args_is_help=True, suggest_commands=False)


@app.command("create", epilog="Example:  belljar sandbox create --name web --memory 512MiB --lifetime 2h")
def _create(
    image: options.Image = DEFAULT_IMAGE,
    snapshot: options.Snapshot = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="A name, free of other living sandboxes'.")] = None,
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    pids: Annotated[int | None, typer.Option("--pids", help="Processes and threads at once. Default: 1024.")] = None,
    network: options.Network = "open",
    env: options.Env = None,
    label: options.Label = None,
    user: options.User = None,
    workdir: Annotated[str | None, typer.Option("--workdir", "-w", help="Working directory of its processes.")] = None,
    lifetime: Annotated[str, typer.Option("--lifetime", help="So long it runs: 90s, 5m, 1h, or none.")] = "1h",
    idle: Annotated[str | None, typer.Option("--idle", help="How long nobody may use it: 5m, or none.")] = None,
    on_lifetime: Annotated[
        OnTimer, typer.Option("--on-lifetime", help="What is done when it ran so long.")
    ] = OnTimer.TERMINATE,
    on_idle: Annotated[OnTimer, typer.Option("--on-idle", help="What is done when nobody used it.")] = OnTimer.PAUSE,
    as_json: options.Json = False,
) -> None:
    """Make a sandbox and print its id."""
    sandbox = belljar.Sandbox.create(
        origin(image, snapshot),
        name=name,
        cpu=cpu,
        memory=memory,
        disk=disk,
        pids=pids,
        network=network,
        env=parse.env_of(env or []),
        labels=parse.labels_of(label or []),
        user=user,
        workdir=workdir,
        lifetime=None if lifetime == "none" else parse.duration(lifetime),
        idle=None if idle in (None, "none") else parse.duration(idle),
        on_lifetime=on_lifetime,
        on_idle=on_idle,
    )
    if as_json:
        print_json(_as_json(sandbox.info()))
    else:
        print_data(sandbox.id)


@app.command(
    "ls",
    epilog="Examples:  belljar sandbox ls   ·   belljar sandbox ls --all --json   ·   belljar sandbox ls -q",
)
def _list(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False,
    status: Annotated[str | None, typer.Option("--status", help="Those in this state alone.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="With this label.")
    ] = None,
    image: Annotated[str | None, typer.Option("--image", "-i", help="Made from this image.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List sandboxes, the newest first."""
    if everything and status:
        raise UsageProblem("--all and --status exclude each other")
    found = belljar.Sandbox.list(
        status="all" if everything else status, labels=parse.labels_of(label or []), image=image, limit=limit
    )
    infos = [sandbox.last_info for sandbox in found]
    if as_json:
        print_json([_as_json(info) for info in infos])
    elif quiet:
        for info in infos:
            print_data(info.id)
    else:
        rows = [(info.id, info.name or "", info.status, info.image, ago(info.created), _end(info)) for info in infos]
        table(("ID", "NAME", "STATUS", "IMAGE", "CREATED", "ENDS"), rows)


@app.command("show", epilog="Example:  belljar sandbox show web --json")
def _show(ref: options.SandboxName, as_json: options.Json = False) -> None:
    """Show all that is known of a sandbox."""
    sandbox = sandbox_named(ref)
    info = sandbox.last_info
    if as_json:
        print_json(_as_json(info))
        return
    facts: list[tuple[str, str]] = [
        ("id", info.id),
        ("name", info.name or ""),
        ("status", info.status),
        ("image", info.image),
        ("snapshot", info.snapshot or ""),
        ("forked from", info.parent or ""),
        ("created", ago(info.created)),
        ("ends", _end(info)),
        ("cpu", f"{info.cpu:g}"),
        ("memory", format_size(info.memory)),
        ("disk", format_size(info.disk)),
        ("pids", str(info.pids)),
        ("network", info.network),
        *((f"label {key}", value) for key, value in info.labels.items()),
    ]
    if info.ended is not None and info.ended.message:
        facts.append(("because", info.ended.message))
    if not info.status.is_end:
        now = sandbox.stats()
        facts.append(("uses", f"{format_size(now.memory)}, {now.cpu_seconds:.1f} s of CPU, {now.processes} processes"))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value:
            print_data(f"{name:<{width}}  {plain(value)}")


@app.command("update", epilog="Example:  belljar sandbox update web --memory 2GiB --cpu 2")
def _update(
    ref: options.SandboxName,
    cpu: Annotated[float | None, typer.Option("--cpu", help="Cores; 0.5 is half of one.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "-m", callback=parse.size, help="For example 2GiB; more than is in use.")
    ] = None,
    pids: Annotated[int | None, typer.Option("--pids", help="Processes and threads at once.")] = None,
    disk: Annotated[
        str | None, typer.Option("--disk", callback=parse.size, help="Cannot be changed while it runs.")
    ] = None,
    lifetime: Annotated[str | None, typer.Option("--lifetime", help="From now on: 90s, 5m, 1h, or none.")] = None,
    idle: Annotated[str | None, typer.Option("--idle", help="How long nobody may use it: 5m, or none.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Instead of all it has.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Change a sandbox that runs: its limits (at once), its times, its labels. What is not named stays."""
    if all(value is None for value in (cpu, memory, pids, disk, lifetime, idle, label)):
        raise UsageProblem("what is to be changed? Say, for example, --memory 2GiB")
    times = {"lifetime": lifetime, "idle": idle}
    info = sandbox_named(ref).update(
        labels=None if label is None else parse.labels_of(label),
        cpu=cpu,
        memory=memory,
        disk=disk,
        pids=pids,
        **{
            name: None if value == "none" else parse.duration(value)
            for name, value in times.items()
            if value is not None
        },
    )
    if as_json:
        print_json(_as_json(info))
    else:
        limits = f"cpu {info.cpu:g}, memory {format_size(info.memory)}, pids {info.pids}"
        say(f"{info.name or info.id}: {limits}, ends {_end(info)}")


@app.command("pause", epilog="Example:  belljar sandbox pause web")
def _pause(refs: options.SandboxNames, as_json: options.Json = False) -> None:
    """Let sandboxes stand still in memory: no processor, their times stand still. The next call wakes them."""
    _turned(refs, belljar.Sandbox.pause, as_json=as_json)


@app.command("standby", epilog="Example:  belljar sandbox standby web")
def _standby(refs: options.SandboxNames, as_json: options.Json = False) -> None:
    """Put the memory of sandboxes on the disk. The next call wakes them where they were."""
    _turned(refs, belljar.Sandbox.standby, as_json=as_json)


@app.command("stop", epilog="Example:  belljar sandbox stop web")
def _stop(refs: options.SandboxNames, as_json: options.Json = False) -> None:
    """Keep the files of sandboxes on the disk; what runs in them ends. The next call starts them."""
    _turned(refs, belljar.Sandbox.stop, as_json=as_json)


@app.command("resume", epilog="Example:  belljar sandbox resume web")
def _resume(refs: options.SandboxNames, as_json: options.Json = False) -> None:
    """Wake sandboxes that are paused, on standby or stopped."""
    _turned(refs, belljar.Sandbox.resume, as_json=as_json)


def _turned(refs: list[str], turn: "Callable[[belljar.Sandbox], None]", *, as_json: bool) -> None:
    for ref in refs:
        sandbox = sandbox_named(ref)
        turn(sandbox)
        if as_json:
            print_json(_as_json(sandbox.info()))
        else:
            say(f"{sandbox.name or sandbox.id}: {sandbox.status}")


@app.command("logs", epilog="Example:  belljar sandbox logs web --limit 100000")
def _logs(
    ref: options.SandboxName,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Bytes of each stream of each process.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show a sandbox's events and the last output of its newest processes."""
    logs = sandbox_named(ref).logs(limit)
    if as_json:
        told = [event_json(event) for event in logs.events]
        print_json({"events": told, "processes": [dict(one) for one in logs.processes]})
        return
    for event in logs.events:
        words = (ago(event.at), event.kind, event.reason, event.message)
        print_data(plain("  ".join(word for word in words if word)))
    for one in logs.processes:
        process = one["process"]
        state = "running" if process["returncode"] is None else f"status {process['returncode']}"
        print_data(plain(f"── {' '.join(process['argv'])[:200]} ({process['pid']}, {state})"))
        if one.get("attached"):
            say("  (somebody reads its output)")
        for stream in ("stdout", "stderr"):
            if one.get(stream):
                print_data(plain(one[stream], keep="\n\t").rstrip("\n"))


@app.command("rm", epilog="Examples:  belljar sandbox rm web   ·   belljar sandbox rm --all --yes")
def _remove(
    refs: Annotated[list[str] | None, typer.Argument(metavar="SANDBOX…", help="Ids or names.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every living sandbox.")] = False,
    yes: options.Yes = False,
) -> None:
    """End sandboxes and free all they hold."""
    if bool(refs) == everything:
        raise UsageProblem("which sandboxes? Name them, or say --all")
    sandboxes = list(belljar.Sandbox.list()) if everything else [sandbox_named(ref) for ref in refs or []]
    if not sandboxes:
        say("there is no sandbox")
        return
    names = ", ".join(sandbox.name or sandbox.id for sandbox in sandboxes[:5])
    more = f" and {len(sandboxes) - 5} more" if len(sandboxes) > 5 else ""
    confirm(f"End {names}{more}?", yes=yes)
    for sandbox in sandboxes:
        sandbox.terminate()
        say(f"ended {sandbox.name or sandbox.id}")


def _end(info: "belljar.SandboxInfo") -> str:
    return f"{info.ended.reason} {ago(info.ended.at)}" if info.ended is not None else until(info.expires)


def _as_json(info: "belljar.SandboxInfo") -> dict[str, Any]:
    return asdict(info)


execute.add_to(app)
shell.add_to(app)
copying.add_to(app)
branching.add_to(app)
stats.add_to(app)
