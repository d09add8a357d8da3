import errno
import io
import os
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from belljar_agent import files
from belljar_agent.api import Refused


def test_read_gives_a_piece_of_a_file(bench: Any, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (tmp_path / "f").write_bytes(data)
    bench.source("read", path="f").close()
    assert bench.told == {"size": 200_000}
    assert bench.read_all("read", path="f") == data
    assert bench.read_all("read", path="f", offset=1000, length=70_000) == data[1000:71_000]
    assert bench.read_all("read", path="f", offset=300_000) == b""


def test_reading_what_is_no_file_never_waits(bench: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "d").mkdir()
    for path, code in (("fifo", "conflict"), ("d", "conflict"), ("/dev/zero", "conflict"), ("gone", "not_found")):
        with pytest.raises(Refused) as refused:
            bench.source("read", path=path)
        assert refused.value.code == code


def test_files_of_the_kernel_that_have_no_size_can_be_read(bench: Any) -> None:
    assert b"MemTotal" in bench.read_all("read", path="/proc/meminfo")


def test_a_written_file_appears_whole_or_not_at_all(bench: Any, tmp_path: Path) -> None:
    sink = bench.sink("write", path="f", upload="u")
    sink.write(memoryview(b"half"))
    assert not (tmp_path / "f").exists()
    sink.abort()
    assert not (tmp_path / "f").exists()
    assert bench.call("uploaded", upload="u") == {"offset": 4}
    assert bench.send("write", b" more", path="f", upload="u", offset=4) == {"offset": 9}
    assert (tmp_path / "f").read_bytes() == b"half more"


def test_parts_that_come_twice_are_taken_once(bench: Any, tmp_path: Path) -> None:
    assert bench.send("write", b"abc", path="f", upload="u", last=False) == {"offset": 3}
    again = bench.sink("write", path="f", upload="u", offset=0, last=False)
    assert again.offset == 3
    again.abort()
    assert bench.send("write", b"def", path="f", upload="u", offset=3) == {"offset": 6}
    done = bench.sink("write", path="f", upload="u", offset=3)
    assert done.offset == 6
    assert done.finish() == {"offset": 6}
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_a_gap_between_parts_is_a_conflict(bench: Any) -> None:
    with pytest.raises(Refused) as refused:
        bench.sink("write", path="f", upload="u", offset=1)
    assert refused.value.code == "conflict"


def test_an_upload_is_bound_to_its_path(bench: Any) -> None:
    bench.send("write", b"abc", path="f", upload="u", last=False)
    with pytest.raises(Refused) as refused:
        bench.sink("write", path="g", upload="u", offset=3)
    assert refused.value.code == "conflict"


def test_a_second_writer_takes_over(bench: Any, tmp_path: Path) -> None:
    first = bench.sink("write", path="f", upload="u")
    first.write(memoryview(b"abc"))
    second = bench.sink("write", path="f", upload="u", offset=3)
    with pytest.raises(Refused):
        first.write(memoryview(b"xyz"))
    first.abort()
    second.write(memoryview(b"def"))
    list(second.finish())
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_silent_uploads_are_forgotten_after_ten_minutes(bench: Any, tmp_path: Path) -> None:
    bench.send("write", b"abc", path="f", upload="u", last=False)
    assert len(os.listdir(tmp_path)) == 1
    files.housekeeping(time.monotonic() + 599)
    assert bench.call("uploaded", upload="u") == {"offset": 3}
    files.housekeeping(time.monotonic() + 601)
    assert os.listdir(tmp_path) == []
    assert bench.call("uploaded", upload="u") == {"offset": 0}


def test_the_oldest_silent_upload_makes_way(bench: Any, tmp_path: Path) -> None:
    for number in range(70):
        bench.send("write", b"x", path=f"f{number}", upload=f"u{number}", last=False)
    assert len(os.listdir(tmp_path)) == 64
    assert bench.call("uploaded", upload="u0") == {"offset": 0}
    assert bench.call("uploaded", upload="u69") == {"offset": 1}


def test_writing_keeps_mode_and_owner_of_a_file_that_is_there(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(0o755)
    os.chown(tmp_path / "f", 55, 66)
    bench.send("write", b"new", path="f", upload="1")
    found = (tmp_path / "f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o755, 55, 66)
    bench.send("write", b"new", path="f", upload="2", mode=0o600, user="77")
    found = (tmp_path / "f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 77)
    bench.send("write", b"new", path="g", upload="3")
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o644


def test_writing_through_a_link_keeps_the_link(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d/real")
    bench.send("write", b"x", path="l", upload="u")
    assert (tmp_path / "l").is_symlink()
    assert (tmp_path / "d/real").read_bytes() == b"x"


def test_a_folder_or_fifo_in_the_way_is_a_conflict(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for path in ("d", "fifo"):
        with pytest.raises(Refused) as refused:
            bench.sink("write", path=path, upload="u")
        assert refused.value.code == "conflict"
    assert sorted(os.listdir(tmp_path)) == ["d", "fifo"]


def test_without_parents_a_missing_folder_is_not_found(bench: Any) -> None:
    with pytest.raises(Refused) as refused:
        bench.sink("write", path="a/f", upload="u", parents=False)
    assert refused.value.code == "not_found"


def test_appending_adds_once(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    (tmp_path / "log").chmod(0o640)
    bench.send("write", b"two\n", path="log", upload="u", append=True)
    again = bench.sink("write", path="log", upload="u", append=True)
    assert again.finish() == {"offset": 4}
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    bench.send("write", b"new", path="fresh", upload="v", append=True)
    assert (tmp_path / "fresh").read_text() == "new"


def test_a_full_disk_says_so_and_leaves_nothing(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("belljar_agent.files.uploads.os.write", full)
        with pytest.raises(Refused) as refused:
            bench.send("write", b"x", path="f", upload="u")
    assert refused.value.code == "disk_full"
    assert os.listdir(tmp_path) == []
    assert bench.call("uploaded", upload="u") == {"offset": 0}


# trees -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "t"
    (top / "in/deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "big").write_bytes(os.urandom(1_000_000))
    (top / "in/deep/small").write_text("small")
    (top / "in/deep/small").chmod(0o751)
    (top / ("long" * 50)).write_text("long name")
    (top / "naïve").write_text("not ascii")
    (Path(os.fsdecode(bytes(top) + b"/raw\xff"))).write_text("not utf-8")
    os.link(top / "big", top / "in/hard")
    (top / "soft").symlink_to("in/deep/small")
    os.mkfifo(top / "fifo")
    return top


def content_of(top: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        elif path.is_dir():
            found[name] = "folder"
    return found


@pytest.mark.parametrize("piece", [700, 65536])
def test_a_tree_that_is_pulled_and_pushed_is_the_same(bench: Any, tree: Path, tmp_path: Path, piece: int) -> None:
    archive = bench.read_all("pull", path="t", piece=piece)
    answer = bench.send("push", archive, path="copy", piece=piece, user="77")
    assert content_of(tmp_path / "copy") == content_of(tree)
    assert (tmp_path / "copy/in/hard").samefile(tmp_path / "copy/big")
    assert (tmp_path / "copy/big").stat().st_uid == 77
    assert answer["entries"] == len(content_of(tree)) + 1


def test_python_reads_what_pull_writes(bench: Any, tree: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(bench.read_all("pull", path="t"))) as archive:
        as_it_is: Any = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}  # Debian 12 has Python 3.11.2
        archive.extractall(tmp_path / "copy", **as_it_is)
    assert content_of(tmp_path / "copy") == content_of(tree)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_push_reads_what_python_writes(bench: Any, tree: Path, tmp_path: Path, form: int) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as writer:
        writer.add(tree, arcname="")
    bench.send("push", archive.getvalue(), path="copy", piece=999)
    assert content_of(tmp_path / "copy") == content_of(tree)


def test_one_file_is_pulled_under_its_name(bench: Any, tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(bench.read_all("pull", path="t/in/deep/small"))) as archive:
        assert archive.getnames() == ["small"]


def test_a_file_that_shrinks_or_vanishes_does_not_spoil_the_archive(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for name in "abc":
        (tmp_path / "t" / name).write_bytes(b"x" * 100_000)
    source = bench.source("pull", path="t")
    archive = source.read(1024)
    for name in "abc":
        os.truncate(tmp_path / "t" / name, 10)
    for name in "abc":
        (tmp_path / "t" / name).unlink()
    archive += b"".join(iter(lambda: source.read(65536), b""))
    source.close()
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        files = [entry for entry in reader if entry.isfile()]
        assert len(files) == 1
        assert files[0].size == 100_000
    # and the time of a file in between stays right
    assert len(archive) % 512 == 0


def test_what_a_folder_has_already_stays_as_it_is(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir(mode=0o1777)
    (tmp_path / "here").chmod(0o1777)
    (tmp_path / "here/f").write_text("old")
    os.link(tmp_path / "here/f", tmp_path / "alias")
    bench.send("push", tar([("./", None), ("f", b"new")]), path="here")
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o1777
    assert (tmp_path / "here/f").read_text() == "new"
    assert (tmp_path / "alias").read_text() == "old", "an old file was written into, not replaced"


def tar(entries: list[tuple[str, Any]]) -> bytes:
    """`entries`: a name with bytes (file), None (folder), ``("symlink" | "hardlink" | "device", target)``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(what, bytes):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
                continue
            kind = "folder" if what is None else what[0]
            info.type = {
                "folder": tarfile.DIRTYPE,
                "symlink": tarfile.SYMTYPE,
                "hardlink": tarfile.LNKTYPE,
                "device": tarfile.CHRTYPE,
            }[kind]
            info.linkname = "" if what is None else what[1]
            archive.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", b"x")],
        [("a/../../evil", b"x")],
        [("/evil", b"x")],
        [("h", ("hardlink", "../secret"))],
        [("h", ("hardlink", "/etc/passwd"))],
    ],
)
def test_an_archive_cannot_leave_its_folder(bench: Any, tmp_path: Path, entries: list[tuple[str, Any]]) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(Refused) as refused:
        bench.send("push", tar(entries), path="in")
    assert refused.value.code == "invalid_argument"
    assert sorted(os.listdir(tmp_path)) == ["in", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["/", "..", "../../x", "{out}"])
def test_a_link_may_lead_anywhere_but_nothing_lands_through_it(bench: Any, tmp_path: Path, target: str) -> None:
    """A virtual environment has links to /usr; what comes after one must not follow it."""
    (tmp_path / "out").mkdir()
    target = target.format(out=tmp_path / "out")
    bench.send("push", tar([("d/l", ("symlink", target))]), path="in")
    assert os.readlink(tmp_path / "in/d/l") == target
    with pytest.raises(Refused) as refused:
        bench.send("push", tar([("l", ("symlink", target)), ("l/evil", b"x")]), path="in")
    assert refused.value.code == "conflict"
    assert sorted(os.listdir(tmp_path)) == ["in", "out"] and os.listdir(tmp_path / "out") == []


def test_a_link_that_lies_there_and_leads_out_is_not_gone_through(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/l").symlink_to(tmp_path / "out")
    (tmp_path / "out/target").write_text("mine")
    (tmp_path / "in/file").symlink_to(tmp_path / "out/target")
    with pytest.raises(Refused) as refused:
        bench.send("push", tar([("l/evil", b"x")]), path="in")
    assert refused.value.code == "conflict"
    bench.send("push", tar([("file", b"x")]), path="in")
    assert (tmp_path / "out/target").read_text() == "mine"
    assert os.listdir(tmp_path / "out") == ["target"]


def test_a_link_that_stays_inside_is_gone_through(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "in/usr/lib").mkdir(parents=True)
    (tmp_path / "in/lib").symlink_to("usr/lib")
    bench.send("push", tar([("lib", None), ("lib/x", b"x"), ("link", ("symlink", "usr/../lib"))]), path="in")
    assert (tmp_path / "in/usr/lib/x").read_bytes() == b"x"
    assert os.readlink(tmp_path / "in/link") == "usr/../lib"


def test_two_links_that_only_together_lead_out_let_nothing_through(bench: Any, tmp_path: Path) -> None:
    entries = [("a/b/c", ("symlink", "../..")), ("q", ("symlink", "a/b/c/..")), ("q/evil", b"x")]
    with pytest.raises(Refused):
        bench.send("push", tar(entries), path="in")
    assert os.listdir(tmp_path) == ["in"]


def test_devices_are_passed_over(bench: Any, tmp_path: Path) -> None:
    answer = bench.send("push", tar([("null", ("device", "")), ("f", b"x")]), path="in")
    assert answer == {"entries": 1}
    assert os.listdir(tmp_path / "in") == ["f"]


@pytest.mark.parametrize("junk", [b"x" * 2048, b"\x1f\x8b" + bytes(range(256)) * 8, os.urandom(4096)])
def test_what_is_no_archive_is_refused(bench: Any, junk: bytes) -> None:
    with pytest.raises(Refused) as refused:
        bench.send("push", junk, path="in")
    assert refused.value.code == "invalid_argument"


def test_an_archive_that_is_cut_is_refused_and_its_half_file_removed(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        bench.send("push", tar([("a", b"1"), ("f", b"x" * 5000)])[:4000], path="in")
    assert refused.value.code == "invalid_argument"
    assert os.listdir(tmp_path / "in") == ["a"]


def test_a_file_where_a_folder_is_and_the_other_way_round_are_conflicts(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "in/d").mkdir(parents=True)
    (tmp_path / "in/f").touch()
    for entry in (("d", b"x"), ("f", None), ("f/below", b"x")):
        with pytest.raises(Refused) as refused:
            bench.send("push", tar([entry]), path="in")
        assert refused.value.code == "conflict"
