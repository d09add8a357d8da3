"""Names on the host, and the folder that all instances share."""

import os
import stat
from pathlib import Path

import pytest

from belljar.model.errors import PermissionDenied
from belljar.node.instance import Instance, instance_of


def test_a_state_directory_keeps_its_id(tmp_path: Path) -> None:
    first, again, other = instance_of(tmp_path / "a"), instance_of(tmp_path / "a"), instance_of(tmp_path / "b")
    assert first == again and first.id != other.id
    (tmp_path / "a" / "instance").write_text("../../etc")
    with pytest.raises(ValueError, match="instance id"):
        instance_of(tmp_path / "a")


def test_names_fit_what_the_kernel_takes(tmp_path: Path) -> None:
    instance = instance_of(tmp_path / "a")
    for name in instance.link(16383):
        assert len(name) <= 15
    assert len(set(instance.link(1) + instance.link(2))) == 4


def test_the_run_folder_is_closed_and_the_one_above_can_be_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.instance._RUN", tmp_path / "run" / "belljar")
    instance = Instance("abcdef", tmp_path)
    before = os.umask(0o077)
    try:
        instance.make_run()
        instance.make_run()
    finally:
        os.umask(before)
    assert stat.S_IMODE(instance.run.stat().st_mode) == 0o700
    assert stat.S_IMODE(instance.run.parent.stat().st_mode) == 0o755


def test_somebody_elses_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("belljar.node.instance._RUN", tmp_path / "belljar")
    (tmp_path / "belljar").mkdir()
    monkeypatch.setattr("belljar.node.instance.os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionDenied, match="another user"):
        Instance("abcdef", tmp_path).make_run()
