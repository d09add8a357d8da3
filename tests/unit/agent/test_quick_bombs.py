"""A program that reaches the memory limit before the launcher could say that it runs."""

from belljar.wire.agent import AgentSession
from belljar_agent.loop import Loop
from belljar_agent.processes import Processes
from belljar_agent.settings import Settings


class HeldLauncher:
    """Keeps what a start is answered with, so that the test chooses the moment."""

    def __init__(self):
        self.answers = []

    def start(self, *order):
        self.answers.append(order[-2:])


def table(tmp_path):
    processes = Processes(Loop(print), AgentSession("test", [], 0.0), Settings(str(tmp_path), plain=True))
    processes.launching = HeldLauncher()
    return processes


def order(key):
    return {"key": key, "argv": ["bomb"], "env": {}, "stdin": False}


def test_it_is_told_that_memory_was_the_reason(tmp_path):
    processes, answers = table(tmp_path), []
    processes.start(order("a"), lambda answer, refusal: answers.append(answer))
    processes.start(order("b"), lambda answer, refusal: answers.append(answer))
    assert processes.out_of_memory([4711, 4712]) == []
    (started_a, _), (started_b, _) = processes.launching.answers
    started_a(4711, 7)
    started_b(5000, 8)
    assert [answer["out_of_memory"] for answer in answers] == [True, False]


def test_what_was_ended_while_nothing_starts_is_forgotten(tmp_path):
    processes, answers = table(tmp_path), []
    processes.out_of_memory([4711])
    processes.start(order("a"), lambda answer, refusal: answers.append(answer))
    processes.launching.answers[0][0](4711, 7)
    assert answers[0]["out_of_memory"] is False


def test_a_failed_start_forgets_too(tmp_path):
    processes, answers = table(tmp_path), []
    processes.start(order("a"), lambda answer, refusal: answers.append(answer))
    processes.out_of_memory([4711])
    processes.launching.answers[0][1]("not_found", "no such program")
    processes.start(order("b"), lambda answer, refusal: answers.append(answer))
    processes.launching.answers[1][0](4711, 7)
    assert answers[-1]["out_of_memory"] is False
