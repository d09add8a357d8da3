import datetime
import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from belljar.model.errors import EngineFailed, InvalidArgument, NotFound, NotSupported
from belljar.node.artifacts import Store
from belljar.node.engine.gvisor import archive
from belljar.node.engine.gvisor.archive import given_archive, given_program
from belljar.node.engine.gvisor.build import engine_build, find_or_build_engine, kernels_may_enter, program_version
from belljar.node.engine.gvisor.mkelf import prewarmer
from belljar.node.engine.gvisor.versions import check_version, parse_version, source_date
from belljar.node.engine.gvisor.wheel import write_wheel

GOOD = "release-20260914.0"


def fake_runsc(version: str = GOOD) -> bytes:
    return f'#!/bin/sh\necho "runsc version {version}"\necho "spec: 1.2.1"\n'.encode()


def engine_folder(folder: Path, version: str = GOOD) -> Path:
    (folder / "gvisor-bin").mkdir(parents=True)
    for name, data in (("runsc", fake_runsc(version)), ("gvisor-bin/gvisor_sentry", b"sentry")):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("version", "date"),
    [
        ("release-20260914.0", datetime.date(2026, 9, 14)),
        ("belljar-20260905035102", datetime.date(2026, 9, 5)),
        ("release-20240729.0-12-gabc", datetime.date(2024, 7, 29)),
        ("0.0~20240729.0", datetime.date(2024, 7, 29)),
        ("VERSION_MISSING", None),
        ("release-20269999.0", None),
        ("1.2.3", None),
    ],
)
def test_a_version_tells_the_day_of_its_sources(version: str, date: datetime.date | None) -> None:
    assert source_date(version) == date


@pytest.mark.parametrize("version", ["release-20260818.0", GOOD, "belljar-20260905035102"])
def test_a_build_after_the_last_fix_is_taken(version: str) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("release-20260817.0", "CVE-2026-96812"),
        ("release-20240729.0", "fixed on 2026-08-17"),
        ("VERSION_MISSING", "does not say from which day"),
    ],
)
def test_a_build_with_holes_is_refused_with_the_reason(version: str, reason: str) -> None:
    with pytest.raises(NotSupported, match=reason) as refused:
        check_version(version)
    assert "BELLJAR_RUNSC" in (refused.value.hint or "")


def test_a_program_that_is_no_runsc_is_refused() -> None:
    with pytest.raises(NotSupported, match="does not speak like runsc"):
        parse_version("GNU bash, version 5")


async def test_a_program_that_does_not_run_is_an_engine_failure(tmp_path: Path) -> None:
    (tmp_path / "runsc").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "runsc").chmod(0o755)
    with pytest.raises(EngineFailed, match="exit status 3"):
        await program_version(tmp_path / "runsc")


def test_a_given_program_brings_what_lies_beside_it(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path / "engine")
    assert set(given_program(folder / "runsc")) == {"runsc", "gvisor-bin/gvisor_sentry"}
    with pytest.raises(InvalidArgument, match="no program"):
        given_program(tmp_path / "none")
    (folder / "runsc").chmod(0o644)
    with pytest.raises(InvalidArgument, match="no program"):
        given_program(folder / "runsc")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, data in members.items():
                opened.writestr(name, data)
        return path
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


MEMBERS = {"release/runsc": fake_runsc(), "release/gvisor-bin/gvisor_sentry": b"sentry", "../../escape": b"x"}


@pytest.mark.parametrize("name", ["gvisor.tar.gz", "gvisor.tar.xz", "gvisor.zip"])
@pytest.mark.parametrize("kind", ["sha512", "sha256"])
def test_an_archive_with_a_good_checksum_gives_its_programs_only(tmp_path: Path, name: str, kind: str) -> None:
    packed = pack(tmp_path / name, MEMBERS)
    digest = hashlib.new(kind, packed.read_bytes()).hexdigest()
    packed.with_name(f"{name}.{kind}").write_text(f"{digest}  {name}\n")
    assert given_archive(packed) == {"runsc": fake_runsc(), "gvisor-bin/gvisor_sentry": b"sentry"}


def test_an_archive_is_refused_without_a_checksum_or_with_a_wrong_one(tmp_path: Path) -> None:
    packed = pack(tmp_path / "gvisor.tar.gz", MEMBERS)
    with pytest.raises(InvalidArgument, match="without a checksum"):
        given_archive(packed)
    (tmp_path / "SHA512SUMS").write_text(f"{'0' * 128}  other.tar.gz\n")
    with pytest.raises(InvalidArgument, match="without a checksum"):
        given_archive(packed)
    (tmp_path / "SHA512SUMS").write_text(f"{'0' * 128} *gvisor.tar.gz\n")
    with pytest.raises(InvalidArgument, match="does not have the sha512"):
        given_archive(packed)


def test_a_release_folder_needs_a_checksum_for_every_file_taken(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path / "release")
    sums = {
        name: hashlib.sha512((folder / name).read_bytes()).hexdigest() for name in ("runsc", "gvisor-bin/gvisor_sentry")
    }
    (folder / "runsc.sha512").write_text(f"{sums['runsc']}  runsc\n")
    with pytest.raises(InvalidArgument, match="gvisor_sentry comes without"):
        given_archive(folder)
    (folder / "gvisor-bin/gvisor_sentry.sha512").write_text(f"{sums['gvisor-bin/gvisor_sentry']}  gvisor_sentry\n")
    assert set(given_archive(folder)) == set(sums)


