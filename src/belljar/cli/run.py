"""`belljar run`: a file or a command in a sandbox of its own, from its making to its end."""

import contextlib
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import belljar
from belljar.base.units import parse_duration
from belljar.cli import options, parse
from belljar.cli.alive import kept_alive
from belljar.cli.choose import origin
from belljar.cli.console import UsageProblem, say
from belljar.cli.deadline import Deadline
from belljar.cli.execute import started
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.cli.pipes import exit_status, follow, give_stdin, stdin_is_ours
from belljar.model.errors import Error, NotFound
from belljar.model.sandbox import DEFAULT_IMAGE
from belljar.sdk.asking import new_key

__all__ = ("add_to",)

_MARK = "--this-is-a-command"
_INTERPRETERS = {".py": "python3", ".js": "node", ".mjs": "node", ".cjs": "node", ".sh": "sh", ".bash": "bash"}
_TIMED_OUT = 124
_LEASE = "15m"
"""Lifetime, renewed while this command lives: a sandbox whose command was killed ends by itself."""
_KEPT_FOR = "1h"


class _RunCommand(TyperCommand):
    """The parser drops ``--``, which tells a command from a file: it is marked before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args = [*args[:at], _MARK, *args[at:]]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class _Job:
    """What to run, and the files it needs."""

    argv: list[str]
    uploads: list[tuple[Path, str]]
    downloads: list[tuple[str, Path]]


def add_to(app: typer.Typer) -> None:
    app.command(
        "run",
        cls=_RunCommand,
        context_settings={"allow_interspersed_args": False},
        epilog="Examples:  belljar run script.py --fast input.csv   ·   belljar run -- ls -l /   ·   "
        "cat data | belljar run --network none filter.py   ·   belljar run -c data.csv -o plot.png plot.py",
    )(_run)


def _run(
    words: Annotated[list[str], typer.Argument(metavar="FILE [ARGS]… | -- COMMAND…", help="What to run.")],
    image: options.Image = DEFAULT_IMAGE,
    snapshot: options.Snapshot = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the sandbox.")] = None,
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    network: options.Network = "open",
    env: options.Env = None,
    copy: Annotated[
        list[str] | None, typer.Option("--copy", "-c", metavar="LOCAL[:REMOTE]", help="Copy in before the run.")
    ] = None,
    out: Annotated[
        list[str] | None, typer.Option("--out", "-o", metavar="REMOTE[:LOCAL]", help="Copy out after the run.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", "-t", help="End it after this long, for example 5m (status 124).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox running for an hour.")] = False,
    is_command: Annotated[bool, typer.Option(_MARK, hidden=True)] = False,
) -> None:
    """Run a file or a command in a new sandbox, which ends with it.

    Output comes live, stdin and the exit status pass through (signal n: 128+n). What a file is run with follows from its name
    (.py, .js, .sh) or from its first line. Ctrl-C ends the sandbox.
    """
    job = _job(_unmarked(words), copy or [], out or [], is_command=is_command)
    seconds = parse_duration(parse.duration(timeout)) if timeout else None
    asked: dict[str, Any] = {
        "image": origin(image, snapshot),
        "name": name,
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "network": network,
        "env": parse.env_of(env or []),
        "lifetime": _LEASE,
    }
    with interruptible(), _sandbox(asked, keep=keep) as sandbox, kept_alive(sandbox, _LEASE):
        raise typer.Exit(_work(sandbox, job, seconds))


def _unmarked(words: list[str]) -> list[str]:
    """``--`` behind the file is the script's own."""
    return [word for word in words if word != _MARK]


def _job(words: Sequence[str], copy: Sequence[str], out: Sequence[str], *, is_command: bool) -> _Job:
    uploads = [parse.copy_in(word) for word in copy]
    downloads = [parse.copy_out(word) for word in out]
    if is_command:
        return _Job(list(words), uploads, downloads)
    file = Path(words[0])
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UsageProblem(f"the file {words[0]} {what}", f"to run a command: belljar run -- {' '.join(words)}")
    return _Job([*_how(file), *words[1:]], [*uploads, (file, file.name)], downloads)


def _how(file: Path) -> list[str]:
    if interpreter := _INTERPRETERS.get(file.suffix.lower()):
        return [interpreter, file.name]
    with open(file, "rb") as content:
        head = content.read(4)
    if head[:2] == b"#!" or head == b"\x7fELF":
        return [f"./{file.name}"]
    raise UsageProblem(
        f"cannot tell how to run {file.name}: it has no known ending and no #! line",
        f"belljar run -c {file.name} -- PROGRAM {file.name}",
    )


@contextlib.contextmanager
def _sandbox(asked: dict[str, Any], *, keep: bool) -> Generator["belljar.Sandbox"]:
    from belljar.sdk._sync.link import shared_link  # with the HTTP client: not for --help

    key = new_key()
    try:
        sandbox = belljar.Sandbox.create(**asked, idempotency_key=key)
    except Interrupted:
        if shared_link().reached:
            say("interrupted while the sandbox was being made; ending it …")
            with contextlib.suppress(Error):
                belljar.Sandbox.create(**asked, idempotency_key=key).terminate()
        else:
            say("interrupted; the server goes on getting ready for the next time (belljar down ends it)")
        raise
    try:
        yield sandbox
    except BaseException as error:
        if isinstance(error, Interrupted) and error.signal != signal.SIGPIPE:
            say(f"interrupted: the sandbox {sandbox.id} {'is kept' if keep else 'ends'}")
        raise
    finally:
        if keep:
            sandbox.update(lifetime=_KEPT_FOR)
            say(f"kept for {_KEPT_FOR}: belljar sandbox shell {sandbox.name or sandbox.id}")
        else:
            sandbox.terminate()


def _work(sandbox: "belljar.Sandbox", job: _Job, seconds: float | None) -> int:
    for local, remote in job.uploads:
        sandbox.upload(local, remote)
    if job.argv[0].startswith("./"):
        sandbox.path(job.argv[0]).chmod(0o755)
    has_stdin = stdin_is_ours()
    process = started(sandbox, job.argv, stdin=has_stdin)
    if has_stdin:
        give_stdin(process)
    with Deadline(process, seconds) as deadline:
        status = exit_status(follow(process))
    if process.out_of_memory:
        say("belljar: it was ended at the memory limit; --memory gives it more")
    if deadline.passed:
        say(f"belljar: it did not end within {seconds:g} s and was killed")
        status = _TIMED_OUT
    for remote, local in job.downloads:
        _fetch(sandbox, remote, local, failed=status != 0)
    return status


def _fetch(sandbox: "belljar.Sandbox", remote: str, local: Path, *, failed: bool) -> None:
    """A result that is missing after a failure is no news of its own."""
    try:
        sandbox.download(remote, local)
    except NotFound as error:
        if not failed or error.code != "not_found":
            raise
        say(f"belljar: no {remote} to copy out")
