# Made by scripts/make_sync.py from _async/workspace.py: do not edit.
"""Workspaces, for those who run the server."""

from collections.abc import Iterator
from typing import Self

from belljar.sdk._sync.link import Link, shared_link
from belljar.sdk.answers import workspace_of
from belljar.sdk.asking import quota_of, url
from belljar.sdk.kept import Quota, WorkspaceInfo
from belljar.sdk.pure import path_text

__all__ = ("Workspace",)


class Workspace:
    """Keeps what several teams have apart, each within its bounds.

    >>> team = Workspace.create("team", Quota(sandboxes=20, memory="64GiB"))
    >>> key = Key.create("ci", workspace=team.id)
    """

    def __init__(self, link: Link, info: WorkspaceInfo) -> None:
        """Not for users."""
        self._link = link
        self._info = info

    @classmethod
    def create(cls, id: str, quota: Quota | None = None) -> Self:
        """`id`: 1 to 63 lower-case letters, digits and inner hyphens; a name that was used once is never given again.

        Raises AlreadyExists, InvalidArgument, LimitExceeded, PermissionDenied.
        """
        link = shared_link()
        body = {"id": id, "quota": quota_of(quota)}
        return cls(link, workspace_of(link.call("POST", url("workspaces"), json=body)))

    @classmethod
    def get(cls, id: str) -> Self:
        """Raises NotFound."""
        link = shared_link()
        return cls(link, workspace_of(link.call("GET", url("workspaces", path_text(id)))))

    @classmethod
    def list(cls) -> Iterator[Self]:
        """For operators all of them, by name; for others their own."""
        link = shared_link()
        for item in link.call("GET", url("workspaces"))["items"]:
            yield cls(link, workspace_of(item))

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def last_info(self) -> WorkspaceInfo:
        """As of the last call."""
        return self._info

    def refresh(self) -> WorkspaceInfo:
        """Its bounds, and what its live sandboxes hold of them now. Raises NotFound."""
        self._info = workspace_of(self._link.call("GET", url("workspaces", self.id)))
        return self._info

    def update(self, quota: Quota) -> None:
        """Replaces its bounds. What lives already stays, also beyond them. Raises InvalidArgument, NotFound, PermissionDenied."""
        body = {"quota": quota_of(quota)}
        self._info = workspace_of(self._link.call("PATCH", url("workspaces", self.id), json=body))

    def delete(self) -> None:
        """With its keys. Raises Conflict (something is in it), NotFound, PermissionDenied."""
        self._info = workspace_of(self._link.call("DELETE", url("workspaces", self.id)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"
