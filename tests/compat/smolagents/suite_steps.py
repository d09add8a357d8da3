"""What smolagents' own tests ask of each remote executor, and what a step must do beside."""

import time
from collections.abc import Iterator

import pytest
from agents import answer_of, base, error_of, executor
from PIL import Image
from smolagents import FinalAnswerTool
from smolagents.utils import AgentError

from belljar.integrations.smolagents import BelljarExecutor

__all__ = ("base", "executor")


@pytest.fixture(scope="module")
def remote() -> Iterator[BelljarExecutor]:
    with BelljarExecutor(["PIL", "numpy"], image="code") as made:
        made.send_tools({"final_answer": FinalAnswerTool()})
        yield made


class TestRemoteExecutor:
    """The ten behaviours that smolagents' common suite asks of a remote executor, in our words."""

    def test_variables_and_imports_stay_for_the_next_step(self, remote: BelljarExecutor) -> None:
        remote("import numpy as np; a = 2")
        assert "1.41421" in remote("print(np.sqrt(a))").logs

    def test_an_answer_is_the_output(self, remote: BelljarExecutor) -> None:
        assert answer_of(remote, 'final_answer("the answer")') == "the answer"

    def test_an_answer_may_come_on_the_second_line(self, remote: BelljarExecutor) -> None:
        assert answer_of(remote, 'result = "the answer"\nfinal_answer(result)') == "the answer"

    def test_an_image_is_an_answer(self, remote: BelljarExecutor) -> None:
        code = "from PIL import Image\nfinal_answer(Image.new('RGB', (10, 10), (255, 0, 0)))"
        assert isinstance(answer_of(remote, code), Image.Image)

    def test_bad_syntax_is_an_agent_error_that_names_it(self, remote: BelljarExecutor) -> None:
        assert "SyntaxError" in error_of(remote, 'print("no end')

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ('final_answer("""three\nlines\nlong""")', "three\nlines\nlong"),
            (
                "text = '''a text with\nfinal_answer(5)\nin it'''\nfinal_answer(text)",
                "a text with\nfinal_answer(5)\nin it",
            ),
            ("n = 2\nif n == 1:\n    final_answer('one')\nelif n == 2:\n    final_answer('two')", "two"),
        ],
    )
    def test_an_answer_is_found_wherever_it_is_given(self, remote: BelljarExecutor, code: str, expected: str) -> None:
        assert answer_of(remote, code) == expected

    def test_a_final_answer_tool_of_ones_own_is_asked(self, remote: BelljarExecutor) -> None:
        class Marked(FinalAnswerTool):
            def forward(self, answer: str) -> str:
                return f"marked {answer}"

        remote.send_tools({"final_answer": Marked()})
        assert answer_of(remote, 'final_answer(answer="so")') == "marked so"

    def test_a_final_answer_tool_may_have_other_inputs(self, remote: BelljarExecutor) -> None:
        class Joined(FinalAnswerTool):
            inputs = {  # noqa: RUF012
                "left": {"type": "string", "description": "One half."},
                "right": {"type": "string", "description": "The other."},
            }

            def forward(self, left: str, right: str) -> str:
                return f"{left}+{right}"

        remote.send_tools({"final_answer": Joined()})
        assert answer_of(remote, 'final_answer(right="b", left="a")') == "a+b"


def test_the_value_of_the_last_expression_is_the_output(base: BelljarExecutor) -> None:
    done = base("print('printed')\n{'a': 1}")
    assert (done.output, done.logs, done.is_final_answer) == ("{'a': 1}", "printed\n", False)


