"""What a key may do, until when, and when it was used."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Until now every key could do everything.
    op.add_column("keys", sa.Column("scope", sa.String(), nullable=False, server_default="admin"))
    op.add_column("keys", sa.Column("expires", sa.Double()))
    op.add_column("keys", sa.Column("used", sa.Double()))
    op.create_index("keys_by_workspace", "keys", ["workspace", "id"])
