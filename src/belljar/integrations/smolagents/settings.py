"""What an executor is made of: plain values, so that a saved agent can hold them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from belljar.base.ids import is_id
from belljar.base.units import Duration, Size, parse_duration
from belljar.integrations.smolagents.output import DEFAULT_LENGTH
from belljar.model.snapshot import PREFIX

__all__ = ("DEFAULT_KEPT", "Settings")

DEFAULT_KEPT = 24
"""Snapshots that are kept: a run of smolagents' 20 steps, its start, and some."""
_KINDS = ("memory", "filesystem")


@dataclass(frozen=True, slots=True)
class Settings:
    """See `BelljarExecutor` for what each means. `sandbox`: an id or name, or the id of a snapshot.

    Raises ValueError for what is no duration, length or number.
    """

    image: str = "code"
    sandbox: str | None = None
    name: str | None = None
    cpu: float | None = None
    memory: Size | None = None
    disk: Size | None = None
    network: str = "open"
    user: str | None = "user"
    timeout: Duration | None = 300.0
    lifetime: Duration | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    packages: tuple[str, ...] = ()
    max_print_outputs_length: int = DEFAULT_LENGTH
    stream_outputs: bool = False
    snapshot_each_step: bool | str = False
    keep: int = DEFAULT_KEPT
    keep_snapshots: bool = False

    def __post_init__(self) -> None:
        if self.max_print_outputs_length < 1:
            raise ValueError("max_print_outputs_length is more than 0 characters")
        if self.limit == 0 or self.most == 0:
            raise ValueError("timeout and lifetime are more than 0 seconds, or None for no limit")
        if self.snapshot_each_step not in (False, True, *_KINDS):
            raise ValueError("snapshot_each_step is False, True, 'memory' or 'filesystem'")
        if self.keep < 1:
            raise ValueError("keep is the number of snapshots to keep, at least 1")

    @property
    def kind(self) -> str | None:
        """Of the snapshots after each step."""
        return "memory" if self.snapshot_each_step is True else self.snapshot_each_step or None

    @property
    def snapshot(self) -> str | None:
        """The id of the snapshot to start from, if `sandbox` is one."""
        return self.sandbox if self.sandbox is not None and is_id(self.sandbox, PREFIX) else None

    @property
    def limit(self) -> float | None:
        """Seconds of one step; None is no limit."""
        return None if self.timeout is None else parse_duration(self.timeout)

    @property
    def most(self) -> float | None:
        """Seconds that the sandbox may live."""
        return None if self.lifetime is None else parse_duration(self.lifetime)

    def saved(self) -> dict[str, Any]:
        """As keyword arguments that JSON can hold; what is as by default is left out."""
        plain = asdict(self) | {"timeout": self.limit, "lifetime": self.most, "packages": list(self.packages)}
        usual: dict[str, Any] = asdict(Settings()) | {"packages": []}
        return json.loads(json.dumps({name: value for name, value in plain.items() if value != usual[name]}))
