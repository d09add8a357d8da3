"""What comes in and goes out about API keys and workspaces."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from belljar.front.native.schema import In, Out
from belljar.front.native.text import Duration, Size, Text
from belljar.model.key import Scope
from belljar.model.workspace import Quota

__all__ = (
    "ChangeWorkspace",
    "KeyOut",
    "KeyPage",
    "MadeKeyOut",
    "MakeKey",
    "MakeWorkspace",
    "QuotaIn",
    "WorkspaceOut",
    "Workspaces",
)


class QuotaIn(In):
    """What may live at once, and how fast it may come; null is no bound. Sizes are bytes or text such as ``16GiB``."""

    sandboxes: Annotated[int | None, Field(ge=0, le=1 << 53)] = None
    cpus: Annotated[FiniteFloat | None, Field(ge=0)] = None
    memory: Annotated[Size | None, Field(examples=["16GiB"])] = None
    disk: Annotated[Size | None, Field(examples=["100GiB"])] = None
    creates: Annotated[FiniteFloat | None, Field(gt=0, description="Sandboxes made per second, on average.")] = None
    requests: Annotated[FiniteFloat | None, Field(gt=0, description="Requests per second, on average.")] = None

    def quota(self) -> Quota:
        return Quota.of(self.model_dump())


class QuotaOut(Out):
    """As `QuotaIn`, sizes in bytes."""

    sandboxes: int | None
    cpus: float | None
    memory: int | None
    disk: int | None
    creates: float | None
    requests: float | None


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


class MakeWorkspace(In):
    id: Annotated[Text, Field(description="1 to 63 lower-case letters, digits and inner hyphens", examples=["team"])]
    quota: QuotaIn = QuotaIn()


class ChangeWorkspace(In):
    """`quota` replaces the one that is there, as a whole."""

    quota: QuotaIn


class UseOut(Out):
    """What live sandboxes were promised; sizes in bytes."""

    sandboxes: int
    cpus: float
    memory: int
    disk: int


class WorkspaceOut(Out):
    """Times are seconds since 1970. `ended`: when it was deleted."""

    id: str
    created: float
    ended: float | None
    quota: QuotaOut
    use: UseOut


class Workspaces(Out):
    items: list[WorkspaceOut]
