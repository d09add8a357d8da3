import json
from dataclasses import replace
from pathlib import Path

import pytest

from belljar.model.sandbox import Limits
from belljar.node.engine.api import InstanceSpec
from belljar.node.engine.gvisor.spec import AGENT_CAPABILITIES, cpu_quota, oci_spec


def instance_spec(limits: Limits | None = None) -> InstanceSpec:
    return InstanceSpec(
        id="sb1",
        folder=Path("/run/x/sb1"),
        build="b",
        root=Path("/images/a.erofs"),
        runtime=Path("/runtimes/r"),
        overlay=Path("/overlays/sb1"),
        argv=("/.belljar/run/agent", "-x"),
        env={"A": "1", "B": "two words"},
        hostname="host",
        limits=limits or Limits(cpus=1.5, memory=512 << 20, disk=(1 << 30) + 100, pids=100),
        cgroup="belljar-x/sb1",
    )


def made(spec: InstanceSpec | None = None, carrier: str = "/run/x/sb1/vol") -> dict:
    return json.loads(json.dumps(oci_spec(spec or instance_spec(), root=Path("/run/x/sb1/e"), carrier=Path(carrier))))


def test_limits_stand_where_the_kernel_reads_them() -> None:
    spec = made()
    assert spec["linux"]["resources"] == {
        "memory": {"limit": 512 << 20},
        "cpu": {"quota": 150_000, "period": 100_000},
    }
    assert spec["annotations"]["dev.gvisor.spec.rootfs.options"] == f"size={1 << 30}"


def test_the_root_is_the_image_under_an_overlay_on_disk() -> None:
    annotations = made()["annotations"]
    assert annotations["dev.gvisor.spec.rootfs.source"] == "/images/a.erofs"
    assert annotations["dev.gvisor.spec.rootfs.type"] == "erofs"
    assert annotations["dev.gvisor.spec.rootfs.overlay"].startswith("dir=")


def test_there_are_the_same_two_bind_mounts_and_no_other() -> None:
    binds = [m for m in made()["mounts"] if m["type"] == "bind"]
    assert [(m["destination"], m["source"], m["options"]) for m in binds] == [
        ("/.belljar/run", "/runtimes/r", ["ro", "rbind"]),
        ("/.belljar/vol", "/run/x/sb1/vol", ["rw", "rbind", "rslave"]),
    ]


def test_every_tmpfs_that_users_write_has_a_size_and_together_they_leave_memory_to_processes() -> None:
    sizes = {
        m["destination"]: int(option.removeprefix("size="))
        for m in made()["mounts"]
        for option in m.get("options", [])
        if option.startswith("size=")
    }
    assert sizes == {"/tmp": 256 << 20, "/dev/shm": 128 << 20}


def test_nothing_that_a_user_chooses_becomes_an_annotation() -> None:
    hostile = replace(
        instance_spec(),
        env={"dev.gvisor.flag.host-uds": "all", "X": "dev.gvisor.internal"},
        hostname="dev.gvisor.flag",
        argv=("dev.gvisor.flag.overlay2",),
    )
    assert made(hostile)["annotations"] == made()["annotations"]


def test_what_a_restore_compares_names_no_place_of_the_instance() -> None:
    one, two = (
        made(carrier="/run/x/one/vol"),
        made(replace(instance_spec(), id="sb2", overlay=Path("/o/2")), "/run/x/two/vol"),
    )
    assert one["annotations"] == two["annotations"]
    assert one["process"] == two["process"]
    assert [{**m, "source": ""} for m in one["mounts"]] == [{**m, "source": ""} for m in two["mounts"]]


def test_the_agent_cannot_change_the_network_the_clock_or_the_machine() -> None:
    forbidden = {"CAP_NET_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_BOOT", "CAP_SYS_TIME", "CAP_SYS_RAWIO"}
    assert not forbidden & set(AGENT_CAPABILITIES)
    assert set(made()["process"]["capabilities"]["bounding"]) == set(AGENT_CAPABILITIES)


def test_set_user_id_programs_may_raise_their_rights() -> None:
    assert made()["process"]["noNewPrivileges"] is False


@pytest.mark.parametrize(("cpus", "quota"), [(0.05, 5000), (0.5, 50_000), (1, 100_000), (64, 6_400_000)])
def test_cpus_become_microseconds_of_a_period(cpus: float, quota: int) -> None:
    assert cpu_quota(Limits(cpus=cpus)) == quota
