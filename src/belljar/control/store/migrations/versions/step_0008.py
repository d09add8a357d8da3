"""Events."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("workspace", sa.String(), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", _double(), nullable=False),
        sa.Column("sandbox", sa.String()),
        sa.Column("snapshot", sa.String()),
        sa.Column("template", sa.String()),
        sa.Column("parent", sa.String()),
        sa.Column("name", sa.String()),
        sa.Column("reason", sa.String()),
        sa.Column("message", sa.String()),
        sqlite_with_rowid=False,
    )
    op.create_index("events_by_sandbox", "events", ["workspace", "sandbox", "seq"])


def _double() -> sa.Double[float]:
    return sa.Double()
