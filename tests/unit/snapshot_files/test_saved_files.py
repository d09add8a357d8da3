"""From the tree that a kernel writes to a plain tar, and back."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.model.errors import EngineFailed, SnapshotCorrupt, TooLarge
from belljar.node.engine.gvisor.ready import make_ready
from belljar.node.engine.gvisor.upper import write_upper

from .tars import TOP, Member, joined, tree_of

PAGE = 4096


def filled(tmp_path: Path, tree: bytes, contents: bytes, limit: int = 1 << 40) -> Path:
    target, store = tmp_path / "upper.tar", tmp_path / "contents"
    store.write_bytes(contents)
    with target.open("wb") as out, store.open("rb") as source:
        write_upper(io.BytesIO(tree), source.fileno(), out.fileno(), limit, lambda: True)
    return target


def test_contents_come_from_their_places_and_holes_are_nothing(tmp_path: Path) -> None:
    contents = os.urandom(100 * PAGE)
    length = 60 * PAGE + 10
    tree = tree_of(
        [
            (TOP, 0, []),
            (Member("./small"), 5, [(0, PAGE, 99 * PAGE)]),
            (Member("./holes"), length, [(2 * PAGE, 40 * PAGE, 0), (60 * PAGE, 64 * PAGE, 50 * PAGE)]),
            (Member("./empty"), 0, []),
            (Member("./nothing"), 10_000_000, []),
        ]
    )
    with tarfile.open(filled(tmp_path, tree, contents)) as archive:
        read = {member.name: archive.extractfile(member).read() for member in archive if member.isreg()}  # type: ignore[union-attr]
    assert read["./small"] == contents[99 * PAGE :][:5]
    holes = bytes(2 * PAGE) + contents[: 38 * PAGE] + bytes(20 * PAGE) + contents[50 * PAGE :][:10]
    assert read["./holes"] == holes
    assert read["./empty"] == b""
    assert read["./nothing"] == bytes(10_000_000)
    assert (tmp_path / "upper.tar").stat().st_blocks * 512 < 2_000_000


def test_deletions_are_nodes_and_the_agents_own_files_stay_out(tmp_path: Path) -> None:
    node, again = tarfile.CHRTYPE, tarfile.LNKTYPE
    long = "./" + "é" * 150
    tree = tree_of(
        [
            (TOP, 0, []),
            (Member("./.belljar/", kind=tarfile.DIRTYPE), 0, []),
            (Member("./.belljar/.boot", kind=node), 0, []),
            (Member("./.belljar/" + "m" * 200), 1, [(0, PAGE, 0)]),
            (Member("./gone", kind=again, link="./.belljar/.boot"), 0, []),
            (Member(long, kind=again, link="./.belljar/.boot"), 0, []),
            (Member("./two"), 1, [(0, PAGE, 0)]),
            (Member("./one", kind=again, link="./two"), 0, []),
        ]
    )
    with tarfile.open(filled(tmp_path, tree, bytes(PAGE))) as archive:
        kinds = {member.name: member.type for member in archive}
    assert kinds == {".": b"5", "./gone": node, long: node, "./two": b"0", "./one": again}


def test_sizes_beyond_eight_gigabytes_can_be_told(tmp_path: Path) -> None:
    target = filled(tmp_path, tree_of([(TOP, 0, []), (Member("./big"), 20 << 30, [])]), b"")
    with tarfile.open(target) as archive:
        assert archive.getmember("./big").size == 20 << 30


def test_the_limit_names_the_file(tmp_path: Path) -> None:
    tree = tree_of([(TOP, 0, []), (Member("./data/big"), 1 << 30, [])])
    with pytest.raises(TooLarge, match="/data/big has 1073741824 bytes"):
        filled(tmp_path, tree, b"", limit=1 << 20)


@pytest.mark.parametrize(
    "places",
    [
        [(0, PAGE, PAGE)],
        [(0, PAGE, 1 << 63)],
        [(PAGE, 0, 0)],
        [(0, 2 * PAGE, 0), (PAGE, 3 * PAGE, 0)],
        [(0, (1 << 64) - 1, 0)],
    ],
    ids=["behind the end", "far behind it", "backwards", "twice", "for ever"],
)
def test_impossible_places_are_refused(places: list[tuple[int, int, int]], tmp_path: Path) -> None:
    with pytest.raises(EngineFailed):
        filled(tmp_path, tree_of([(TOP, 0, []), (Member("./a"), 3 * PAGE, places)]), bytes(PAGE))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_tree_is_refused_or_harmless(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = bytearray(
        tree_of(
            [(TOP, 0, []), (Member("./" + "n" * 150), 5000, [(0, 2 * PAGE, 0)]), (Member("./b"), 1, [(0, PAGE, PAGE)])]
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        target = filled(folder, bytes(whole[: data.draw(st.integers(0, len(whole)))]), bytes(4 * PAGE), limit=1 << 20)
    except (EngineFailed, TooLarge):
        return
    assert target.stat().st_size <= 1 << 20


def test_a_tar_made_ready_has_the_same_contents_in_pages(tmp_path: Path) -> None:
    big = os.urandom(200_000)
    tar = tmp_path / "upper.tar"
    tar.write_bytes(joined((TOP, Member("./small", b"abc"), Member("./big", big), Member("./empty"))))
    make_ready(tar, tmp_path / "ready")
    pages = (tmp_path / "ready/pages.img").read_bytes()
    assert len(pages) % PAGE == 0
    assert pages[:3] == b"abc"
    assert pages[PAGE:][: len(big)] == big
    with tarfile.open(tmp_path / "ready/multitar.img") as archive:
        assert archive.getnames() == [".", "./small", "./big", "./empty"]
        places = archive.extractfile("./big").read()  # type: ignore[union-attr]
    assert [int.from_bytes(places[at : at + 8], "little") for at in range(0, 32, 8)] == [200_000, 0, 49 * PAGE, PAGE]


def test_holes_stay_holes(tmp_path: Path) -> None:
    tar = tmp_path / "upper.tar"
    with tar.open("wb") as file:
        file.write(TOP.header(0) + Member("./holes").header(1 << 30))
        file.seek(1 << 30, os.SEEK_CUR)
        file.write(bytes(1024))
    make_ready(tar, tmp_path / "ready")
    pages = (tmp_path / "ready/pages.img").stat()
    assert pages.st_size == 1 << 30
    assert pages.st_blocks < 1000


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_tar_is_made_ready_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ready")
    whole = bytearray(
        joined((TOP, Member("./" + "n" * 150, b"x" * 700, attributes={"user.a": "b"}), Member("./b", b"y")))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    tar = folder / "upper.tar"
    tar.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        make_ready(tar, folder / "made")
    except SnapshotCorrupt:
        return
    assert (folder / "made/pages.img").stat().st_size <= len(whole) + 4 * PAGE


@pytest.mark.parametrize("record", ["size", "GNU.sparse.major", "path.x"])
def test_records_that_could_mislead_are_refused(record: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("./a")
    info.pax_headers = {record: "1"}
    tar = tmp_path / "upper.tar"
    tar.write_bytes(TOP.header(0) + info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(SnapshotCorrupt):
        make_ready(tar, tmp_path / "ready")
