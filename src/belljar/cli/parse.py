"""Words of the command line as values."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from belljar.base.units import parse_duration, parse_size
from belljar.cli.console import UsageProblem
from belljar.sdk.kept import Quota

__all__ = (
    "copy_in",
    "copy_out",
    "duration",
    "env_of",
    "labels_of",
    "quota",
    "remote_of",
    "shell_line",
    "size",
)


def size(text: str | None) -> int | str | None:
    """Bytes for a bare number; text with a unit stays."""
    if text is None:
        return None
    try:
        said = int(text) if text.isdigit() else text
        parse_size(said)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    return said


def quota(**words: str | None) -> Quota:
    """By the names of `Quota`; the word ``none`` is no bound. Raises UsageProblem."""
    said: dict[str, Any] = {}
    for name, word in words.items():
        if word is None or word == "none":
            continue
        try:
            said[name] = size(word) if name in ("memory", "disk") else int(word) if name == "sandboxes" else float(word)
        except ValueError:
            raise UsageProblem(f"--{name} is a number, or none for no bound, not {word!r}") from None
    return Quota(**said)


def shell_line(words: Sequence[str]) -> str:
    """One line for ``/bin/sh`` that starts just these words, and becomes the command."""
    return words[0] if len(words) == 1 and " " in words[0] else f"exec {shlex.join(words)}"


def duration(text: str) -> str:
    try:
        parse_duration(text)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    return text


def env_of(words: Sequence[str]) -> dict[str, str]:
    """``NAME=value``, or ``NAME`` for the value it has here."""
    env: dict[str, str] = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given and name not in os.environ:
            raise UsageProblem(f"--env {name}: it is not set here", f"--env {name}=VALUE")
        env[name] = value if given else os.environ[name]
    return env


def labels_of(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for key, given, _ in pairs:
        if not given:
            raise UsageProblem(f"--label {key}: a label has a value", f"--label {key}=VALUE")
    return {key: value for key, _, value in pairs}


def copy_in(word: str) -> tuple[Path, str]:
    """``LOCAL[:REMOTE]``; without REMOTE the same name in the sandbox's workdir."""
    local, given, remote = word.rpartition(":") if ":" in word else (word, "", "")
    path = Path(local)
    if not path.exists():
        raise UsageProblem(f"--copy {word}: there is no {local!r} here")
    return path, remote if given and remote else path.resolve().name


def copy_out(word: str) -> tuple[str, Path]:
    """``REMOTE[:LOCAL]``; without LOCAL the same name in this folder."""
    remote, _, local = word.partition(":")
    if not remote:
        raise UsageProblem(f"--out {word}: which file of the sandbox?", "--out result.png:./result.png")
    return remote, Path(local or PurePosixPath(remote).name or ".")


def remote_of(word: str) -> tuple[str, str] | None:
    """Sandbox and path of ``SANDBOX:PATH``; None for a path of this machine (``./a:b`` is one)."""
    sandbox, given, path = word.partition(":")
    if not given or not sandbox or "/" in sandbox or sandbox.startswith("."):
        return None
    return sandbox, path or "."
