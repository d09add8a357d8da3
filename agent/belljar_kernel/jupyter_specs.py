"""Which of the image's Jupyter kernels runs a language, and how that language sets a variable of the environment."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from belljar_kernel.backend import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from belljar_kernel.renewal import Renewal

__all__ = ("EnvironmentCells", "choose", "environment_cells", "renewal_cell")

_ALIASES = {
    **dict.fromkeys(("js", "node", "nodejs", "ecmascript"), "javascript"),
    **dict.fromkeys(("ts", "tsx"), "typescript"),
    **dict.fromkeys(("sh", "shell"), "bash"),
    **dict.fromkeys(("ir", "rlang"), "r"),
    "jl": "julia",
    "rb": "ruby",
    "rs": "rust",
    "c++": "cpp",
}
# Every JavaScript is TypeScript.
_STAND_INS = {"javascript": ("typescript",)}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvironmentCells(NamedTuple):
    """Code to run before a cell that has its own variables, and after it."""

    before: str
    after: str


def choose(wanted: str, specs: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the spec for a language (of `specs`: name → `spec` of its kernel.json). Raises Refused, naming those there are.

    By its own name, else by the language that it says it runs; case does not matter.
    """
    names = {name.lower(): name for name in specs}
    languages: dict[str, str] = {}
    for name, spec in sorted(specs.items()):
        languages.setdefault(str(spec.get("language", "")).lower(), name)
    plain = wanted.lower()
    meant = _ALIASES.get(plain, plain)
    for found in (names.get(plain), names.get(meant), languages.get(meant)):
        if found is not None:
            return found
    for other in _STAND_INS.get(meant, ()):
        if other in languages:
            return languages[other]
    there = ", ".join(sorted({"python", *filter(None, languages), *names}))
    raise Refused(f"no Jupyter kernel of this image runs {wanted}", hint=f"this image runs: {there}")


def environment_cells(language: str, variables: Mapping[str, str]) -> EnvironmentCells | None:
    """None where that language has no known way to set these."""
    make = _MAKERS.get(language.lower())
    return make(variables) if make else None


def renewal_cell(language: str, renewal: Renewal) -> str | None:
    """Code that makes a kernel what its sandbox has become; None where that language has no known way."""
    make = _RENEWERS.get(language.lower())
    return make(renewal) if make else None


def _renew_bash(renewal: Renewal) -> str:
    lines: list[str] = []
    for name, value in renewal.env.items():
        if _IDENTIFIER.fullmatch(name):
            lines.append(f"unset {name}" if value is None else f"export {name}={_quoted(value)}")
    if renewal.reseed:
        lines.append(f"RANDOM={int.from_bytes(os.urandom(4), 'little') >> 1}")
    if renewal.cwd is not None:
        lines.append(f"cd -- {_quoted(renewal.cwd)}")
    return "\n".join(lines)


def _renew_javascript(renewal: Renewal) -> str:
    """Its generator has no seed."""
    lines = [
        f"delete process.env[{json.dumps(name)}];"
        if value is None
        else f"process.env[{json.dumps(name)}] = {json.dumps(value)};"
        for name, value in renewal.env.items()
    ]
    if renewal.cwd is not None:
        lines.append(f"process.chdir({json.dumps(renewal.cwd)});")
    return "{" + " ".join(lines) + "}" if lines else ""


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _bash(variables: Mapping[str, str]) -> EnvironmentCells | None:
    if not all(_IDENTIFIER.fullmatch(name) for name in variables):
        return None
    before: list[str] = []
    after: list[str] = []
    for name, value in variables.items():
        quoted = _quoted(value)
        kept = f"__belljar_{name}"
        before.append(f'if [ -n "${{{name}+x}}" ]; then {kept}=${name}; else unset {kept}; fi; export {name}={quoted}')
        after.append(f'if [ -n "${{{kept}+x}}" ]; then {name}=${kept}; unset {kept}; else unset {name}; fi')
    return EnvironmentCells("\n".join(before), "\n".join(after))


def _javascript(variables: Mapping[str, str]) -> EnvironmentCells:
    # No name of its own may stay in the code's scope.
    place = 'globalThis[Symbol.for("belljar.environment")]'
    before = (
        f"(() => {{ const now = {json.dumps(dict(variables))}, kept = {place} = {{}}; for (const name in now) "
        "{ kept[name] = process.env[name]; process.env[name] = now[name]; } })()"
    )
    after = (
        f"(() => {{ const kept = {place}; for (const name in kept) "
        "{ if (kept[name] === undefined) delete process.env[name]; else process.env[name] = kept[name]; } })()"
    )
    return EnvironmentCells(before, after)


_RENEWERS: Mapping[str, Callable[[Renewal], str]] = {
    "bash": _renew_bash,
    "javascript": _renew_javascript,
    "typescript": _renew_javascript,
}
_MAKERS: Mapping[str, Callable[[Mapping[str, str]], EnvironmentCells | None]] = {
    "bash": _bash,
    "javascript": _javascript,
    "typescript": _javascript,
}
