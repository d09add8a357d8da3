"""Everything that can run in a sandbox goes on in it, and in five forks of it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import home, host

import belljar

__all__ = ("home", "host")
pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]
_FRAME = "import numpy as np, pandas as pd; frame = pd.DataFrame({'a': np.arange(25_000_000, dtype='int64')})"


@pytest.fixture(scope="module")
def source(home: Path) -> Iterator[belljar.Sandbox]:
    with belljar.Sandbox.create("code", memory="2GiB", network="none", workdir="/root") as made:
        yield made


def test_a_server_a_frame_a_job_a_folder_and_a_terminal_go_on_in_five_forks(source: belljar.Sandbox) -> None:
    source.run("mkdir -p /srv/site && echo hello > /srv/site/index.html")
    web = source.popen(["python3", "-m", "http.server", "8000", "-d", "/srv/site"], stdin=False)
    web.detach()
    source.run_code(_FRAME)
    source.popen("i=0; while :; do i=$((i+1)); echo $i >> /root/log; sleep 1; done", stdin=False).detach()
    source.run("mkdir -p /srv/data && seq 1000 > /srv/data/rows")
    folder = source.snapshot(path="/srv/data")
    source.mount(folder, "/data")
    source.path("/data/rows").write_text("changed\n")
    shell = source.popen("bash", pty=True, cols=90, rows=20)
    shell.stdin.write(b"word=forty; cd /usr; echo re''ady\n")
    _read_until(shell, b"ready")
    rows = len(_log(source))

    started = time.monotonic()
    forks = source.fork(5, memory="1GiB")
    seconds = time.monotonic() - started
    kernel = int(source.run_code("print(frame['a'].sum())").stdout)
    print(f"five forks of a sandbox with a frame of 200 MB: {seconds:.2f} s")
    try:
        for sandbox in (source, *forks):
            assert sandbox.run("curl -s http://127.0.0.1:8000/").stdout == "hello\n"
            said = sandbox.run_code(
                "frame.loc[0, 'a'] = 41; print(frame['a'].iloc[0] + 1, len(frame), frame['a'].sum())"
            )
            assert said.stdout == f"42 25000000 {kernel + 41}\n"
            assert sandbox.path("/data/rows").read_text() == "changed\n"
            assert sandbox.mounts() == {"/data": folder.id}
            sandbox.path("/data/own").write_text(sandbox.id)
            terminal = shell if sandbox is source else sandbox.process(shell.pid)
            terminal.stdin.write(b"echo $word-$(pwd)-$(stty size)\n")
            _read_until(terminal, b"forty-/usr-20 90")
        time.sleep(2.1)
        for sandbox in (source, *forks):
            lines = _log(sandbox)
            assert lines == list(range(1, len(lines) + 1)) and len(lines) >= rows + 2
            assert sandbox.path("/data/own").read_text() == sandbox.id
            sandbox.unmount("/data")
            assert not sandbox.path("/data/rows").exists()
            assert len(sandbox.path("/srv/data/rows").read_text().split()) == 1000
        assert len({sandbox.run("cat /etc/machine-id").stdout for sandbox in (source, *forks)}) == 6
    finally:
        for sandbox in forks:
            sandbox.terminate()
        folder.delete()


def _log(sandbox: belljar.Sandbox) -> list[int]:
    return [int(line) for line in sandbox.path("/root/log").read_text().split()]


def _read_until(process: belljar.Process, wanted: bytes) -> None:
    seen = b""
    deadline = time.monotonic() + 20
    while wanted not in seen:
        assert time.monotonic() < deadline, seen[-300:]
        seen += process.stdout.read1()
