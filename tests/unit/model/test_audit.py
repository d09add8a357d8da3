"""The chain of the audit log: what it is made of, and how it shows what was done to it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from belljar.model.audit import (
    MAX_LINE,
    START,
    Act,
    AuditEntry,
    clean,
    entries_of,
    entry_json,
    entry_line,
    entry_of,
    hash_of,
    seal,
    verify,
)
from belljar.model.errors import InvalidArgument


def act(**said: Any) -> Act:
    usual: dict[str, Any] = {
        "workspace": "default",
        "key": "key01",
        "via": "tcp",
        "peer": "127.0.0.1",
        "method": "POST",
        "route": "/v1/sandboxes",
        "target": "/v1/sandboxes/sb01",
        "status": 201,
        "code": None,
        "request_id": "r1",
    }
    return Act(**usual | said)


def chain(count: int, *, start: int = 1, prev: str = START) -> list[AuditEntry]:
    made: list[AuditEntry] = []
    for seq in range(start, start + count):
        made.append(seal(act(request_id=f"r{seq}"), seq=seq, at=1000.0 + seq / 7, prev=prev))
        prev = made[-1].hash
    return made


def resealed(entry: AuditEntry, **changes: Any) -> AuditEntry:
    """As somebody would who knows how the hash is made."""
    changed = replace(entry, **changes)
    return replace(changed, hash=hash_of(changed))


def test_the_hash_is_what_the_page_says():
    one = seal(act(peer="ä", code=None), seq=1, at=1700000000.12345, prev=START)
    said = {
        name: value for name, value in entry_json(one).items() if name not in ("prev", "hash") and value is not None
    }
    assert "code" not in said
    assert said["at"] == 1700000000.123
    text = f"{START}\n{json.dumps(said, sort_keys=True, separators=(',', ':'))}"
    assert one.hash == hashlib.sha256(text.encode()).hexdigest()


def test_every_field_but_the_hash_itself_is_in_the_hash():
    one = seal(act(code="conflict"), seq=2, at=1.0, prev="a" * 64)
    others: dict[str, Any] = {"seq": 3, "at": 2.0, "status": 409, "prev": "b" * 64}
    for name in entry_json(one):
        if name != "hash":
            assert hash_of(replace(one, **{name: others.get(name, "x")})) != one.hash, name


def test_a_whole_chain_holds_from_its_start_and_from_where_it_was_pruned():
    made = chain(20)
    found = verify(made)
    assert (found.count, found.first, found.last, found.broken) == (20, made[0], made[-1], None)
    found = verify(made[7:])
    assert (found.count, found.first, found.broken) == (13, made[7], None)
    assert verify([]).broken is None


CHANGES: list[tuple[str, Callable[[list[AuditEntry]], None], int, int]] = [
    ("a changed field", lambda made: made.__setitem__(4, replace(made[4], target="/x")), 5, 4),
    ("a changed status", lambda made: made.__setitem__(4, replace(made[4], status=200)), 5, 4),
    ("a changed time", lambda made: made.__setitem__(4, replace(made[4], at=made[4].at + 0.001)), 5, 4),
    ("a changed hash", lambda made: made.__setitem__(4, replace(made[4], hash="f" * 64)), 5, 4),
    ("changed with its hash", lambda made: made.__setitem__(4, resealed(made[4], target="/x")), 6, 5),
    ("one taken out", lambda made: made.__delitem__(4), 6, 4),
    ("two swapped", lambda made: made.__setitem__(slice(4, 6), [made[5], made[4]]), 6, 4),
    ("one twice", lambda made: made.insert(4, made[4]), 5, 5),
    ("one put in", lambda made: made.insert(4, resealed(made[4], request_id="put in")), 5, 5),
    ("of another workspace", lambda made: made.__setitem__(4, resealed(made[4], workspace="other")), 5, 4),
    ("another beginning", lambda made: made.__setitem__(0, resealed(made[0], prev="0" * 63 + "1")), 1, 0),
    ("number 0", lambda made: made.insert(0, resealed(made[0], seq=0)), 0, 0),
]
"""What is done to ten entries, the number at which the chain breaks, and how many hold before it."""


@pytest.mark.parametrize(("change", "at", "count"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_what_was_done_to_it_is_found_where_it_was_done(
    change: Callable[[list[AuditEntry]], None], at: int, count: int
):
    made = chain(10)
    change(made)
    found = verify(made)
    assert found.broken is not None
    assert (found.broken_at, found.count) == (at, count)


def test_entries_that_are_missing_at_the_end_are_found_by_one_that_was_noted():
    made = chain(10)
    noted = made[7].seq, made[7].hash
    assert verify(made, noted=noted).broken is None
    assert verify(made[:8], noted=noted).broken is None
    assert verify(made[8:], noted=noted).broken is None
    assert verify(made[:7], noted=noted).broken_at == 8
    assert verify([], noted=noted).broken_at == 8
    assert "cannot be compared" in str(verify(made[9:], noted=noted).broken)


def test_a_chain_that_was_made_anew_is_found_by_one_that_was_noted():
    made = chain(10)
    other = chain(2)
    other[1] = resealed(other[1], target="/harmless")
    other += chain(8, start=3, prev=other[1].hash)
    assert verify(other).broken is None
    assert verify(other, noted=(8, made[7].hash)).broken_at == 8
    assert verify(other[8:], noted=(8, made[7].hash)).broken_at == 9
    assert verify(other, noted=(1, made[0].hash)).broken is None


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\x1b[2J\r\n\0", "\udcff\ud800", "\u202e\u2028", "ä" * 300, "😀" * 300, "", "a\nb"]
)
def test_what_a_client_chose_is_short_and_printable(text: str):
    one = seal(
        act(peer=text, method=text, route=text, target=text, request_id=text, code=text), seq=1, at=1.0, prev=START
    )
    for name in ("peer", "method", "route", "target", "request_id", "code"):
        said = getattr(one, name)
        assert len(said) <= 256
        assert said.isprintable()
        said.encode()
    line = entry_line(one)
    assert len(line) < MAX_LINE
    assert list(entries_of([line])) == [one]
    assert verify([one]).broken is None


def test_what_was_cut_shows_it():
    assert clean("abcdef", 6) == "abcdef"
    assert clean("abcdefg", 6) == "abcde…"


def test_an_export_comes_back_as_it_was_also_from_a_program_that_writes_whole_numbers_short():
    made = chain(50)
    assert list(entries_of(entry_line(entry) for entry in made)) == made
    whole = seal(act(), seq=1, at=5.0, prev=START)
    assert b'"at":5.0' in entry_line(whole)
    assert verify(entries_of([entry_line(whole).replace(b'"at":5.0', b'"at":5')])).broken is None


GOOD = entry_json(chain(1)[0])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b"1" * 5000,
        b"\xff\xfe",
        b"[" * 15_000,
        b"x" * (MAX_LINE + 1),
        json.dumps({name: value for name, value in GOOD.items() if name != "hash"}).encode(),
        *(
            json.dumps(GOOD | change).encode()
            for change in (
                {"more": 1},
                {"seq": "1"},
                {"seq": True},
                {"seq": 1.0},
                {"at": "now"},
                {"at": float("nan")},
                {"at": float("inf")},
                {"at": 10**400},
                {"at": None},
                {"status": None},
                {"target": None},
                {"hash": 5},
                {"prev": None},
                {"key": []},
            )
        ),
    ],
    ids=lambda line: repr(line[:24]),
)
def test_a_line_that_is_no_entry_is_named(line: bytes):
    good = entry_line(chain(1)[0])
    with pytest.raises(InvalidArgument, match="line 2 is no entry"):
        list(entries_of([good, line]))


def test_the_values_of_an_entry_are_checked_one_by_one():
    assert entry_of(GOOD | {"key": None, "peer": None, "code": "conflict"}).code == "conflict"
    with pytest.raises(InvalidArgument, match="unknown field"):
        entry_of(GOOD | {"\x1b[2J": 1})
