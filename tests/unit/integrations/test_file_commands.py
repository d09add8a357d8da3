"""The scripts for files, in this machine's own shells."""

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from belljar import CompletedProcess
from belljar.integrations import file_commands as commands
from belljar.integrations.file_commands import Entry, FileCommand

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
MIB = 1 << 20


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return request.param


def run(command: FileCommand[Any], shell: str = "dash", *, user: int | None = None) -> Any:
    words = [shutil.which(shell) or shell, *(["sh"] if shell == "busybox" else []), *command.argv[1:]]
    done = subprocess.run(
        words, input=command.input or b"", capture_output=True, user=user, group=user, cwd="/", timeout=20, check=False
    )
    return command.result(CompletedProcess(command.argv, done.returncode, done.stdout, done.stderr, 0.0))


def number(command: FileCommand[Any], shell: str = "dash", *, user: int | None = None) -> str:
    """The name of the error that it ends with."""
    with pytest.raises(OSError) as caught:
        run(command, shell, user=user)
    return errno.errorcode[caught.value.errno or 0]


def test_bytes_come_back_as_they_were_written(tmp_path: Path, shell: str) -> None:
    path = str(tmp_path / "a" / "b c" / "-strange\n")
    data = bytes(range(256)) * 5000
    run(commands.write_command(path, data), shell)
    assert run(commands.read_command(path, most=2 * MIB), shell) == data
    run(commands.write_command(path, b""), shell)
    assert run(commands.read_command(path, most=2 * MIB), shell) == b""


def test_a_write_keeps_the_mode_and_goes_through_a_link(tmp_path: Path, shell: str) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o751)
    (tmp_path / "link").symlink_to("target")
    run(commands.write_command(str(tmp_path / "link"), b"new"), shell)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o751
    assert (tmp_path / "link").is_symlink()


def test_each_refusal_has_its_own_error(tmp_path: Path, shell: str) -> None:
    (tmp_path / "file").write_text("12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    missing, file, pipe = (str(tmp_path / name) for name in ("missing", "file", "pipe"))
    assert number(commands.read_command(missing, most=MIB), shell) == "ENOENT"
    assert number(commands.read_command(f"{missing}/below", most=MIB), shell) == "ENOENT"
    assert number(commands.read_command(f"{file}/below", most=MIB), shell) == "ENOTDIR"
    assert number(commands.read_command(str(tmp_path), most=MIB), shell) == "EISDIR"
    assert number(commands.read_command(pipe, most=MIB), shell) == "EINVAL"
    assert number(commands.read_command(file, most=4), shell) == "EFBIG"
    assert number(commands.write_command(str(tmp_path), b"x"), shell) == "EISDIR"
    assert number(commands.write_command(pipe, b"x"), shell) == "EINVAL"
    assert number(commands.write_command(f"{file}/below", b"x"), shell) == "ENOTDIR"
    assert number(commands.write_command(f"{file}/below/it", b"x"), shell) == "ENOTDIR"
    assert number(commands.list_command(file), shell) == "ENOTDIR"
    assert number(commands.list_command(missing), shell) == "ENOENT"
    assert number(commands.stat_command(missing), shell) == "ENOENT"
    assert number(commands.make_dir_command(file), shell) == "EEXIST"
    assert number(commands.make_dir_command(f"{file}/below"), shell) == "ENOTDIR"
    assert number(commands.remove_command(missing), shell) == "ENOENT"
    assert number(commands.realpath_command(str(tmp_path / "loop" / "x")), shell) == "ELOOP"


def test_what_the_user_may_not_do_is_refused(shell: str) -> None:
    nobody = 65534 if os.geteuid() == 0 else None  # to root nothing is closed
    top = Path("/tmp") / f"belljar-files-{os.getpid()}-{shell}"
    top.mkdir()
    try:
        (top / "secret").write_text("x")
        (top / "closed").mkdir()
        (top / "closed" / "inside").write_text("x")
        (top / "secret").chmod(0)
        (top / "closed").chmod(0)
        top.chmod(0o555)
        for path in ("secret", "closed/inside"):
            assert number(commands.read_command(str(top / path), most=MIB), shell, user=nobody) == "EACCES"
        for path in ("secret", "closed/new", "new", "deep/new"):
            assert number(commands.write_command(str(top / path), b"x"), shell, user=nobody) == "EACCES"
        assert number(commands.make_dir_command(str(top / "new")), shell, user=nobody) == "EACCES"
        assert number(commands.list_command(str(top / "closed")), shell, user=nobody) == "EACCES"
    finally:
        top.chmod(0o755)
        (top / "closed").chmod(0o755)
        shutil.rmtree(top)


def test_a_directory_is_listed_whatever_its_names_are(tmp_path: Path, shell: str) -> None:
    names = [b" ", b"-n", b".hidden", b"..two", b"line\nend\n", b"\xff\xfe", b"*", b"z"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "to folder").symlink_to("folder")
    (tmp_path / "to nothing").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    wanted = dict.fromkeys(names, False) | {
        b"folder": True,
        b"to folder": True,
        b"to nothing": False,
        b"loop": False,
    }
    entries = run(commands.list_command(str(tmp_path)), shell)
    assert entries == [Entry(name, is_dir) for name, is_dir in sorted(wanted.items())]
    assert run(commands.list_command(str(tmp_path / "folder")), shell) == []


def test_stat_tells_kind_and_size(tmp_path: Path, shell: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1234)
    assert run(commands.stat_command(str(tmp_path / "file")), shell) == Entry(b"file", False, 1234)
    assert run(commands.stat_command(f"{tmp_path}/"), shell) == Entry(os.fsencode(tmp_path.name), True)
    assert run(commands.stat_command("/"), shell) == Entry(b"/", True)


def test_directories_are_made_and_trees_removed(tmp_path: Path, shell: str) -> None:
    for _ in range(2):
        run(commands.make_dir_command(str(tmp_path / "a" / "b")), shell)
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "link").symlink_to("a")
    run(commands.remove_command(str(tmp_path / "link")), shell)
    assert (tmp_path / "a" / "b").is_dir()
    run(commands.remove_command(str(tmp_path / "a")), shell)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["a/rel/missing", "a/up/missing", "a/rel/..", "a/up/..", "a/./b//x", "nl/x", "../..", ""]
)
def test_real_paths_are_those_of_python(path: str, tmp_path: Path, shell: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "rel").symlink_to("b")
    (tmp_path / "a" / "up").symlink_to("../out")
    (tmp_path / "nl").symlink_to("end\n")
    asked = f"{tmp_path}/{path}"
    assert run(commands.realpath_command(asked), shell) == os.path.realpath(asked)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused_before_anything_runs(path: str) -> None:
    with pytest.raises(OSError, match="NUL"):
        commands.read_command(path, most=1)


def test_a_tool_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        (tmp_path / "loop").symlink_to("loop")
        run(commands.write_command(str(tmp_path / "loop"), b"x"))
