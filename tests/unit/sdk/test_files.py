"""Files and trees on whole and on broken connections."""

import io
import tarfile
from pathlib import Path

import pytest
from tests.unit.sdk.scripted import ScriptedServer

import belljar
from belljar.sdk._sync import files

DATA = bytes(range(256)) * 400


@pytest.fixture
def sandbox(server: ScriptedServer) -> belljar.Sandbox:
    return belljar.Sandbox.create()


def test_a_path_joins_like_one_of_pathlib(sandbox: belljar.Sandbox) -> None:
    path = sandbox.path("/data") / "a" / "b.tar.gz"
    assert str(path) == "/data/a/b.tar.gz"
    assert (path.name, path.stem, path.suffix, str(path.parent)) == ("b.tar.gz", "b.tar", ".gz", "/data/a")
    assert str(path.with_suffix(".xz")) == "/data/a/b.tar.xz"
    assert path == sandbox.path("/data/a/b.tar.gz")
    assert not hasattr(path, "__fspath__")


def test_what_is_written_is_read(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    path = sandbox.path("/x")
    assert path.write_text("a\nb") == 3
    assert path.read_text() == "a\nb"
    assert server.files == {"/x": b"a\nb"}
    assert path.exists()
    assert not sandbox.path("/y").exists()


def test_an_empty_file_is_written(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    sandbox.path("/empty").write_bytes(b"")
    assert server.files == {"/empty": b""}


def test_reading_goes_on_behind_broken_connections(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.files["/x"] = DATA
    server.cuts = [10, 50_000, 1]
    assert sandbox.path("/x").read_bytes() == DATA


def test_a_part_that_broke_off_goes_on_where_it_was_taken(
    server: ScriptedServer, sandbox: belljar.Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "PART", 30_000)
    local = tmp_path / "big"
    local.write_bytes(DATA)
    local.chmod(0o751)
    server.cut_requests = [None, None, 12_345, None, 7]
    told: list[tuple[int, int | None]] = []
    sandbox.upload(local, "/x", progress=lambda done, total: told.append((done, total)))
    assert server.files == {"/x": DATA}
    assert told[-1] == (len(DATA), len(DATA))
    modes = {query.get("mode") for _, path, query in server.requests if path.endswith("content")}
    assert modes == {str(0o751)}


def test_a_file_that_is_exactly_one_part_is_whole(
    server: ScriptedServer, sandbox: belljar.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART", 100)
    for size in (99, 100, 101, 200):
        sandbox.path("/x").write_bytes(DATA[:size])
        assert server.files["/x"] == DATA[:size]


def test_a_file_goes_into_a_directory_that_is_there(
    server: ScriptedServer, sandbox: belljar.Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    server.trees["/dir"] = b""
    sandbox.upload(tmp_path / "f", "/dir")
    sandbox.upload(tmp_path / "f", "/new/")
    assert set(server.files) == {"/dir/f", "/new/f"}


def test_a_download_appears_whole(server: ScriptedServer, sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    server.files["/x"] = DATA
    server.cuts = [None, 5000]
    sandbox.download("/x", tmp_path / "sub" / "y")
    assert (tmp_path / "sub" / "y").read_bytes() == DATA
    assert (tmp_path / "sub" / "y").stat().st_mode & 0o777 == 0o640
    sandbox.download("/x", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sub", "x"]


def test_a_download_that_fails_leaves_nothing(server: ScriptedServer, sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    with pytest.raises(belljar.NotFound):
        sandbox.download("/none", tmp_path / "y")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_is_sent_and_fetched(server: ScriptedServer, sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "sub" / "f").write_bytes(DATA)
    (source / "sub" / "f").chmod(0o755)
    (source / ("n" * 200)).write_text("long name")
    (source / "link").symlink_to("sub/f")
    (source / "é\udcff").write_text("no UTF-8")
    told: list[int] = []
    sandbox.upload(source, "/tree", progress=lambda done, total: told.append(done))
    assert told

    server.cuts = [None, 20_000]  # the stat is whole, the tree breaks off and comes again
    sandbox.download("/tree", tmp_path / "target")
    target = tmp_path / "target"
    assert (target / "sub" / "f").read_bytes() == DATA
    assert (target / "sub" / "f").stat().st_mode & 0o777 == 0o755
    assert str((target / "link").readlink()) == "sub/f"
    assert (target / ("n" * 200)).read_text() == "long name"
    assert (target / "é\udcff").read_text() == "no UTF-8"
    assert (target / "sub" / "deep").is_dir()


def test_a_tree_that_leaves_its_folder_is_refused(
    server: ScriptedServer, sandbox: belljar.Sandbox, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    server.trees["/tree"] = stream.getvalue()
    with pytest.raises(belljar.UnsafeEntry, match="escaped"):
        sandbox.download("/tree", tmp_path / "target")
    sandbox.download("/tree", tmp_path / "target", skip_unsafe=True)
    assert not (tmp_path / "escaped").exists()
