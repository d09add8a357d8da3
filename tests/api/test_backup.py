"""The route of backups, and what a restore believes: on a node that keeps a snapshot in four letters."""

import asyncio
import errno
import io
import random
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.api.conftest import Front
from tests.api.test_keys import client, key_of

from belljar.base.archive import ArchiveWriter
from belljar.base.files import lock_file
from belljar.base.tasks import in_thread, wait_until
from belljar.base.unarchive import ArchiveReader
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.control.store.tables import HEAD
from belljar.model.errors import Conflict, DiskFull, Internal, InvalidArgument, NotSupported
from belljar.model.key import Scope
from belljar.model.workspace import Quota
from belljar.server import restore as module
from belljar.server.restore import restore
from belljar.server.settings import Settings
from belljar.server.state_files import state_files

SNAPSHOT = "sn01a0000000000000001"


def unpacked(data: bytes) -> tuple[dict[str, object], dict[str, bytes], dict[str, object]]:
    """Head, files, end."""
    reader = ArchiveReader(io.BytesIO(data))
    files: dict[str, bytes] = {}
    for member in reader.members():
        files[member.name] = b""
        while piece := member.read(1 << 16):
            files[member.name] += piece
    assert reader.end is not None
    return reader.head, files, reader.end


def made(files: Mapping[str, bytes], *, end: Mapping[str, object] | None = None, **head: object) -> bytes:
    """A backup by somebody who knows the form."""
    said = {"belljar": "1.0", "schema": HEAD, "created": 1.7e9, "content": True, "keys": False} | head
    writer = ArchiveWriter(said, files=len(files), size=sum(map(len, files.values())), at=0.0)
    out = writer.begin()
    for name, content in files.items():
        out += writer.file(name, len(content)) + writer.data(content)
    return out + writer.end({"left_out": {}} if end is None else end)


@pytest.fixture
def database(empty_store: Path) -> bytes:
    return empty_store.read_bytes()


