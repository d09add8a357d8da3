"""What a snapshot changed, told from its tar and from the list of its image."""

import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.model.errors import Internal, SnapshotCorrupt
from belljar.model.snapshot import ChangeKind, PathKind
from belljar.node.image.paths import order, read_paths, write_paths
from belljar.node.snapshot import diff
from belljar.node.snapshot.diff import contents_of, difference

from .tars import TOP, Member, joined

FOLDER, LINK, NODE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE
OPAQUE = {"trusted.overlay.opaque": "y"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "etc/passwd",
        "etc/hostname",
        "usr/lib/a",
        "usr/lib/sub/b",
        "usr/lib-x/c",
        "home/user/.profile",
        "bin",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")
    (root / "usr/link").symlink_to("lib")
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    file = tmp_path / "paths.gz"
    write_paths(root, file)
    return file


def told(tmp_path: Path, image: Path | None, *members: Member) -> list[tuple[str, str, str, int]]:
    upper = tmp_path / "upper.tar"
    upper.write_bytes(joined((TOP, *members)))
    return [(found.path, found.change, found.kind, found.size) for found in difference(upper, image)]


def folder(name: str, **more: object) -> Member:
    owner = (os.getuid(), os.getgid())
    return Member(name, kind=FOLDER, mode=0o755, owner=owner, **more)  # type: ignore[arg-type]


def test_a_list_of_an_image_is_in_order_and_the_same_each_time(tmp_path: Path, image: Path) -> None:
    paths = [found.path for found in read_paths(image)]
    assert paths == sorted(paths, key=order)
    assert paths.index(b"usr/lib/sub/b") < paths.index(b"usr/lib-x")
    again = tmp_path / "again.gz"
    write_paths(tmp_path / "root", again)
    assert again.read_bytes() == image.read_bytes()


def test_added_modified_and_deleted(tmp_path: Path, image: Path) -> None:
    assert told(
        tmp_path,
        image,
        folder("./usr/"),
        folder("./usr/lib/"),
        Member("./usr/lib/a", b"new"),
        Member("./usr/lib/z", b"added"),
        Member("./usr/lib/sub", kind=NODE),
        Member("./usr/never", kind=NODE),
        folder("./etc/"),
        Member("./etc/hostname", b"sandbox"),
        folder("./.belljar/"),
        Member("./.belljar/boot-id", b"x"),
    ) == [
        ("/usr/lib/a", "modified", "file", 3),
        ("/usr/lib/sub", "deleted", "directory", 0),
        ("/usr/lib/sub/b", "deleted", "file", 5),
        ("/usr/lib/z", "added", "file", 5),
    ]


def test_a_folder_that_hides_the_images_deletes_what_it_does_not_have(tmp_path: Path, image: Path) -> None:
    assert told(
        tmp_path,
        image,
        folder("./usr/"),
        folder("./usr/lib/", attributes=OPAQUE),
        Member("./usr/lib/a", b"new"),
        folder("./usr/lib/sub/"),
    ) == [
        ("/usr/lib", "modified", "directory", 0),
        ("/usr/lib/a", "modified", "file", 3),
        ("/usr/lib/sub", "modified", "directory", 0),
        ("/usr/lib/sub/b", "deleted", "file", 5),
    ]


def test_a_file_in_place_of_a_folder_and_the_reverse(tmp_path: Path, image: Path) -> None:
    assert told(
        tmp_path,
        image,
        folder("./bin/"),
        Member("./bin/tool", b"x"),
        folder("./usr/"),
        Member("./usr/lib", kind=LINK, link="elsewhere"),
        Member("./usr/link", kind=NODE),
    ) == [
        ("/bin", "modified", "directory", 0),
        ("/bin/tool", "added", "file", 1),
        ("/usr/lib", "modified", "symlink", 0),
        ("/usr/lib/a", "deleted", "file", 5),
        ("/usr/lib/sub", "deleted", "directory", 0),
        ("/usr/lib/sub/b", "deleted", "file", 5),
        ("/usr/link", "deleted", "symlink", 0),
    ]


def test_a_folder_counts_when_its_mode_or_owner_changed(tmp_path: Path, image: Path) -> None:
    other = Member("./home/user/", kind=FOLDER, mode=0o700, owner=(os.getuid(), os.getgid()))
    assert told(tmp_path, image, folder("./home/"), other) == [("/home/user", "modified", "directory", 0)]


def test_hard_links_have_the_size_of_what_they_name(tmp_path: Path) -> None:
    found = told(tmp_path, None, Member("./b", b"four"), Member("./a", kind=tarfile.LNKTYPE, link="./b"))
    assert found == [("/a", "added", "file", 4), ("/b", "added", "file", 4)]


def test_names_that_are_no_text_come_through(tmp_path: Path) -> None:
    long = "./" + "é" * 200 + "\udcff"
    assert told(tmp_path, None, Member(long, b"x")) == [("/" + long[2:], "added", "file", 1)]


def test_a_directory_holds_what_its_tar_has(tmp_path: Path) -> None:
    tree = tmp_path / "tree.tar"
    tree.write_bytes(
        joined((Member(".", kind=FOLDER), Member("z", b"12"), Member("a/b", b""), Member("a", kind=FOLDER)))
    )
    found = list(contents_of(tree))
    assert [(change.path, change.size) for change in found] == [("a", 0), ("a/b", 0), ("z", 2)]
    assert {change.change for change in found} == {ChangeKind.ADDED}
    assert found[0].kind is PathKind.DIRECTORY


def test_many_paths_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "_AT_ONCE", 2000)
    numbers = list(range(30_000))
    random.Random(1).shuffle(numbers)
    upper = tmp_path / "upper.tar"
    with upper.open("wb") as file:
        for number in numbers:
            file.write(Member(f"./d{number % 50}/{number}").header(0))
        file.write(bytes(1024))
    tracemalloc.start()
    try:
        last, count = "", 0
        for change in difference(upper, None):
            assert change.path.split("/") > last.split("/")
            last, count = change.path, count + 1
        assert count == 30_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "member",
    [Member("../up"), Member("/abs"), Member("./a", kind=FOLDER, data=b"x" * 512), Member("./a/../../b")],
    ids=["climbs", "absolute", "contents of a folder", "climbs later"],
)
def test_a_hostile_tar_is_refused(member: Member, tmp_path: Path) -> None:
    with pytest.raises(SnapshotCorrupt):
        told(tmp_path, None, member)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_tar_is_refused_or_read_and_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(
        joined((TOP, Member("./" + "n" * 150, b"x" * 700, attributes={"user.a": "b"}), Member("./b", b"y")))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    upper = tmp_path_factory.getbasetemp() / "damaged.tar"
    upper.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        for change in difference(upper, None):
            assert change.size <= len(whole)
    except SnapshotCorrupt:
        pass


def test_a_damaged_list_is_told(tmp_path: Path, image: Path) -> None:
    upper = tmp_path / "upper.tar"
    upper.write_bytes(joined((TOP,)))
    image.write_bytes(image.read_bytes()[:-20])
    with pytest.raises(Internal):
        list(difference(upper, image))
