"""What is written down of a snapshot of a sandbox, as far as it is known before its files are."""

from belljar.model.snapshot import SnapshotKind
from belljar.node.machine import Machine
from belljar.node.record import Record, gone
from belljar.node.snapshot.manifest import Draft
from belljar.node.templates import processor

__all__ = ("Drafts",)


class Drafts:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._processor = processor()

    def of(
        self,
        record: Record,
        id: str,
        kind: SnapshotKind,
        *,
        path: str | None = None,
        paused: float = 0.0,
        template: bool = False,
        rest: bool = False,
    ) -> Draft:
        """Raises SandboxGone for one that has no guest."""
        machine, instance = self._machine, record.instance
        if instance is None:
            raise gone(record)
        return Draft(
            id=id,
            kind=kind,
            created=machine.clock.now(),
            sandbox=record.id,
            spec=record.spec,
            image_key=record.image_key,
            engine=machine.engine.name,
            build=instance.spec.build,
            runtime=record.runtime,
            platform=machine.engine.platform,
            cpu=self._processor if kind is SnapshotKind.MEMORY else (),
            parent=record.parent,
            path=path,
            paused=paused,
            template=template,
            processors=record.processors,
            rest=rest,
        )
