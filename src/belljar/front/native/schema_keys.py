"""What comes in and goes out about API keys."""

from typing import Annotated, Literal

from pydantic import Field

from belljar.front.native.schema import In, Out
from belljar.front.native.schema_workspaces import QuotaIn, QuotaOut
from belljar.front.native.text import Duration, Text
from belljar.model.key import Scope

__all__ = ("KeyOut", "KeyPage", "MadeKeyOut", "MakeKey")


class MakeKey(In):
    """`scope`: `read` looks; `run` also makes, changes and ends; `admin` also makes and revokes keys and reads the audit log.
    `ttl`: seconds or text such as ``30d`` until it expires; null: never. `quota`: bounds for what is made with this key alone.
    `workspace`: another one than one's own, for operators.
    """

    name: Annotated[Text, Field(examples=["ci"])]
    scope: Literal["read", "run", "admin"] = "run"
    ttl: Annotated[Duration | None, Field(examples=["30d"])] = None
    quota: QuotaIn = QuotaIn()
    workspace: Annotated[Text | None, Field(max_length=64)] = None

    def scope_of(self) -> Scope:
        return Scope(self.scope)


class KeyOut(Out):
    """Times are seconds since 1970. `used`: when it was last seen, to the minute."""

    id: str
    name: str
    scope: Literal["read", "run", "admin"]
    created: float
    expires: float | None
    used: float | None
    revoked: float | None
    workspace: str
    quota: QuotaOut


class MadeKeyOut(KeyOut):
    secret: str


class KeyPage(Out):
    items: list[KeyOut]
    next: str | None
