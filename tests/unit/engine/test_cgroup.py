from pathlib import Path

import pytest

from belljar.model.errors import EngineFailed
from belljar.model.sandbox import Limits
from belljar.node.engine.gvisor.cgroup import Cgroups, Hierarchies, find_hierarchies, memory_backstop

LIMITS = Limits(cpus=0.5, memory=256 << 20, pids=100)
V1_FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "pids": ("pids.max",),
    "cpuacct": (),
}
V2_FILES = ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max", "cgroup.subtree_control")


def v1(root: Path) -> Hierarchies:
    for controller, files in V1_FILES.items():
        folder = root / controller / "p/a"
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).write_text("9223372036854771712")
    return Hierarchies({controller: root / controller for controller in V1_FILES})


def v2(root: Path) -> Hierarchies:
    for folder in (root, root / "p", root / "p/a"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in V2_FILES:
            (folder / name).write_text("")
    return Hierarchies({}, root, frozenset({"memory", "cpu", "pids", "io"}))


def test_both_versions_are_found_and_a_controller_belongs_to_one(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    text = (
        "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 24 0:27 / /sys/fs/a\\040b rw shared:9 - cgroup cgroup rw,pids\n"
        f"32 24 0:28 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
        "33 24 0:29 / /x rw - tmpfs tmpfs rw\n"
        "broken line\n"
    )
    found = find_hierarchies(text)
    assert found.v1 == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "pids": Path("/sys/fs/a b"),
    }
    assert found.v2 == tmp_path
    assert found.v2_controllers == {"memory", "io"}
    assert found.problem() == ""


def test_a_machine_without_controllers_says_which() -> None:
    assert find_hierarchies("").problem() == "no cgroup controller here for memory, cpu, pids"


def test_version_one_gets_its_files(tmp_path: Path) -> None:
    Cgroups(v1(tmp_path)).limit("p/a", LIMITS)
    assert (tmp_path / "memory/p/a/memory.limit_in_bytes").read_text().startswith(str(memory_backstop(LIMITS)))
    assert (tmp_path / "memory/p/a/memory.memsw.limit_in_bytes").read_text().startswith(str(memory_backstop(LIMITS)))
    assert (tmp_path / "cpu/p/a/cpu.cfs_quota_us").read_text().startswith("50000")
    assert (tmp_path / "pids/p/a/pids.max").read_text().startswith("4896")


def test_version_two_gets_its_files_and_hands_the_controllers_down(tmp_path: Path) -> None:
    groups = Cgroups(v2(tmp_path))
    groups.make("p/a")
    groups.limit("p/a", LIMITS)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (tmp_path / "p/cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (tmp_path / "p/a/memory.max").read_text() == str(memory_backstop(LIMITS))
    assert (tmp_path / "p/a/memory.swap.max").read_text() == "0"
    assert (tmp_path / "p/a/memory.oom.group").read_text() == "1"
    assert (tmp_path / "p/a/cpu.max").read_text() == "50000 100000"


def test_starting_is_not_throttled(tmp_path: Path) -> None:
    Cgroups(v2(tmp_path)).limit("p/a", LIMITS, cpu=False)
    assert (tmp_path / "p/a/cpu.max").read_text() == ""


def test_the_backstop_leaves_room_for_the_engine_for_every_process_and_for_the_agent_to_act() -> None:
    for memory in (64 << 20, 1 << 30, 64 << 30):
        few, many = memory_backstop(Limits(memory=memory, pids=16)), memory_backstop(Limits(memory=memory, pids=1016))
        assert few >= memory + (300 << 20)
        assert many - few == 1000 << 20


def test_usage_does_not_count_file_data_that_can_be_dropped(tmp_path: Path) -> None:
    groups = Cgroups(v1(tmp_path))
    memory = tmp_path / "memory/p/a"
    (memory / "memory.usage_in_bytes").write_text("5000\n")
    (memory / "memory.stat").write_text("cache 7\ninactive_file 1\ntotal_inactive_file 4000\n")
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (tmp_path / "cpuacct/p/a/cpuacct.usage").write_text("2500000000\n")
    (tmp_path / "pids/p/a/pids.current").write_text("12\n")
    usage = groups.usage("p/a")
    assert (usage.memory, usage.cpu_seconds, usage.processes) == (1000, 2.5, 12)
    assert groups.cpu_time("p/a") == 2_500_000
    assert groups.was_out_of_memory("p/a")


def test_usage_of_version_two(tmp_path: Path) -> None:
    groups = Cgroups(v2(tmp_path))
    folder = tmp_path / "p/a"
    (folder / "memory.current").write_text("5000\n")
    (folder / "memory.stat").write_text("inactive_file 1000\n")
    (folder / "memory.events").write_text("low 0\noom 0\noom_kill 0\n")
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (folder / "pids.current").write_text("3\n")
    usage = groups.usage("p/a")
    assert (usage.memory, usage.cpu_seconds, usage.processes) == (4000, 1.5, 3)
    assert groups.cpu_time("p/a") == 1_500_000
    assert not groups.was_out_of_memory("p/a")


def test_what_is_not_there_counts_nothing(tmp_path: Path) -> None:
    groups = Cgroups(v1(tmp_path))
    usage = groups.usage("p/none")
    assert (usage.memory, usage.cpu_seconds, usage.processes) == (0, 0.0, 0)
    assert groups.cpu_time("p/none") is None


async def test_a_group_that_does_not_empty_is_an_error_with_a_deadline(tmp_path: Path) -> None:
    groups = Cgroups(v2(tmp_path))
    # A number that no process can have: killing does nothing, and the list stays.
    (tmp_path / "p/a/cgroup.procs").write_text(f"{(1 << 22) + 5}\n")
    with pytest.raises(EngineFailed, match="did not end"):
        await groups.kill("p/a", timeout=0.05)


async def test_removing_is_fine_when_nothing_is_there(tmp_path: Path) -> None:
    await Cgroups(v1(tmp_path)).remove("p/none")
