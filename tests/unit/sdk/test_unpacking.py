"""A tree from a sandbox is hostile: whatever it holds, nothing lands outside of the target."""

import contextlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.model.errors import Internal
from belljar.sdk.errors import UnsafeEntry
from belljar.sdk.packing import pack, tree_size
from belljar.sdk.unpacking import unpack

Entry = tuple[str, bytes, str]


def tar_of(*entries: Entry, content: bytes = b"x") -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o4755
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content) if info.size else None)
    stream.seek(0)
    return stream


FILE, FOLDER, SYMLINK, HARDLINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

HOSTILE: dict[str, list[Entry]] = {
    "an absolute name": [("/etc/evil", FILE, "")],
    "two dots": [("../evil", FILE, "")],
    "two dots inside": [("a/../../evil", FILE, "")],
    "an absolute link": [("l", SYMLINK, "/etc")],
    "a link upwards": [("l", SYMLINK, "..")],
    "a link upwards from inside": [("a/l", SYMLINK, "../../x")],
    "a link that steps up late": [("d", SYMLINK, "."), ("e", SYMLINK, "d/d/../..")],
    "a file through a link": [("real", FOLDER, ""), ("l", SYMLINK, "real"), ("l/evil", FILE, "")],
    "a hard link to a link": [("l", SYMLINK, "x"), ("h", HARDLINK, "l")],
    "a hard link outside": [("h", HARDLINK, "../outside")],
    "an absolute hard link": [("h", HARDLINK, "/etc/passwd")],
    "a device": [("dev", tarfile.CHRTYPE, "")],
    "a pipe": [("pipe", tarfile.FIFOTYPE, "")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_what_would_leave_the_target_is_refused(entries: list[Entry], tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("safe")
    with pytest.raises(UnsafeEntry):
        unpack(tar_of(*entries), tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert (tmp_path / "outside").read_text() == "safe"
    assert (tmp_path / "outside").stat().st_nlink == 1


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_what_is_left_out_is_told_and_the_rest_comes(entries: list[Entry], tmp_path: Path) -> None:
    told: list[UnsafeEntry] = []
    unpack(tar_of(*entries, ("good", FILE, "")), tmp_path / "target", skip_unsafe=True, skipped=told.append)
    assert told
    assert (tmp_path / "target" / "good").read_bytes() == b"x"


def test_a_link_that_was_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "l").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeEntry):
        unpack(tar_of(("l/evil", FILE, "")), tmp_path / "target")
    assert list((tmp_path / "outside").iterdir()) == []
    unpack(tar_of(("l", FILE, "")), tmp_path / "target")
    assert (tmp_path / "target" / "l").read_bytes() == b"x"
    assert not (tmp_path / "target" / "l").is_symlink()


def test_modes_lose_their_set_uid_bit(tmp_path: Path) -> None:
    unpack(tar_of(("f", FILE, ""), ("d", FOLDER, "")), tmp_path)
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o755


def test_a_header_of_a_gigabyte_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(Internal, match="damaged"):
        unpack(io.BytesIO(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)), tmp_path)


def test_headers_upon_headers_end_in_an_error(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    with pytest.raises(Internal, match="damaged"):
        unpack(io.BytesIO((info.tobuf(tarfile.GNU_FORMAT) + b"y\0" + bytes(510)) * 5000), tmp_path)


def test_a_tree_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    whole = tar_of(("a", FILE, ""), ("b", FILE, ""), content=bytes(5000)).getvalue()
    with pytest.raises(Internal, match="damaged"):
        unpack(io.BytesIO(whole[:7000]), tmp_path)


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_junk_is_an_error_or_an_empty_tree(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("junk")
    with contextlib.suppress(Internal, UnsafeEntry):
        unpack(io.BytesIO(junk), folder / "target")
    assert [path.name for path in folder.iterdir()] == ["target"]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=4).map("/".join).filter(bool),
            st.sampled_from([FILE, FOLDER, SYMLINK, HARDLINK]),
            st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=4).map("/".join),
        ),
        max_size=8,
    )
)
@settings(max_examples=300, deadline=None)
def test_no_tree_of_links_and_dots_leaves_the_target(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]
) -> None:
    folder = tmp_path_factory.mktemp("links")
    outer = folder / "outer"
    outer.mkdir()
    for outside in (folder, outer):  # so that a link that leaves has something to lead to
        (outside / "a").mkdir()
        (outside / "b").write_text("safe")
    with contextlib.suppress(OSError):  # a folder stands where a file should: the machine's own refusal
        unpack(tar_of(*entries), outer / "target", skip_unsafe=True)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "outer"]
    assert sorted(path.name for path in outer.iterdir()) == ["a", "b", "target"]
    assert not [*(folder / "a").iterdir(), *(outer / "a").iterdir()]
    assert (folder / "b").stat().st_nlink == (outer / "b").stat().st_nlink == 1
    for path in (outer / "target").rglob("*"):
        with contextlib.suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle
            assert path.resolve(strict=True).is_relative_to(outer / "target")


def test_what_is_packed_unpacks_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "big").write_bytes(os.urandom(700_001))
    (source / "d" / "link").symlink_to("big")
    (source / "d" / "e").chmod(0o500)
    (source / "x").write_bytes(b"")
    assert tree_size(source) == 700_001
    unpack(io.BytesIO(b"".join(pack(source))), tmp_path / "target")
    assert _shape(tmp_path / "target") == _shape(source)


def test_a_file_that_shrinks_while_it_is_packed_keeps_the_stream_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(bytes(1000))
    (tmp_path / "source" / "b").write_bytes(b"after")
    real: Callable[[int], os.stat_result] = os.fstat

    def too_large(fd: int) -> os.stat_result:
        status = list(real(fd))
        status[6] += 3000
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", too_large)
    stream = b"".join(pack(tmp_path / "source"))
    monkeypatch.undo()
    unpack(io.BytesIO(stream), tmp_path / "target")
    assert (tmp_path / "target" / "b").read_bytes()[:5] == b"after"


def _shape(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    shape: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(root.rglob("*")):
        content: bytes | str | None = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        shape[str(path.relative_to(root))] = (os.lstat(path).st_mode, content)
    return shape
