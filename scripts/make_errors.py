#!/usr/bin/env python3
"""Writes docs/errors.md from the tree of errors and the HTTP front's statuses; `--check` only says whether it is stale."""

import inspect
import sys
from pathlib import Path

from belljar.front.native.errors import STATUSES
from belljar.model import errors
from belljar.sdk import errors as client_errors

__all__ = ("main", "page")

TARGET = Path(__file__).resolve().parent.parent / "docs/errors.md"
HEAD = """\
# Errors

Made by scripts/make_errors.py: do not edit. Every error of Belljar is a `belljar.Error` with a stable `code`, a `message` and
often a `hint` for people, `retryable` (the same call may work later) and, over HTTP, the `request_id` of the answer's
`x-request-id` header. A command that ends with another status than 0 is a result and no error, unless `check=True` asks for one.

HTTP answers have the body `{"error": {"code", "message", "hint"?, "retryable", "retry_after"?, "request_id"}}`; the SDK raises
the code's class. `retry_after` says in how many seconds the same call may work, where that is known; the header `Retry-After`
says it in whole seconds, rounded up.

| code | class | HTTP | retryable | |
|---|---|---|---|---|
"""
CLIENT = """
Raised by the SDK itself:

| code | class | also a | |
|---|---|---|---|
"""


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        fresh = TARGET.is_file() and TARGET.read_text() == page()
        if not fresh:
            print("docs/errors.md is stale (run scripts/make_errors.py)", file=sys.stderr)
        return 0 if fresh else 1
    TARGET.write_text(page())
    return 0


def page() -> str:
    served = sorted(_classes(errors), key=lambda kind: (STATUSES[kind.code], kind.code))
    rows = [
        f"| `{kind.code}` | `{kind.__name__}` | {STATUSES[kind.code]} | {'yes' if kind.retryable else ''} | {_first(kind)} |\n"
        for kind in served
    ]
    client = [
        f"| `{kind.code}` | `{kind.__name__}` | {', '.join(f'`{name}`' for name in _builtin(kind))} | {_first(kind)} |\n"
        for kind in _classes(client_errors)
    ]
    return HEAD + "".join(rows) + CLIENT + "".join(client)


def _classes(module: object) -> list[type[errors.Error]]:
    own = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, errors.Error)]
    return [kind for kind in own if kind.__module__ == module.__name__ and kind is not errors.Error]  # type: ignore[attr-defined]


def _builtin(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]


def _first(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
