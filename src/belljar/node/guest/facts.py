"""What the agent says, checked: nothing of it is believed before its type, range and size are right."""

import math
from typing import Any

from belljar.model.file import MAX_PATH, Change, ChangeKind, FileInfo, FileKind
from belljar.model.process import ProcessInfo, StreamState
from belljar.wire.faults import WireFault

__all__ = ("change_of", "file_of", "integer", "listing", "mounts_of", "page_of", "process_of")

_MOST = 1 << 62
_MAX_TEXT = 256
_MAX_WORDS = 100
_MAX_ARGV = 16 << 10
"""Agents cut what they tell of a command long before that."""
_MAX_PAGE = 1000
_MAX_MOUNTS = 64


def process_of(value: object) -> ProcessInfo:
    """Raises WireFault for anything else."""
    fields = _object(value, "a process")
    argv = fields.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):  # pyright: ignore[reportUnknownVariableType]
        raise WireFault("a process without its command")
    words: list[str] = fields["argv"]
    if len(words) > _MAX_WORDS or sum(map(len, words)) > _MAX_ARGV:
        raise WireFault("a process with an impossible command")
    returncode = fields.get("returncode")
    return ProcessInfo(
        id=integer(fields, "id", least=1),
        pid=integer(fields, "pid"),
        argv=tuple(words),
        user=_text(fields, "user"),
        started=_time(fields, "started"),
        pty=_flag(fields, "pty"),
        keep_alive=_flag(fields, "keep_alive"),
        returncode=None if returncode is None else integer(fields, "returncode", least=-255, most=255),
        ended=None if fields.get("ended") is None else _time(fields, "ended"),
        out_of_memory=_flag(fields, "out_of_memory"),
        stdin=integer(fields, "stdin", default=0),
        stdout=_stream(fields.get("stdout")),
        stderr=_stream(fields.get("stderr")),
    )


def file_of(value: object) -> FileInfo:
    """Raises WireFault for anything else. Control characters in names stay: they are data, and never used as a path here."""
    fields = _object(value, "a file")
    kind = fields.get("kind")
    if kind not in tuple(FileKind):
        raise WireFault("a file of no known kind")
    target = fields.get("target")
    return FileInfo(
        path=_text(fields, "path", most=2 * MAX_PATH),
        kind=FileKind(kind),
        size=integer(fields, "size"),
        mode=integer(fields, "mode", most=0o7777),
        uid=integer(fields, "uid", most=0xFFFF_FFFF),
        gid=integer(fields, "gid", most=0xFFFF_FFFF),
        user=_text(fields, "user"),
        group=_text(fields, "group"),
        mtime=_time(fields, "mtime"),
        target=None if target is None else _text(fields, "target", most=MAX_PATH),
    )


def page_of(answer: dict[str, Any]) -> tuple[list[FileInfo], str | None]:
    entries = listing(answer, "entries", most=_MAX_PAGE)
    cursor = None if answer.get("next") is None else _text(answer, "next", most=MAX_PATH)
    return [file_of(entry) for entry in entries], cursor


def change_of(value: object) -> Change:
    fields = _object(value, "a change")
    kind = fields.get("kind")
    if kind not in tuple(ChangeKind):
        raise WireFault("a change of no known kind")
    source = None if fields.get("source") is None else _text(fields, "source", most=2 * MAX_PATH)
    return Change(ChangeKind(kind), _text(fields, "path", most=2 * MAX_PATH), source)


def mounts_of(answer: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in listing(answer, "mounts", most=_MAX_MOUNTS):
        fields = _object(value, "a mount")
        found[_text(fields, "path", most=2 * MAX_PATH)] = _text(fields, "label")
    return found


def listing(answer: dict[str, Any], name: str, *, most: int) -> list[object]:
    value = answer.get(name)
    if not isinstance(value, list) or len(value) > most:  # pyright: ignore[reportUnknownArgumentType]
        raise WireFault(f"no list of {name}")
    return value  # pyright: ignore[reportUnknownVariableType]


def integer(fields: dict[str, Any], name: str, *, least: int = 0, most: int = _MOST, default: int | None = None) -> int:
    value = fields.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise WireFault(f"{name} is no number between {least} and {most}")
    return value


def _stream(value: object) -> StreamState:
    if value is None:
        return StreamState(closed=True)
    fields = _object(value, "the state of a stream")
    return StreamState(
        integer(fields, "start", default=0),
        integer(fields, "end", default=0),
        integer(fields, "dropped", default=0),
        _flag(fields, "closed"),
    )


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireFault(f"{what} that is none")
    return value  # pyright: ignore[reportUnknownVariableType]


def _text(fields: dict[str, Any], name: str, *, most: int = _MAX_TEXT) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise WireFault(f"{name} is no text of at most {most} characters")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise WireFault(f"{name} is neither true nor false")
    return value


def _time(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireFault(f"{name} is no time")
    try:
        seconds = float(value)
    except OverflowError:
        raise WireFault(f"{name} is no time") from None
    if not math.isfinite(seconds):
        raise WireFault(f"{name} is no time")
    return seconds
