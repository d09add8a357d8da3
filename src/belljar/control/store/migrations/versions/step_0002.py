"""Snapshots and templates, and where a sandbox came from."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("snapshot", sa.String()))
    op.add_column("sandboxes", sa.Column("parent", sa.String()))
    op.create_index("sandboxes_by_snapshot", "sandboxes", ["snapshot"])
    op.create_index("sandboxes_by_parent", "sandboxes", ["parent"])
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("workspace", sa.String(), sa.ForeignKey("workspaces.id"), nullable=False),
        sa.Column("name", sa.String()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sandbox", sa.String(), nullable=False),
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("parent", sa.String()),
        sa.Column("path", sa.String()),
        sa.Column("template", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("cpus", _double(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("paused", _double(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("created", _double(), nullable=False),
        sa.Column("expires", _double()),
        sa.Column("ended_at", _double()),
        sa.Column("ended_reason", sa.String()),
    )
    live_name = sa.text("ended_at IS NULL AND name IS NOT NULL")
    op.create_index("snapshots_by_workspace", "snapshots", ["workspace", "id"])
    op.create_index("snapshots_by_sandbox", "snapshots", ["sandbox"])
    op.create_index("snapshots_by_parent", "snapshots", ["parent"])
    op.create_index("snapshots_live", "snapshots", ["ended_at", "expires"])
    op.create_index(
        "snapshots_live_name",
        "snapshots",
        ["workspace", "name"],
        unique=True,
        sqlite_where=live_name,
        postgresql_where=live_name,
    )
    op.create_table(
        "templates",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("workspace", sa.String(), sa.ForeignKey("workspaces.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("sandbox", sa.String(), nullable=False),
        sa.Column("snapshot", sa.String()),
        sa.Column("created", _double(), nullable=False),
    )
    made = sa.text("snapshot IS NOT NULL")
    op.create_index(
        "templates_name",
        "templates",
        ["workspace", "name"],
        unique=True,
        sqlite_where=made,
        postgresql_where=made,
    )


def _double() -> sa.Double[float]:
    return sa.Double()
