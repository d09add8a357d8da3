"""The first tables."""

import time

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0001"
down_revision = None


def upgrade() -> None:
    workspaces = op.create_table(
        "workspaces",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("created", _double(), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("workspace", sa.String(), sa.ForeignKey("workspaces.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False, unique=True),
        sa.Column("created", _double(), nullable=False),
        sa.Column("revoked", _double()),
    )
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("workspace", sa.String(), sa.ForeignKey("workspaces.id"), nullable=False),
        sa.Column("name", sa.String()),
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("cpus", _double(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("pids", sa.Integer(), nullable=False),
        sa.Column("env", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("workdir", sa.String()),
        sa.Column("user", sa.String()),
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("lifetime", _double()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("created", _double(), nullable=False),
        sa.Column("started", _double()),
        sa.Column("expires", _double()),
        sa.Column("ended_at", _double()),
        sa.Column("ended_reason", sa.String()),
        sa.Column("ended_message", sa.String()),
    )
    live_name = sa.text("ended_at IS NULL AND name IS NOT NULL")
    op.create_index("sandboxes_by_workspace", "sandboxes", ["workspace", "id"])
    op.create_index("sandboxes_live", "sandboxes", ["ended_at"])
    op.create_index(
        "sandboxes_live_name",
        "sandboxes",
        ["workspace", "name"],
        unique=True,
        sqlite_where=live_name,
        postgresql_where=live_name,
    )
    op.create_table(
        "idempotency",
        sa.Column("workspace", sa.String(), sa.ForeignKey("workspaces.id"), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("sandbox", sa.String(), sa.ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created", _double(), nullable=False),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created"])
    op.bulk_insert(workspaces, [{"id": "default", "created": time.time()}])


def _double() -> sa.Double[float]:
    return sa.Double()
