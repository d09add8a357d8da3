"""What is written down of each sandbox, so that a successor of this server can go on with it or free what it held."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from belljar.base.files import fsync_dir, remove_tree, write_atomic
from belljar.base.ids import is_id
from belljar.model import lifecycle
from belljar.model.errors import SandboxGone
from belljar.model.lifecycle import Life
from belljar.model.sandbox import Sandbox, SandboxSpec
from belljar.node.engine.api import Instance
from belljar.node.metering import Meter
from belljar.node.net.slots import Slot

__all__ = ("PREFIX", "Record", "Records", "gone", "sandbox_of")

PREFIX = "sb"
_VERSION = 1
_ENDED_KEPT = 500


@dataclass(frozen=True, slots=True)
class Record:
    """`boot` is the boot of the machine it was made in. `instance` (which has an id of its own) and `slot` are set before they
    are made. `held`: its kernel is paused because the host runs out of disk. `image_key`: the image that its files stand on,
    `runtime`: its guest runtime; `parent`: the snapshot that it came from last; `forked`: the sandbox that it is a fork of.
    `meter`: from where on what its guest uses is its own. `rest`: the snapshot, its own alone, in which it rests. `processors`:
    how many its guest sees, whatever its limit has become; None: as many as its limits say (a record of an earlier release).
    """

    id: str
    spec: SandboxSpec
    life: Life
    boot: str
    instance: Instance | None = None
    slot: Slot | None = None
    held: bool = False
    image_key: str = ""
    runtime: str = ""
    parent: str | None = None
    forked: str | None = None
    meter: Meter = field(default_factory=Meter)
    rest: str | None = None
    processors: int | None = None
    version: int = _VERSION


def sandbox_of(record: Record) -> Sandbox:
    life = record.life
    spec = replace(record.spec, lifetime=life.lifetime, idle=life.idle)
    # One that is about to end has not ended: it still holds things of the host.
    ended = life.ended if life.status.is_end else None
    return Sandbox(
        *(record.id, spec, life.status, life.created, life.started, life.expires, ended, record.forked),
        final=record.meter.final,
    )


def gone(record: Record) -> SandboxGone:
    """What a caller hears who comes too late."""
    ended = record.life.ended
    why = (
        f"it ended: {ended.reason}" + (f" ({ended.message})" if ended.message else "") if ended else "it is not running"
    )
    return SandboxGone(f"sandbox {record.id} is gone: {why}")


class Records:
    """One folder per sandbox with ``record.json``.

    Written in one step and, but for those that rest, not flushed to the disk: a record matters after the death of the server, and
    what it names dies with the machine. The store of the control plane is what outlives a power cut.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._form = TypeAdapter(Record)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def folder(self, id: str) -> Path:
        return self._folder / id

    def write(self, record: Record, *, durable: bool = False) -> None:
        folder = self.folder(record.id)
        folder.mkdir(exist_ok=True, mode=0o700)
        write_atomic(folder / "record.json", self._form.dump_json(record), durable=durable)
        if durable:
            fsync_dir(self._folder)

    def load(self) -> tuple[list[Record], list[str]]:
        """All records by age, and the names of folders whose record is unreadable (a server died while it made the first)."""
        records: list[Record] = []
        broken: list[str] = []
        for folder in sorted(self._folder.iterdir()):
            if not is_id(folder.name, PREFIX):
                continue
            try:
                record = self._form.validate_json((folder / "record.json").read_bytes())
                lifecycle.check(record.life)
            except (OSError, ValidationError, AssertionError):
                broken.append(folder.name)
            else:
                records.append(record)
        return records, broken

    def clear_half_written(self) -> None:
        """What a server that died while it wrote has left beside the records."""
        for path in self._folder.glob("*/.record.json.*.tmp"):
            path.unlink(missing_ok=True)

    def forget(self, id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(self.folder(id))

    def prune(self, ended: list[Record]) -> list[str]:
        """Forgets the oldest of the ended ones beyond a fixed number; returns their ids."""
        surplus = sorted(ended, key=lambda record: record.life.ended.at if record.life.ended else 0.0)[:-_ENDED_KEPT]
        for record in surplus:
            self.forget(record.id)
        return [record.id for record in surplus]
