"""What sandboxes used."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("sandbox", sa.String(), primary_key=True),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("millicores", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("begun", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("seen_cpu_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seen_sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("memory_seen", sa.BigInteger()),
        sa.Column("disk_seen", sa.BigInteger()),
        *_used(),
    )
    op.create_index("usage_open", "usage", ["closed", "until"])
    op.create_table(
        "usage_hours",
        sa.Column("sandbox", sa.String(), primary_key=True),
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("workspace", sa.String(), nullable=False),
        *_used(),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_by_hour", "usage_hours", ["hour", "workspace"])


def _used() -> list[sa.Column[int]]:
    names = ("running_us", "cpu_us", "memory_mib_ms", "disk_mib_ms", "received_bytes", "sent_bytes")
    promised = ("promised_cpu_us", "promised_memory_mib_ms")
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in (*names, *promised)]
