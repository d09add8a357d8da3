"""What comes in and goes out about workspaces and quotas."""

from typing import Annotated

from pydantic import Field, FiniteFloat

from belljar.front.native.schema import In, Out
from belljar.front.native.text import Size, Text
from belljar.model.workspace import Quota

__all__ = ("ChangeWorkspace", "MakeWorkspace", "QuotaIn", "QuotaOut", "WorkspaceList", "WorkspaceOut")


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


class WorkspaceList(Out):
    items: list[WorkspaceOut]
