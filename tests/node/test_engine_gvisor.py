"""What is gVisor's own: the posture of its kernel process, its leftovers, and how it fails."""

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from belljar.base import proc
from belljar.base.mounts import mounts_below
from belljar.model.errors import DiskFull, EngineFailed
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Instance, InstanceSpec, InstanceState
from belljar.node.engine.conformance import Bed
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.instance import Instance as State
from belljar.node.setup import Installation

pytestmark = pytest.mark.node

ECHO = ("/bin/sh", "-c", 'while read line; do eval "$line"; done')
"""An agent that runs each line it reads."""
LIMITS = Limits(memory=128 << 20, disk=64 << 20)


class Shell:
    """Lines in, lines out, over the pipes of an instance whose agent is a shell."""

    def __init__(self, engine: GvisorEngine, instance: Instance) -> None:
        self._channel = engine.open_channel(instance)

    def say(self, line: str) -> None:
        os.write(self._channel.write_fd, line.encode() + b"\n")

    async def ask(self, line: str, *, timeout: float = 10.0) -> str:
        self.say(f"{line}; echo end-of-answer")
        data = b""
        async with asyncio.timeout(timeout):
            while not data.endswith(b"end-of-answer\n"):
                try:
                    data += os.read(self._channel.read_fd, 1 << 16)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
        return data.decode().removesuffix("end-of-answer\n").strip()

    def close(self) -> None:
        os.close(self._channel.read_fd)
        os.close(self._channel.write_fd)


@contextlib.asynccontextmanager
async def shell_in(bed: Bed, limits: Limits = LIMITS, **changes: object) -> AsyncGenerator[tuple[Instance, Shell]]:
    spec = replace(bed.new_spec(limits), argv=ECHO, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, **changes)  # type: ignore[arg-type]
    engine = engine_of(bed)
    instance = Instance(spec)
    try:
        instance = await engine.create(await engine.prepare(spec))
        await engine.start(instance, None)
        shell = Shell(engine, instance)
        try:
            yield instance, shell
        finally:
            shell.close()
    finally:
        await engine.delete(instance)
        spec.folder.rmdir()


def engine_of(bed: Bed) -> GvisorEngine:
    assert isinstance(bed.engine, GvisorEngine)
    return bed.engine


