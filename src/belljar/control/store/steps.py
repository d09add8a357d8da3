"""The steps of the schema: which one a store has come to, and how it gets to the newest."""

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from belljar.control.store.place import Place
from belljar.control.store.tables import HEAD
from belljar.model.errors import Internal

__all__ = ("MIGRATIONS", "step_of", "upgrade")

MIGRATIONS = Path(__file__).with_name("migrations")


def step_of(connection: Connection) -> str | None:
    """None for a new store."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def upgrade(place: Place, *, to: str = HEAD) -> None:
    """Brings the tables to a step, the newest one. Blocking; the caller holds the place. Raises Internal when a newer Belljar
    made them."""
    # Not at the top: needed once per release, and 300 ms.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = place.engine()
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            if (found := step_of(connection)) != to:
                raise Internal(f"the newest step of the store is {found}, the code expects {to}")
    except CommandError as error:
        raise Internal(
            f"the store {place} was made by a newer Belljar ({error})",
            hint="upgrade Belljar, or use another BELLJAR_HOME",
        ) from error
    except DBAPIError as error:
        said = place.explain(error)
        raise said or Internal(f"the store {place} cannot be brought up to date: {error.orig}") from error
    finally:
        engine.dispose()
