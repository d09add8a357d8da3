"""Which place an address means."""

from pathlib import Path

from belljar.control.store.place import Place
from belljar.control.store.sqlite import Sqlite
from belljar.model.errors import InvalidArgument, NotSupported

__all__ = ("place_at",)


def place_at(url: str | None, file: Path) -> Place:
    """The file when there is no address. Connects to nothing. Raises InvalidArgument, NotSupported; never with the address."""
    if url is None:
        return Sqlite(file)
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidArgument(
            "the address of a database begins with postgresql://", hint="without an address the store is a SQLite file"
        )
    try:
        # An extra of the package: most servers need no database server, and its driver takes 50 ms to import.
        from belljar.control.store.postgres import Postgres
    except ImportError as error:
        raise NotSupported(
            f"a store in Postgres needs the package psycopg ({error})", hint="pip install 'belljar[postgres]'"
        ) from error
    return Postgres(url)
