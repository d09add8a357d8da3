"""kill -9 of the server: clients go on by themselves, and nothing is lost or left."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.conftest import Host

import belljar

pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(240),
    # The HTTP library leaves the closing of a socket whose server was killed to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# 20 MB/s to its standard output for 8 s, and the digest of it all on standard error
WRITER = """
import hashlib, random, sys, time
source, digest, start = random.Random(5), hashlib.sha256(), time.time()
for number in range(320):
    block = source.randbytes(500_000)
    digest.update(block)
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    time.sleep(max(0, start + (number + 1) * 0.025 - time.time()))
sys.stderr.write(digest.hexdigest())
"""


def _write() -> None:
    with belljar.Sandbox.create() as sandbox:
        done = sandbox.run(["python3", "-c", WRITER], text=False, check=True)
        assert done.dropped == 0 and len(done.stdout) == 320 * 500_000
        assert hashlib.sha256(done.stdout).hexdigest().encode() == done.stderr


def _upload(file: Path, digest: str) -> None:
    with belljar.Sandbox.create() as sandbox:
        sandbox.upload(file, "/root/big")
        assert sandbox.run("sha256sum < /root/big").stdout.split()[0] == digest


def _wait_in_a_shell() -> None:
    with belljar.Sandbox.create() as sandbox:
        shell = sandbox.popen("bash", pty=True)
        shell.stdin.write(b"X=41; read Y; echo got $((X+1)) $Y\n")
        time.sleep(8)
        shell.stdin.write(b"hello\nexit\n")
        assert b"got 42 hello" in shell.stdout.read()
        assert shell.wait() == 0


def test_a_writer_an_upload_and_a_shell_go_on_over_a_killed_server(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "big"
    with file.open("wb") as output:
        for _ in range(500):
            output.write(os.urandom(1 << 20))
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(_write), pool.submit(_upload, file, digest), pool.submit(_wait_in_a_shell)]
        time.sleep(3)
        seconds = host.back_after_kill()
        for client in clients:
            client.result()
    print(f"the server was back after {seconds:.1f} s")


def test_a_detached_process_and_its_output_outlive_two_servers(host: Host) -> None:
    sandbox = belljar.Sandbox.create()
    process = sandbox.popen("i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.1; done", stdin=False)
    process.detach()
    for _ in range(2):
        host.kill_server()
        assert belljar.Sandbox.get(sandbox.id).status == "running"
    again = sandbox.process(process.pid)
    assert again.stdout.read().split() == [str(number).encode() for number in range(1, 61)]
    assert again.wait() == 0
    sandbox.terminate()


def test_a_create_that_was_under_way_leaves_nothing(host: Host) -> None:
    with ThreadPoolExecutor(4) as pool:
        making = [pool.submit(belljar.Sandbox.create) for _ in range(4)]
        time.sleep(0.15)
        host.kill_server()
        made = [future.result() for future in making]
    for sandbox in made:
        assert sandbox.run(["true"]).returncode == 0
        sandbox.terminate()
