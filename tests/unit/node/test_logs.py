"""What is kept of ended sandboxes: as it was, for its time, within its room, and never a path of somebody's choice."""

import os
import time
from pathlib import Path

import pytest

from belljar.base.ids import new_id
from belljar.model.errors import NotFound
from belljar.model.process import ProcessInfo, StreamState, Tail
from belljar.node import logs as module
from belljar.node.logs import Logs
from belljar.node.storage.keys import Key, Keys

ANY = bytes(range(256))


def tail(data: bytes = ANY) -> Tail:
    known = ProcessInfo(
        7, 42, ("sh", "-c", "\udcff\n\x1b"), "root", 1.5, returncode=-9, ended=2.5, stdout=StreamState(1, 2, 3, True)
    )
    return Tail(known, False, data, data[::-1])


def test_bytes_of_any_kind_come_back(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", days=1, size=1 << 20)
    id = new_id("sb")
    said = tail()
    logs.keep(id, [said, said])
    assert logs.read(id) == [said, said]
    logs.keep(id, [])
    assert logs.read(id) == []
    (file,) = (tmp_path / "logs").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_with_a_key_nothing_of_it_lies_there_as_it_is(tmp_path: Path) -> None:
    key, other = Key.of(os.urandom(32)), Key.of(os.urandom(32))
    logs = Logs(tmp_path / "logs", days=1, size=1 << 20, keys=Keys((key,)))
    id, said = new_id("sb"), tail(b"a secret of many letters")
    logs.keep(id, [said])
    (file,) = (tmp_path / "logs").iterdir()
    for plain in (b"secret of many", b"root", b"argv", b"YSBzZWNyZXQ"):
        assert plain not in file.read_bytes()
    assert logs.read(id) == [said]
    assert Logs(tmp_path / "logs", days=1, size=1 << 20, keys=Keys((other, key))).read(id) == [said], "an older key"
    another = new_id("sb")
    file.rename(file.with_name(f"{another}.json"))
    for keys, name in ((Keys((other,)), id), (Keys(), another), (Keys((key,)), another)):
        with pytest.raises(NotFound):
            Logs(tmp_path / "logs", days=1, size=1 << 20, keys=keys).read(name)


@pytest.mark.parametrize("id", ["../secret", "", "/etc/passwd", "sb", "sb\0", "x" * 5000, "sb../../../../etc/pa"])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, id: str) -> None:
    (tmp_path / "secret.json").write_text("[]")
    with pytest.raises(NotFound, match="not kept any more"):
        Logs(tmp_path / "logs", days=1, size=1 << 20).read(id)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'[{"process": 1}]', b"[" * 100_000, b'[{"stdout": "!"}]', b"\xff"]
)
def test_a_file_that_is_torn_is_one_that_is_gone(tmp_path: Path, content: bytes) -> None:
    logs = Logs(tmp_path / "logs", days=1, size=1 << 20)
    id = new_id("sb")
    logs.keep(id, [])
    (tmp_path / "logs" / f"{id}.json").write_bytes(content)
    with pytest.raises(NotFound):
        logs.read(id)


def test_what_is_old_goes_and_then_the_oldest_until_there_is_room(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", days=2, size=20_000)
    ids = [new_id("sb") for _ in range(10)]
    for number, id in enumerate(ids):
        logs.keep(id, [tail(b"x" * 3000)])
        at = time.time() - (3 * 86400 if number < 2 else 1000 - number)
        os.utime(tmp_path / "logs" / f"{id}.json", (at, at))
    (tmp_path / "logs" / ".x.json.1.tmp").write_bytes(b"half")
    os.utime(tmp_path / "logs" / ".x.json.1.tmp", (1, 1))
    assert logs.prune() >= 4
    left = {path.stem for path in (tmp_path / "logs").iterdir()}
    assert left == set(ids[-len(left) :])
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 20_000
    assert logs.prune() == 0


def test_a_busy_server_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EACH", 4)
    logs = Logs(tmp_path / "logs", days=1, size=30_000)
    for _ in range(40):
        logs.keep(new_id("sb"), [tail(b"x" * 3000)])
    assert len(list((tmp_path / "logs").iterdir())) <= 3 + 4


def test_switched_off_nothing_is_written(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", days=0, size=1 << 20)
    logs.keep(new_id("sb"), [tail()])
    assert not (tmp_path / "logs").exists()
    assert logs.prune() == 0
