"""The SDK over a whole server with real processes: what scripted servers cannot show."""

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

import belljar
from belljar.base.home import read_server_file


def test_a_sandbox_is_made_found_changed_and_ended(home: Path) -> None:
    with belljar.Sandbox.create(name="full", labels={"a": "b"}, lifetime="2h", memory="512MiB") as sandbox:
        info = sandbox.info()
        assert (info.memory, info.lifetime, info.labels, info.name) == (512 << 20, 7200.0, {"a": "b"}, "full")
        assert belljar.Sandbox.get("full").id == sandbox.id
        assert [one.id for one in belljar.Sandbox.list(labels={"a": "b"})] == [sandbox.id]
        with pytest.raises(belljar.AlreadyExists):
            belljar.Sandbox.create(name="full")
        assert sandbox.update(labels={"c": "d"}, lifetime=None).expires is None
        assert sandbox.info().labels == {"c": "d"}
        assert sandbox.stats().memory_limit == 512 << 20
        more = sandbox.update(memory="1GiB", cpu=0.5, pids=64)
        assert (more.memory, more.cpu, more.pids, sandbox.stats().memory_limit) == (1 << 30, 0.5, 64, 1 << 30)
        with pytest.raises(belljar.NotSupported, match="disk"):
            sandbox.update(disk="1GiB")
        with pytest.raises(belljar.InvalidArgument):
            sandbox.update(memory="lots")
        assert (info.idle, sandbox.update(idle="5m").idle, sandbox.update(idle=None).idle) == (None, 300.0, None)
    assert sandbox.status == "terminated"
    assert sandbox.ended is not None
    sandbox.terminate()
    with pytest.raises(belljar.SandboxGone):
        sandbox.run("true")


def test_the_same_key_gives_the_same_sandbox(home: Path) -> None:
    first = belljar.Sandbox.create(idempotency_key="k1")
    assert belljar.Sandbox.create(idempotency_key="k1").id == first.id
    first.terminate()


@pytest.mark.parametrize(
    "bad",
    [{"memory": "lots"}, {"name": "No!"}, {"lifetime": "soon"}, {"env": {"a b": "c"}}, {"image": ""}, {"cpu": -1}],
)
def test_a_bad_value_is_an_error_that_names_it(home: Path, bad: dict[str, object]) -> None:
    with pytest.raises(belljar.Error):
        belljar.Sandbox.create(**bad)  # pyright: ignore[reportArgumentType]


def test_a_command_has_its_folder_its_variables_and_its_input(sandbox: belljar.Sandbox) -> None:
    sandbox.path("sub").mkdir()
    done = sandbox.run('basename "$PWD"; echo "$A"; cat', cwd="/sub", env={"A": "é"}, input="in")
    assert done.stdout == "sub\né\nin"
    with pytest.raises(belljar.NotFound):
        sandbox.run("true", cwd="/nonono")
    with pytest.raises(belljar.NotFound):
        sandbox.run(["nonono"])
    assert sandbox.run("true", input=bytes(5 << 20)).returncode == 0


def test_a_timeout_leaves_no_child_behind(sandbox: belljar.Sandbox) -> None:
    mark = f"{1000 + os.getpid()}.25"
    with pytest.raises(belljar.ProcessTimeout) as caught:
        sandbox.run(f"sleep {mark} & echo up; wait", timeout=1)
    assert caught.value.stdout == "up\n"
    assert sandbox.run(["pgrep", "-f", f"^sleep {mark}"]).returncode == 1


def test_large_streams_flow_both_ways_at_once(sandbox: belljar.Sandbox) -> None:
    data = os.urandom(20 << 20)
    done = sandbox.run(["cat"], input=data, text=False)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_a_process_is_talked_to_and_found_again(sandbox: belljar.Sandbox) -> None:
    process = sandbox.popen(["cat"])
    assert process.stdin is not None
    process.stdin.write("one\n")
    assert process.stdout.readline() == b"one\n"
    again = sandbox.process(process.pid)
    assert again.stdout.readline() == b"one\n"
    assert again.stdin is not None
    again.stdin.write(b"two\n")
    assert again.stdout.readline() == b"two\n"
    again.terminate()
    assert process.wait(timeout=10) == -15
    assert process.pid in [one.pid for one in sandbox.processes()]


def test_a_process_that_nobody_reads_does_not_wait_when_it_is_waited_for(sandbox: belljar.Sandbox) -> None:
    process = sandbox.popen("head -c 40000000 /dev/zero; exit 5")
    assert process.wait(timeout=30) == 5
    with pytest.raises(belljar.OutputLost) as caught:
        process.stdout.read()
    assert len(process.stdout.read()) + caught.value.dropped == 40_000_000


