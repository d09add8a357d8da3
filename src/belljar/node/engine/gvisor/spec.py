"""The OCI specification of an instance: what gVisor is told, and all of it is ours.

Nothing that a user sends becomes an annotation: gVisor takes some of its own flags from there.
"""

import math
from pathlib import Path

from belljar.model.sandbox import Limits
from belljar.node.engine.api import InstanceSpec, temporary

__all__ = ("AGENT_CAPABILITIES", "RUN_MOUNT", "VOLUME_MOUNT", "oci_spec", "shown_cpus")

RUN_MOUNT = "/.belljar/run"
VOLUME_MOUNT = "/.belljar/vol"
CPU_PERIOD = 100_000

# Docker's default set, which the agent leaves to user processes, and what it needs itself: namespaces and mounts
# (SYS_ADMIN), entering its users' namespaces and reading their memory use (SYS_PTRACE), limits (SYS_RESOURCE).
# They are virtual: the process on the host has none.
AGENT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
)
_FILES = 1 << 20
_ANNOTATION = "dev.gvisor.spec.rootfs."


def oci_spec(spec: InstanceSpec, *, root: Path, carrier: Path) -> dict[str, object]:
    """`root` is an empty folder that only has to exist, `carrier` the host's end of the volume mount.

    A restore compares arguments, user, limits, mounts (not their sources) and annotations with those of the checkpoint, so
    they depend on the spec alone and name no place of this instance.
    """
    return {
        "ociVersion": "1.1.0",
        "root": {"path": str(root), "readonly": False},
        "hostname": spec.hostname,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(spec.argv),
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in spec.env.items()],
            "capabilities": {kind: list(AGENT_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": _FILES, "hard": _FILES}],
            "noNewPrivileges": False,
        },
        "mounts": _mounts(spec, carrier),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")],
            # Read by our kernel build, which shows them inside; runsc itself is told to leave cgroups alone.
            "resources": {
                "memory": {"limit": spec.limits.memory},
                "cpu": {"quota": cpu_quota(spec.limits), "period": CPU_PERIOD},
            },
        },
        "annotations": {
            _ANNOTATION + "source": str(spec.root),
            _ANNOTATION + "type": "erofs",
            # Only the kind counts here; the place comes from the command line.
            _ANNOTATION + "overlay": "dir=/",
            _ANNOTATION + "options": f"size={_pages(spec.limits.disk)}",
        },
    }


def cpu_quota(limits: Limits) -> int:
    """Microseconds of CPU per period; the kernel takes 1,000 at least."""
    return max(1000, math.ceil(limits.cpus * CPU_PERIOD))


def shown_cpus(limits: Limits) -> int:
    """Processors that the kernel takes from that quota: each begun one is whole."""
    return math.ceil(cpu_quota(limits) / CPU_PERIOD)


def _mounts(spec: InstanceSpec, carrier: Path) -> list[dict[str, object]]:
    tmp, shm = temporary(spec.limits)
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777", f"size={shm}"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777", f"size={tmp}"],
        },
        {"destination": RUN_MOUNT, "type": "bind", "source": str(spec.runtime), "options": ["ro", "rbind"]},
        {"destination": VOLUME_MOUNT, "type": "bind", "source": str(carrier), "options": ["rw", "rbind", "rslave"]},
    ]


def _pages(size: int) -> int:
    return size & ~4095
