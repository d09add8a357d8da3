import json
import os
import select
import shutil
from pathlib import Path
from typing import Any

import pytest

from belljar_agent.api import Refused
from belljar_agent.files import inotify, watch


class Watched:
    def __init__(self, bench: Any, path: str, **args: Any) -> None:
        self.top = bench.home
        self.source = bench.source("watch", path=path, **args)

    def changes(self) -> list[tuple[str, ...]]:
        """All there are by now, with relative paths."""
        data = b""
        while select.select([self.source.fileno()], [], [], 0.05)[0]:
            while piece := self.source.read(100):
                data += piece
            if piece == b"":
                break
        found = [json.loads(line) for line in data.splitlines()]
        return [
            (change["kind"], *(os.path.relpath(change[key], self.top) for key in ("source", "path") if key in change))
            for change in found
        ]


@pytest.fixture
def watched(bench: Any) -> Any:
    made: list[Watched] = []

    def start(path: str = ".", **args: Any) -> Watched:
        made.append(Watched(bench, path, **args))
        return made[-1]

    yield start
    for one in made:
        one.source.close()


def test_changes_of_a_folder_are_told(watched: Any, tmp_path: Path) -> None:
    looking = watched()
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").rename(tmp_path / "g")
    (tmp_path / "g").unlink()
    assert looking.changes() == [("created", "f"), ("modified", "f"), ("moved", "f", "g"), ("removed", "g")]
    assert looking.source.read(100) is None


def test_many_writes_are_told_once(watched: Any, tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb", buffering=0) as file:
        looking = watched()
        for _ in range(1000):
            file.write(b"x")
        assert looking.changes() == [("modified", "f")]


def test_without_recursive_only_the_folder_itself_is_watched(watched: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    looking = watched()
    (tmp_path / "d/f").touch()
    assert looking.changes() == []


def test_new_folders_are_watched_too(watched: Any, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    looking = watched(recursive=True)
    (tmp_path / "old/f").touch()
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/early").touch()
    assert {("created", name) for name in ("old/f", "a", "a/b", "a/b/c", "a/b/c/early")} <= set(looking.changes())
    (tmp_path / "a/b/c/late").touch()
    assert ("created", "a/b/c/late") in looking.changes()


def test_a_folder_that_moves_is_followed(watched: Any, tmp_path: Path) -> None:
    (tmp_path / "in/a/b").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    looking = watched("in", recursive=True)
    (tmp_path / "in/a").rename(tmp_path / "in/z")
    assert looking.changes() == [("moved", "in/a", "in/z")]
    (tmp_path / "in/z/b/f").touch()
    assert ("created", "in/z/b/f") in looking.changes()
    (tmp_path / "in/z").rename(tmp_path / "out/z")
    assert looking.changes() == [("removed", "in/z")]
    (tmp_path / "out/z/b/g").touch()
    assert looking.changes() == []


def test_a_file_that_is_replaced_goes_on_being_watched(watched: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    looking = watched("f")
    (tmp_path / "other").write_text("x")
    (tmp_path / "other").rename(tmp_path / "f")
    (tmp_path / "f").write_text("y")
    assert looking.changes() == [("created", "f"), ("modified", "f")]


def test_the_watch_ends_with_its_folder(watched: Any, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    looking = watched("d", recursive=True)
    shutil.rmtree(tmp_path / "d")
    assert looking.changes()[-1] == ("removed", "d")
    assert looking.source.read(100) == b""


def test_a_tree_too_big_is_refused_with_the_bound(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_FOLDERS", 10)
    for number in range(11):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(Refused) as refused:
        bench.source("watch", path=".", recursive=True)
    assert refused.value.code == "limit_exceeded"
    assert "10 folders" in refused.value.message


def test_a_queue_that_overflows_is_told_and_folders_that_were_missed_are_watched(
    watched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = watched(recursive=True)
    (tmp_path / "new").mkdir()
    looking.source._inotify.read()  # the kernel dropped it
    lost = inotify.Notice(-1, inotify.Flag.OVERFLOW, 0, "")
    with monkeypatch.context() as patch:
        patch.setattr(inotify.Inotify, "read", lambda self: [lost])
        told = json.loads(looking.source.read(1000))
    assert (told["kind"], told["path"]) == ("overflow", str(tmp_path))
    (tmp_path / "new/f").touch()
    assert ("created", "new/f") in looking.changes()


def test_watching_nothing_is_not_found(bench: Any) -> None:
    with pytest.raises(Refused) as refused:
        bench.source("watch", path="gone")
    assert refused.value.code == "not_found"
