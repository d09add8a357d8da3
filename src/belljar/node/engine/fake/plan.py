"""How a fake instance misbehaves."""

from dataclasses import dataclass

from belljar.model.errors import Error

__all__ = ("FakePlan",)


@dataclass(frozen=True, slots=True)
class FakePlan:
    """All off by default. Times in seconds.

    `create_delay`: making it takes that long. `create_error`: making it raises this (out of space, no capacity, …).
    `start_delay`, `start_error`: the same for starting. `crash_on_start`: the agent ends at once. `never_answers`: the
    agent runs and says nothing. `talks_nonsense`: what comes from the agent is no frame. `dies_after`: the guest ends by
    itself that long after its start. `stays`: it cannot be deleted (raises EngineFailed, until the plan is changed).
    `show_delay`, `show_error`: letting it see other limits takes that long, and raises this.
    """

    create_delay: float = 0.0
    create_error: Error | None = None
    start_delay: float = 0.0
    start_error: Error | None = None
    crash_on_start: bool = False
    never_answers: bool = False
    talks_nonsense: bool = False
    dies_after: float | None = None
    stays: bool = False
    show_delay: float = 0.0
    show_error: Error | None = None
