"""The part of a remote path that asks nobody: names and how they join."""

import os
from abc import abstractmethod
from pathlib import PurePosixPath
from typing import Self, TypeAlias

from belljar.model.errors import InvalidArgument

__all__ = ("PathLike", "RemotePath", "path_text")


class RemotePath:
    """As `pathlib.PurePosixPath`, but of another machine: it has no ``__fspath__``, so that `open` cannot take it by mistake."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = PurePosixPath(path)

    @abstractmethod
    def _with(self, path: str) -> Self:
        """Another path of the same machine."""

    def __str__(self) -> str:
        return str(self._path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __truediv__(self, other: "PathLike") -> Self:
        return self.joinpath(other)

    def joinpath(self, *others: "PathLike") -> Self:
        return self._with(str(self._path.joinpath(*map(path_text, others))))

    def with_name(self, name: str) -> Self:
        return self._with(str(self._path.with_name(name)))

    def with_suffix(self, suffix: str) -> Self:
        return self._with(str(self._path.with_suffix(suffix)))

    def is_absolute(self) -> bool:
        return self._path.is_absolute()

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def stem(self) -> str:
        return self._path.stem

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        return self._path.parts

    @property
    def parent(self) -> Self:
        return self._with(str(self._path.parent))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and type(self) is type(other) and self._path == other._path

    def __lt__(self, other: "RemotePath") -> bool:
        return self._path < other._path

    def __hash__(self) -> int:
        return hash(self._path)


PathLike: TypeAlias = str | os.PathLike[str] | RemotePath


def path_text(path: PathLike) -> str:
    """The text of a path inside a sandbox. Raises InvalidArgument for an empty one or one with NUL."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path) if isinstance(path, RemotePath) else path
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise InvalidArgument(f"a path is text, not {type(text).__name__}")
    if not text or "\0" in text:
        raise InvalidArgument("a path has at least one character and no NUL")
    return text
