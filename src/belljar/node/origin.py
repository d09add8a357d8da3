"""What a guest begins with: an image to boot, or a checkpoint to go on from."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from belljar.model.sandbox import Limits
from belljar.node.guest.runtime import GuestRuntime
from belljar.node.machine import ImageEntry

__all__ = ("Origin", "Shape", "fits", "shape_of", "shown_cpus")


@dataclass(frozen=True, slots=True)
class Origin:
    """All that decides what a new guest is, beside its limits and its identity. Paths are good while the origin is held open.

    `image` gives environment, user and directory; `root` is the file to stand on, whose content `image_key` names; `upper` a
    tar of changed files to boot with; `checkpoint` a folder to go on from instead. `build` and `runtime`: of the engine and the
    guest. `parent`: the snapshot that this is. `past`: whoever goes on from here has lived before (a fork, a memory snapshot),
    so it keeps its boot id; otherwise it is new. `same`: it is the very sandbox that rested here, so it keeps what it is.
    `limits`: of what the checkpoint was taken of; it shows their disk, which cannot be changed any more. `processors`: how many
    it shows; None: as many as the limits say.
    """

    key: str
    image: ImageEntry
    root: Path
    image_key: str
    build: str
    runtime: GuestRuntime
    upper: Path | None = None
    checkpoint: Path | None = None
    parent: str | None = None
    past: bool = False
    same: bool = False
    limits: Limits | None = None
    processors: int | None = None

    def fitted(self, wanted: Limits) -> Limits:
        """The limits of a guest that begins here."""
        return wanted if self.limits is None else replace(wanted, disk=self.limits.disk)


@dataclass(frozen=True, slots=True)
class Shape:
    """A class of guests that can stand in for each other until they are claimed: all that is fixed when one is made."""

    origin: str
    cpus: int
    memory: int
    disk: int


def shown_cpus(limits: Limits) -> int:
    """How many processors a guest with these limits sees."""
    return math.ceil(limits.cpus)


def fits(wanted: Limits, source: Limits, processors: int | None) -> bool:
    """Whether what goes on from a checkpoint may have as many CPUs: those that it sees, or those that its source had, whose limit
    may have been changed while it ran.
    """
    return shown_cpus(wanted) in (processors or shown_cpus(source), shown_cpus(source))


def shape_of(origin: str, limits: Limits) -> Shape:
    return Shape(origin, shown_cpus(limits), limits.memory, limits.disk)
