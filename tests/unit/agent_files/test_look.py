import os
from pathlib import Path
from typing import Any

import pytest

from belljar_agent.api import Refused


def names(answer: dict[str, Any]) -> list[str]:
    return [os.path.basename(entry["path"]) for entry in answer["entries"]]


def test_stat_tells_kind_size_mode_and_owner(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "f").chmod(0o640)
    found = bench.call("stat", path="f")
    assert (found["kind"], found["size"], found["mode"]) == ("file", 5, 0o640)
    assert found["path"] == str(tmp_path / "f")
    assert found["uid"] == os.getuid()


def test_stat_follows_a_link_unless_told_not_to(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("nowhere")
    found = bench.call("stat", path="l", follow=False)
    assert (found["kind"], found["target"]) == ("symlink", "nowhere")
    with pytest.raises(Refused) as refused:
        bench.call("stat", path="l")
    assert refused.value.code == "not_found"


def test_stat_below_a_file_is_not_found(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(Refused) as refused:
        bench.call("stat", path="f/x")
    assert refused.value.code == "not_found"


def test_a_list_comes_in_pages_in_the_order_of_names(bench: Any, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"n{number:02}").touch()
    seen: list[str] = []
    cursor = None
    while True:
        page = bench.call("list", path=".", cursor=cursor, limit=10)
        seen += names(page)
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [f"n{number:02}" for number in range(25)]


def test_a_name_that_is_no_utf8_survives(bench: Any, tmp_path: Path) -> None:
    (Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))).touch()
    (entry,) = bench.call("list", path=".")["entries"]
    assert os.fsencode(entry["path"]).endswith(b"/\xff")
    assert bench.call("stat", path=entry["path"])["kind"] == "file"


def test_listing_a_file_is_a_conflict_and_a_missing_folder_is_not_found(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path, code in (("f", "conflict"), ("gone", "not_found")):
        with pytest.raises(Refused) as refused:
            bench.call("list", path=path)
        assert refused.value.code == code


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in ("a/b/c.py", "a/b.py", "a.txt", ".hidden.py", "a/b/d/e.py", "z/c.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "loop").symlink_to(".")
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.py", "**/*.py", "a/**/*.py", "a/*", "**/c.py", "*/*", "a/**/b/*", "**/b/**/*.py", "[az]/*.py", "?.txt"],
)
def test_glob_finds_what_pathlib_finds(bench: Any, tree: Path, pattern: str) -> None:
    found = [os.path.relpath(entry["path"], tree) for entry in bench.call("glob", path=".", pattern=pattern)["entries"]]
    wanted = {os.path.relpath(path, tree) for path in tree.glob(pattern)}
    # pathlib of some versions goes through a link that stands for a single `*`; ours never does
    assert set(found) == {path for path in wanted if not path.startswith("loop/")}
    assert len(found) == len(set(found))


def test_two_stars_alone_find_everything(bench: Any, tree: Path) -> None:
    found = {os.path.relpath(entry["path"], tree) for entry in bench.call("glob", path=".", pattern="**")["entries"]}
    assert found == {".", *(os.path.relpath(path, tree) for path in tree.rglob("*"))} - {"loop/x"}


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_glob_pages_add_up_to_the_whole(bench: Any, tree: Path, limit: int) -> None:
    whole = [entry["path"] for entry in bench.call("glob", path=".", pattern="**")["entries"]]
    seen: list[str] = []
    cursor = None
    while True:
        page = bench.call("glob", path=".", pattern="**", cursor=cursor, limit=limit)
        seen += [entry["path"] for entry in page["entries"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == whole


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "a/../../*", ""])
def test_a_pattern_cannot_leave_its_folder(bench: Any, pattern: str) -> None:
    with pytest.raises(Refused) as refused:
        bench.call("glob", path=".", pattern=pattern)
    assert refused.value.code == "invalid_argument"
