"""The life of a sandbox, without any of the machinery around it."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from belljar.model import lifecycle
from belljar.model.lifecycle import Instruction as Do
from belljar.model.lifecycle import Life
from belljar.model.sandbox import Ended, Status

CREATING, _ = lifecycle.begin(100.0, 60.0)
RUNNING, _ = lifecycle.step(CREATING, lifecycle.Ready(101.0))
EVENTS = [
    lifecycle.Ready(102.0),
    lifecycle.ProvisionFailed(102.0, "no"),
    lifecycle.TerminateAsked(102.0, "killed"),
    lifecycle.LifetimeSet(102.0, 5.0),
    lifecycle.LifetimeSet(102.0, None),
    lifecycle.TimerFired(102.0),
    lifecycle.TimerFired(1e9),
    lifecycle.TimerFired(102.0, idle=1e9),
    lifecycle.IdleSet(102.0, 5.0),
    lifecycle.IdleSet(102.0, None),
    lifecycle.GuestEnded(102.0, True, ""),
    lifecycle.GuestEnded(102.0, False, "gone"),
    lifecycle.AgentLost(102.0, "agent_silent", "10 s"),
    lifecycle.Found(102.0, alive=True),
    lifecycle.Found(102.0, alive=False),
    lifecycle.HostRebooted(102.0),
    lifecycle.Released(102.0),
]


def test_a_new_one_is_recorded_before_it_is_made() -> None:
    life, todo = lifecycle.begin(100.0, 60.0)
    assert life == Life(Status.CREATING, 100.0, 60.0)
    assert todo == (Do.RECORD, Do.PROVISION)


def test_the_lifetime_counts_from_running_on() -> None:
    assert RUNNING.expires == 161.0
    assert lifecycle.step(RUNNING, lifecycle.TimerFired(160.9)) == (RUNNING, ())
    life, todo = lifecycle.step(RUNNING, lifecycle.TimerFired(161.0))
    assert (life.status, life.ended, todo) == (Status.TERMINATING, Ended("lifetime", 161.0), (Do.RECORD, Do.RELEASE))


def test_a_new_lifetime_counts_from_when_it_was_set() -> None:
    life, _ = lifecycle.step(RUNNING, lifecycle.LifetimeSet(150.0, 100.0))
    assert life.expires == 250.0
    life, _ = lifecycle.step(life, lifecycle.LifetimeSet(150.0, None))
    assert life.expires is None
    assert lifecycle.step(life, lifecycle.TimerFired(1e12)) == (life, ())


def test_one_that_nobody_uses_ends_when_it_has_such_a_timer() -> None:
    late = lifecycle.TimerFired(150.0, idle=30.0)
    assert lifecycle.step(RUNNING, late) == (RUNNING, ())
    life, todo = lifecycle.step(RUNNING, lifecycle.IdleSet(120.0, 30.0))
    assert (life.idle, todo) == (30.0, (Do.RECORD, Do.PUBLISH))
    assert lifecycle.step(life, lifecycle.TimerFired(150.0, idle=29.9)) == (life, ())
    ending, todo = lifecycle.step(life, late)
    assert (ending.status, ending.ended, todo) == (Status.TERMINATING, Ended("idle", 150.0), (Do.RECORD, Do.RELEASE))


def test_a_lifetime_that_is_over_is_the_reason_whoever_used_it() -> None:
    life, _ = lifecycle.step(RUNNING, lifecycle.IdleSet(120.0, 30.0))
    ending, _ = lifecycle.step(life, lifecycle.TimerFired(161.0, idle=60.0))
    assert ending.ended == Ended("lifetime", 161.0)


def test_the_first_reason_of_an_end_stays() -> None:
    life, _ = lifecycle.step(RUNNING, lifecycle.TerminateAsked(110.0, "killed"))
    after, todo = lifecycle.step(life, lifecycle.GuestEnded(111.0, True, "late"))
    assert (after, todo) == (life, ())
    done, todo = lifecycle.step(after, lifecycle.Released(112.0))
    assert (done.status, done.ended, todo) == (Status.TERMINATED, Ended("killed", 110.0), (Do.RECORD, Do.PUBLISH))


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (lifecycle.GuestEnded(1.0, True, ""), Status.FAILED, "out_of_memory"),
        (lifecycle.GuestEnded(1.0, False, ""), Status.FAILED, "exited"),
        (lifecycle.AgentLost(1.0, "bad_agent", ""), Status.FAILED, "bad_agent"),
        (lifecycle.HostRebooted(1.0), Status.LOST, "host_reboot"),
        (lifecycle.Found(1.0, alive=False), Status.FAILED, "exited"),
    ],
)
def test_each_bad_end_has_its_reason(event: lifecycle.Event, status: Status, reason: str) -> None:
    life, todo = lifecycle.step(RUNNING, event)
    assert Do.RELEASE in todo
    assert life.ending is status and life.ended is not None and life.ended.reason == reason


def test_a_successor_goes_on_with_a_live_one_and_finishes_a_half_ended_one() -> None:
    assert lifecycle.step(RUNNING, lifecycle.Found(1.0, alive=True)) == (RUNNING, (Do.PUBLISH,))
    ending, _ = lifecycle.step(RUNNING, lifecycle.TerminateAsked(1.0, "killed"))
    assert lifecycle.step(ending, lifecycle.Found(2.0, alive=True)) == (ending, (Do.RELEASE,))
    half_made, todo = lifecycle.step(CREATING, lifecycle.Found(2.0, alive=True))
    assert half_made.ending is Status.FAILED and Do.RELEASE in todo


def test_a_broken_record_is_noticed() -> None:
    with pytest.raises(AssertionError):
        lifecycle.check(replace(RUNNING, started=None))
    with pytest.raises(AssertionError):
        lifecycle.check(replace(RUNNING, ended=Ended("x", 1.0)))


class AnyLife(RuleBasedStateMachine):
    """Whatever comes in whatever order: invariants hold, ends are final, what was begun is released."""

    @initialize(lifetime=st.none() | st.floats(1, 1000))
    def start(self, lifetime: float | None) -> None:
        self.life, self.todo = lifecycle.begin(100.0, lifetime)
        self.release_asked = False

    @rule(event=st.sampled_from(EVENTS))
    def happens(self, event: lifecycle.Event) -> None:
        before = self.life
        self.life, self.todo = lifecycle.step(before, event)
        self.release_asked |= Do.RELEASE in self.todo
        if before.status.is_end:
            assert self.life == before and not self.todo
        if self.life != before:
            assert self.todo[0] is Do.RECORD, "a change is written down first"

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "life"):
            return
        lifecycle.check(self.life)
        if self.life.status is Status.TERMINATING or self.life.status.is_end:
            assert self.release_asked, "nothing ends without having been released"


TestAnyLife = AnyLife.TestCase
