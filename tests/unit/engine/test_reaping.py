"""Dead children of the server: none stays a zombie."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from belljar.node.engine.process import reap_ending


@pytest.fixture
def child() -> Iterator[int]:
    """A process that nobody but the code under test waits for."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    if process.poll() is None:
        process.kill()
        process.wait()


async def test_a_process_that_ends_a_moment_later_is_reaped(child: int) -> None:
    asyncio.get_running_loop().call_later(0.05, os.kill, child, signal.SIGKILL)
    await reap_ending(child)
    assert not Path(f"/proc/{child}").exists()


async def test_what_is_no_child_or_goes_on_is_left_alone(child: int) -> None:
    began = time.monotonic()
    await reap_ending(1, 0, child, timeout=0.05)
    assert time.monotonic() - began < 30
    assert Path(f"/proc/{child}").exists()
