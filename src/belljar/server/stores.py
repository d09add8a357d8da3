"""Which store a state directory has. It has one: what it holds is known there and nowhere else."""

from pathlib import Path

from belljar.base.files import write_atomic
from belljar.control.backup import DATABASE
from belljar.control.store.place import Place
from belljar.control.store.places import place_at
from belljar.model.errors import Conflict, Error, InvalidArgument
from belljar.server.settings import Settings

__all__ = ("MARK", "drop_store", "place_of", "store_of")

MARK = "database"
"""Names a store outside of the directory, without its password."""


def place_of(settings: Settings, home: Path) -> Place:
    """As the settings say. Raises InvalidArgument, NotSupported."""
    url = None if settings.database is None else settings.database.get_secret_value()
    return place_at(url, home / DATABASE)


def store_of(settings: Settings, home: Path) -> Place:
    """The same for a server, to which another store than the directory's would look as if all were lost.

    Raises InvalidArgument, NotSupported, Conflict.
    """
    place, mark = place_of(settings, home), home / MARK
    if settings.database is None:
        if mark.exists():
            raise InvalidArgument(
                f"the store of {home} is {mark.read_text().strip()}, and no database is set",
                hint="give its address in BELLJAR_DATABASE, config.toml or --database",
            )
        return place
    if (home / DATABASE).exists():
        raise Conflict(
            f"{home} has its store in the file {DATABASE}: {place} would know nothing of what is here",
            hint="take it along: belljar backup FILE, then belljar restore FILE --home NEW --database URL",
        )
    if mark.exists() and (known := mark.read_text().strip()) != str(place):
        raise Conflict(
            f"the store of {home} is {known}, not {place}",
            hint=f"if that database has moved, remove the file {MARK} in the state directory",
        )
    write_atomic(mark, f"{place}\n".encode(), mode=0o600)
    return place


def drop_store(settings: Settings, home: Path) -> str | None:
    """Before the directory is removed: what is outside of it. Blocks. Returns what is left, in words."""
    mark = home / MARK
    if settings.database is None:
        return f"the tables in {mark.read_text().strip()} are left: no database is set" if mark.exists() else None
    if not mark.exists():
        return None  # no server has used it from here
    try:
        place_of(settings, home).drop()
    except Error as error:
        return f"the tables in the database are left: {error.message}"
    return None