def test_what_was_printed_before_an_error_is_kept(base: BelljarExecutor) -> None:
    message = error_of(base, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n1 / 0")
    assert "ZeroDivisionError: division by zero" in message
    assert str(base.state["_print_outputs"]) == "out\nerr\n"


def test_a_step_that_takes_too_long_is_interrupted_and_keeps_its_state() -> None:
    with BelljarExecutor(image="base", timeout=1) as executor:
        started = time.monotonic()
        message = error_of(executor, "kept = 1\nprint('so far')\nwhile True: pass")
        assert "limit of 1 s" in message
        assert "TimeoutError" in message
        assert str(executor.state["_print_outputs"]) == "so far\n"
        assert executor("kept + 1").output == "2"
        assert time.monotonic() - started < 20


def test_time_in_tools_is_not_the_time_of_the_step() -> None:
    class Slow(FinalAnswerTool):
        def forward(self, answer: str) -> str:
            time.sleep(2.5)
            return answer

    with BelljarExecutor(image="base", timeout=1) as executor:
        executor.send_tools({"final_answer": Slow()})
        assert answer_of(executor, "final_answer('patience')") == "patience"


def test_300_kilobytes_are_shortened_for_the_model_and_whole_in_a_file(base: BelljarExecutor) -> None:
    done = base("for n in range(30_000):\n    print(f'line {n:05d}')")
    assert len(done.logs) < 51_000
    assert done.logs.startswith("line 00000\n")
    assert done.logs.endswith("line 29999\n")
    assert "330,000 characters were printed" in done.logs
    path = next(word for word in done.logs.split() if word.startswith("/home/user/.belljar/output-"))
    assert answer_of(base, f"final_answer(len(open('{path}').read().splitlines()))") == 30_000


def test_the_length_of_output_can_be_chosen() -> None:
    with BelljarExecutor(image="base", max_print_outputs_length=100) as executor:
        logs = executor("print('x' * 1000)").logs
        assert logs.count("x") <= 110
        assert str(executor.state["_print_outputs"]) == logs


def test_colours_and_control_characters_do_not_reach_the_model(base: BelljarExecutor) -> None:
    assert base("print('\\x1b[1;31mred\\x1b[0m \\x00\\x07 \\x1b]0;title\\x07plain')").logs == "red  plain\n"


def test_a_dead_kernel_is_told_and_the_next_step_has_tools_and_variables(executor: BelljarExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    executor.send_variables({"given": [1, 2]})
    executor("own = 1")
    assert "Python process" in error_of(executor, "import os\nos._exit(3)")
    assert answer_of(executor, "final_answer((given, 'own' in globals()))") == ([1, 2], False)


def test_a_kernel_that_dies_between_two_steps_is_noticed(executor: BelljarExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    executor("import os, threading\nthreading.Timer(0.3, os._exit, (1,)).start()")
    time.sleep(1)
    assert answer_of(executor, "final_answer('still here')") == "still here"


def test_a_sandbox_that_ended_is_told_and_the_next_step_gets_a_new_one(executor: BelljarExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    first = executor.sandbox
    executor("1")
    first.terminate()
    assert answer_of(executor, "final_answer('anew')") == "anew"
    assert executor.sandbox.id != first.id


def test_an_answer_survives_code_that_swallows_everything(base: BelljarExecutor) -> None:
    base.send_tools({"final_answer": FinalAnswerTool()})
    done = base("try:\n    final_answer(1)\nexcept:\n    print('swallowed')\nprint('never')")
    assert (done.output, done.is_final_answer, done.logs) == (1, True, "swallowed\n")
    done = base("try:\n    final_answer(2)\nfinally:\n    print('cleaned')\n    print('up')\nprint('never')")
    assert (done.output, done.logs) == (2, "cleaned\nup\n")
    loop = (
        "    while True:\n        try:\n            final_answer(3)\n        except BaseException:\n            pass\n"
    )
    assert answer_of(base, f"def f():\n{loop}f()") == 3
    assert base("print('and on')").logs == "and on\n", "the end of a cell has reached into the next"


def test_top_level_await_and_shell_lines_work(base: BelljarExecutor) -> None:
    base.send_tools({"final_answer": FinalAnswerTool()})
    assert answer_of(base, "import asyncio\nawait asyncio.sleep(0)\nfinal_answer('awaited')") == "awaited"
    assert base("!echo from a shell").logs.strip() == "from a shell"


def test_a_tool_called_from_threads_is_called_one_by_one(base: BelljarExecutor) -> None:
    running: list[int] = []
    most: list[int] = []

    def slow(n: int) -> int:
        running.append(n)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(n)
        return n * n

    base.send_tools({"final_answer": FinalAnswerTool(), "slow": slow})
    code = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as pool:\n"
    assert answer_of(base, code + "    squares = list(pool.map(slow, range(20)))\nfinal_answer(squares)") == [
        n * n for n in range(20)
    ]
    assert max(most) == 1


def test_tools_of_an_earlier_run_are_gone(base: BelljarExecutor) -> None:
    base.send_tools({"final_answer": FinalAnswerTool(), "old": lambda: 1})
    assert answer_of(base, "final_answer(old())") == 1
    base.send_tools({"final_answer": FinalAnswerTool()})
    assert "NameError" in error_of(base, "old()")


def test_arguments_that_make_no_executor_are_refused() -> None:
    for wrong in ({"packages": "six"}, {"additional_authorized_imports": "six"}):
        with pytest.raises(TypeError):
            BelljarExecutor(**wrong)  # type: ignore[arg-type]
    for wrong in ({"allow_pickle": True}, {"max_print_outputs_length": 0}, {"timeout": "soon"}):
        with pytest.raises(ValueError, match=r"."):
            BelljarExecutor(**wrong)  # type: ignore[arg-type]


def test_an_image_that_is_not_there_is_an_agent_error() -> None:
    with BelljarExecutor(image="no-such-image") as executor, pytest.raises(AgentError, match="ImageNotFound"):
        executor("1")
