"""The tables. Times are seconds since 1970. A change here comes with a step in `migrations/versions`."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = (
    "DEFAULT_WORKSPACE",
    "HEAD",
    "AuditRow",
    "Base",
    "EventRow",
    "IdempotencyRow",
    "KeyRow",
    "SandboxRow",
    "SnapshotRow",
    "TemplateRow",
    "UsageHourRow",
    "UsageRow",
    "WorkspaceRow",
)

HEAD = "0009"
"""The newest step of the schema: a store that is there needs no look at the steps (alembic takes 300 ms to import)."""
DEFAULT_WORKSPACE = "default"


class Base(DeclarativeBase):
    pass


class WorkspaceRow(Base):
    """Everything belongs to one. A deleted one keeps its row: what was in it stays known, and nobody inherits it by name."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[float]
    quota: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    ended: Mapped[float | None]


class KeyRow(Base):
    """An API key; only its SHA-256 is kept. A revoked one keeps its row: whoever it was stays known."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    scope: Mapped[str]
    created: Mapped[float]
    expires: Mapped[float | None]
    used: Mapped[float | None]
    revoked: Mapped[float | None]
    quota: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index("keys_by_workspace", "workspace", "id"),)


class SandboxRow(Base):
    """What was asked for, and the last that the node said of it. `boot`: the machine's boot id when it was asked for.

    `snapshot`: what it was made from; `parent`: the sandbox that it was forked from; `key`: the API key it was made with.
    """

    __tablename__ = "sandboxes"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str | None]
    image: Mapped[str]
    cpus: Mapped[float]
    memory: Mapped[int] = mapped_column(BigInteger)
    disk: Mapped[int] = mapped_column(BigInteger)
    pids: Mapped[int]
    env: Mapped[dict[str, Any]] = mapped_column(JSON)
    labels: Mapped[dict[str, Any]] = mapped_column(JSON)
    workdir: Mapped[str | None]
    user: Mapped[str | None]
    network: Mapped[str]
    lifetime: Mapped[float | None]
    idle: Mapped[float | None]
    on_lifetime: Mapped[str | None]
    on_idle: Mapped[str | None]
    status: Mapped[str]
    boot: Mapped[str]
    created: Mapped[float]
    started: Mapped[float | None]
    expires: Mapped[float | None]
    ended_at: Mapped[float | None]
    ended_reason: Mapped[str | None]
    ended_message: Mapped[str | None]
    snapshot: Mapped[str | None]
    parent: Mapped[str | None]
    key: Mapped[str | None]

    __table_args__ = (
        Index("sandboxes_by_workspace", "workspace", "id"),
        Index("sandboxes_live", "ended_at"),
        Index("sandboxes_by_snapshot", "snapshot"),
        Index("sandboxes_by_parent", "parent"),
        Index(
            "sandboxes_live_name",
            "workspace",
            "name",
            unique=True,
            sqlite_where=text("ended_at IS NULL AND name IS NOT NULL"),
            postgresql_where=text("ended_at IS NULL AND name IS NOT NULL"),
        ),
    )


class IdempotencyRow(Base):
    """A create that a caller may repeat: the key it chose, what it asked for (a digest), and what came of it."""

    __tablename__ = "idempotency"

    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    sandbox: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"))
    created: Mapped[float] = mapped_column(index=True)


class SnapshotRow(Base):
    """What is known of a snapshot. `state` is `making` until the node has said that it is durable; then it is `ready`.

    One that is gone keeps its row, with `ended_at` and why: whoever asks for it is told, and what came from it has an origin.
    `source`: the variables, working directory, user and pids of the sandbox it was taken of, as JSON.
    """

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str | None]
    state: Mapped[str]
    kind: Mapped[str]
    sandbox: Mapped[str]
    image: Mapped[str]
    parent: Mapped[str | None]
    path: Mapped[str | None]
    template: Mapped[bool]
    size: Mapped[int] = mapped_column(BigInteger)
    stored: Mapped[int] = mapped_column(BigInteger)
    cpus: Mapped[float]
    memory: Mapped[int] = mapped_column(BigInteger)
    disk: Mapped[int] = mapped_column(BigInteger)
    paused: Mapped[float]
    labels: Mapped[dict[str, Any]] = mapped_column(JSON)
    source: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float]
    expires: Mapped[float | None]
    ended_at: Mapped[float | None]
    ended_reason: Mapped[str | None]

    __table_args__ = (
        Index("snapshots_by_workspace", "workspace", "id"),
        Index("snapshots_by_sandbox", "sandbox"),
        Index("snapshots_by_parent", "parent"),
        Index("snapshots_live", "ended_at", "expires"),
        Index(
            "snapshots_live_name",
            "workspace",
            "name",
            unique=True,
            sqlite_where=text("ended_at IS NULL AND name IS NOT NULL"),
            postgresql_where=text("ended_at IS NULL AND name IS NOT NULL"),
        ),
    )


class TemplateRow(Base):
    """A recipe and, once it is made, its snapshot. `sandbox`: where it is being made, so that a successor can end that."""

    __tablename__ = "templates"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    digest: Mapped[str]
    recipe: Mapped[dict[str, Any]] = mapped_column(JSON)
    sandbox: Mapped[str]
    snapshot: Mapped[str | None]
    created: Mapped[float]

    __table_args__ = (
        Index(
            "templates_name",
            "workspace",
            "name",
            unique=True,
            sqlite_where=text("snapshot IS NOT NULL"),
            postgresql_where=text("snapshot IS NOT NULL"),
        ),
    )


class AuditRow(Base):
    """An entry of the audit log, which outlives its workspace. Never changed (a trigger sees to it); the oldest are pruned."""

    __tablename__ = "audit"

    workspace: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[float]
    key: Mapped[str | None]
    via: Mapped[str]
    peer: Mapped[str | None]
    method: Mapped[str]
    route: Mapped[str]
    target: Mapped[str]
    status: Mapped[int]
    code: Mapped[str | None]
    request_id: Mapped[str]
    prev: Mapped[str]
    hash: Mapped[str]

    __table_args__ = (Index("audit_by_time", "workspace", "at"), {"sqlite_with_rowid": False})


class _Used:
    """The columns of `model.usage.Amounts`."""

    running_us: Mapped[int] = mapped_column(BigInteger)
    cpu_us: Mapped[int] = mapped_column(BigInteger)
    memory_mib_ms: Mapped[int] = mapped_column(BigInteger)
    disk_mib_ms: Mapped[int] = mapped_column(BigInteger)
    received_bytes: Mapped[int] = mapped_column(BigInteger)
    sent_bytes: Mapped[int] = mapped_column(BigInteger)
    promised_cpu_us: Mapped[int] = mapped_column(BigInteger)
    promised_memory_mib_ms: Mapped[int] = mapped_column(BigInteger)


class UsageRow(_Used, Base):
    """The account of one sandbox: how far it is counted, what its counters said last, and all it used. Times in microseconds."""

    __tablename__ = "usage"

    sandbox: Mapped[str] = mapped_column(primary_key=True)
    workspace: Mapped[str]
    millicores: Mapped[int]
    memory: Mapped[int] = mapped_column(BigInteger)
    begun: Mapped[int] = mapped_column(BigInteger)
    until: Mapped[int] = mapped_column(BigInteger)
    closed: Mapped[bool]
    seen_cpu_us: Mapped[int] = mapped_column(BigInteger)
    seen_received_bytes: Mapped[int] = mapped_column(BigInteger)
    seen_sent_bytes: Mapped[int] = mapped_column(BigInteger)
    memory_seen: Mapped[int | None] = mapped_column(BigInteger)
    disk_seen: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (Index("usage_open", "closed", "until"),)


class UsageHourRow(_Used, Base):
    """What a sandbox used in one hour (counted from 1970). It outlives the sandbox, the workspace, and is pruned by its age."""

    __tablename__ = "usage_hours"

    sandbox: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    workspace: Mapped[str]

    __table_args__ = (Index("usage_by_hour", "hour", "workspace"), {"sqlite_with_rowid": False})


class EventRow(Base):
    """What happened to a sandbox, a snapshot or a template. Never changed; the oldest are pruned."""

    __tablename__ = "events"

    workspace: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    at: Mapped[float]
    sandbox: Mapped[str | None]
    snapshot: Mapped[str | None]
    template: Mapped[str | None]
    parent: Mapped[str | None]
    name: Mapped[str | None]
    reason: Mapped[str | None]
    message: Mapped[str | None]

    __table_args__ = (Index("events_by_sandbox", "workspace", "sandbox", "seq"), {"sqlite_with_rowid": False})
