"""The runsc command line: it makes kernels, and nothing else."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from belljar.base import proc
from belljar.base.files import close_descriptors
from belljar.base.tasks import in_thread, opened_in_thread
from belljar.node.engine.api import InstanceSpec
from belljar.node.engine.gvisor.build import EngineBuild
from belljar.node.engine.gvisor.failures import engine_failed, translated
from belljar.node.engine.gvisor.layout import BUNDLE, PANIC, ready_files, remove_state
from belljar.node.engine.pipes import error_text, open_agent_end

__all__ = ("Runsc",)

_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# A command that ends at once need not collect its garbage. Our build's file server, which stays, comes back to that by itself.
_UNCOLLECTED: Final = {"GOGC": "off"}


class Runsc:
    """`resolve` finds an engine build by its key."""

    def __init__(self, resolve: Callable[[str], EngineBuild]) -> None:
        self._resolve = resolve

    async def create(self, spec: InstanceSpec, root: Path, groups: Iterable[Path], *, timeout: float) -> None:
        """The guest's kernel, in the groups from its first moment on, its agent's descriptors on the instance's pipes.

        Raises EngineFailed, DiskFull, NoCapacity with runsc's own words.
        """
        await in_thread(remove_state, root, spec.id)  # of one that died: runsc refuses the name otherwise
        try:
            pipes = await opened_in_thread(close_descriptors, open_agent_end, spec.folder)
        except OSError as error:
            raise translated(f"creating {spec.id}", error) from error
        words = [
            *self._command(spec, root),
            f"--overlay2=root:dir={spec.overlay}",
            f"--panic-log={spec.folder / PANIC}",
            "create",
            f"--bundle={spec.folder / BUNDLE}",
            *(() if spec.upper is None else (f"--fs-restore-image-path={ready_files(spec)}",)),
            spec.id,
        ]
        try:
            await proc.run(
                words,
                stdin=pipes[0],
                stdout=pipes[1],
                stderr=pipes[2],
                timeout=timeout,
                env=_ENVIRONMENT | (_UNCOLLECTED if self._resolve(spec.build).own else {}),
                cwd=Path("/"),
                cgroups=groups,
            )
        except proc.CommandFailed as error:
            said = await in_thread(_drain, pipes[2])
            raise engine_failed(f"creating {spec.id}: {said or error}") from error
        finally:
            close_descriptors(pipes)

    def _command(self, spec: InstanceSpec, root: Path) -> list[str]:
        build = self._resolve(spec.build)
        # A build in one file unpacks its helpers itself, slowly, and has no strict form.
        policy = () if build.one_file else ("--sidecar-usage-policy=STRICT",)
        return [
            str(build.runsc),
            f"--root={root}",
            *policy,
            "--network=sandbox",
            "--ignore-cgroups",  # the process is in ours before it starts; saves 24 ms
            "--directfs=false",  # the kernel process then has no user and no capabilities on the host
            "--host-uds=none",
            "--host-fifo=none",
            "--host-settings=ignore",
            "--allow-suid",  # sudo works inside
            # What must fit for a restore is in the manifest of a snapshot. gVisor's own comparison knows only paths and numbers:
            # an image that lies elsewhere and other limits are fine (both tried).
            "--restore-spec-validation=ignore",
            "--in-sandbox-cgroup=v2",  # the agent's pids limit: gVisor's version 1 charges one group of seven at random
        ]


def _drain(fd: int) -> str:
    os.set_blocking(fd, False)
    return error_text(fd)
