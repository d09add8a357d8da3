"""The audit log: who changed what, when, from where, and what came of it. Each entry is tied to the one before it by a hash."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

from belljar.model.errors import InvalidArgument

__all__ = (
    "MAX_LINE",
    "START",
    "Act",
    "AuditEntry",
    "Chain",
    "clean",
    "entries_of",
    "entry_json",
    "entry_line",
    "entry_of",
    "hash_of",
    "seal",
    "verify",
)

START = "0" * 64
"""The `prev` of the first entry of a workspace."""
MAX_LINE = 16 << 10
"""Bytes of an exported entry; no entry comes near it."""
_CUT = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is told of one request.

    `key`: the id of the API key, None for the local socket. `via`: ``unix``, ``tcp``, or ``server`` for what the server did by
    itself. `peer`: the address of the client; of a local one its user, ``uid:0``. `route`: the template of the address, such as
    ``/v1/sandboxes/{ref}/fork``; `target`: the address itself, or that of what was made. `status` is HTTP's; `code` that of
    an error.
    """

    workspace: str
    key: str | None
    via: str
    peer: str | None
    method: str
    route: str
    target: str
    status: int
    code: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Act):
    """An act in its place. `seq`: 1, 2, … in each workspace, without a gap. `at`: seconds since 1970, to the millisecond.

    `prev`: the hash of the entry before this one. `hash`: SHA-256 of `prev`, a newline, and the other fields as `hash_of` says.
    """

    seq: int
    at: float
    prev: str
    hash: str


_BOUNDS = {
    "workspace": 64,
    "key": 64,
    "via": 16,
    "peer": 64,
    "method": 16,
    "route": 128,
    "target": 256,
    "code": 64,
    "request_id": 64,
}
"""Characters of what a client may have chosen."""
_OPTIONAL = ("key", "peer", "code")
_ORDER = ("seq", "at", *(field.name for field in fields(Act)), "prev", "hash")
_HASHED = tuple(sorted(name for name in _ORDER if name not in ("prev", "hash")))


def clean(text: str, most: int) -> str:
    """At most so many characters, all of them printable: others (controls, halves of surrogate pairs) become U+FFFD."""
    if len(text) > most:
        text = text[: most - 1] + _CUT
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def seal(act: Act, *, seq: int, at: float, prev: str) -> AuditEntry:
    """The act as the entry with this number, behind the one whose hash is `prev`; its text is cleaned and cut to its bounds."""
    said: dict[str, Any] = {"status": act.status}
    for name, most in _BOUNDS.items():
        text: str | None = getattr(act, name)
        said[name] = None if text is None else clean(text, most)
    said |= {"seq": seq, "at": round(at, 3), "prev": prev}
    return AuditEntry(**said, hash=_hash(prev, said))


def hash_of(entry: AuditEntry) -> str:
    """SHA-256, in hex, of ``prev + "\\n" + J``. J: all fields but `prev`, `hash` and those that are None, as JSON with sorted
    keys, no spaces, and ASCII alone. A field that a later release adds, None in older entries, leaves their hashes as they are.
    """
    return _hash(entry.prev, {name: getattr(entry, name) for name in _HASHED})


def _hash(prev: str, said: dict[str, Any]) -> str:
    told = {name: said[name] for name in _HASHED if said[name] is not None}
    return hashlib.sha256(f"{prev}\n{json.dumps(told, separators=(',', ':'))}".encode()).hexdigest()


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _ORDER}


def entry_line(entry: AuditEntry) -> bytes:
    """As it is exported: a line of JSON."""
    return json.dumps(entry_json(entry), separators=(",", ":")).encode() + b"\n"


