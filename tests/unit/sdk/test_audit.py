"""The audit log as it is carried away, on whole and on broken connections."""

import io
from pathlib import Path

import pytest
from tests.unit.sdk.scripted import ScriptedServer

import belljar
from belljar.model.audit import START, Act, AuditEntry, entries_of, entry_json, entry_line, seal


@pytest.fixture
def made(server: ScriptedServer) -> list[AuditEntry]:
    """What the server has."""
    entries: list[AuditEntry] = []
    for seq in range(1, 41):
        act = Act(
            workspace="default",
            key="key1",
            via="tcp",
            peer="::1",
            method="POST",
            route="/v1/keys",
            target=f"/v1/keys/{seq}",
            status=201,
        )
        entries.append(seal(act, seq=seq, at=1000.0 + seq, prev=entries[-1].hash if entries else START))
    server.audit = [entry_line(entry) for entry in entries]
    return entries


def test_an_export_is_a_file_that_appears_whole_for_its_owner_alone(made: list[AuditEntry], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    assert belljar.AuditLog.export(target) == made[-1]
    assert list(entries_of(target.read_bytes().splitlines())) == made
    assert target.stat().st_mode & 0o077 == 0
    assert belljar.AuditLog.export(str(target), after=38) == made[-1]
    assert list(entries_of(target.read_bytes().splitlines())) == made[38:]
    assert belljar.AuditLog.export(target, after=40) is None
    assert target.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [target]


def test_an_export_goes_on_behind_the_last_whole_line(server: ScriptedServer, made: list[AuditEntry]) -> None:
    server.cuts = [1000, 0, 5, 3333, len(server.audit[0])]
    target = io.BytesIO()
    assert belljar.AuditLog.export(target) == made[-1]
    assert target.getvalue() == b"".join(server.audit)
    asked = [int(query["after"]) for _, path, query in server.requests if path == "/v1/audit/export"]
    assert len(asked) == 6
    assert asked == sorted(asked)
    assert asked[0] == 0


def test_a_file_that_cannot_be_written_leaves_nothing_behind(made: list[AuditEntry], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        belljar.AuditLog.export(tmp_path / "no" / "a.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        belljar.AuditLog.export(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_list_goes_over_its_pages_and_ends_where_it_should(server: ScriptedServer, made: list[AuditEntry]) -> None:
    pages = [
        {"items": [entry_json(made[2]) | {"of a later release": 1}, entry_json(made[1])], "next": 2},
        {"items": [entry_json(made[0])], "next": None},
    ] * 2
    server.answers["GET", "/v1/audit"] = lambda: (200, pages.pop(0))
    assert list(belljar.AuditLog.list(since=5.0)) == [made[2], made[1], made[0]]
    assert [query for _, _, query in server.requests] == [
        {"limit": "100", "since": "5.0"},
        {"limit": "100", "cursor": "2", "since": "5.0"},
    ]
    assert list(belljar.AuditLog.list(limit=2)) == [made[2], made[1]]
