"""The workspace: whose everything is, and how much of it there may be at once."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import SandboxSpec

__all__ = ("Quota", "Use", "Workspace", "check_workspace_id")

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST = 1 << 60


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of a workspace or of one key; None is no bound but the machine's.

    Of live sandboxes: `sandboxes` how many, `cpus` cores, `memory` and `disk` bytes, all as they were asked for. `creates`
    (sandboxes) and `requests` are per second, on average; a second's worth may come at once.
    """

    sandboxes: int | None = None
    cpus: float | None = None
    memory: int | None = None
    disk: int | None = None
    creates: float | None = None
    requests: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= _MOST):
                raise InvalidArgument(f"{each.name} of a quota is 0 or more, or null for no bound")
        for name in ("creates", "requests"):
            if getattr(self, name) == 0:
                raise InvalidArgument(f"{name} of a quota is more than 0 per second, or null for no bound")

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> Self:
        """Of what `said` gave; fields that are not there have no bound."""
        return cls(**{each.name: (said or {}).get(each.name) for each in fields(cls)})

    def said(self) -> dict[str, float | int]:
        """The bounds that there are."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Use:
    """What live sandboxes were promised; fields as in `Quota`."""

    sandboxes: int = 0
    cpus: float = 0.0
    memory: int = 0
    disk: int = 0

    def __add__(self, other: "Use") -> "Use":
        return Use(
            self.sandboxes + other.sandboxes,
            self.cpus + other.cpus,
            self.memory + other.memory,
            self.disk + other.disk,
        )

    @classmethod
    def of(cls, specs: Iterable[SandboxSpec]) -> Self:
        sandboxes, cpus, memory, disk = 0, 0.0, 0, 0
        for spec in specs:
            sandboxes += 1
            cpus += spec.limits.cpus
            memory += spec.limits.memory
            disk += spec.limits.disk
        return cls(sandboxes, cpus, memory, disk)


@dataclass(frozen=True, slots=True)
class Workspace:
    """`id` is its name, and never used again. `ended`: when it was deleted. Seconds since 1970."""

    id: str
    created: float
    quota: Quota = field(default_factory=Quota)
    ended: float | None = None


def check_workspace_id(id: str) -> None:
    """Raises InvalidArgument."""
    if not _ID.fullmatch(id):
        raise InvalidArgument("a workspace is called by 1 to 63 lower-case letters, digits and inner hyphens")
