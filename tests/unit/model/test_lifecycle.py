"""The life of a sandbox, without any of the machinery around it."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from belljar.model import lifecycle
from belljar.model.lifecycle import Instruction as Do
from belljar.model.lifecycle import Life
from belljar.model.sandbox import Ended, OnTimer, Status

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
    lifecycle.RestAsked(102.0, Status.PAUSED),
    lifecycle.RestAsked(102.0, Status.STANDBY),
    lifecycle.RestAsked(102.0, Status.STOPPED),
    lifecycle.RestAsked(102.0, Status.FAILED),
    lifecycle.WakeAsked(102.0),
    lifecycle.Turned(102.0),
    lifecycle.TurnFailed(102.0),
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
    to_end = replace(RUNNING, on_idle=OnTimer.TERMINATE)
    life, todo = lifecycle.step(to_end, lifecycle.IdleSet(120.0, 30.0))
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


def rested(life: Life, status: Status, at: float, why: str = "asked") -> Life:
    going, todo = lifecycle.step(life, lifecycle.RestAsked(at, status, why))
    assert (going.status, going.toward, todo) == (life.status, status, (Do.TURN,))
    there, todo = lifecycle.step(going, lifecycle.Turned(at))
    assert (there.status, there.toward, todo) == (status, None, (Do.RECORD, Do.PUBLISH))
    return there


def woken(life: Life, at: float) -> Life:
    going, todo = lifecycle.step(life, lifecycle.WakeAsked(at))
    assert (going.status, going.toward, todo) == (life.status, Status.RUNNING, (Do.TURN,))
    there, _ = lifecycle.step(going, lifecycle.Turned(at))
    assert there.status is Status.RUNNING
    return there


RESTS = (Status.PAUSED, Status.STANDBY, Status.STOPPED)


@pytest.mark.parametrize("status", RESTS)
def test_the_time_of_one_that_rests_stands_still(status: Status) -> None:
    resting = rested(RUNNING, status, 111.0)
    assert (resting.left, resting.expires) == (50.0, None)
    assert lifecycle.step(resting, lifecycle.TimerFired(1e9, idle=1e9)) == (resting, ())
    assert woken(resting, 1000.0).expires == 1050.0
    changed, _ = lifecycle.step(resting, lifecycle.LifetimeSet(500.0, 7.0))
    assert woken(changed, 1000.0).expires == 1007.0
    unlimited, _ = lifecycle.step(resting, lifecycle.LifetimeSet(500.0, None))
    assert woken(unlimited, 1000.0).expires is None


def test_what_rests_can_go_on_or_rest_deeper() -> None:
    paused = rested(RUNNING, Status.PAUSED, 111.0)
    standby = rested(paused, Status.STANDBY, 2000.0)
    assert standby.left == 50.0
    for life, status in ((paused, Status.PAUSED), (standby, Status.PAUSED), (standby, Status.STANDBY)):
        assert lifecycle.step(life, lifecycle.RestAsked(3000.0, status)) == (life, ())
    assert rested(standby, Status.STOPPED, 3000.0).left == 50.0


@pytest.mark.parametrize("action", [OnTimer.PAUSE, OnTimer.STANDBY, OnTimer.STOP])
def test_a_timer_does_what_was_asked_for(action: OnTimer) -> None:
    life = replace(RUNNING, on_lifetime=action)
    going, todo = lifecycle.step(life, lifecycle.TimerFired(161.0))
    assert (going.toward, going.why, todo) == (action.status, "lifetime", (Do.TURN,))
    assert lifecycle.deadline(going) is None, "no timer while it is on its way"
    there, _ = lifecycle.step(going, lifecycle.Turned(162.0))
    assert woken(there, 500.0).expires == 560.0, "who wakes it has the whole time again"
    idle, _ = lifecycle.step(replace(RUNNING, idle=5.0, on_idle=action), lifecycle.TimerFired(120.0, idle=5.0))
    assert (idle.toward, idle.why) == (action.status, "idle")


def test_one_that_could_not_rest_runs_on_and_its_timers_wait_a_minute() -> None:
    life = replace(RUNNING, on_lifetime=OnTimer.STANDBY)
    going, _ = lifecycle.step(life, lifecycle.TimerFired(161.0))
    back, todo = lifecycle.step(going, lifecycle.TurnFailed(170.0))
    assert (back.status, back.toward, todo) == (Status.RUNNING, None, ())
    assert lifecycle.deadline(back) == 170.0 + lifecycle.QUIET_SECONDS
    assert lifecycle.step(back, lifecycle.TimerFired(200.0)) == (back, ())
    again, _ = lifecycle.step(back, lifecycle.TimerFired(230.0))
    assert again.toward is Status.STANDBY
    assert rested(back, Status.PAUSED, 171.0).quiet is None, "whoever asks need not wait"


@pytest.mark.parametrize("status", RESTS)
def test_what_a_dead_server_and_a_reboot_leave_of_one_that_rests(status: Status) -> None:
    resting = rested(RUNNING, status, 111.0)
    waking, _ = lifecycle.step(resting, lifecycle.WakeAsked(112.0))
    found, todo = lifecycle.step(waking, lifecycle.Found(113.0, alive=True))
    assert (found, todo) == (resting, (Do.PUBLISH,)), "it was not awake, so nobody was told so"
    after, todo = lifecycle.step(waking, lifecycle.HostRebooted(113.0))
    if status.on_disk:
        assert (after, todo) == (resting, (Do.PUBLISH,))
        assert lifecycle.step(resting, lifecycle.GuestEnded(113.0, False, "")) == (resting, ())
    else:
        assert after.ending is Status.LOST
        assert lifecycle.step(resting, lifecycle.GuestEnded(113.0, False, ""))[0].ending is Status.FAILED


@pytest.mark.parametrize("status", RESTS)
def test_one_that_rests_or_is_on_its_way_can_be_ended(status: Status) -> None:
    resting = rested(RUNNING, status, 111.0)
    waking, _ = lifecycle.step(resting, lifecycle.WakeAsked(112.0))
    going, _ = lifecycle.step(RUNNING, lifecycle.RestAsked(111.0, status))
    for life in (resting, waking, going):
        ending, todo = lifecycle.step(life, lifecycle.TerminateAsked(120.0, "killed"))
        assert (ending.status, ending.toward, Do.RELEASE in todo) == (Status.TERMINATING, None, True)
        assert lifecycle.step(ending, lifecycle.Turned(121.0)) == (ending, ())


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
        if replace(self.life, toward=None, why="", quiet=None) != replace(before, toward=None, why="", quiet=None):
            assert self.todo[0] is Do.RECORD, "a change is written down first; where it is on its way to is none yet"

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "life"):
            return
        lifecycle.check(self.life)
        if self.life.status is Status.TERMINATING or self.life.status.is_end:
            assert self.release_asked, "nothing ends without having been released"


TestAnyLife = AnyLife.TestCase
