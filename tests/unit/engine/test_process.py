import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from belljar.node.engine.pipes import (
    ERROR_KEPT,
    error_text,
    make_pipes,
    open_agent_end,
    open_channel,
    open_error,
    remove_pipes,
)
from belljar.node.engine.process import HostProcess, kill_process, open_process, process_of, reap, wait_end


@pytest.fixture
async def sleeper() -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec("sleep", "100")
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


def named(process: asyncio.subprocess.Process) -> HostProcess:
    found = process_of(process.pid)
    assert found is not None
    return found


async def test_a_process_is_killed_by_name_and_start(sleeper: asyncio.subprocess.Process) -> None:
    process = named(sleeper)
    waiting = asyncio.create_task(wait_end(process))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert kill_process(process)
    await asyncio.wait_for(waiting, 5)
    assert await sleeper.wait() == -signal.SIGKILL
    assert not kill_process(process)
    assert process_of(process.pid) is None


async def test_one_that_took_its_number_is_left_alone(sleeper: asyncio.subprocess.Process) -> None:
    earlier = replace(named(sleeper), started=1)
    assert open_process(earlier) is None
    assert not kill_process(earlier)
    await asyncio.wait_for(wait_end(earlier), 5)
    assert sleeper.returncode is None


def test_a_zombie_is_not_alive_and_can_be_reaped() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    while process_of(pid) is not None:
        time.sleep(0.005)
    assert Path(f"/proc/{pid}").exists()
    reap(0, pid)
    assert not Path(f"/proc/{pid}").exists()
    reap(pid, os.getppid())


async def test_the_pipes_carry_both_ways_and_outlive_those_who_opened_them(tmp_path: Path) -> None:
    make_pipes(tmp_path)
    make_pipes(tmp_path)
    stdin, stdout, stderr = open_agent_end(tmp_path)
    first = open_channel(tmp_path)
    os.write(first.write_fd, b"to the agent")
    os.close(first.read_fd)
    os.close(first.write_fd)
    assert os.read(stdin, 100) == b"to the agent"
    os.write(stdout, b"from the agent")
    second = open_channel(tmp_path)
    assert os.read(second.read_fd, 100) == b"from the agent"
    with pytest.raises(BlockingIOError):
        os.read(second.read_fd, 100)
    for fd in (stdin, stdout, stderr, second.read_fd, second.write_fd):
        os.close(fd)
    remove_pipes(tmp_path)
    remove_pipes(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        open_channel(tmp_path)
    assert open_error(tmp_path) is None


async def test_last_words_are_bounded_and_harmless(tmp_path: Path) -> None:
    make_pipes(tmp_path)
    ends = open_agent_end(tmp_path)
    reader = open_error(tmp_path)
    assert reader is not None
    os.set_blocking(ends[2], False)
    written = 0
    with pytest.raises(BlockingIOError):
        while True:
            written += os.write(ends[2], b"x" * 4096)
    assert written == ERROR_KEPT
    assert len(error_text(reader)) == 2000
    os.write(ends[2], b"red \x1b[31m alert \xff\x00\nsecond line\n")
    said = error_text(reader)
    assert "\x1b" not in said
    assert "\x00" not in said
    assert said.endswith("\nsecond line")
    for fd in (*ends, reader):
        os.close(fd)


def test_a_link_in_place_of_a_pipe_is_not_followed(tmp_path: Path) -> None:
    make_pipes(tmp_path)
    (tmp_path / "out").unlink()
    (tmp_path / "target").write_text("secret")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        open_channel(tmp_path)
