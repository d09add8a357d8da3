"""`belljar backup` and `belljar restore`: the whole state of a server as one file."""

import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from belljar.base.home import state_home
from belljar.base.units import format_size
from belljar.cli import options
from belljar.cli.console import UsageProblem, confirm, fail, print_data, print_json, say
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.cli.meter import metered

__all__ = ("add_to",)

_STDIO = "-"


def add_to(app: typer.Typer) -> None:
    app.command(
        "backup",
        epilog="Examples:  belljar backup belljar.tar.zst   ·   belljar backup - | ssh elsewhere 'cat > belljar.tar.zst'",
    )(_backup)
    app.command("restore", epilog="Example:  belljar restore belljar.tar.zst --home /var/lib/belljar")(_restore)


def _backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to, such as belljar.tar.zst; - is stdout.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Also the first API key and the keys of snapshots.")
    ] = False,
    without_content: Annotated[
        bool, typer.Option("--without-content", help="Leave out what an object store has of snapshots.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write all that a server must not lose into one file, while it goes on: workspaces, keys, audit log, snapshots, templates.

    What runs in sandboxes is not in it: take snapshots. The file is read back and proven before it has its name.
    """
    from belljar.sdk._sync.backup import fetch_backup

    if file == _STDIO:
        if as_json:
            raise UsageProblem("stdout is either the backup or JSON", "belljar backup belljar.tar.zst --json")
        try:
            with interruptible():
                fetch_backup(sys.stdout.buffer, with_keys=with_keys, content=not without_content)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise Interrupted(signal.SIGPIPE) from None
        return
    target = Path(file)
    if target.is_dir():
        raise UsageProblem(f"{file} is a folder", f"belljar backup {target / 'belljar.tar.zst'}")
    if not target.parent.is_dir():
        raise UsageProblem(f"there is no folder {str(target.parent)!r} here")
    if target.exists():
        confirm(f"Write over {target}?", yes=yes)
    with (
        interruptible(),
        _made_whole(target) as opened,
        metered(f"→ {target}", shown=not quiet and sys.stderr.isatty()) as progress,
    ):
        fetch_backup(opened, with_keys=with_keys, content=not without_content, progress=progress)
        said = _proven(opened)
    for id, why in said["left_out"].items():
        say(f"not whole in it: snapshot {id}: {why}")
    if as_json:
        print_json({"file": str(target.absolute()), **said})
    else:
        say(f"{said['files']} files, {format_size(said['bytes'])}; packed {format_size(said['packed'])}")
        print_data(str(target))


def _restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `backup` wrote; - is stdin.")],
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The new state directory. Default: that of `serve`.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            envvar="BELLJAR_DATABASE",
            metavar="URL",
            help="Put the store there (postgresql://…), where none is yet.",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Make a state directory from a backup. It must be empty or not be there, and no server use it.

    Restore what you trust: it brings the keys of those who may come in. Sandboxes that ran are shown as lost.
    """
    from belljar.server.restore import restore  # the whole server: half a second that no other command pays

    target = home or state_home()
    if file != _STDIO and not Path(file).is_file():
        raise UsageProblem(f"there is no file {file!r} here")
    with interruptible(), _read(file, shown=not quiet and sys.stderr.isatty()) as source:
        done = restore(source, target, database)
    for id, why in done.left_out.items():
        say(f"not whole in the backup: snapshot {id}: {why}")
    for note in done.notes:
        say(f"note: {note}")
    if as_json:
        print_json({"home": str(target.absolute()), **asdict(done)})
        return
    found = done.found
    say(
        f"{found.workspaces} workspaces, {found.keys} keys, {found.snapshots} snapshots, {found.templates} templates; "
        f"{found.lost} sandboxes that ran are lost"
    )
    print_data(str(target))


@contextlib.contextmanager
def _made_whole(target: Path) -> Generator[BinaryIO]:
    """A new file, for its owner alone, which gets its name at the end, on the disk; what raises leaves nothing."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(fd)
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _proven(file: BinaryIO) -> dict[str, Any]:
    """What its end says, after all of it was read back."""
    from belljar.base.unarchive import ArchiveBroken, ArchiveReader

    file.flush()
    packed = file.tell()
    file.seek(0)
    try:
        reader = ArchiveReader(file)
        for _ in reader.members():
            pass
    except ArchiveBroken as error:
        fail(f"what came is no whole backup: {error}", "its server's log says why")
    end = reader.end or {}
    words = ("files", "bytes", "left_out")
    return {"created": reader.head.get("created"), "packed": packed} | {word: end.get(word) for word in words}


@contextlib.contextmanager
def _read(file: str, *, shown: bool) -> Generator[BinaryIO]:
    if file == _STDIO:
        yield sys.stdin.buffer
        return
    with open(file, "rb") as opened, metered(f"{file} →", shown=shown) as progress:
        yield opened if progress is None else _Counted(opened, progress)  # type: ignore[misc]


class _Counted:
    """Moves the line that shows how far it is."""

    def __init__(self, file: BinaryIO, progress: Any) -> None:
        self._file = file
        self._progress = progress
        self._done = 0
        self._total = os.fstat(file.fileno()).st_size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        self._progress(self._done, self._total)
        return data
