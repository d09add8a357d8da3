"""Durable files and locks."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ("LockHeld", "close_descriptors", "digest_file", "fsync_dir", "lock_file", "remove_tree", "write_atomic")


class LockHeld(Exception):
    """Another process holds the lock. `holder` is what it wrote there: its process id and a word about it."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder or 'another process'}")
        self.path = path
        self.holder = holder


def close_descriptors(descriptors: int | Sequence[int] | None) -> None:
    """One, several or none."""
    for fd in (descriptors,) if isinstance(descriptors, int) else descriptors or ():
        os.close(fd)


def fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replaces the file's content in one step. `durable`: on disk (file and name) before this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


@contextlib.contextmanager
def lock_file(path: Path, *, wait: bool = False, about: str = "") -> Generator[BinaryIO]:
    """Holds an exclusive lock that the kernel frees when this process ends, however it ends.

    Writes ``<pid> <about>`` into the file. Raises LockHeld at once if another process has it, unless `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockHeld(path, file.read(200).decode(errors="replace").strip()) from None
        file.truncate(0)
        file.write(f"{os.getpid()} {about}".strip().encode())
        file.flush()
        yield file


def digest_file(path: Path) -> str:
    """SHA-256 of the content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_tree(path: Path) -> None:
    """Removes a folder or file; one that is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