async def test_all_of_it_comes_as_one_archive(front: Front) -> None:
    box = await front.sandbox(name="web")
    kept = (await front.http.post(f"/v1/sandboxes/{box['id']}/snapshots", json={"name": "moment"})).json()
    (front.socket.parent / "config.toml").write_text(
        'port = 1\nstore_key = "secret"\ndatabase = "postgresql://u:hunter2@h/db"\n'
    )
    (front.socket.parent / "key").write_text("bjk_secret")
    answer = await front.http.post("/v1/backup", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zstd")
    head, files, end = unpacked(answer.content)
    assert (head["schema"], head["keys"], head["content"]) == (HEAD, False, True)
    assert set(files) == {"belljar.db", "config.toml", f"snapshots/{kept['id']}/manifest.json"}
    assert b"secret" not in files["config.toml"]
    assert b"hunter2" not in files["config.toml"]
    assert b"port = 1" in files["config.toml"]
    assert (end["left_out"], end["files"]) == ({}, 3)
    _, files, _ = unpacked((await front.http.post("/v1/backup", json={"with_keys": True})).content)
    assert files["key"] == b"bjk_secret"
    assert b"secret" in files["config.toml"]
    assert b"hunter2" not in files["config.toml"], "the store is in the backup, and not where it was"
    assert front.node.backups == 0
    assert [path.name for path in front.socket.parent.glob(".*")] == []


async def test_what_the_node_has_not_is_named(front: Front) -> None:
    box = await front.sandbox()
    kept = (await front.http.post(f"/v1/sandboxes/{box['id']}/snapshots", json={})).json()
    front.node.kept.clear()
    _, _, end = unpacked((await front.http.post("/v1/backup", json={})).content)
    assert end["left_out"] == {kept["id"]: "it is not there"}


async def test_it_is_for_operators_and_audited(front: Front) -> None:
    await front.product.workspaces.make("other", Quota())
    for scope, workspace, status in (
        (Scope.READ, "default", 403),
        (Scope.RUN, "default", 403),
        (Scope.ADMIN, "other", 403),
        (Scope.ADMIN, "default", 200),
    ):
        async with client(front, await key_of(front, scope, workspace)) as http:
            answer = await http.post("/v1/backup", json={})
            assert answer.status_code == status
    unpacked(answer.content)
    entries = [entry async for page in front.product.audit.export("default") for entry in page]
    assert [(entry.route, entry.status) for entry in entries] == [("/v1/backup", status) for status in (403, 403, 200)]


async def test_bad_wishes_are_named(front: Front) -> None:
    for body in ({"content": False}, {"with_keys": "x"}, {"what": 1}):
        answer = await front.http.post("/v1/backup", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), body
    (front.socket.parent / "config.toml").write_text('x = """\nstore_key = "secret"\n"""\n"store_key" = "secret"\n')
    answer = await front.http.post("/v1/backup", json={})
    assert answer.status_code == 400
    assert "secret" not in answer.text
    assert front.node.backups == 0


async def test_there_is_one_at_a_time_and_who_leaves_ends_theirs(front: Front) -> None:
    box = await front.sandbox()
    for _ in range(2):
        await front.http.post(f"/v1/sandboxes/{box['id']}/snapshots", json={})
    front.node.hold = asyncio.Event()
    async with front.http.stream("POST", "/v1/backup", json={}) as answer:
        assert answer.status_code == 200
        assert front.node.backups == 1
        refused = await front.http.post("/v1/backup", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        await front.sandbox(name="meanwhile")  # nobody waits for it

    async def is_over() -> bool:
        return front.node.backups == 0

    assert await wait_until(is_over, timeout=10)
    front.node.hold = None
    _, files, _ = unpacked((await front.http.post("/v1/backup", json={})).content)
    assert len(files) == 3


async def test_who_takes_nothing_does_not_hold_it_for_long(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("belljar.front.native.backup.PATIENCE_SECONDS", 0.3)
    front.node.bulk = random.Random(1).randbytes(16 << 20)
    box = await front.sandbox()
    await front.http.post(f"/v1/sandboxes/{box['id']}/snapshots", json={})
    _, writer = await asyncio.open_unix_connection(str(front.socket), limit=1 << 16)
    writer.write(
        b"POST /v1/backup HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )

    async def has_begun() -> bool:
        return front.node.backups == 1

    async def is_over() -> bool:
        return front.node.backups == 0

    assert await wait_until(has_begun, timeout=10)
    assert await wait_until(is_over, timeout=10)
    writer.close()


async def test_a_restored_directory_has_what_the_backup_had(front: Front, tmp_path: Path) -> None:
    box = await front.sandbox(name="web")
    kept = (await front.http.post(f"/v1/sandboxes/{box['id']}/snapshots", json={"name": "moment"})).json()
    await front.product.keys.make("ci")
    data = (await front.http.post("/v1/backup", json={})).content
    home = tmp_path / "new" / "home"
    done = await in_thread(restore, io.BytesIO(data), home)
    assert (done.found.keys, done.found.snapshots, done.found.lost, done.left_out, done.notes) == (1, 1, 1, {}, ())
    assert {path.name for path in home.iterdir()} == {"belljar.db", "lock", "snapshots"}
    assert (home / "snapshots" / kept["id"] / "manifest.json").read_bytes() == b"kept"
    assert stat.S_IMODE(home.stat().st_mode) == 0o711
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*") if path.is_file()} == {0o600}
    assert [path.name for path in home.parent.iterdir()] == ["home"]
    for again in (home, home / "belljar.db"):
        with pytest.raises(Conflict, match="not an empty folder"):
            await in_thread(restore, io.BytesIO(data), again)


@pytest.mark.parametrize(
    "name",
    [
        "instance", "snapshots.owner", "content/owner", "server.json", "lock", "evil", "sandboxes/sb1/record.json",
        f"snapshots/{SNAPSHOT}/evil", "snapshots/sn1/manifest.json", f"snapshots/{SNAPSHOT}/files/a/b",
        "content/chunks/aa/x", f"content/chunks/{'a' * 64}", "config.toml/x", "artifacts/engine/x",
    ],
)  # fmt: skip
def test_a_backup_brings_nothing_but_what_belongs_into_one(database: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is called"):
        restore(io.BytesIO(made({"belljar.db": database, name: b"x"})), tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_torn_leaves_nothing(database: bytes, tmp_path: Path) -> None:
    whole = made({"belljar.db": database, f"snapshots/{SNAPSHOT}/manifest.json": b"m" * 5000})
    (tmp_path / "home").mkdir()
    for size in (0, 10, 500, len(whole) // 2, len(whole) - 30):
        with pytest.raises(InvalidArgument, match="nothing was changed"):
            restore(io.BytesIO(whole[:size]), tmp_path / "home")
    for bad in (
        made({}),
        made({"config.toml": b""}),
        made({"belljar.db": b"no store" * 1000}),
        made({"belljar.db": database}, end={}),
        made({"belljar.db": database}, end={"left_out": 1}),
    ):
        with pytest.raises((InvalidArgument, Internal)):
            restore(io.BytesIO(bad), tmp_path / "home")
    writer = ArchiveWriter({"schema": HEAD}, files=2, size=2 * len(database), at=0.0)
    twice = writer.begin()
    for _ in range(2):
        twice += writer.file("belljar.db", len(database)) + writer.data(database)
    with pytest.raises(InvalidArgument, match="twice"):
        restore(io.BytesIO(twice + writer.end({"left_out": {}})), tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert restore(io.BytesIO(whole), tmp_path / "home").found.workspaces == 1


def test_one_of_a_newer_release_is_refused(database: bytes, tmp_path: Path) -> None:
    for schema in ("9999", None, 5):
        with pytest.raises(NotSupported, match="newer Belljar"):
            restore(io.BytesIO(made({"belljar.db": database}, schema=schema)), tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_one_of_an_older_release_is_brought_up_to_date(tmp_path: Path) -> None:
    upgrade(Sqlite(tmp_path / "old.db"), to="0001")
    data = made({"belljar.db": (tmp_path / "old.db").read_bytes()}, schema="0001")
    assert restore(io.BytesIO(data), tmp_path / "home").found.workspaces == 1


def test_one_that_says_it_is_huge_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    for files, size in ((1, 1 << 60), (1 << 50, 1)):
        writer = ArchiveWriter({"schema": HEAD}, files=files, size=size, at=0.0)
        with pytest.raises(DiskFull):
            restore(io.BytesIO(writer.begin() + writer.end({})), tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_two_restores_do_not_meet_and_what_a_killed_one_left_is_removed(database: bytes, tmp_path: Path) -> None:
    data = made({"belljar.db": database})
    beside = tmp_path / ".home.restoring"
    (beside / "snapshots").mkdir(parents=True)
    (beside / "snapshots" / "half").write_text("half")
    with lock_file(beside / "lock", about="restore"), pytest.raises(Conflict, match="under way"):
        restore(io.BytesIO(data), tmp_path / "home")
    assert (beside / "snapshots" / "half").exists()
    restore(io.BytesIO(data), tmp_path / "home")
    assert not (tmp_path / "home/snapshots").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_server_that_takes_the_directory_meanwhile_keeps_it(
    database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    def sync() -> None:
        home.mkdir()
        (home / "lock").write_text("1 serve")

    monkeypatch.setattr(module.os, "sync", sync)
    with pytest.raises(Conflict):
        restore(io.BytesIO(made({"belljar.db": database})), home)
    assert [path.name for path in home.iterdir()] == ["lock"]


def test_a_disk_that_is_mounted_there_is_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "home")
    with pytest.raises(Conflict, match="mounted") as refused:
        restore(io.BytesIO(b""), tmp_path / "home")
    assert "BELLJAR_HOME" in str(refused.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(member: object, path: Path) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(DiskFull):
        restore(io.BytesIO(made({"belljar.db": database})), tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_what_is_still_to_be_done_is_said(database: bytes, tmp_path: Path) -> None:
    files = {"belljar.db": database, "store.key": b"k", "config.toml": b'store_url = "s3://b/p"\n'}
    (keys, owner) = restore(io.BytesIO(made(files, content=False)), tmp_path / "one").notes
    assert "store_key_file" in keys
    assert "`owner`" in owner
    files[f"content/chunks/ab/{'ab' * 32}"] = b"x"
    assert "without store_url" in restore(io.BytesIO(made(files)), tmp_path / "two").notes[1]
    end = {"left_out": {"sn1": "\x1b[31mred"}}
    assert restore(io.BytesIO(made(files, end=end)), tmp_path / "three").left_out == {"sn1": "?[31mred"}


def test_keys_of_snapshots_come_from_the_file_or_the_setting(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\ntwo\n")
    settings = Settings(store_key_file=tmp_path / "keys")
    assert state_files(tmp_path, settings, False) == {}
    assert state_files(tmp_path, settings, True) == {"store.key": b"one\ntwo\n"}
    (tmp_path / "keys").unlink()
    with pytest.raises(InvalidArgument, match="gone"):
        state_files(tmp_path, settings, True)
    assert state_files(tmp_path, Settings(store_key="abc"), True) == {"store.key": b"abc\n"}  # type: ignore[arg-type]
    assert state_files(tmp_path, Settings(), True) == {}
