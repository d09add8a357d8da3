"""Workspaces: made, bounded and deleted by the server's operators; known from memory."""

import asyncio
from dataclasses import replace
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.control.keys import DEFAULT_WORKSPACE, Keys, Principal
from belljar.control.store.workspaces import WorkspaceStore
from belljar.model.errors import AlreadyExists, Conflict, LimitExceeded, NotFound, PermissionDenied
from belljar.model.key import Key, Scope
from belljar.model.workspace import Quota, Workspace, check_workspace_id

__all__ = ("MAX_WORKSPACES", "Workspaces")

MAX_WORKSPACES = 1000
_NOTHING = Quota(sandboxes=0)


class Workspaces:
    """Own it as an async context manager: entering reads them."""

    def __init__(self, store: WorkspaceStore, keys: Keys, *, clock: Clock | None = None) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock or SystemClock()
        self._live: dict[str, Workspace] = {}
        self._ending: set[str] = set()
        self._changing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._live = {workspace.id: workspace for workspace in await self._store.live()}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._live.clear()

    async def make(self, id: str, quota: Quota) -> Workspace:
        """Raises InvalidArgument, AlreadyExists (also one that was deleted), LimitExceeded."""
        check_workspace_id(id)
        async with self._changing:
            if len(self._live) >= MAX_WORKSPACES:
                raise LimitExceeded(f"a server has at most {MAX_WORKSPACES} workspaces")
            made = Workspace(id, self._clock.now(), quota)
            if id in self._live:
                raise AlreadyExists(f"there is a workspace {id}")
            await self._store.insert(made)
            self._live[id] = made
            return made

    def list(self) -> list[Workspace]:
        """In the order of their names."""
        return [self._live[id] for id in sorted(self._live)]

    def get(self, who: Principal, id: str) -> Workspace:
        """Its own, or for an operator any. Raises NotFound."""
        found = self._live.get(id) if who.operates or who.workspace == id else None
        if found is None:
            raise NotFound(f"there is no workspace {id[:64]}")
        return found

    def quota(self, id: str) -> Quota:
        """While one is being deleted nothing more is made in it."""
        known = self._live.get(id)
        return _NOTHING if known is None or id in self._ending else known.quota

    async def change(self, id: str, quota: Quota) -> Workspace:
        """What is there already may be more than the new bounds: it stays. Raises NotFound."""
        async with self._changing:
            if (known := self._live.get(id)) is None:
                raise NotFound(f"there is no workspace {id[:64]}")
            await self._store.set_quota(id, quota)
            self._live[id] = replace(known, quota=quota)
            return self._live[id]

    async def make_key(
        self, id: str, name: str, *, scope: Scope, ttl: float | None = None, quota: Quota | None = None
    ) -> tuple[Key, str]:
        """One that opens this workspace, and its secret. Not while that is being deleted: it would outlive its workspace.

        Raises NotFound, and as Keys.make.
        """
        async with self._changing:
            if id not in self._live:
                raise NotFound(f"there is no workspace {id[:64]}")
            return await self._keys.make(name, workspace=id, scope=scope, ttl=ttl, quota=quota)

    async def delete(self, id: str) -> Workspace:
        """With its keys. Raises NotFound, Conflict (something is in it, or it is the first one)."""
        if id == DEFAULT_WORKSPACE:
            raise Conflict(f"the workspace {id} is the operators' own and stays")
        async with self._changing:
            if (known := self._live.get(id)) is None:
                raise NotFound(f"there is no workspace {id[:64]}")
            self._ending.add(id)
            try:
                if held := await self._store.holds(id):
                    said = ", ".join(f"{count} {kind}" for kind, count in held.items())
                    raise Conflict(f"there is something in the workspace {id}: {said}", hint="delete that first")
                now = self._clock.now()
                await self._store.end(id, now)
                self._keys.forget(id)
                del self._live[id]
                return replace(known, ended=now)
            finally:
                self._ending.discard(id)

    @staticmethod
    def check_operator(who: Principal) -> None:
        """Raises PermissionDenied."""
        if not who.operates:
            raise PermissionDenied(
                "only the server's operators may do this",
                hint=f"it takes the unix socket, or an admin key of the workspace {DEFAULT_WORKSPACE}",
            )
