"""A store of things that can be made again: engine builds, guest runtimes, base images.

``<root>/<kind>/<key>/`` holds the files and ``manifest.json``; the key is the digest of what went in. A folder under its own
name is whole: it is made beside and renamed. Several of one kind stand side by side; nothing is ever changed in place.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from belljar.base.files import LockHeld, digest_file, fsync_dir, lock_file, remove_tree
from belljar.base.tasks import in_thread
from belljar.model.errors import DiskFull

__all__ = ("Artifact", "Build", "FileRecord", "Store", "key_of", "state_store")

MANIFEST = "manifest.json"
_LOCK_POLL = 0.2
_KEY_LENGTH = 32
_A = {"engine": "the engine", "image": "an image", "interpreter": "the guest runtime", "go": "a place for Go"}
_SYNCED = 64 << 10
"""Bytes: smaller files are left to the kernel (500 of them would cost seconds); a lost one is seen by its size."""

Build = Callable[[Path], Awaitable[Mapping[str, str] | None]]
"""Fills an empty folder; what it returns are facts for the manifest (of a tool's version, say) that are no inputs."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file was when it was made. `digest` is SHA-256 in hex, or ``link:<target>`` for a symbolic link."""

    size: int
    mtime_ns: int
    mode: int
    digest: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A whole one. `created` in seconds since 1970; `digest` is over names, modes and contents of all files."""

    kind: str
    key: str
    folder: Path
    digest: str
    created: float
    inputs: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, FileRecord] = field(default_factory=dict[str, FileRecord])

    @property
    def size(self) -> int:
        return sum(record.size for record in self.files.values())

    def looks_whole(self) -> bool:
        """Names, sizes and times as recorded: a quick look (under 5 ms for 1,000 files), for use at every start."""
        return not any(self._differences())

    def damage(self) -> list[str]:
        """What differs from the manifest, contents included, one sentence each. Reads every byte."""
        found = list(self._differences())
        if not found:
            for name, record in self.files.items():
                if not record.digest.startswith("link:") and digest_file(self.folder / name) != record.digest:
                    found.append(f"{name} has other content")
        return found

    def _differences(self) -> Iterator[str]:
        for name, record in self.files.items():
            try:
                now = (self.folder / name).lstat()
            except OSError as error:
                yield f"{name}: {error.strerror}"
                continue
            if record.digest.startswith("link:"):
                if not stat.S_ISLNK(now.st_mode) or f"link:{(self.folder / name).readlink()}" != record.digest:
                    yield f"{name} is another link"
            elif (now.st_size, now.st_mtime_ns) != (record.size, record.mtime_ns):
                yield f"{name} was changed (size or time)"


class Store:
    """All calls may be made by several processes at once. Raises OSError for the file system's own troubles.

    `behind`: another store, asked for what this one lacks before anything is made.
    """

    def __init__(self, root: Path, *, behind: "Store | None" = None) -> None:
        self.root = root
        self._behind = behind

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def get(self, kind: str, key: str) -> Artifact | None:
        """The artifact if it is there and looks whole."""
        if (artifact := self._own(kind, key)) is not None:
            return artifact
        return self._behind.get(kind, key) if self._behind is not None else None

    def list(self, kind: str) -> list[Artifact]:
        """Those that are there, damaged ones too, newest first."""
        folders = [] if not (self.root / kind).is_dir() else list((self.root / kind).iterdir())
        found = [_read(kind, folder) for folder in folders if not folder.name.startswith(".")]
        found += self._behind.list(kind) if self._behind is not None else []
        return sorted((item for item in found if item is not None), key=lambda item: item.created, reverse=True)

    async def make(
        self,
        kind: str,
        inputs: Mapping[str, str],
        build: Build,
        *,
        room: int = 0,
        on_wait: Callable[[str], None] = lambda holder: None,
    ) -> Artifact:
        """The artifact for these inputs: the one that is there, else what `build` makes.

        When another process is making it, `on_wait` is told once and this one waits. A failed, cancelled or killed build
        leaves nothing (what a kill leaves is removed by the next call). Raises DiskFull when less than `room` bytes are free.
        """
        key = key_of(kind, inputs)
        if (found := self.get(kind, key)) is not None:
            return found
        async with self._locked(kind, key, on_wait):
            if (found := self.get(kind, key)) is not None:
                return found
            await in_thread(self._sweep, kind, key)
            self._check_room(kind, room)
            making = self.root / kind / f".{key}.{os.getpid()}.making"
            making.mkdir()
            try:
                facts = await build(making)
                await in_thread(_seal, making, kind, key, inputs, facts or {})
                await in_thread(self._put, making, self.folder(kind, key))
            finally:
                await asyncio.shield(in_thread(remove_tree, making))
        artifact = self.get(kind, key)
        if artifact is None:
            raise OSError(errno.EIO, f"{kind} {key} was changed while it was made", str(self.folder(kind, key)))
        return artifact

    async def adopt(self, artifact: Artifact) -> Artifact:
        """A hard link of it (a copy across file systems) in this store, so that the other one may be wiped."""
        if (found := self._own(artifact.kind, artifact.key)) is not None and found.digest == artifact.digest:
            return found
        async with self._locked(artifact.kind, artifact.key, lambda holder: None):
            target = self.folder(artifact.kind, artifact.key)
            await in_thread(self._sweep, artifact.kind, artifact.key)
            making = target.with_name(f".{artifact.key}.{os.getpid()}.making")
            try:
                await in_thread(shutil.copytree, artifact.folder, making, symlinks=True, copy_function=_link_or_copy)
                await in_thread(self._put, making, target)
            finally:
                await asyncio.shield(in_thread(remove_tree, making))
        found = self._own(artifact.kind, artifact.key)
        if found is None:
            raise OSError(errno.EIO, f"{artifact.kind} {artifact.key} is damaged", str(artifact.folder))
        return found

    async def remove(self, kind: str, key: str) -> None:
        """One that is not there is fine."""
        async with self._locked(kind, key, lambda holder: None):
            await in_thread(remove_tree, self.folder(kind, key))
            await in_thread(self._sweep, kind, key)

    def _own(self, kind: str, key: str) -> Artifact | None:
        artifact = _read(kind, self.folder(kind, key))
        return artifact if artifact is not None and artifact.looks_whole() else None

    @contextlib.asynccontextmanager
    async def _locked(self, kind: str, key: str, on_wait: Callable[[str], None]) -> AsyncGenerator[None]:
        self._open_folders(kind)
        told = False
        while True:
            # Asked again and again rather than waited for in a thread, so that Ctrl-C ends the wait.
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(lock_file(self.root / kind / f".{key}.lock", about=f"makes {kind}"))
                except LockHeld as busy:
                    if not told:
                        on_wait(busy.holder)
                        told = True
                else:
                    yield
                    return
            await asyncio.sleep(_LOCK_POLL)

    def _open_folders(self, kind: str) -> None:
        """Whatever the umask: a sandbox's kernel, which is nobody, goes through them to its program."""
        for folder in (self.root, self.root / kind):
            folder.mkdir(parents=True, exist_ok=True)
            now = folder.stat()
            if now.st_uid == os.geteuid() and now.st_mode & 0o055 != 0o055:
                folder.chmod(0o755)

    def _check_room(self, kind: str, room: int) -> None:
        now = os.statvfs(self.root)
        free = now.f_bavail * now.f_frsize
        if free < room:
            raise DiskFull(
                f"making {_A.get(kind, kind)} needs {room >> 20} MiB below {self.root}, and {free >> 20} MiB are free",
                hint="free some, or choose another place with BELLJAR_CACHE",
            )

    def _sweep(self, kind: str, key: str) -> None:
        for left in (self.root / kind).glob(f".{key}.*.making"):
            remove_tree(left)

    def _put(self, making: Path, target: Path) -> None:
        if target.exists():
            # Two renames: who looks in between finds none, never a mixture.
            old = target.with_name(f".{target.name}.{os.getpid()}.old.making")
            target.rename(old)
            making.rename(target)
            remove_tree(old)
        else:
            making.rename(target)


def key_of(kind: str, inputs: Mapping[str, str]) -> str:
    """32 hex digits that stand for the inputs."""
    text = json.dumps([kind, sorted(inputs.items())], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def state_store(home: Path) -> Store:
    """The state directory's own: what its sandboxes and snapshots need."""
    return Store(home / "artifacts")


def _seal(folder: Path, kind: str, key: str, inputs: Mapping[str, str], facts: Mapping[str, str]) -> None:
    """Writes the manifest, and all of it to disk. Modes do not depend on the maker's umask: nothing here is a secret."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    files = {name: _record(folder / name) for name in sorted(_names(folder))}
    digest = hashlib.sha256(
        "".join(f"{name}\0{record.mode:o}\0{record.digest}\n" for name, record in files.items()).encode()
    ).hexdigest()
    manifest = {
        "version": 1,
        "kind": kind,
        "key": key,
        "digest": digest,
        "created": time.time(),
        "inputs": dict(inputs),
        "facts": dict(facts),
        "files": {name: asdict(record) for name, record in files.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (folder / MANIFEST).chmod(0o644)
    for name in (MANIFEST, *(name for name, record in files.items() if record.size >= _SYNCED)):
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    fsync_dir(folder)


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _record(path: Path) -> FileRecord:
    now = path.lstat()
    digest = f"link:{path.readlink()}" if path.is_symlink() else digest_file(path)
    return FileRecord(now.st_size, now.st_mtime_ns, stat.S_IMODE(now.st_mode), digest)


def _read(kind: str, folder: Path) -> Artifact | None:
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
        if said["version"] != 1 or said["key"] != folder.name:
            return None
        return Artifact(
            kind=kind,
            key=folder.name,
            folder=folder,
            digest=said["digest"],
            created=float(said["created"]),
            inputs=dict(said["inputs"]),
            facts=dict(said["facts"]),
            files={name: FileRecord(**record) for name, record in said["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target, follow_symlinks=False)
    return target
