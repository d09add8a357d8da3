import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from belljar.model.errors import DeadlineExceeded, EngineFailed
from belljar.node.engine.gvisor.control import MAX_ANSWER, KernelGone, KernelRefused, call

Answer = Callable[[socket.socket], None]


@contextlib.asynccontextmanager
async def kernel(folder: Path, answer: Answer, *, calls: int = 1) -> AsyncGenerator[Path]:
    """A control socket that answers so, in a thread."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            for _ in range(calls):
                peer, _ = listener.accept()
                with peer, contextlib.suppress(ConnectionError):
                    peer.settimeout(10)
                    answer(peer)

        serving = asyncio.create_task(asyncio.to_thread(serve))
        yield path
        await serving
    path.unlink()


def saying(data: bytes) -> Answer:
    def answer(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        peer.sendall(data)

    return answer


async def test_a_call_sends_method_and_argument_and_gives_the_result(tmp_path: Path) -> None:
    seen: list[object] = []

    def answer(peer: socket.socket) -> None:
        seen.append(json.loads(peer.recv(1 << 16)))
        peer.sendall(b'{"success": true, "err": "", "result": {"a": [1, "}"]}}')

    async with kernel(tmp_path, answer, calls=2) as path:
        assert await call(path, "x.Y", "id", timeout=5) == {"a": [1, "}"]}
        assert await call(path, "x.Y", timeout=5) == {"a": [1, "}"]}
    assert seen == [{"method": "x.Y", "arg": "id"}, {"method": "x.Y", "arg": {}}]


async def test_an_answer_in_single_bytes_is_put_together(tmp_path: Path) -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        for byte in b'{"success": true, "result": {"x": {}}}\n':
            peer.sendall(bytes([byte]))

    async with kernel(tmp_path, answer) as path:
        assert await call(path, "x.Y", timeout=5) == {"x": {}}


async def test_a_big_argument_arrives_whole(tmp_path: Path) -> None:
    big = "x" * (1 << 20)

    def answer(peer: socket.socket) -> None:
        data = b""
        while not data.endswith(b"}"):
            data += peer.recv(1 << 16)
        peer.sendall(json.dumps({"success": True, "result": len(json.loads(data)["arg"])}).encode())

    async with kernel(tmp_path, answer) as path:
        assert await call(path, "x.Y", big, timeout=5) == 1 << 20


async def test_descriptors_travel_with_the_call(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def answer(peer: socket.socket) -> None:
        _, descriptors, _, _ = socket.recv_fds(peer, 1 << 16, 8)
        for fd in descriptors:
            seen.append(os.pread(fd, 10, 0))
            os.close(fd)
        peer.sendall(b'{"success": true}')

    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    with (tmp_path / "a").open("rb") as first, (tmp_path / "b").open("rb") as second:
        async with kernel(tmp_path, answer) as path:
            await call(path, "x.Y", descriptors=(first.fileno(), second.fileno()), timeout=5)
    assert seen == [b"one", b"two"]


async def test_descriptors_that_a_hostile_kernel_sends_never_arrive(tmp_path: Path) -> None:
    def answer(peer: socket.socket) -> None:
        with (tmp_path / "f").open("wb") as file:
            peer.recv(1 << 16)
            socket.send_fds(peer, [b'{"success": true}'], [file.fileno()] * 100)

    await asyncio.to_thread(int)  # the thread pool's own descriptors
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with kernel(tmp_path, answer) as path:
        await call(path, "x.Y", timeout=5)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_refusal_carries_the_kernels_words_and_no_more_than_some(tmp_path: Path) -> None:
    async with kernel(tmp_path, saying(b'{"success": false, "err": "no such container"}')) as path:
        with pytest.raises(KernelRefused, match=r"x\.Y: no such container"):
            await call(path, "x.Y", timeout=5)
    long = json.dumps({"success": False, "err": "w" * 100_000}).encode()
    async with kernel(tmp_path, saying(long)) as path:
        with pytest.raises(KernelRefused) as caught:
            await call(path, "x.Y", timeout=5)
    assert len(caught.value.message) < 3000


@pytest.mark.parametrize("truth", [b"1", b'"yes"', b"null", b"{}"])
async def test_only_true_is_success(tmp_path: Path, truth: bytes) -> None:
    async with kernel(tmp_path, saying(b'{"success": ' + truth + b', "result": 1}')) as path:
        with pytest.raises(KernelRefused):
            await call(path, "x.Y", timeout=5)


@pytest.mark.parametrize("data", [b"", b'{"success": tr', b"\xff\xfe}", b"garbage}"])
async def test_a_connection_that_ends_without_an_answer_means_the_kernel_is_gone(tmp_path: Path, data: bytes) -> None:
    async with kernel(tmp_path, saying(data)) as path:
        with pytest.raises(KernelGone):
            await call(path, "x.Y", timeout=5)


async def test_an_endless_answer_is_cut_off(tmp_path: Path) -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        while True:
            peer.sendall(b"x" * (1 << 16))

    async with kernel(tmp_path, answer) as path:
        with pytest.raises(EngineFailed, match=str(MAX_ANSWER)):
            await call(path, "x.Y", timeout=5)


async def test_a_deeply_nested_answer_is_refused(tmp_path: Path) -> None:
    async with kernel(tmp_path, saying(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)) as path:
        with pytest.raises(EngineFailed, match="nested"):
            await call(path, "x.Y", timeout=5)


async def test_an_answer_that_is_no_object_is_refused(tmp_path: Path) -> None:
    async with kernel(tmp_path, saying(b"[{}]   ")) as path:
        with pytest.raises(KernelGone):
            await call(path, "x.Y", timeout=5)


async def test_silence_ends_at_the_deadline(tmp_path: Path) -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        peer.recv(1)  # until the caller leaves

    async with kernel(tmp_path, answer) as path:
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await call(path, "x.Y", timeout=0.05)


async def test_nobody_listening_means_the_kernel_is_gone(tmp_path: Path) -> None:
    with pytest.raises(KernelGone):
        await call(tmp_path / "none", "x.Y", timeout=5)
