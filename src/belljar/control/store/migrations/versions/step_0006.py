"""How long a sandbox may be idle."""

import sqlalchemy as sa
from alembic import op

__all__ = ("down_revision", "revision", "upgrade")

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("idle", sa.Double()))
