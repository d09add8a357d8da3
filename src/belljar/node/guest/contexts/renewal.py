"""What a kernel is told when its sandbox has become another one: a clone of a snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Renewal",)


@dataclass(frozen=True, slots=True)
class Renewal:
    """`reseed`: as Python does after `os.fork`. `env`: variables to be set, None takes one away. `cwd`: None stays.

    `taken`: the kernel was started before anybody asked for it, and is somebody's from now on.
    """

    reseed: bool = False
    env: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    cwd: str | None = None
    taken: bool = False

    def request(self) -> dict[str, Any]:
        said: dict[str, Any] = {"op": "renew", "reseed": self.reseed}
        if self.env:
            said["env"] = dict(self.env)
        if self.cwd is not None:
            said["cwd"] = self.cwd
        if self.taken:
            said["taken"] = True
        return said
