"""`belljar sandbox cp`: files and trees, both ways."""

import sys
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

import belljar
from belljar.cli.choose import sandbox_named
from belljar.cli.console import UsageProblem, say
from belljar.cli.interrupts import interruptible
from belljar.cli.meter import metered
from belljar.cli.parse import remote_of
from belljar.model.errors import NotFound
from belljar.model.file import FileKind

__all__ = ("add_to",)


def add_to(app: typer.Typer) -> None:
    app.command(
        "cp",
        epilog="Examples:  belljar sandbox cp data.csv web:/srv/   ·   belljar sandbox cp web:/srv/out ./out   ·   "
        "as with cp -r a folder goes into one that is there, and folder/. is what is in it",
    )(_copy)


def _copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path here, or SANDBOX:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path here, or SANDBOX:PATH.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    skip_unsafe: Annotated[
        bool, typer.Option("--skip-unsafe", help="Leave out links that leave the copied folder, devices and the like.")
    ] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Owner inside the sandbox.")] = None,
) -> None:
    """Copy a file or a folder into a sandbox or out of one."""
    inside, outside = remote_of(source), remote_of(target)
    if inside is not None and outside is not None:
        raise UsageProblem("one of the two is a path of this machine", "copy out first, then in")
    with interruptible():
        if outside is not None:
            _into(source, *outside, quiet=quiet, user=user)
        elif inside is not None:
            _out_of(*inside, Path(target), quiet=quiet, skip_unsafe=skip_unsafe)
        else:
            raise UsageProblem("neither is in a sandbox", f"belljar sandbox cp {source} SANDBOX:{target}")


def _into(source: str, ref: str, remote: str, *, quiet: bool, user: str | None) -> None:
    local = Path(source)
    if not local.exists():
        raise UsageProblem(f"there is no {str(local)!r} here")
    sandbox = sandbox_named(ref)
    if local.is_dir() and not source.endswith("/.") and _is_folder(sandbox, remote):
        remote = str(PurePosixPath(remote) / local.resolve().name)
    with metered(f"{local} → {ref}:{remote}", shown=not quiet and sys.stderr.isatty()) as progress:
        sandbox.upload(local, remote, user=user, progress=progress)


def _out_of(ref: str, remote: str, local: Path, *, quiet: bool, skip_unsafe: bool) -> None:
    sandbox = sandbox_named(ref)
    info = sandbox.path(remote).stat()
    if local.is_dir() and info.kind == FileKind.DIRECTORY and not remote.endswith("/.") and PurePosixPath(remote).name:
        local = local / PurePosixPath(remote).name
    elif info.kind != FileKind.DIRECTORY and not local.parent.is_dir():
        raise UsageProblem(f"there is no folder {str(local.parent)!r} here")
    with metered(f"{ref}:{remote} → {local}", shown=not quiet and sys.stderr.isatty()) as progress:
        sandbox.download(remote, local, skip_unsafe=skip_unsafe, progress=progress)
    if skip_unsafe:
        say("entries that leave the folder were left out, if there were any")


def _is_folder(sandbox: "belljar.Sandbox", remote: str) -> bool:
    try:
        return sandbox.path(remote).stat().kind == FileKind.DIRECTORY
    except NotFound as error:
        if error.code != "not_found":
            raise
        return False
