"""The floor: ids, sizes, durations, durable files, locks, host processes."""

import asyncio
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.base import files, ids, proc, tasks, units


def test_ids_are_dns_labels_that_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_800_000_000_000_000_000)
    early = ids.new_id("sb")
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_800_000_000_001_000_000)
    late = ids.new_id("sb")
    assert early < late
    assert ids.is_id(early, "sb") and len(early) <= 63
    assert not ids.is_id(early, "im") and not ids.is_id(early[:-1], "sb") and not ids.is_id(early[:-1] + "I", "sb")


@pytest.mark.parametrize(("text", "size"), [("512MiB", 512 << 20), ("1.5GB", 1_500_000_000), ("2g", 2 << 30), (7, 7)])
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1", -1, "1 XB", True, "9" * 40])
def test_what_is_no_size_is_refused_with_what_is(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), (2, 2), (timedelta(days=1), 86400), ("250ms", 0.25)]
)
def test_durations_are_read_as_people_write_them(text: units.Duration, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", -1, float("nan"), float("inf"), "9999d"])
def test_what_is_no_duration_is_refused(text: units.Duration) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        units.parse_duration(text)


@given(st.integers(0, 1 << 60), st.floats(0, 1e8))
def test_whatever_is_formatted_is_short(size: int, seconds: float) -> None:
    assert len(units.format_size(size)) <= 14
    assert len(units.format_duration(seconds)) <= 12


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "state"
    files.write_atomic(target, b"one")
    with pytest.raises(TypeError):
        files.write_atomic(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


HOLD = """
import sys, time, os, pathlib
from belljar.base import files
with files.lock_file(pathlib.Path(sys.argv[1]), about="the first"):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        with pytest.raises(files.LockHeld, match=f"{pid} the first"), files.lock_file(tmp_path / "lock"):
            pass
        holder.kill()
    with files.lock_file(tmp_path / "lock"):
        pass


async def test_a_failed_command_can_be_pasted_into_a_shell() -> None:
    with pytest.raises(proc.CommandFailed, match=r"sh -c 'echo no >&2; exit 3'\n  exit status 3: no"):
        await proc.run(["sh", "-c", "echo no >&2; exit 3"])
    with pytest.raises(proc.CommandFailed, match="exit status 127"):
        await proc.run(["no-such-program-here"])


async def test_a_command_that_is_late_is_killed(tmp_path: Path) -> None:
    with pytest.raises(proc.CommandFailed, match="did not end in time"):
        await proc.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], timeout=0.3)
    assert not proc.is_alive(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_command_is_killed(tmp_path: Path) -> None:
    task = asyncio.create_task(proc.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"]))

    async def has_started() -> bool:
        return (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text().strip())

    assert await tasks.wait_until(has_started, timeout=10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not proc.is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("steps", range(12))
async def test_a_command_cancelled_while_it_starts_is_killed(steps: int) -> None:
    task = asyncio.create_task(proc.run(["sleep", "61.375"]))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert proc.run_sync(["pgrep", "-f", "^sleep 61.375$"], check=False).stdout == b""


async def test_input_and_output_travel_whole() -> None:
    data = os.urandom(300_000)
    assert (await proc.run(["cat"], input=data)).stdout == data
    assert proc.run_sync(["cat"], input=data).stdout == data


async def test_what_was_opened_for_a_caller_who_has_left_is_closed() -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), asyncio.Event()
    loop, given = asyncio.get_running_loop(), list[str]()

    def slow(value: str) -> str:
        begun.set()
        go_on.wait(10)
        return value

    def close(value: str) -> None:
        given.append(value)
        loop.call_soon_threadsafe(closed.set)

    task = asyncio.create_task(tasks.opened_in_thread(close, slow, "it"))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given == []
    go_on.set()
    async with asyncio.timeout(10):
        await closed.wait()
    assert given == ["it"]
    assert await tasks.opened_in_thread(close, slow, "kept") == "kept"
    assert given == ["it"]


def test_descriptors_are_closed_one_several_or_none(tmp_path: Path) -> None:
    opened = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    for some in (None, (), opened[0], opened[1:]):
        files.close_descriptors(some)
    for fd in opened:
        with pytest.raises(OSError):
            os.fstat(fd)
