"""`belljar template …`: sandboxes made ready once, from which others go on."""

import contextlib
import sys
from collections.abc import Generator
from dataclasses import asdict
from typing import Annotated, Any

import typer

import belljar
from belljar.base.units import format_size
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, ago, confirm, plain, print_data, print_json, say, table
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.cli.suggest import did_you_mean
from belljar.model.errors import Error, NotFound
from belljar.model.sandbox import DEFAULT_IMAGE

__all__ = ("app",)

app = typer.Typer(help="Make a sandbox ready once, and start from there.", no_args_is_help=True, suggest_commands=False)
TemplateName = Annotated[str, typer.Argument(metavar="TEMPLATE", help="Name.")]


@app.command(
    "create",
    epilog="Examples:  belljar template create web --port 8000 -- python3 -m http.server 8000   ·   "
    "belljar template create ml --image code --run 'pip install lightgbm' --timeout 5m",
)
def _create(
    name: TemplateName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="What to start, and leave running.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="The same as one line for /bin/sh.")] = None,
    image: options.Image = DEFAULT_IMAGE,
    port: Annotated[int | None, typer.Option("--port", help="Ready when something listens on this port.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Ready when this answers, for example http://localhost:80/")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="Ready when this path is there.")] = None,
    process: Annotated[str | None, typer.Option("--process", help="Ready when a process of this name runs.")] = None,
    check: Annotated[str | None, typer.Option("--check", help="Ready when this command ends with 0.")] = None,
    timeout: Annotated[str, typer.Option("--timeout", "-t", help="How long that may take.")] = "60s",
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    env: options.Env = None,
    label: options.Label = None,
    user: options.User = None,
    workdir: Annotated[str | None, typer.Option("--workdir", "-w", help="Working directory of its processes.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make it anew, in the place of the one of this name.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: options.Json = False,
) -> None:
    """Make a template: start a sandbox and a command in it, wait until it is ready, and keep its memory.

    Without a check it is ready when the command has ended with 0. Ctrl-C gives it up.
    """
    if run is not None and command:
        raise UsageProblem("--run and a command behind -- exclude each other")
    line = run if run is not None else parse.shell_line(command) if command else None
    ready = belljar.Ready(port, url, file, process, check, parse.duration(timeout))
    if line is None and ready == belljar.Ready(timeout=timeout):
        say("there is neither a command nor a check: what is kept is the image as it starts")
        ready = belljar.Ready()
    with interruptible(), _given_up(name), _told(shown=not quiet and sys.stderr.isatty()) as tell:
        made = belljar.Template.create(
            name,
            image=image,
            command=line,
            ready=ready,
            cpu=1.0 if cpu is None else cpu,
            memory=memory or "1GiB",
            disk=disk or "10GiB",
            env=parse.env_of(env or []),
            labels=parse.labels_of(label or []),
            user=user,
            workdir=workdir,
            replace=replace,
            on_progress=tell,
        )
    if as_json:
        print_json(_as_json(made.last_info))
    else:
        print_data(made.name)
        say(f"to start from it: belljar run --image {made.name} -- COMMAND")


@app.command("ls", epilog="Examples:  belljar template ls   ·   belljar template ls --json")
def _list(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List templates, in the order of their names."""
    infos = [template.last_info for template in belljar.Template.list()]
    if as_json:
        print_json([_as_json(info) for info in infos])
    elif quiet:
        for info in infos:
            print_data(info.name)
    else:
        rows = [
            (info.name, info.image, info.command or "", format_size(info.size), ago(info.created), info.step or "ready")
            for info in infos
        ]
        table(("NAME", "IMAGE", "COMMAND", "SIZE", "CREATED", "STATE"), rows)


@app.command("show", epilog="Example:  belljar template show web --json")
def _show(name: TemplateName, as_json: options.Json = False) -> None:
    """Show a template: its recipe, its snapshot, and how far it is."""
    info = _named(name).last_info
    if as_json:
        print_json(_as_json(info))
        return
    ready = {key: getattr(info.ready, key) for key in ("port", "url", "file", "process", "command")}
    facts: list[tuple[str, str]] = [
        ("name", info.name),
        ("image", info.image),
        ("command", info.command or ""),
        ("ready", ", ".join(f"{key} {value}" for key, value in ready.items() if value is not None)),
        ("snapshot", info.snapshot or ""),
        ("size", format_size(info.size)),
        ("stored", format_size(info.stored)),
        ("created", ago(info.created)),
        ("cpu", f"{info.cpu:g}"),
        ("memory", format_size(info.memory)),
        ("disk", format_size(info.disk)),
        ("user", info.user or ""),
        ("workdir", info.workdir or ""),
        *((f"label {key}", value) for key, value in info.labels.items()),
        ("step", info.step),
    ]
    width = max(len(key) for key, _ in facts)
    for key, value in facts:
        if value:
            print_data(f"{key:<{width}}  {plain(value)}")
    if info.output:
        print_data(plain(info.output, keep="\n\t"))


@app.command("rm", epilog="Example:  belljar template rm web")
def _remove(
    names: Annotated[list[str], typer.Argument(metavar="TEMPLATE…", help="Names.")], yes: options.Yes = False
) -> None:
    """Delete templates with their snapshots. What was made from them goes on."""
    found = [_named(name) for name in names]
    confirm(f"Delete {', '.join(template.name for template in found)}?", yes=yes)
    for template in found:
        template.delete()
        say(f"deleted {template.name}")


def _named(word: str) -> "belljar.Template":
    """Raises NotFound, with what was probably meant."""
    try:
        return belljar.Template.get(word)
    except NotFound as error:
        known = [template.name for template in belljar.Template.list()]
        raise NotFound(error.message, hint=did_you_mean(word, known) or "belljar template ls") from None


@contextlib.contextmanager
def _given_up(name: str) -> Generator[None]:
    """Ctrl-C leaves nothing half made; a template of this name that was there stays."""
    try:
        yield
    except Interrupted:
        say(f"interrupted: giving up template {name} …")
        with contextlib.suppress(Error):
            template = belljar.Template.get(name)
            if template.last_info.step:
                template.delete()
        raise


@contextlib.contextmanager
def _told(*, shown: bool) -> "Generator[Any]":
    """A line on stderr that says what is being done, and the last line of what the command said."""
    if not shown:
        yield None
        return
    from rich.console import Console  # 60 ms, only here
    from rich.text import Text

    with Console(stderr=True).status(Text("starting a sandbox")) as status:

        def tell(info: "belljar.TemplateInfo") -> None:
            last = info.output.strip().rpartition("\n")[2]
            status.update(Text(plain(info.step + (f": {last[-80:]}" if last else ""))))

        yield tell


def _as_json(info: "belljar.TemplateInfo") -> dict[str, Any]:
    return asdict(info)