def test_junk_and_archives_without_a_runsc_are_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk.tar.gz"
    junk.write_bytes(os.urandom(1000))
    junk.with_name("junk.tar.gz.sha256").write_text(hashlib.sha256(junk.read_bytes()).hexdigest())
    with pytest.raises(InvalidArgument, match="no archive that can be read"):
        given_archive(junk)
    empty = pack(tmp_path / "empty.zip", {"readme": b""})
    empty.with_name("empty.zip.sha256").write_text(hashlib.sha256(empty.read_bytes()).hexdigest())
    with pytest.raises(InvalidArgument, match="holds no runsc"):
        given_archive(empty)
    with pytest.raises(InvalidArgument, match="there is no archive"):
        given_archive(tmp_path / "none.tar")


async def test_a_given_runsc_is_copied_into_the_store(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path / "engine")
    store = Store(tmp_path / "cache")
    made = await find_or_build_engine(store, environ={"BELLJAR_RUNSC": str(folder / "runsc")})
    build = engine_build(made)
    assert (build.version, build.one_file, build.own) == (GOOD, False, False)
    assert build.runsc.read_bytes() == fake_runsc()
    assert build.runsc.is_relative_to(store.root)


async def test_a_given_archive_is_copied_into_the_store(tmp_path: Path) -> None:
    packed = pack(tmp_path / "gvisor.tar.gz", {"runsc": fake_runsc()})
    packed.with_name("gvisor.tar.gz.sha512").write_text(hashlib.sha512(packed.read_bytes()).hexdigest())
    made = await find_or_build_engine(Store(tmp_path / "cache"), environ={"BELLJAR_ENGINE_ARCHIVE": str(packed)})
    build = engine_build(made)
    assert build.one_file
    assert os.access(build.runsc, os.X_OK)


async def test_a_given_runsc_with_holes_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path / "engine", "release-20240729.0")
    store = Store(tmp_path / "cache")
    with pytest.raises(NotSupported, match="CVE-2026-96812"):
        await find_or_build_engine(store, environ={"BELLJAR_RUNSC": str(folder / "runsc")})
    assert store.list("engine") == []


def test_a_kernel_which_is_nobody_has_to_reach_its_engine(tmp_path: Path) -> None:
    folder = tmp_path / "open/engine"
    folder.mkdir(parents=True)
    open_above = kernels_may_enter(tmp_path)
    assert kernels_may_enter(folder) == open_above
    (tmp_path / "open").chmod(0o700)
    assert not kernels_may_enter(folder)
    assert kernels_may_enter(Path("/usr/bin"))


async def test_an_artifact_without_a_version_is_no_engine(tmp_path: Path) -> None:
    async def build(folder: Path) -> None:
        (folder / "runsc").write_bytes(fake_runsc())

    made = await Store(tmp_path).make("engine", {}, build)
    with pytest.raises(NotFound):
        engine_build(made)


async def test_a_wheel_is_written_installed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(engine_folder(tmp_path / "engine"), tmp_path / "out")
    assert wheel.name.startswith("belljar_engine-2026.9.14.0-py3-none-manylinux")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        record = opened.read(next(name for name in names if name.endswith("/RECORD"))).decode()
        assert {line.split(",")[0] for line in record.splitlines()} == names
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in opened.infolist()}
        opened.extractall(tmp_path / "site")
    assert modes["belljar_engine/runsc"] == 0o755
    # What an installer does beside unpacking.
    for name in ("runsc", "gvisor-bin/gvisor_sentry"):
        (tmp_path / "site/belljar_engine" / name).chmod(0o755)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert archive.wheel_folder() == tmp_path / "site/belljar_engine"
    made = await find_or_build_engine(Store(tmp_path / "cache"), environ={})
    assert engine_build(made).version == GOOD


def test_no_wheel_is_made_of_a_build_with_holes(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="CVE-2026-96812"):
        write_wheel(engine_folder(tmp_path / "engine", "release-20240729.0"), tmp_path)


def test_the_start_helper_runs_its_argument_with_the_rest(tmp_path: Path) -> None:
    program = prewarmer(platform.machine())
    assert program is not None
    helper = tmp_path / "helper"
    helper.write_bytes(program)
    helper.chmod(0o755)
    code = "import sys,os; print(sys.argv[1:], os.environ['X'], os.path.exists('/proc/self/fd/255'))"
    done = subprocess.run(
        [helper, sys.executable, "python", "-c", code, "a b", ""], env={"X": "1"}, capture_output=True, check=True
    )
    assert done.stdout == b"['a b', ''] 1 False\n"
    assert subprocess.run([helper], check=False).returncode == 1
    assert subprocess.run([helper, "/nonexistent", "x"], check=False).returncode == 127
    table = subprocess.run([helper, "/bin/cat", "cat", "/proc/self/status"], capture_output=True, check=True).stdout
    assert b"FDSize:\t256" in table


def test_the_start_helper_of_the_other_machine_has_the_same_calls() -> None:
    program = prewarmer("aarch64")
    assert program is not None
    words = [int.from_bytes(program[at : at + 4], "little") for at in range(120, len(program), 4)]
    calls = [word >> 5 & 0xFFFF for word in words if word & 0xFFE0001F == 0xD2800008]  # movz x8, number
    assert calls == [25, 57, 221, 94]  # fcntl, close, execve, exit_group
    assert words.count(0xD4000001) == 4  # svc 0
    assert prewarmer("riscv64") is None
