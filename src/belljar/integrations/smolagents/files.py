"""Files of the agent's working folder, to and from this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from belljar.integrations.smolagents.session import Session

__all__ = ("Artefact", "Files", "Mount")

_MAX_BYTES = 1 << 30
_MAX_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that agent code wrote: `path` in the sandbox, `size` in bytes, `mtime` in seconds since 1970."""

    path: str
    size: int
    mtime: float


class Files:
    """`session` gives the running one; it starts the sandbox if it is not running yet."""

    def __init__(self, session: "Callable[[], Session]", user: str | None) -> None:
        self._session = session
        self._user = user
        self.seen: dict[str, Artefact] = {}
        """What `changed` has told of."""

    def upload(self, local: str | os.PathLike[str], remote: str | PurePosixPath | None = None) -> str:
        """Copies a file or a folder's content into the sandbox, by default under its own name into the working folder.

        Returns where it lies.
        """
        session = self._session()
        target = self._inside(session, remote if remote is not None else Path(local).name)
        session.sandbox.upload(local, target, user=self._user)
        return target

    def download(self, remote: str | PurePosixPath, local: str | os.PathLike[str]) -> Path:
        """Copies a file, or a folder's content, from the sandbox to `local`; what would land outside of it raises UnsafeEntry."""
        session = self._session()
        session.sandbox.download(self._inside(session, remote), local)
        return Path(local)

    def read(self, remote: str | PurePosixPath, most: int = 256 << 20) -> bytes:
        """The content of a file of at most `most` bytes. Raises belljar.NotFound, ValueError beyond `most`."""
        session = self._session()
        data = session.sandbox.path(self._inside(session, remote)).read_bytes(length=most + 1)
        if len(data) > most:
            raise ValueError(f"{remote} has more than {most:,} bytes")
        return data

    def changed(self) -> list[Artefact]:
        """Files of the working folder that are new or changed since the last call: ask in a step callback for those of a step.

        Hidden ones, and those below hidden folders, are left out; at most 2,000 are looked at.
        """
        found = {artefact.path: artefact for artefact in _artefacts(self._session().artefacts())}
        new = [artefact for path, artefact in sorted(found.items()) if self.seen.get(path) != artefact]
        self.seen = found
        return new

    @staticmethod
    def _inside(session: "Session", remote: str | PurePosixPath) -> str:
        return str(PurePosixPath(session.cwd) / remote)


class Mount:
    """Puts files of this machine that the user handed to the agent into the sandbox, each once as long as it does not change."""

    def __init__(self, session: "Session", user: str | None) -> None:
        self._session = session
        self._user = user
        self._known: dict[Path, tuple[object, PurePosixPath]] = {}
        self._taken: set[str] = set()

    def copy(self, session: "Session") -> "Mount":
        """One that knows what this one has put there, for a session whose files begin as this one's are."""
        copy = Mount(session, self._user)
        copy._known, copy._taken = dict(self._known), set(self._taken)
        return copy

    def __call__(self, value: Any) -> Any:
        """For a path that is a file or folder here: where it lies inside. All else as it is. Raises ValueError beyond 1 GiB."""
        if not isinstance(value, Path) or not value.exists():
            return value
        source = value.resolve()
        stamp = _stamp(source)
        known = self._known.get(source)
        if known is not None and known[0] == stamp:
            return known[1]
        target = (
            known[1] if known is not None else PurePosixPath(self._session.cwd) / "inputs" / self._free(source.name)
        )
        self._session.sandbox.upload(source, str(target), user=self._user)
        self._known[source] = (stamp, target)
        return target

    def _free(self, name: str) -> str:
        """Two files of one name do not take each other's place."""
        name = name or "files"
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{number}-{name}"
        self._taken.add(candidate)
        return candidate


def _stamp(source: Path) -> object:
    """Changes when the file or tree does. Raises ValueError when it is too large to be meant."""
    entries: list[tuple[str, int, int]] = []
    size = 0
    if not source.is_dir():
        status = source.stat()
        entries.append((source.name, status.st_size, status.st_mtime_ns))
        size = status.st_size
    else:
        for folder, _, names in os.walk(source):
            for name in names:
                status = Path(folder, name).lstat()
                entries.append((f"{folder}/{name}", status.st_size, status.st_mtime_ns))
                size += status.st_size
            if len(entries) > _MAX_ENTRIES:
                break
    if size > _MAX_BYTES or len(entries) > _MAX_ENTRIES:
        raise ValueError(
            f"{source} is too large to be copied into the sandbox; pass its name as text if it is only a name"
        )
    return tuple(entries)


def _artefacts(said: Any) -> list[Artefact]:
    rows = cast(list[Any], said) if isinstance(said, list) else []
    return [
        Artefact(path[:4096], size, float(mtime))
        for row in rows[:2000]
        if isinstance(row, list) and len(cast(list[Any], row)) == 3
        for path, size, mtime in [cast(tuple[Any, Any, Any], tuple(cast(list[Any], row)))]
        if isinstance(path, str) and isinstance(size, int) and isinstance(mtime, int | float)
    ]