def entry_of(value: Any) -> AuditEntry:
    """Of its JSON, which anybody may have made. Raises InvalidArgument, which says what is wrong."""
    if not isinstance(value, dict):
        raise InvalidArgument("it is no JSON object")
    said = cast("dict[str, Any]", value)
    if missing := [name for name in _ORDER if name not in said]:
        raise InvalidArgument(f"it has no {missing[0]}")
    if unknown := sorted(clean(name, 40) for name in said if name not in _ORDER):
        raise InvalidArgument(f"it has the unknown field {unknown[0]}")
    for name in ("seq", "status"):
        if type(said[name]) is not int:
            raise InvalidArgument(f"{name} is no whole number")
    # Other programs write 5.0 as 5.
    if type(said["at"]) not in (int, float) or not math.isfinite(at := float(said["at"])):
        raise InvalidArgument("at is no time")
    for name in (*_BOUNDS, "prev", "hash"):
        if not isinstance(said[name], str) and not (said[name] is None and name in _OPTIONAL):
            raise InvalidArgument(f"{name} is no text")
    told: dict[str, Any] = {**said, "at": at}
    return AuditEntry(**told)


def entries_of(lines: Iterable[bytes]) -> Iterator[AuditEntry]:
    """What an export holds. Raises InvalidArgument, which names the line."""
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise InvalidArgument(f"line {number} is no entry: it is too long")
        try:
            yield entry_of(json.loads(line))
        except InvalidArgument as error:
            raise InvalidArgument(f"line {number} is no entry: {error.message}") from None
        except (ValueError, RecursionError, OverflowError):
            raise InvalidArgument(f"line {number} is no entry: it is not JSON") from None


@dataclass(frozen=True, slots=True)
class Chain:
    """What `verify` found. `count`: entries that hold, from `first` to `last`. `broken`: what is wrong behind them, None when
    nothing is; `broken_at`: the number of the entry that is meant.
    """

    count: int = 0
    first: AuditEntry | None = None
    last: AuditEntry | None = None
    broken: str | None = None
    broken_at: int | None = None


def verify(entries: Iterable[AuditEntry], *, noted: tuple[int, str] | None = None) -> Chain:
    """Goes along the entries of one workspace, the oldest first, to where they do not fit together.

    They may begin later than with number 1: older ones were pruned. `noted`: number and hash of an entry that somebody saw
    before; it must be among them, or be the one right before the first. Without it nobody can tell that the newest entries are
    missing, or that somebody who could write the store made the whole chain anew.
    """
    count, first, last = 0, None, None
    for entry in entries:
        why = _misfit(entry, last) or _other_than(noted, entry)
        if why is not None:
            return Chain(count, first, last, why, entry.seq)
        count, first, last = count + 1, first or entry, entry
    why = _missing(noted, first, last)
    return Chain(count, first, last, why, noted[0] if why and noted else None)


def _misfit(entry: AuditEntry, last: AuditEntry | None) -> str | None:
    if last is not None and entry.workspace != last.workspace:
        return f"entry {entry.seq} is of another workspace"
    if last is not None and entry.seq != last.seq + 1:
        return f"behind entry {last.seq} comes {entry.seq}"
    if entry.seq < 1 or (entry.seq == 1 and entry.prev != START):
        return f"entry {entry.seq} is no beginning of a chain"
    if entry.hash != hash_of(entry):
        return f"entry {entry.seq} was changed: its hash is another"
    if last is not None and entry.prev != last.hash:
        return f"entry {entry.seq} does not belong behind entry {last.seq}: one of them was changed"
    return None


def _other_than(noted: tuple[int, str] | None, entry: AuditEntry) -> str | None:
    if noted is None:
        return None
    if entry.seq == noted[0] and entry.hash != noted[1]:
        return f"entry {entry.seq} is not the one that was noted"
    if entry.seq == noted[0] + 1 and entry.prev != noted[1]:
        return f"entry {entry.seq} does not belong behind the one that was noted"
    return None


def _missing(noted: tuple[int, str] | None, first: AuditEntry | None, last: AuditEntry | None) -> str | None:
    if noted is None:
        return None
    if last is None or first is None or noted[0] > last.seq:
        return f"the entry {noted[0]} that was noted is missing, and maybe others"
    if noted[0] < first.seq - 1:
        return f"the entry {noted[0]} that was noted cannot be compared: the oldest here is {first.seq}"
    return None
