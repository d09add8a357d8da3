"""Tells the audit log of the requests that change something."""

import re
from collections.abc import Callable, Mapping

from starlette.datastructures import QueryParams
from starlette.types import Message, Scope

from belljar.control.audit import Audit
from belljar.control.keys import Principal
from belljar.model.audit import Act

__all__ = ("ERROR", "LOOKS", "Watch", "Witness", "note_error")

LOOKS = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""
ERROR = "belljar.error"
"""In the scope: the code of the error that is the answer."""
_SANDBOX = re.compile(r"/v1/sandboxes/([^/]+)(/.*)?", re.DOTALL)
_INSIDE = re.compile(r"/v1/sandboxes/[^/]+/(run|processes|contexts|files)(/.*)?", re.DOTALL)
"""What happens in a sandbox: its answers do not wait for the log."""
_PIECE = re.compile(r"/v1/sandboxes/[^/]+/(processes/[^/]+/(stdin|resize|detach)|contexts/[^/]+/calls/[^/]+)")
_CONTENT = re.compile(r"/v1/sandboxes/[^/]+/files/content")


class Witness:
    """`id_of(workspace, name)`: the id of the sandbox that has the name now, else the word itself. `route_of`: the template of
    the address for a request that did not get as far as its route, None when there is no such address.
    """

    def __init__(self, audit: Audit, id_of: Callable[[str, str], str], route_of: Callable[[Scope], str | None]) -> None:
        self._audit = audit
        self._id_of = id_of
        self._route_of = route_of

    def watch(self, scope: Scope, who: Principal, listener: str, request_id: str) -> "Watch | None":
        """None for a request that only looks. Raises NoCapacity while the log cannot be written."""
        if scope["method"] in LOOKS:
            return None
        self._audit.require_room()
        return Watch(self._audit, scope, who, listener, request_id, self._target(scope["path"], who), self._route_of)

    def _target(self, path: str, who: Principal) -> str:
        """With the id of a sandbox that is called by its name: tomorrow another one may have that."""
        found = _SANDBOX.fullmatch(path)
        if found is None:
            return path
        return f"/v1/sandboxes/{self._id_of(who.workspace, found[1])}{found[2] or ''}"


class Watch:
    """Of one request, from before it is handled to the start of its answer: then there is one entry, and never a second."""

    def __init__(
        self,
        audit: Audit,
        scope: Scope,
        who: Principal,
        listener: str,
        request_id: str,
        target: str,
        route_of: Callable[[Scope], str | None],
    ) -> None:
        self._audit = audit
        self._scope = scope
        self._who = who
        self._listener = listener
        self._request_id = request_id
        self._target = target
        self._route_of = route_of
        self._told = False

    async def begins(self, start: Message) -> None:
        """The answer is about to begin. For an acknowledged change of the control plane this returns when the entry is written.

        Raises DeadlineExceeded when that takes too long.
        """
        self._told = True
        status = int(start["status"])
        if status != 403 and _is_piece(self._scope):
            return
        headers = dict[bytes, bytes](start.get("headers", ()))
        act = self._act(status, headers)
        # A refusal need not wait: nothing is acknowledged. On a full disk it would hide why.
        if status >= 400 or _INSIDE.fullmatch(self._scope["path"]):
            self._audit.note(act)
        else:
            await self._audit.write(act)

    def ends(self) -> None:
        """However it ended: when no answer began the client left, or this server is about to."""
        if not self._told:
            self._told = True
            if not _is_piece(self._scope):
                self._audit.note(self._act(499, {}))

    def _act(self, status: int, headers: Mapping[bytes, bytes]) -> Act:
        scope = self._scope
        client = scope.get("client")
        made = headers.get(b"location") if status == 201 else None
        route = getattr(scope.get("route"), "path", None) or self._route_of(scope) or scope["path"]
        return Act(
            workspace=self._who.workspace,
            key=self._who.key,
            via=self._listener,
            peer=client[0] if client else None,
            method=scope["method"],
            route=route,
            target=made.decode("latin-1") if made is not None else self._target,
            status=status,
            code=scope.get(ERROR) or ("cancelled" if status == 499 else None),
            request_id=self._request_id,
        )


def note_error(scope: Scope, code: str) -> None:
    """The answer to this request will be this error."""
    scope[ERROR] = code


def _is_piece(scope: Scope) -> bool:
    """One of many of a stream whose beginning or end has an entry: input, a terminal's size, answers to calls, parts of a file
    but the last. Only one that the sender had no right to is told.
    """
    path = scope["path"]
    if _PIECE.fullmatch(path):
        return True
    if scope["method"] != "PUT" or not _CONTENT.fullmatch(path):
        return False
    # As the route reads it: of a parameter that is given twice the last one.
    return QueryParams(scope["query_string"]).get("last") == "false"
