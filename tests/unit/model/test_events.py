"""Events as values: what lies between two looks, their kinds, their bounds, their JSON."""

import json
from dataclasses import replace

import pytest

from belljar.model.errors import InvalidArgument
from belljar.model.events import Event, EventKind, bounded, event_json, event_of, kinds_of, steps_of
from belljar.model.sandbox import Ended, Sandbox, SandboxSpec, Status

NEW = Sandbox("sb1", SandboxSpec(), Status.CREATING, 10.0)
RUNNING = replace(NEW, status=Status.RUNNING, started=11.0)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.TERMINATED, "sandbox.ended"),
        (Status.FAILED, "sandbox.failed"),
        (Status.LOST, "sandbox.lost"),
    ],
)
def test_an_end_is_told_with_its_reason_and_time(status: Status, kind: str) -> None:
    over = replace(RUNNING, status=status, ended=Ended("why", 20.0, "words"))
    assert steps_of(RUNNING, over) == [(kind, 20.0, "why", "words")]


def test_what_was_not_seen_in_between_is_told_too() -> None:
    over = replace(RUNNING, status=Status.TERMINATED, ended=Ended("killed", 20.0))
    assert steps_of(NEW, RUNNING) == [("sandbox.started", 11.0, None, None)]
    assert steps_of(NEW, over) == [("sandbox.started", 11.0, None, None), ("sandbox.ended", 20.0, "killed", None)]
    assert steps_of(RUNNING, replace(RUNNING, expires=99.0)) == []
    assert steps_of(RUNNING, replace(over, status=Status.TERMINATING)) == [], "it has not ended yet"


@pytest.mark.parametrize("status", [status for status in Status if status.rests])
def test_rest_and_waking_are_told(status: Status) -> None:
    resting = replace(RUNNING, status=status)
    assert steps_of(RUNNING, resting) == [(f"sandbox.{status}", None, None, None)]
    assert steps_of(resting, resting) == []
    assert steps_of(resting, RUNNING) == [("sandbox.resumed", None, None, None)]
    over = replace(resting, status=Status.TERMINATED, ended=Ended("killed", 20.0))
    assert steps_of(resting, over) == [("sandbox.ended", 20.0, "killed", None)]


def test_a_noun_means_all_of_its_kinds() -> None:
    assert kinds_of(["sandbox.ended"]) == (EventKind.SANDBOX_ENDED,)
    assert set(kinds_of(["snapshot", "snapshot.lost"])) == {kind for kind in EventKind if kind.startswith("snapshot.")}
    assert len(kinds_of(["sandbox", "snapshot", "template"])) == len(EventKind)
    assert kinds_of([]) == ()
    for word in ("", "sandbox.", "sand", "SANDBOX", "x" * 1000, "sandbox.ended\n"):
        with pytest.raises(InvalidArgument, match="no kind of event"):
            kinds_of([word])


def test_text_of_others_is_cut_and_cleaned_before_it_is_written() -> None:
    hostile = "\x1b[2J\n\0\udcff" + "x" * 10_000
    event = bounded(
        Event(id="ev1", workspace="w", kind=EventKind.SANDBOX_FAILED, at=1.0, message=hostile, reason=hostile, name="a")
    )
    assert event.message is not None and event.reason is not None
    assert (len(event.message), len(event.reason), event.name) == (500, 64, "a")
    assert event.message.isprintable() and event.reason.isprintable()
    assert event.message.encode().decode() == event.message


def test_the_json_comes_back_and_a_kind_of_a_newer_server_stays_a_word() -> None:
    event = Event(id="ev1", workspace="w", kind=EventKind.SNAPSHOT_CREATED, at=1.5, snapshot="sn1", seq=7)
    said = json.loads(json.dumps(event_json(event)))
    assert next(iter(said)) == "seq"
    assert event_of(said) == event
    assert event_of(said | {"kind": "volume.created", "new": 1}).kind == "volume.created"
