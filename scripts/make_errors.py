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
# The name in google.rpc.Code, and what a caller does about it.
ADVICE = {
    "already_exists": ("ALREADY_EXISTS", "Choose another name, or use the thing that has it."),
    "cancelled": ("CANCELLED", "Nothing: whoever asked has left."),
    "conflict": ("FAILED_PRECONDITION", "Look at its state, bring it into the one that the message names, call again."),
    "disk_full": ("RESOURCE_EXHAUSTED", "Make room: delete snapshots or files; a sandbox may need a bigger `disk`."),
    "engine_failed": ("INTERNAL", "Try once more; then look into the server's log, and run `belljar doctor`."),
    "image_not_found": ("NOT_FOUND", "Take one of the images that the hint names (`GET /v1/info`)."),
    "internal": ("INTERNAL", "Look for the `request_id` in the server's log, and report it."),
    "invalid_argument": ("INVALID_ARGUMENT", "Correct the value that the message names."),
    "limit_exceeded": (
        "RESOURCE_EXHAUSTED",
        "Wait for `retry_after`, or else until something has ended; or free what is kept.",
    ),
    "no_capacity": ("UNAVAILABLE", "End some sandboxes, ask for less memory, or try again later."),
    "not_found": ("NOT_FOUND", "Check the name or id; the lists show what is there."),
    "not_supported": ("UNIMPLEMENTED", "Take another way: the message says what is missing (`belljar doctor`)."),
    "permission_denied": ("PERMISSION_DENIED", "Use a key with the scope that the hint names."),
    "policy_denied": ("PERMISSION_DENIED", "Ask the operator of the server."),
    "sandbox_gone": ("NOT_FOUND", "Create another; for more time give a longer `lifetime` or `idle`."),
    "snapshot_corrupt": ("DATA_LOSS", "Take another snapshot, or import it again; check the key and the disk."),
    "snapshot_incompatible": (
        "FAILED_PRECONDITION",
        "Start from its files (a filesystem snapshot), or where it was made.",
    ),
    "starting": ("UNAVAILABLE", "Try again in a second; the SDK does by itself."),
    "template_failed": ("FAILED_PRECONDITION", "Mend its command or its ready check, and create it again."),
    "timeout": ("DEADLINE_EXCEEDED", "Try again with more time, or send the body faster."),
    "too_large": ("INVALID_ARGUMENT", "Send it in parts, or as a file."),
    "unauthenticated": ("UNAUTHENTICATED", "Give a valid key (`belljar key create`, `BELLJAR_API_KEY`)."),
    "output_lost": ("", "Read on behind the gap; attach sooner, or write to a file."),
    "process_failed": ("", "Look at `returncode` and `stderr`."),
    "process_timeout": ("", "Give more time, or run it in the background (`popen`)."),
    "server_unreachable": ("", "Run `belljar serve`, or check `BELLJAR_URL`."),
    "unsafe_entry": ("", "Do not trust the tree; `skip_unsafe=True` leaves such entries out."),
}
HEAD = """\
# Errors

Made by scripts/make_errors.py: do not edit. Every error of Belljar is a `belljar.Error` with a stable `code`, a `message` and
often a `hint` for people, `retryable` (the same call may work later) and, over HTTP, the `request_id` of the answer's
`x-request-id` header. A command that ends with another status than 0 is a result and no error, unless `check=True` asks for one.

HTTP answers have the body `{"error": {"code", "message", "hint"?, "retryable", "retry_after"?, "request_id"}}`; the SDK raises
the code's class. `retry_after` says in how many seconds the same call may work, where that is known; the header `Retry-After`
says it in whole seconds, rounded up. Two statuses are not those of the table: 405 for a method that is not for its address
(`not_supported`), and 408 for a request whose head did not end in time (`timeout`).

The column gRPC has the name in `google.rpc.Code` that stands for the same.

| code | class | HTTP | gRPC | retryable | what it means | what to do |
|---|---|---|---|---|---|---|
"""
CLIENT = """
Raised by the SDK itself:

| code | class | also a | what it means | what to do |
|---|---|---|---|---|
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
        _row(kind, str(STATUSES[kind.code]), ADVICE[kind.code][0], "yes" if kind.retryable else "") for kind in served
    ]
    client = [_row(kind, ", ".join(f"`{name}`" for name in _builtin(kind))) for kind in _classes(client_errors)]
    return HEAD + "".join(rows) + CLIENT + "".join(client)


def _row(kind: type[errors.Error], *middle: str) -> str:
    return f"| {' | '.join((f'`{kind.code}`', f'`{kind.__name__}`', *middle, _first(kind), ADVICE[kind.code][1]))} |\n"


def _classes(module: object) -> list[type[errors.Error]]:
    own = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, errors.Error)]
    return [kind for kind in own if kind.__module__ == module.__name__ and kind is not errors.Error]  # type: ignore[attr-defined]


def _builtin(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]


def _first(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