async def test_the_kernel_process_has_no_user_no_capability_and_a_filter(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        await shell.ask("echo up")
        text = Path(f"/proc/{instance.details['pid']}/status").read_text()
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        words = Path(f"/proc/{instance.details['pid']}/cmdline").read_bytes().split(b"\0")
        assert {b"--directfs=false", b"--host-uds=none", b"--network=sandbox", b"--sidecar-usage-policy=STRICT"} <= set(
            words
        )


async def test_it_is_in_its_cgroups_from_the_first_moment(bed: Bed) -> None:
    async with shell_in(bed) as (instance, _):
        groups = Path(f"/proc/{instance.details['pid']}/cgroup").read_text()
        assert groups.count(instance.spec.cgroup) >= 1
        for line in groups.splitlines():
            if any(controller in line.split(":")[1].split(",") for controller in ("memory", "cpu", "pids")):
                assert line.endswith(instance.spec.cgroup)


async def test_a_folder_mounted_below_the_carrier_appears_inside_and_goes_again(bed: Bed, tmp_path: Path) -> None:
    async with shell_in(bed) as (instance, shell):
        (tmp_path / "hello").write_text("from the host")
        place = instance.spec.folder / "vol" / "data"
        place.mkdir()
        await proc.run(["mount", "--bind", tmp_path, place])
        assert await shell.ask("cat /.belljar/vol/data/hello; echo back > /.belljar/vol/data/answer") == "from the host"
        assert (tmp_path / "answer").read_text() == "back\n"
        await proc.run(["umount", "-l", place])
        assert await shell.ask("ls /.belljar/vol/data") == ""
        # One that is still there when the sandbox ends goes with it, and its content stays.
        await proc.run(["mount", "--bind", tmp_path, place])
    assert mounts_below(instance.spec.folder) == []
    assert (tmp_path / "hello").read_text() == "from the host"


async def test_root_inside_cannot_fill_the_hosts_disk_through_the_carrier(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        said = await shell.ask("head -c 10000000 /dev/zero > /.belljar/vol/x; echo code $?")
        assert said.endswith("code 1")
        assert (instance.spec.folder / "vol/x").stat().st_size <= 1 << 16


async def test_the_runtime_cannot_be_written_from_inside(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        said = await shell.ask(
            "for i in 1 2; do (echo x > /.belljar/run/x) 2>&1; mount -o remount,rw /.belljar/run 2>&1; done"
        )
        assert "Read-only" in said
        assert not (instance.spec.runtime / "x").exists()


async def test_the_hosts_own_limit_ends_a_guest_whose_agent_does_nothing(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        ended = asyncio.create_task(bed.engine.wait(instance))
        await shell.ask("echo up")
        shell.say("tail /dev/zero")
        exit = await asyncio.wait_for(ended, 30)
        assert exit.out_of_memory
        assert await bed.engine.state(instance) == InstanceState.DEAD


async def test_a_dead_one_can_be_made_again_under_its_name(bed: Bed) -> None:
    async with shell_in(bed) as (instance, _):
        os.kill(int(instance.details["pid"]), signal.SIGKILL)
        await asyncio.wait_for(bed.engine.wait(instance), 10)
        assert await bed.engine.state(instance) == InstanceState.DEAD
        again = await bed.engine.create(Instance(instance.spec))
        await bed.engine.start(again, None)
        second = Shell(engine_of(bed), again)
        assert await second.ask("echo again") == "again"
        second.close()


async def test_a_number_that_was_given_to_another_process_is_left_alone(bed: Bed) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "100")
    try:
        spec = bed.new_spec()
        instance = Instance(spec, {"pid": str(stranger.pid), "started": "1"})
        assert await bed.engine.state(instance) == InstanceState.ABSENT
        await asyncio.wait_for(bed.engine.wait(instance), 5)
        await bed.engine.delete(instance)
        assert stranger.returncode is None
        spec.folder.rmdir()
    finally:
        stranger.kill()
        await stranger.wait()


MAKER = """
import asyncio, json, os, pickle, signal, sys
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.engine.api import Instance
run, cgroup, spec, build = pickle.load(open(sys.argv[1], "rb"))
async def main():
    engine = GvisorEngine(run, cgroup, lambda _: build)
    instance = await engine.create(await engine.prepare(spec))
    await engine.start(instance, None)
    print(json.dumps(dict(instance.details)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("written", [True, False], ids=["written down", "not written down"])
async def test_a_server_killed_hard_leaves_a_guest_that_the_next_one_goes_on_with(
    bed: Bed, state: State, installation: Installation, tmp_path: Path, written: bool
) -> None:
    spec = replace(bed.new_spec(LIMITS), argv=ECHO, env={"PATH": "/usr/bin:/bin"})
    (tmp_path / "order").write_bytes(pickle.dumps((state.run, state.cgroup, spec, installation.engine)))
    made = await proc.run([sys.executable, "-c", MAKER, tmp_path / "order"], env=dict(os.environ), check=False)
    assert made.returncode == -signal.SIGKILL, made.stderr
    instance = Instance(spec, json.loads(made.stdout) if written else {})
    engine = engine_of(bed)
    assert await engine.state(instance) == InstanceState.RUNNING
    shell = Shell(engine, instance)
    assert await shell.ask("echo still here") == "still here"
    shell.close()
    ended = asyncio.create_task(engine.wait(instance))
    await asyncio.sleep(0.05)
    await engine.delete(instance)
    await asyncio.wait_for(ended, 10)
    spec.folder.rmdir()


async def test_what_the_agent_says_on_its_error_pipe_is_kept_and_bounded(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        await shell.ask("echo first words >&2")
        ended = asyncio.create_task(bed.engine.wait(instance))
        await asyncio.sleep(0.1)
        shell.say("echo last words >&2; exit 3")
        exit = await asyncio.wait_for(ended, 10)
        assert exit.message == "first words\nlast words"
        assert not exit.out_of_memory


async def test_a_flood_on_the_error_pipe_fills_nothing_on_the_host(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        shell.say("(tail -c +1 /dev/zero >&2) & echo flooding")
        await asyncio.sleep(1.0)
        size = sum(file.stat().st_size for file in instance.spec.folder.rglob("*") if file.is_file())
        assert size < 100_000
        assert (await shell.ask("echo up")).endswith("up")


async def test_a_program_that_is_not_in_the_image_is_an_error_with_the_kernels_words(bed: Bed) -> None:
    spec = replace(bed.new_spec(LIMITS), argv=("/no/such/agent",))
    instance = await bed.engine.create(await bed.engine.prepare(spec))
    with pytest.raises(EngineFailed, match="no such file"):
        await bed.engine.start(instance, None)
    await bed.engine.delete(instance)
    spec.folder.rmdir()


async def test_a_missing_image_is_an_error_with_runscs_words(bed: Bed) -> None:
    spec = replace(bed.new_spec(LIMITS), root=Path("/no/such/image"))
    instance = await bed.engine.prepare(spec)
    with pytest.raises(EngineFailed, match="/no/such/image"):
        await bed.engine.create(instance)
    await bed.engine.delete(instance)
    spec.folder.rmdir()


async def test_a_checkpoint_goes_on_with_other_limits_and_from_an_image_that_lies_elsewhere(
    bed: Bed, tmp_path: Path
) -> None:
    async with bed.box(LIMITS) as box:
        await box.sh("echo kept > /root/kept")
        await bed.engine.checkpoint(box.instance, tmp_path / "c")
    moved = tmp_path / "image.erofs"
    moved.hardlink_to(box.instance.spec.root)
    spec = replace(bed.new_spec(replace(LIMITS, memory=LIMITS.memory * 2)), root=moved)
    twin = Instance(spec)
    try:
        twin = await bed.engine.create(await bed.engine.prepare(spec))
        await bed.engine.restore(twin, tmp_path / "c", None)
        async with bed.session(bed.engine, twin) as again:
            seen = await again.sh("cat /root/kept; free -b | awk 'NR==2 {print $2}'")
            assert seen.text.split() == ["kept", str(LIMITS.memory * 2)]
    finally:
        await bed.engine.delete(twin)
        spec.folder.rmdir()


async def test_the_processors_limit_holds_from_the_first_moment_and_not_before(bed: Bed, tmp_path: Path) -> None:
    little = replace(LIMITS, cpus=0.05)
    async with bed.box(little) as box:
        assert _processor(box.instance) == (0.05, True)
        await bed.engine.checkpoint(box.instance, tmp_path / "c")
    spec = bed.new_spec(little)
    twin = Instance(spec)
    try:
        twin = await bed.engine.create(await bed.engine.prepare(spec))
        assert _processor(twin) == (None, False)
        async with asyncio.timeout(1.5):  # with its limit a restore takes 2 s
            await bed.engine.restore(twin, tmp_path / "c", None)
        assert _processor(twin)[0] == 0.05
    finally:
        await bed.engine.delete(twin)
        spec.folder.rmdir()


def _processor(instance: Instance) -> tuple[float | None, bool]:
    """How many CPUs its group may use, and whether it ever had to wait for that."""
    lines = Path(f"/proc/{instance.details['pid']}/cgroup").read_text().splitlines()
    groups = {tuple(line.split(":")[1].split(",")): line.split(":", 2)[2] for line in lines}
    v1 = next((group for controllers, group in groups.items() if "cpu" in controllers), None)
    folder = Path("/sys/fs/cgroup/cpu" if v1 else "/sys/fs/cgroup") / (v1 or groups["",]).lstrip("/")
    if v1:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    else:
        quota, period = (folder / "cpu.max").read_text().split()
    stat = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    limited = quota not in ("max", "-1")
    return (int(quota) / int(period) if limited else None), int(stat["nr_throttled"]) > 0


async def test_a_checkpoint_onto_a_full_disk_is_refused_and_the_guest_goes_on(bed: Bed, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    await proc.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small])
    try:
        async with shell_in(bed) as (instance, shell):
            await shell.ask("echo up")
            with pytest.raises(DiskFull):
                await bed.engine.checkpoint(instance, small / "c")
            assert not (small / "c").exists()
            assert await shell.ask("echo still here") == "still here"
    finally:
        await proc.run(["umount", small])


async def test_closing_keeps_what_a_live_guest_needs_and_frees_it_after_the_last(
    bed: Bed, new_engine: Callable[[], GvisorEngine]
) -> None:
    async with shell_in(bed) as (instance, shell):
        await new_engine().close()
        assert await shell.ask("echo up") == "up"
        assert await bed.engine.state(instance) == InstanceState.RUNNING
        assert any("null-netns" in thing.name for thing in await bed.engine.residue())
    await new_engine().close()
    assert await bed.engine.residue() == []


async def test_many_are_made_and_ended_at_the_same_time(bed: Bed) -> None:
    async def one() -> None:
        async with shell_in(bed) as (_, shell):
            assert await shell.ask("echo up", timeout=30) == "up"

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(one())


async def test_a_long_run_folder_is_refused_before_anything_is_made(bed: Bed, tmp_path: Path, state: State) -> None:
    deep = tmp_path / ("x" * 80)
    engine = GvisorEngine(deep, state.cgroup, lambda _: pytest.fail("not asked"))
    spec = replace(bed.new_spec(), folder=tmp_path / "folder")
    with pytest.raises(EngineFailed, match="too long"):
        await engine.prepare(spec)
    assert not deep.exists()


def test_the_specs_are_what_the_driver_needs(new_spec: Callable[[str, Limits], InstanceSpec]) -> None:
    spec = new_spec("cf0", LIMITS)
    assert spec.root.is_file()
    assert spec.runtime.is_dir()


async def test_a_full_disk_of_the_host_is_a_full_disk_inside_and_room_helps(bed: Bed, tmp_path: Path) -> None:
    image, small = tmp_path / "image", tmp_path / "small"
    small.mkdir()
    await proc.run(["truncate", "-s", "64M", image])
    await proc.run(["mkfs.ext4", "-q", "-F", image])
    await proc.run(["mount", "-o", "loop", image, small])
    try:
        async with shell_in(bed, Limits(memory=128 << 20, disk=1 << 30), overlay=small / "overlay") as (
            instance,
            shell,
        ):
            said = await shell.ask("head -c 200000000 /dev/zero 2>&1 > /root/full; rm /root/full", timeout=60)
            assert "No space left" in said
            assert await shell.ask("echo again > /root/x; cat /root/x") == "again"
            assert await bed.engine.state(instance) == InstanceState.RUNNING
    finally:
        await proc.run(["umount", small])


async def test_as_many_processes_as_the_limit_says_do_not_reach_the_hosts_limit(bed: Bed) -> None:
    async with shell_in(bed, Limits(cpus=2, memory=256 << 20, disk=64 << 20, pids=600)) as (instance, shell):
        said = await shell.ask(
            "i=0; while [ $i -lt 590 ]; do sleep 1000 > /dev/null 2>&1 < /dev/null & i=$((i+1)); done; echo all",
            timeout=90,
        )
        assert said == "all"
        assert await bed.engine.state(instance) == InstanceState.RUNNING


async def test_no_call_blocks_the_event_loop(bed: Bed, tmp_path: Path) -> None:
    engine, target = engine_of(bed), tmp_path / "c"
    one, two = (replace(bed.new_spec(LIMITS), argv=ECHO) for _ in range(2))
    with blockbuster_ctx():
        first = await engine.create(await engine.prepare(one))
        await engine.start(first, None)
        waiting = asyncio.create_task(engine.wait(first))
        await engine.pause(first)
        await engine.resume(first)
        await engine.usage(first)
        await engine.limit(first, LIMITS)
        await engine.checkpoint(first, target)
        second = await engine.create(await engine.prepare(two))
        await engine.restore(second, target, None)
        for instance in (first, second):
            assert await engine.state(instance) == InstanceState.RUNNING
            await engine.delete(instance)
        await waiting
        await engine.residue()
    for spec in (one, two):
        spec.folder.rmdir()


async def test_garbage_is_collected_once_it_has_started(bed: Bed) -> None:
    async with shell_in(bed) as (instance, shell):
        some = instance.spec.folder / "vol" / "some"
        some.mkdir()
        for number in range(500):
            (some / f"{number:040}").touch()
        await shell.ask("echo up")
        await asyncio.sleep(4)
        group = Path(f"/proc/{instance.details['pid']}/cgroup").read_text()
        servers = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and b"gofer" in _words(entry / "cmdline")
            and (entry / "cgroup").read_text() == group
        ]
        assert len(servers) == 1, "the instance's file server"
        pids = [int(instance.details["pid"]), *servers]
        before = [_private(pid) for pid in pids]
        looks = "read line < /proc/self/status; " * 20
        await shell.ask(f"i=0; while [ $i -lt 1000 ]; do i=$((i+1)); {looks} : /.belljar/vol/some/*; done", timeout=60)
        for pid, start in zip(pids, before, strict=True):
            assert _private(pid) - start < 16 << 20  # without a collector 127 and 48 MiB


def _words(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\0")
    except OSError:
        return []


def _private(pid: int) -> int:
    """Bytes that this process has for itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))
