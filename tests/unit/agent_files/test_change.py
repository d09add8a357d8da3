import os
import stat
from pathlib import Path
from typing import Any

import pytest

from belljar_agent import files
from belljar_agent.api import Refused


def test_mkdir_makes_parents_and_minds_what_exists(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        bench.call("mkdir", path="a/b")
    assert refused.value.code == "not_found"
    bench.call("mkdir", path="a/b", parents=True, mode=0o1777)
    assert (tmp_path / "a/b").is_dir()
    bench.call("mkdir", path="a/b", exist_ok=True)
    with pytest.raises(Refused) as refused:
        bench.call("mkdir", path="a/b")
    assert refused.value.code == "already_exists"
    (tmp_path / "f").touch()
    with pytest.raises(Refused):
        bench.call("mkdir", path="f", exist_ok=True)


def test_what_is_made_belongs_to_the_user_named(bench: Any, tmp_path: Path) -> None:
    bench.call("mkdir", path="a/b", parents=True, user="1234")
    bench.call("symlink", path="a/l", target="b", user="1234")
    bench.call("touch", path="a/t", user="1234")
    bench.send("write", b"x", path="a/c/f", upload="u", user="1234")
    for name in ("a", "a/b", "a/l", "a/t", "a/c", "a/c/f"):
        assert (tmp_path / name).lstat().st_uid == 1234


def test_remove_takes_files_links_and_empty_folders(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("d")
    for name in ("l", "f", "d"):
        bench.call("remove", path=name)
    assert not os.listdir(tmp_path)
    bench.call("remove", path="gone", missing_ok=True)
    with pytest.raises(Refused) as refused:
        bench.call("remove", path="gone")
    assert refused.value.code == "not_found"


def test_a_folder_that_is_not_empty_needs_recursive(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/f").touch()
    (tmp_path / "d/link").symlink_to(tmp_path / "keep")
    for number in range(300):
        (tmp_path / "d/e" / str(number)).touch()
    with pytest.raises(Refused) as refused:
        bench.call("remove", path="d")
    assert refused.value.code == "conflict"
    bench.call("remove", path="d", recursive=True)
    assert not (tmp_path / "d").exists()
    assert (tmp_path / "keep/f").exists(), "a link was followed"


def test_a_tree_deeper_than_any_path_is_removed(bench: Any, tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("deep", dir_fd=here)
    fd = os.open("deep", os.O_RDONLY, dir_fd=here)
    os.close(here)
    for _ in range(300):
        os.mkdir("n" * 60, dir_fd=fd)
        inner = os.open("n" * 60, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    bench.call("remove", path="deep", recursive=True)
    assert not (tmp_path / "deep").exists()


def test_removing_a_tree_lets_others_have_their_turn(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(1000):
        (tmp_path / "d" / str(number)).touch()
    steps: Any = files.OPERATIONS["remove"](bench, {"path": "d", "recursive": True})
    assert sum(1 for _ in steps) >= 8


def test_chmod_and_chown_go_through_a_tree_but_not_through_links(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").touch()
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o600)
    (tmp_path / "d/l").symlink_to(outside)
    bench.call("chmod", path="d", mode=0o711, recursive=True)
    bench.call("chown", path="d", user="77:88", recursive=True)
    for name in ("d", "d/e", "d/e/f"):
        found = (tmp_path / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o711, 77, 88)
    assert (tmp_path / "d/l").lstat().st_uid == 77
    assert (stat.S_IMODE(outside.stat().st_mode), outside.stat().st_uid) == (0o600, os.getuid())


def test_an_unknown_user_is_an_invalid_argument(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(Refused) as refused:
        bench.call("chown", path="f", user="nobody-here")
    assert refused.value.code == "invalid_argument"


def test_links_of_both_kinds(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    bench.call("symlink", path="s", target="f")
    bench.call("hardlink", path="h", target="f")
    assert os.readlink(tmp_path / "s") == "f"
    assert (tmp_path / "h").samefile(tmp_path / "f")


def test_touch_makes_a_file_and_freshens_one(bench: Any, tmp_path: Path) -> None:
    bench.call("touch", path="f", exist_ok=False)
    os.utime(tmp_path / "f", (0, 0))
    bench.call("touch", path="f")
    assert (tmp_path / "f").stat().st_mtime > 0
    with pytest.raises(Refused) as refused:
        bench.call("touch", path="f", exist_ok=False)
    assert refused.value.code == "already_exists"


def test_move_replaces_a_file_and_moves_a_folder(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "d").mkdir()
    bench.call("move", source="a", target="b")
    bench.call("move", source="d", target="e")
    assert (tmp_path / "b").read_text() == "a"
    assert (tmp_path / "e").is_dir()
    with pytest.raises(Refused):
        bench.call("move", source="b", target="e")


@pytest.fixture
def elsewhere() -> Any:
    """A folder on another file system."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def test_move_between_file_systems_keeps_the_tree_as_it_was(bench: Any, tmp_path: Path, elsewhere: Path) -> None:
    assert elsewhere.stat().st_dev != tmp_path.stat().st_dev
    (tmp_path / "t/in").mkdir(parents=True)
    (tmp_path / "t/in/f").write_bytes(os.urandom(3_000_000))
    (tmp_path / "t/in/f").chmod(0o4755)
    os.link(tmp_path / "t/in/f", tmp_path / "t/hard")
    (tmp_path / "t/soft").symlink_to("in/f")
    os.mkfifo(tmp_path / "t/fifo")
    os.utime(tmp_path / "t/in", (1_000_000, 1_000_000))
    content = (tmp_path / "t/in/f").read_bytes()
    bench.call("move", source="t", target=str(elsewhere / "t"))
    assert not (tmp_path / "t").exists()
    moved = elsewhere / "t"
    assert (moved / "in/f").read_bytes() == content
    assert stat.S_IMODE((moved / "in/f").stat().st_mode) == 0o4755
    assert (moved / "hard").samefile(moved / "in/f")
    assert os.readlink(moved / "soft") == "in/f"
    assert stat.S_ISFIFO((moved / "fifo").stat().st_mode)
    assert (moved / "in").stat().st_mtime == 1_000_000
    assert os.listdir(elsewhere) == ["t"]


def test_a_move_that_fails_leaves_source_and_target_alone(bench: Any, tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").write_text("x")
    (elsewhere / "t").mkdir()
    (elsewhere / "t/other").write_text("y")
    with pytest.raises(Refused) as refused:
        bench.call("move", source="t", target=str(elsewhere / "t"))
    assert refused.value.code == "conflict"
    assert (tmp_path / "t/f").exists()
    assert os.listdir(elsewhere) == ["t"]
    assert os.listdir(elsewhere / "t") == ["other"]


def test_a_move_that_is_cancelled_leaves_nothing_at_the_target(bench: Any, tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(5 << 20))
    steps: Any = files.OPERATIONS["move"](bench, {"source": "f", "target": str(elsewhere / "f")})
    next(steps)
    steps.close()
    assert os.listdir(elsewhere) == []
    assert (tmp_path / "f").stat().st_size == 5 << 20
