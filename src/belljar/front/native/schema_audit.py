"""What goes out of the audit log."""

from belljar.front.native.schema import Out

__all__ = ("AuditEntryOut", "AuditPage")


class AuditEntryOut(Out):
    """`at`: seconds since 1970. `key`: the id of the API key, null for the local socket. `via`: `unix`, `tcp` or `server`.
    `peer`: the client's address, or the user at a unix socket (`uid:0`). `hash`: SHA-256 of `prev`, a newline, and the other
    fields that are not null as JSON with sorted keys and without spaces.
    """

    seq: int
    at: float
    workspace: str
    key: str | None
    via: str
    peer: str | None
    method: str
    route: str
    target: str
    status: int
    code: str | None
    request_id: str
    prev: str
    hash: str


class AuditPage(Out):
    items: list[AuditEntryOut]
    next: int | None