def test_files_have_the_habits_of_pathlib(sandbox: belljar.Sandbox) -> None:
    top = sandbox.path("/top")
    top.mkdir()
    with pytest.raises(belljar.AlreadyExists):
        top.mkdir()
    (top / "a" / "b").mkdir(parents=True)
    file = top / "a" / "f.txt"
    assert file.write_text("line\n") == 5
    file.chmod(0o600)
    info = file.stat()
    assert (info.size, info.mode, info.kind) == (5, 0o600, "file")
    assert (top / "a").is_dir()
    assert file.is_file()
    assert [path.name for path in (top / "a").iterdir()] == ["b", "f.txt"]
    assert [str(path) for path in top.rglob("*.txt")] == [str(file)]
    link = top / "link"
    link.symlink_to("a/f.txt")
    assert str(link.readlink()) == "a/f.txt"
    assert link.read_text() == "line\n"
    assert link.is_symlink()
    moved = file.rename(top / "g.txt")
    assert not file.exists()
    assert moved.read_bytes(offset=1, length=2) == b"in"
    moved.write_bytes(b"more", append=True)
    assert moved.read_text() == "line\nmore"
    with pytest.raises(belljar.Conflict):
        moved.rmdir()
    with pytest.raises(belljar.Conflict):
        top.unlink()
    with pytest.raises(belljar.Conflict):
        top.rmdir()
    moved.unlink()
    moved.unlink(missing_ok=True)
    (top / "t").touch()
    with pytest.raises(belljar.AlreadyExists):
        (top / "t").touch(exist_ok=False)
    top.rmdir(recursive=True)
    assert not top.exists()
    with pytest.raises(belljar.NotFound):
        top.stat()


def test_trees_go_there_and_back(sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    for number in range(50):
        (source / "d" / f"f{number}").write_bytes(os.urandom(number * 1000))
    (source / "l").symlink_to("d/f1")
    sandbox.upload(source, "there")
    assert sandbox.run("ls there/d | wc -l").stdout.strip() == "50"
    sandbox.download("/there", tmp_path / "back")
    assert {path.name: path.read_bytes() for path in (source / "d").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "back" / "d").iterdir()
    }
    assert (tmp_path / "back" / "l").is_symlink()


def test_changes_are_watched(sandbox: belljar.Sandbox) -> None:
    def change() -> None:
        time.sleep(0.5)
        sandbox.path("new").write_text("x")

    thread = threading.Thread(target=change)
    thread.start()
    for seen in sandbox.watch("/"):
        if seen.path == "/new":
            assert seen.kind in ("created", "moved", "modified")
            break
    thread.join()


async def test_the_async_side_does_the_same(home: Path) -> None:
    async with await belljar.AsyncSandbox.create() as sandbox:
        runs = await asyncio.gather(*(sandbox.run(f"echo {number}") for number in range(10)))
        assert [done.stdout for done in runs] == [f"{number}\n" for number in range(10)]
        process = await sandbox.popen(["cat"])
        assert process.stdin is not None
        await process.stdin.write(b"a\nb\n")
        await process.stdin.close()
        assert [line async for line in process.stdout] == [b"a\n", b"b\n"]
        assert await process.wait() == 0
        path = sandbox.path("x")
        await path.write_bytes(bytes(20 << 20))
        assert len(await path.read_bytes()) == 20 << 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_clients_go_on_by_themselves_when_the_server_is_killed(sandbox: belljar.Sandbox, home: Path) -> None:
    """One reads 20 MB/s, one sends an upload, one waits at a prompt."""
    shell = sandbox.popen(["cat"], pty=True)
    assert shell.stdin is not None
    upload = os.urandom(60 << 20)
    received = hashlib.sha256()
    failures: list[BaseException] = []
    reader = sandbox.popen("for i in $(seq 1 120); do head -c 1000000 /dev/urandom | tee -a copy; sleep 0.05; done")

    def work(what: str) -> None:
        try:
            if what == "read":
                while data := reader.stdout.read1():
                    received.update(data)
            else:
                sandbox.path("upload").write_bytes(upload)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(what,)) for what in ("read", "send")]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(1.0)
        server = read_server_file(home)
        assert server is not None
        os.kill(server.pid, 9)
        time.sleep(0.2)
        assert sandbox.run("echo still here").stdout == "still here\n"
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
    assert sandbox.path("upload").read_bytes() == upload
    assert received.hexdigest() == hashlib.sha256(sandbox.path("copy").read_bytes()).hexdigest()
    shell.stdin.write("hello\n")
    assert shell.stdout.readline() == b"hello\r\n"
    shell.kill()
