import io
import subprocess
import sys
from pathlib import Path

import pytest

from belljar.model.errors import InvalidArgument
from belljar.node.engine.gvisor.golang import go_environment
from belljar.node.guest.elf import interpreter_of, libraries_of
from belljar.node.image import debian
from belljar.node.image.debian import installed_packages, mirror_lines
from belljar.node.image.overlay import FILES
from belljar.node.progress import PlainProgress, size_text
from belljar.node.sources import agent_sources, digest_tree, engine_sources, wire_sources
from belljar.node.trust import host_ca_bundle


def test_libraries_of_a_program_are_those_the_loader_takes() -> None:
    shell = Path("/bin/sh").resolve()
    loaded = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    assert libraries_of(shell)
    assert all(name in loaded for name in libraries_of(shell))
    assert Path(interpreter_of(shell)).exists()


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    with pytest.raises(InvalidArgument, match="no 64-bit"):
        libraries_of(tmp_path / "text")


def test_the_digest_of_sources_sees_names_and_contents_but_not_compiled_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = digest_tree(tmp_path, ("*.py",))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/b.py").write_text("2")
    (tmp_path / "notes.md").write_text("3")
    assert digest_tree(tmp_path, ("*.py",)) == first
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    renamed = digest_tree(tmp_path, ("*.py",))
    (tmp_path / "c.py").write_text("2")
    assert len({first, renamed, digest_tree(tmp_path, ("*.py",))}) == 3


def test_the_sources_are_found_in_a_checkout() -> None:
    assert (engine_sources() / "go.sum").is_file()
    assert (agent_sources() / "belljar_agent/__init__.py").is_file()
    assert (wire_sources() / "frames.py").is_file()


def test_a_go_build_ignores_the_users_go_settings_except_where_modules_come_from() -> None:
    env = go_environment(
        {"GOFLAGS": "-mod=mod", "GOARCH": "s390x", "CGO_ENABLED": "1", "GOPROXY": "file:///x", "PATH": "/bin"}
    )
    assert env["GOFLAGS"] == "-mod=readonly"
    assert env["CGO_ENABLED"] == "0"
    assert env["GOTOOLCHAIN"] == "local"
    assert env["GOPROXY"] == "file:///x"
    assert "GOARCH" not in env
    assert env["HOME"]


async def test_a_mirror_of_choice_is_taken_as_it_is() -> None:
    lines = await mirror_lines({"BELLJAR_DEBIAN_MIRROR": "http://mirror.example/debian"})
    assert lines[0] == "deb http://mirror.example/debian trixie main"


TARGETS = """\
http://mirror.example/debian/ bookworm Debian
http://mirror.example/debian/ bookworm-updates Debian
http://security.example/debian-security/ bookworm-security Debian
http://other.example/ubuntu/ noble Ubuntu
http://tools.example/apt/ nodistro
"""


def test_the_hosts_own_mirror_is_taken_whether_its_lists_were_fetched_or_not() -> None:
    lines = [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://mirror.example/debian/ trixie-updates main",
        "deb http://security.example/debian-security/ trixie-security main",
    ]
    assert debian._lines_of(TARGETS) == lines  # pyright: ignore[reportPrivateUsage]
    assert debian._lines_of(TARGETS.replace(" Debian", " ")) == lines  # pyright: ignore[reportPrivateUsage]
    assert debian._lines_of("http://other.example/ubuntu/ noble Ubuntu\n") == []  # pyright: ignore[reportPrivateUsage]


def test_packages_come_from_the_trees_records_or_from_its_archives(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/cache/apt/archives").mkdir(parents=True)
    (tmp_path / "var/cache/apt/archives/zlib1g_1%3a1.3_amd64.deb").touch()
    (tmp_path / "var/lib/dpkg/status").touch()
    assert installed_packages(tmp_path) == ["zlib1g 1:1.3"]
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: b\nStatus: install ok installed\nVersion: 2\n\nPackage: a\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert installed_packages(tmp_path) == ["b 2"]


def test_the_hosts_ca_bundle_is_the_one_its_environment_names(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("pem")
    assert host_ca_bundle({"SSL_CERT_FILE": str(tmp_path / "ca.pem")}) == tmp_path / "ca.pem"
    assert host_ca_bundle({"SSL_CERT_FILE": str(tmp_path / "none")}) != tmp_path / "none"


def test_the_login_profile_starts_no_process_and_keeps_a_given_path(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    profile.write_text(FILES["etc/profile"][1])
    # Every program that it would look for is missing, so that a started one would fail.
    for shell in ("bash", "dash"):
        done = subprocess.run(
            [f"/bin/{shell}", "-euc", f". {profile}; echo $PATH"],
            env={"PATH": "/none", "HOME": str(tmp_path)},
            capture_output=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"/none\n", b"")
    (tmp_path / ".local/bin").mkdir(parents=True)
    done = subprocess.run(
        ["/bin/bash", "-uc", f". {profile}; . {profile}; echo $PATH"],
        env={"PATH": "/none", "HOME": str(tmp_path)},
        capture_output=True,
    )
    assert done.stdout.decode() == f"{tmp_path}/.local/bin:/none\n"


def test_progress_lines_say_seconds_and_downloads_and_failures() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    with progress.step("engine") as step:
        step.say("building")
        step.downloaded("3 modules (1.0 MB)")
    with pytest.raises(OSError, match="full"), progress.step("image"):
        raise OSError("full")
    with pytest.raises(KeyboardInterrupt), progress.step("runtime"):
        raise KeyboardInterrupt
    lines = stream.getvalue().splitlines()
    assert lines[0] == "engine: building …"
    assert lines[1].startswith("engine: done in 0.")
    assert lines[1].endswith("downloaded 3 modules (1.0 MB)")
    assert lines[2].startswith("image: failed after")
    assert lines[3].startswith("runtime: stopped after")


def test_sizes_are_for_people() -> None:
    assert (size_text(33_000_000), size_text(1_500_000_000)) == ("33.0 MB", "1.50 GB")


def test_setup_without_root_says_the_command_to_run() -> None:
    program = "import os; os.geteuid = lambda: 1000; import sys; from belljar.node.setup import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sudo belljar setup" in done.stderr
