"""What can be changed of a sandbox that lives."""

from collections.abc import Mapping
from dataclasses import dataclass

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import Limits, Sandbox, check_idle, check_labels

__all__ = ("KEEP", "Changes", "Keep")


class Keep:
    """Leave it as it is; None would mean unlimited."""


KEEP = Keep()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """`lifetime` in seconds from now on, None for unlimited; `idle` None is never. `labels` replace those that are there.

    `cpus` in cores, `memory` and `disk` in bytes; of these and `labels`, what is None stays.
    """

    lifetime: float | Keep | None = KEEP
    idle: float | Keep | None = KEEP
    labels: Mapping[str, str] | None = None
    cpus: float | None = None
    memory: int | None = None
    disk: int | None = None
    pids: int | None = None

    def limits(self, before: Limits) -> Limits:
        """Raises InvalidArgument."""
        return before.changed(cpus=self.cpus, memory=self.memory, disk=self.disk, pids=self.pids)

    def check(self, sandbox: Sandbox) -> None:
        """Raises InvalidArgument for what no sandbox may have."""
        self.limits(sandbox.spec.limits)
        if self.labels is not None:
            check_labels(self.labels)
        if not isinstance(self.idle, Keep):
            check_idle(self.idle)
        if not isinstance(self.lifetime, Keep) and self.lifetime is not None and self.lifetime <= 0:
            raise InvalidArgument("lifetime is more than 0 seconds, or null for unlimited")
