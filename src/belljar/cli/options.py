"""Options that several commands share."""

from typing import Annotated

import typer

from belljar.cli import parse

__all__ = (
    "Creates",
    "Cpu",
    "Cwd",
    "Disk",
    "Env",
    "Image",
    "Json",
    "Label",
    "MaxCpus",
    "MaxDisk",
    "MaxMemory",
    "MaxSandboxes",
    "Memory",
    "Network",
    "Quiet",
    "Requests",
    "SandboxName",
    "SandboxNames",
    "Snapshot",
    "User",
    "Yes",
)

Image = Annotated[str, typer.Option("--image", "-i", help="Image or template to start from.")]
Snapshot = Annotated[str | None, typer.Option("--snapshot", "-s", help="Snapshot to go on from: id or name.")]
Cpu = Annotated[float | None, typer.Option("--cpu", help="Cores; 0.5 is half of one. Default: 1, or the template's.")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", "-m", callback=parse.size, help="For example 512MiB. Default: 1GiB, or the template's."),
]
Disk = Annotated[
    str | None, typer.Option("--disk", callback=parse.size, help="For example 2GiB. Default: 10GiB, or the template's.")
]
Network = Annotated[str, typer.Option("--network", help="open: the internet without private addresses. none: nothing.")]
Env = Annotated[
    list[str] | None, typer.Option("--env", "-e", metavar="NAME[=VALUE]", help="Variable; without value the one here.")
]
Label = Annotated[list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label.")]
User = Annotated[str | None, typer.Option("--user", "-u", help="User inside: a name or a number.")]
Cwd = Annotated[str | None, typer.Option("--cwd", "-w", help="Working directory inside.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Ids alone, one a line.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
SandboxName = Annotated[str, typer.Argument(metavar="SANDBOX", help="Id or name.")]
SandboxNames = Annotated[list[str], typer.Argument(metavar="SANDBOX…", help="Ids or names.")]

MaxSandboxes = Annotated[str | None, typer.Option("--sandboxes", metavar="N", help="Live at once; none: no bound.")]
MaxCpus = Annotated[str | None, typer.Option("--cpus", metavar="N", help="Cores of all live ones together.")]
MaxMemory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="Memory of all together, say 64GiB.")]
MaxDisk = Annotated[str | None, typer.Option("--disk", metavar="SIZE", help="Disk of all together, say 500GiB.")]
Creates = Annotated[str | None, typer.Option("--creates", metavar="N", help="Sandboxes made per second, on average.")]
Requests = Annotated[str | None, typer.Option("--requests", metavar="N", help="Requests per second, on average.")]
