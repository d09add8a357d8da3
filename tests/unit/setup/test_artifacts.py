import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from belljar.model.errors import DiskFull
from belljar.node.artifacts import Store, key_of

INPUTS = {"version": "1"}


async def fill(folder: Path) -> Mapping[str, str]:
    (folder / "bin").mkdir()
    (folder / "bin/tool").write_bytes(b"\x7fELF" * 50_000)
    (folder / "bin/tool").chmod(0o700)
    (folder / "notes").write_text("hello")
    (folder / "alias").symlink_to("bin/tool")
    return {"built": "yes"}


async def test_a_second_call_with_the_same_inputs_makes_nothing(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), 0

    async def counted(folder: Path) -> Mapping[str, str]:
        nonlocal calls
        calls += 1
        return await fill(folder)

    first = await store.make("tool", INPUTS, counted)
    second = await store.make("tool", INPUTS, counted)
    assert calls == 1
    assert first == second
    assert first.facts == {"built": "yes"}
    assert first.inputs == INPUTS
    assert set(first.files) == {"bin/tool", "notes", "alias"}
    assert first.damage() == []


async def test_other_inputs_stand_beside_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = await store.make("tool", INPUTS, fill)
    second = await store.make("tool", {"version": "2"}, fill)
    assert first.folder != second.folder
    assert first.digest == second.digest
    assert [item.key for item in store.list("tool")] == [second.key, first.key]


async def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = await Store(tmp_path / "cache").make("tool", INPUTS, fill)
        kept = await Store(tmp_path / "own").adopt(made)
    finally:
        os.umask(before)
    for one in (made, kept):
        paths = ("../..", "..", "", "bin", "bin/tool", "notes")
        modes = [stat.S_IMODE((one.folder / path).stat().st_mode) for path in paths]
        assert modes == [0o755, 0o755, 0o755, 0o755, 0o755, 0o644]


async def test_two_at_once_make_it_once_and_the_other_waits(tmp_path: Path) -> None:
    store, calls, waited = Store(tmp_path), 0, list[str]()

    async def slow(folder: Path) -> Mapping[str, str]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.5)
        return await fill(folder)

    first, second = await asyncio.gather(
        *(Store(tmp_path).make("tool", INPUTS, slow, on_wait=waited.append) for _ in range(2)),
    )
    assert calls == 1
    assert first == second
    assert len(waited) == 1
    assert waited[0].startswith(str(os.getpid()))
    assert store.get("tool", first.key) == first


async def test_a_failed_build_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    store = Store(tmp_path)

    async def failing(folder: Path) -> Mapping[str, str]:
        await fill(folder)
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        await store.make("tool", INPUTS, failing)
    assert visible(tmp_path / "tool") == []
    assert (await store.make("tool", INPUTS, fill)).damage() == []


async def test_a_cancelled_build_leaves_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    store, started = Store(tmp_path), asyncio.Event()

    async def endless(folder: Path) -> Mapping[str, str]:
        await fill(folder)
        started.set()
        await asyncio.sleep(3600)
        return {}

    task = asyncio.create_task(store.make("tool", INPUTS, endless))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert visible(tmp_path / "tool") == []
    assert await asyncio.wait_for(store.make("tool", INPUTS, fill), 5)


async def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from belljar.node.artifacts import Store

        async def build(folder):
            (folder / "half").write_text("made")
            print("started", flush=True)
            await asyncio.sleep(3600)

        asyncio.run(Store(Path(sys.argv[1])).make("tool", {"version": "1"}, build))
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    half = visible(tmp_path / "tool")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert len(half) == 1
    made = await Store(tmp_path).make("tool", INPUTS, fill)
    assert visible(tmp_path / "tool") == [made.key]


def grow(path: Path) -> None:
    path.write_text("hello, world")


def shrink(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [Path.unlink, grow, shrink])
async def test_an_artifact_that_was_changed_is_not_used_and_made_again(tmp_path: Path, harm: object) -> None:
    assert callable(harm)
    store = Store(tmp_path)
    made = await store.make("tool", INPUTS, fill)
    harm(made.folder / "notes")
    assert store.get("tool", made.key) is None
    assert made.damage()
    again = await store.make("tool", INPUTS, fill)
    assert again.damage() == []
    assert again.digest == made.digest


async def test_a_flipped_byte_with_the_old_time_is_found_by_the_full_check(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = await store.make("tool", INPUTS, fill)
    tool = made.folder / "bin/tool"
    times = tool.stat()
    tool.write_bytes(b"!" + tool.read_bytes()[1:])
    os.utime(tool, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert made.looks_whole()
    assert made.damage() == ["bin/tool has other content"]


async def test_a_manifest_that_is_no_manifest_counts_as_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = await store.make("tool", INPUTS, fill)
    for text in ("", "[]", "{}", '{"version": 1}', "\x00\xff"):
        (made.folder / "manifest.json").write_text(text)
        assert store.get("tool", made.key) is None
        assert store.list("tool") == []


async def test_an_adopted_one_outlives_the_cache(tmp_path: Path) -> None:
    cache, own = Store(tmp_path / "cache"), Store(tmp_path / "state/artifacts")
    made = await cache.make("tool", INPUTS, fill)
    kept = await own.adopt(made)
    assert (kept.folder / "bin/tool").stat().st_ino == (made.folder / "bin/tool").stat().st_ino
    await cache.remove("tool", made.key)
    assert kept.damage() == []
    assert own.get("tool", made.key) == kept
    behind = Store(tmp_path / "cache", behind=own)
    assert await behind.make("tool", INPUTS, never) == kept
    assert [item.folder for item in behind.list("tool")] == [kept.folder]
    back = await behind.adopt(kept)
    assert back.folder == made.folder
    assert back.damage() == []


async def test_adopting_mends_a_damaged_one(tmp_path: Path) -> None:
    cache, own = Store(tmp_path / "cache"), Store(tmp_path / "state/artifacts")
    made = await cache.make("tool", INPUTS, fill)
    kept = await own.adopt(made)
    (kept.folder / "notes").unlink()
    assert own.get("tool", made.key) is None
    assert (await own.adopt(made)).damage() == []


async def test_a_build_without_the_room_it_needs_is_not_begun(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(DiskFull, match="are free") as refused:
        await store.make("tool", INPUTS, never, room=1 << 60)
    assert "BELLJAR_CACHE" in (refused.value.hint or "")
    assert await store.make("tool", INPUTS, fill, room=1)


def test_the_key_depends_on_kind_and_inputs_but_not_on_their_order() -> None:
    assert key_of("a", {"x": "1", "y": "2"}) == key_of("a", {"y": "2", "x": "1"})
    assert len({key_of("a", {}), key_of("b", {}), key_of("a", {"x": "1"}), key_of("a", {"x": "2"})}) == 4


async def never(folder: Path) -> Mapping[str, str]:
    raise AssertionError("nothing has to be made")


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]
