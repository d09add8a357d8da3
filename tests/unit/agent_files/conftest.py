"""The agent's file operations run here as they do inside: on real files, in this process."""

import os
import pwd
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "agent"))

from belljar_agent import files
from belljar_agent.api import Refused


class Bench:
    """A context whose working directory is a temporary folder, and short words for the calls."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.me = (os.getuid(), os.getgid())

    def resolve(self, path: object) -> str:
        if not isinstance(path, str) or not path or "\0" in path:
            raise Refused("invalid_argument", "that is no path")
        return os.path.normpath(os.path.join(self.home, path))

    def shown(self, path: str) -> str:
        return path

    def uid_gid(self, user: object) -> tuple[int, int]:
        if user is None:
            return self.me
        if not isinstance(user, str):
            raise Refused("invalid_argument", "that is no user")
        name, _, group = user.partition(":")
        if name.isdigit():
            return int(name), int(group or name)
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise Refused("invalid_argument", f"no user {name}") from None
        return found.pw_uid, found.pw_gid

    def user_name(self, uid: int) -> str:
        return "root" if uid == 0 else str(uid)

    def group_name(self, gid: int) -> str:
        return "root" if gid == 0 else str(gid)

    def call(self, op: str, **args: Any) -> dict[str, Any]:
        return finished(files.OPERATIONS[op](self, args))

    def source(self, op: str, **args: Any) -> Any:
        source: Any = files.open_source(op, self, args)
        try:
            self.told = finished(source.size_info())
        except Refused:
            source.close()
            raise
        return source

    def read_all(self, op: str, *, piece: int = 65536, **args: Any) -> bytes:
        source = self.source(op, **args)
        try:
            return b"".join(iter(lambda: source.read(piece), b""))
        finally:
            source.close()

    def sink(self, op: str, **args: Any) -> Any:
        return files.open_sink(op, self, args)

    def send(self, op: str, data: bytes, *, piece: int = 65536, **args: Any) -> dict[str, Any]:
        sink = self.sink(op, **args)
        try:
            for at in range(0, len(data), piece):
                sink.write(memoryview(data)[at : at + piece])
        except Refused:
            sink.abort()
            raise
        return finished(sink.finish())


def finished(work: Any) -> Any:
    """The result of an operation, after all of its steps."""
    if isinstance(work, Generator):
        while True:
            try:
                next(work)
            except StopIteration as stop:
                return stop.value
    return work


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    files.close()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".belljar-")], "a temporary file stayed"
