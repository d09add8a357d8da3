"""`belljar workspace …`: who shares a server, and how much each may have."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

import belljar
from belljar.base.units import format_size
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, ago, confirm, print_data, print_json, say, table
from belljar.cli.suggest import did_you_mean
from belljar.model.errors import NotFound

__all__ = ("app",)

app = typer.Typer(help="Make workspaces, and bound what they may have.", no_args_is_help=True, suggest_commands=False)
_Name = Annotated[str, typer.Argument(metavar="WORKSPACE", help="Its name.")]
_SIZES = ("memory", "disk")


@app.command(
    "create",
    epilog="Examples:  belljar workspace create team --sandboxes 20 --memory 64GiB   ·   belljar key create ci --workspace team",
)
def _create(
    name: Annotated[str, typer.Argument(help="1 to 63 lower-case letters, digits and inner hyphens.")],
    sandboxes: options.MaxSandboxes = None,
    cpus: options.MaxCpus = None,
    memory: options.MaxMemory = None,
    disk: options.MaxDisk = None,
    creates: options.Creates = None,
    requests: options.Requests = None,
    as_json: options.Json = False,
) -> None:
    """Make a workspace. What is not bounded may be as much as the machine has."""
    quota = parse.quota(sandboxes=sandboxes, cpus=cpus, memory=memory, disk=disk, creates=creates, requests=requests)
    made = belljar.Workspace.create(name, quota)
    if as_json:
        print_json(asdict(made.last_info))
    else:
        say(f"made {made.id}; a key for it: belljar key create NAME --workspace {made.id}")


@app.command("ls", epilog="Examples:  belljar workspace ls   ·   belljar workspace ls --json")
def _list(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List workspaces: what is in use, of how much."""
    infos = [workspace.last_info for workspace in belljar.Workspace.list()]
    if as_json:
        print_json([asdict(info) for info in infos])
    elif quiet:
        for info in infos:
            print_data(info.id)
    else:
        rows = [
            (info.id, *(_of(info, name) for name in ("sandboxes", "cpus", "memory", "disk")), ago(info.created))
            for info in infos
        ]
        table(("WORKSPACE", "SANDBOXES", "CPUS", "MEMORY", "DISK", "CREATED"), rows)


@app.command("show", epilog="Example:  belljar workspace show team")
def _show(name: _Name, as_json: options.Json = False) -> None:
    """Show one: its bounds, and what is in use."""
    info = _meant(name).last_info
    if as_json:
        print_json(asdict(info))
        return
    rows = [(each, _of(info, each)) for each in ("sandboxes", "cpus", "memory", "disk")]
    rows += [(f"{each} per second", _bound(each, getattr(info.quota, each))) for each in ("creates", "requests")]
    table(("OF", "IN USE / BOUND"), rows)


@app.command(
    "set",
    epilog="Examples:  belljar workspace set team --sandboxes 40   ·   belljar workspace set default --creates 10 --memory none",
)
def _set(
    name: _Name,
    sandboxes: options.MaxSandboxes = None,
    cpus: options.MaxCpus = None,
    memory: options.MaxMemory = None,
    disk: options.MaxDisk = None,
    creates: options.Creates = None,
    requests: options.Requests = None,
    as_json: options.Json = False,
) -> None:
    """Change bounds; those that are not named stay. What lives already stays too."""
    said = {"sandboxes": sandboxes, "cpus": cpus, "memory": memory, "disk": disk} | {
        "creates": creates,
        "requests": requests,
    }
    named = {each for each, word in said.items() if word is not None}
    if not named:
        raise UsageProblem("which bound?", "belljar workspace set NAME --sandboxes 20")
    workspace, wanted = _meant(name), parse.quota(**said)
    changes: dict[str, Any] = {each: getattr(wanted, each) for each in named}
    workspace.update(replace(workspace.last_info.quota, **changes))
    if as_json:
        print_json(asdict(workspace.last_info))
    else:
        say(f"changed {workspace.id}")


@app.command("rm", epilog="Example:  belljar workspace rm team --yes")
def _remove(
    names: Annotated[list[str], typer.Argument(metavar="WORKSPACE…", help="Their names.")], yes: options.Yes = False
) -> None:
    """Delete empty workspaces, with their keys."""
    found = [_meant(name) for name in names]
    confirm(f"Delete {', '.join(workspace.id for workspace in found)}, with their keys?", yes=yes)
    for workspace in found:
        workspace.delete()
        say(f"deleted {workspace.id}")


def _meant(name: str) -> "belljar.Workspace":
    """Raises NotFound, with what was probably meant."""
    known = {workspace.id: workspace for workspace in belljar.Workspace.list()}
    if name not in known:
        raise NotFound(f"there is no workspace {name}", hint=did_you_mean(name, list(known)) or "belljar workspace ls")
    return known[name]


def _of(info: "belljar.WorkspaceInfo", name: str) -> str:
    return f"{_bound(name, info.use[name])} / {_bound(name, getattr(info.quota, name))}"


def _bound(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return format_size(int(value)) if name in _SIZES else f"{value:g}"
