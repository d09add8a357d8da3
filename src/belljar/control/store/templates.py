"""Rows of templates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update

from belljar.control.store.database import Database
from belljar.control.store.place import Change
from belljar.control.store.tables import TemplateRow
from belljar.model.sandbox import Limits
from belljar.model.template import Ready, TemplateSpec

__all__ = ("TemplateRecord", "TemplateStore")


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """`snapshot` is None until it is made; `sandbox`: where it is being made. `created` in seconds since 1970."""

    id: str
    workspace: str
    spec: TemplateSpec
    sandbox: str
    created: float
    snapshot: str | None = None


class TemplateStore:
    """Every write is durable when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, record: TemplateRecord) -> None:
        await self._database.write((insert(TemplateRow), _values_of(record)))

    def finished(self, record: TemplateRecord, snapshot: str) -> list[Change]:
        """Takes the place of an earlier one with its name. To be written together with the snapshot."""
        earlier = delete(TemplateRow).where(
            TemplateRow.workspace == record.workspace,
            TemplateRow.name == record.spec.name,
            TemplateRow.snapshot.is_not(None),
        )
        made = update(TemplateRow).where(TemplateRow.id == record.id).values(snapshot=snapshot)
        return [(earlier, {}), (made, {})]

    async def remove(self, ids: Sequence[str], *more: Change) -> None:
        """And writes `more` in the same step."""
        await self._database.write((delete(TemplateRow).where(TemplateRow.id.in_(ids)), {}), *more)

    async def all(self) -> list[TemplateRecord]:
        """Of every workspace, the half-made ones too."""
        await self._database.settled()
        return [_record_of(row) for row in await self._database.rows(select(TemplateRow).order_by(TemplateRow.id))]


def _values_of(record: TemplateRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "workspace": record.workspace,
        "name": record.spec.name,
        "digest": record.spec.digest(),
        "recipe": asdict(record.spec),
        "sandbox": record.sandbox,
        "snapshot": record.snapshot,
        "created": record.created,
    }


def _record_of(row: TemplateRow) -> TemplateRecord:
    recipe: dict[str, Any] = dict(row.recipe)
    recipe["ready"], recipe["limits"] = Ready(**recipe["ready"]), Limits(**recipe["limits"])
    spec = TemplateSpec(**recipe)
    return TemplateRecord(row.id, row.workspace, spec, row.sandbox, row.created, row.snapshot)
