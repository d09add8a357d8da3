"""Finds the sandbox or snapshot that a word on the command line means."""

from collections.abc import Callable, Iterable

import belljar
from belljar.cli.console import UsageProblem
from belljar.cli.suggest import did_you_mean
from belljar.model.errors import Error, NotFound
from belljar.model.sandbox import DEFAULT_IMAGE

__all__ = ("origin", "sandbox_named", "snapshot_named")

_LOOKED_AT = 500


def sandbox_named(word: str) -> "belljar.Sandbox":
    """By id or name. Raises NotFound, with what was probably meant."""
    try:
        return belljar.Sandbox.get(word)
    except NotFound as error:
        if error.code != "not_found":
            raise
        raise NotFound(
            error.message, hint=_meant(word, belljar.Sandbox.list) or error.hint or "belljar sandbox ls"
        ) from None


def snapshot_named(word: str) -> "belljar.Snapshot":
    """By id or name. Raises NotFound, with what was probably meant."""
    try:
        return belljar.Snapshot.get(word)
    except NotFound as error:
        meant = _meant(word, belljar.Snapshot.list)
        raise NotFound(error.message, hint=meant or error.hint or "belljar snapshot ls") from None


def origin(image: str, snapshot: str | None) -> "str | belljar.Snapshot":
    """What `--image` and `--snapshot` come to."""
    if snapshot is None:
        return image
    if image != DEFAULT_IMAGE:
        raise UsageProblem("--image and --snapshot exclude each other: a snapshot has its image")
    return snapshot_named(snapshot)


def _meant(word: str, those: "Callable[..., Iterable[belljar.Sandbox | belljar.Snapshot]]") -> str | None:
    try:
        known = [name for one in those(limit=_LOOKED_AT) for name in (one.id, one.name) if name]
    except Error:
        return None
    return did_you_mean(word, known)
