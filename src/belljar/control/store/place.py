"""What a place for a store does: hold it, write and read, each as one visit that blocks; and what its errors mean."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Executable, Select
from sqlalchemy.exc import DBAPIError

from belljar.model.errors import Error

__all__ = ("BUSY_SECONDS", "Change", "Link", "Place", "Question", "apply", "explained", "rows")

T = TypeVar("T")
Change: TypeAlias = tuple[Executable, Sequence[Mapping[str, Any]] | Mapping[str, Any]]
"""A statement and its values; several sets of values make several rows."""
Question: TypeAlias = Callable[[Connection], T]
"""Reads, and makes values of the model of what it finds. No coroutine: nothing can be awaited while a connection is in use."""
BUSY_SECONDS = 10.0
"""So long one waits for its turn, for a lock of another process, or for an answer to a connect."""


class Link(Protocol):
    """One connection, used by one thread at a time; where it can be lost it is made again. All of it blocks, except `cut`."""

    def write(self, changes: Sequence[Change], *, durable: bool) -> None:
        """All in one transaction, in their order."""
        ...

    def read(self, question: Question[T]) -> T: ...

    def cut(self) -> None:
        """From another thread: what is under way ends with an error, soon."""
        ...

    def close(self) -> None: ...


class Place(Protocol):
    """`str()` of it is for people, without secrets."""

    def writer(self) -> Link:
        """The only one that writes, at most one of all processes. Raises Conflict, Starting, Internal."""
        ...

    def reader(self) -> Link:
        """Connects at its first use. It cannot write."""
        ...

    def engine(self) -> Engine:
        """For what is no transaction of the store's: steps of the schema, copies. Its owner disposes it."""
        ...

    def drop(self) -> None:
        """Everything that a store has made there. Raises Conflict while a server uses it."""
        ...

    def explain(self, error: DBAPIError) -> Error | None:
        """None: a constraint, or a mistake of ours."""
        ...


def apply(connection: Connection, changes: Sequence[Change]) -> None:
    for statement, values in changes:
        connection.execute(statement, values)


def rows(connection: Connection, query: Select[T]) -> list[T]:
    """The rows of a query for one table. They have its columns by name, as the class has, and none of an ORM's bookkeeping."""
    found: Any = connection.execute(query).all()
    return found


@contextlib.contextmanager
def explained(explain: Callable[[DBAPIError], Error | None]) -> Generator[None]:
    try:
        yield
    except DBAPIError as error:
        if (said := explain(error)) is not None:
            raise said from error
        raise
