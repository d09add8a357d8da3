"""Parts of the image `code` that need no machine: its list, its kernels, what pip sees of Debian's packages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from belljar.model.errors import Error
from belljar.node.image.code import LOCK
from belljar.node.image.kernels import KERNELS
from belljar.node.image.python import let_pip_replace
from belljar.node.image.tree import flatten, make_folder, put_file, special_modes
from belljar.node.image.wheels import locked


def test_every_package_of_the_list_is_there_by_version_and_digest() -> None:
    text = LOCK.read_text()
    entries = re.split(r"\n(?=[a-z])", text[text.index("\n", text.index("scripts/lock")) + 1 :])
    assert len(entries) == len(locked(text)) > 40
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_the_list_has_all_that_the_image_promises() -> None:
    wanted = {line for line in LOCK.with_suffix(".in").read_text().splitlines() if line and not line.startswith("#")}
    names = {line.partition("==")[0] for line in locked(LOCK.read_text())}
    assert wanted <= names
    assert {"ipython", "numpy", "pandas", "matplotlib", "pillow", "scikit-learn", "requests"} <= wanted


def test_the_specs_of_kernels_are_whole() -> None:
    specs = {name: json.loads(text) for name, text in KERNELS.items() if name.endswith(".json")}
    assert {spec["language"] for spec in specs.values()} == {"bash", "typescript"}
    assert all("{connection_file}" in spec["argv"] for spec in specs.values())
    for name, text in KERNELS.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_what_a_server_puts_into_a_tree_is_for_everybody(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        put_file(tmp_path, "usr/share/kernels/bash/start.py", "pass")
        make_folder(tmp_path, "home/user/.cache")
        (info := make_folder(tmp_path, "packages/thing.dist-info")).joinpath("METADATA").touch()
        let_pip_replace(tmp_path / "packages")
    finally:
        os.umask(before)
    made = ("usr", "usr/share/kernels/bash", "usr/share/kernels/bash/start.py", "home/user/.cache")
    modes = [oct((tmp_path / name).stat().st_mode & 0o777) for name in made]
    assert modes == ["0o755", "0o755", "0o644", "0o755"]
    assert (info / "RECORD").stat().st_mode & 0o777 == 0o644


def test_pip_may_replace_what_debian_installed(tmp_path: Path) -> None:
    info = tmp_path / "thing-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (info / "INSTALLER").write_text("debian\n")
    (tmp_path / "own-1.dist-info").mkdir()
    (tmp_path / "own-1.dist-info/RECORD").write_text("own.py,,\n")
    let_pip_replace(tmp_path)
    look = "import importlib.metadata as m, sys; print(*sorted(map(str, m.Distribution.at(sys.argv[1]).files)))"
    said = subprocess.run([sys.executable, "-c", look, str(info)], capture_output=True, text=True, check=True).stdout
    assert said.split() == [f"thing-1.dist-info/{name}" for name in ("INSTALLER", "METADATA", "RECORD")]
    assert (tmp_path / "own-1.dist-info/RECORD").read_text() == "own.py,,\n"


def test_files_that_act_as_their_owner_are_written_down(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/plain").write_text("")
    (tmp_path / "bin/sudo").write_text("")
    (tmp_path / "bin/sudo").chmod(0o4755)
    (tmp_path / "bin/link").symlink_to("sudo")
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail").chmod(0o2775)
    assert special_modes(tmp_path) == {"bin/sudo": 0o4755, "mail": 0o2775}


async def test_an_image_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(Error, match="cannot be written"):
        await flatten(tmp_path / "not there", tmp_path / "image", date=0)
