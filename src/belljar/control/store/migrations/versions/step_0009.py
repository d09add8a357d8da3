"""What becomes of a sandbox when a timer of it has run out."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("on_lifetime", sa.String()))
    op.add_column("sandboxes", sa.Column("on_idle", sa.String()))
