"""What changes when the sandbox has become another one: variables, directory, and the state of global generators.

As Python does after `os.fork`: generators that everybody shares go another way than in other clones of the same snapshot. Those
that the code made are its own state.
"""
# pyright: basic

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ("Environment", "Renewal", "Unfit", "read_at_start", "reseed", "set_environment", "stir")

_ENTROPY = 32
_AT_START = ("HOME", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "GLIBC_TUNABLES")
_AT_START_PREFIXES = (
    *("PYTHON", "IPYTHON", "LD_", "LC_", "MALLOC_"),
    # Of what a warm kernel has imported.
    *("OMP_", "KMP_", "OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "NPY_", "NUMPY_", "NUMEXPR_", "MPL"),
)


class Unfit(Exception):
    """This kernel cannot become what is asked for."""


class Renewal(NamedTuple):
    """`env`: None takes a variable away. `cwd` None: stays."""

    env: Mapping[str, str | None]
    cwd: str | None
    reseed: bool
    taken: bool

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Renewal:
        env, cwd = line.get("env"), line.get("cwd")
        names = cast("dict[str, Any]", env) if isinstance(env, dict) else {}
        return cls(
            {name: None if value is None else str(value) for name, value in names.items()},
            cwd if isinstance(cwd, str) else None,
            line.get("reseed") is True,
            line.get("taken") is True,
        )


class Environment:
    """What the kernel was told of its variables. What the code has made of them since is its own state."""

    def __init__(self) -> None:
        self._told: dict[str, str | None] = dict(os.environ)
        self._own: set[str] = set()
        """Names that its context has of its own: those of the sandbox do not count."""

    def own(self, names: Iterable[str]) -> None:
        self._own.update(names)

    def changes(self, renewal: Renewal) -> Renewal:
        """The same with only those variables that are others than before."""
        if renewal.taken:
            new = dict(renewal.env)
            self.own(new)
        else:
            told = self._told.get
            new = {name: value for name, value in renewal.env.items() if name not in self._own and told(name) != value}
        self._told.update(new)
        return renewal._replace(env=new)


def read_at_start(env: Mapping[str, str | None]) -> str:
    """The first variable that would differ and is looked at when an interpreter or a library starts; else empty."""
    for name, value in env.items():
        if os.environ.get(name) != value and (name in _AT_START or name.startswith(_AT_START_PREFIXES)):
            return name
    return ""


def set_environment(env: Mapping[str, str | None]) -> None:
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "TZ" in env:
        time.tzset()


def stir() -> None:
    """OpenSSL's generator, where it is loaded. Any thread may do it at any time: no lock of the code's is in the way."""
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        with contextlib.suppress(Exception):
            ssl.RAND_add(os.urandom(_ENTROPY), float(_ENTROPY))


def reseed() -> None:
    """Between two cells. What the code has put in the place of a module is passed by."""
    for step in _steps():
        with contextlib.suppress(Exception):
            step()


def _steps() -> Iterator[Callable[[], object]]:
    yield stir
    loaded = sys.modules.get
    if (random := loaded("random")) is not None:
        yield lambda: random._inst.seed()
    if (numpy := loaded("numpy.random")) is not None:
        yield lambda: numpy.seed()
    if (torch := loaded("torch")) is not None:
        yield lambda: torch.seed()
    if (tempfile := loaded("tempfile")) is not None:
        yield lambda: setattr(tempfile, "_name_sequence", None)
    if (uuid := loaded("uuid")) is not None:
        # Where it was drawn and not a network card's.
        yield lambda: setattr(uuid, "_node", None)
