"""What a workspace and a key may have at once, and which key a sandbox was made with."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("quota", sa.JSON()))
    op.add_column("workspaces", sa.Column("ended", sa.Double()))
    op.add_column("keys", sa.Column("quota", sa.JSON()))
    op.add_column("sandboxes", sa.Column("key", sa.String()))
