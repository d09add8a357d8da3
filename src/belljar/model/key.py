"""The API key: who may do what, in which workspace, until when. The key itself is nowhere but with its owner."""

from dataclasses import dataclass, field
from enum import Enum

from belljar.model.errors import InvalidArgument
from belljar.model.workspace import Quota

__all__ = ("PREFIX", "Key", "Scope", "check_key_name")

PREFIX = "key"
"""Of a key's id."""
_LONGEST_NAME = 64


class Scope(Enum):
    """Each may also do what the ones before it may. READ looks, RUN makes, changes and ends, ADMIN makes and revokes keys and
    reads the audit log.
    """

    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        return _ORDER[self] >= _ORDER[needed]


_ORDER = {scope: number for number, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Key:
    """Times are seconds since 1970. `expires` None: never. `used`: when it was last seen, to the minute; None: not yet.

    `quota`: its own bounds, beside those of its workspace.
    """

    id: str
    workspace: str
    name: str
    scope: Scope
    created: float
    expires: float | None = None
    used: float | None = None
    revoked: float | None = None
    quota: Quota = field(default_factory=Quota)

    def is_valid(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


def check_key_name(name: str) -> None:
    """Raises InvalidArgument unless it is a short printable word or sentence."""
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InvalidArgument(f"a key's name has 1 to {_LONGEST_NAME} printable characters")
