"""Ten agents at once on one server: each sees its own output, all of it, in order."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.conftest import Host

import belljar

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

AGENTS, STEPS, LINES = 10, 10, 50


def _agent(number: int) -> list[float]:
    took: list[float] = []
    with belljar.Sandbox.create("code", memory="512MiB", network="none") as sandbox:
        sandbox.run_code(f"agent = {number}; total = 0")
        for step in range(STEPS):
            came: list[str] = []
            started = time.monotonic()
            done = sandbox.run_code(
                f"import time\nfor line in range({LINES}):\n"
                f"    print('agent', agent, 'step', {step}, 'line', line, flush=True); time.sleep(0.002)\n"
                f"total += {step}\ntotal",
                on_stdout=came.append,
            )
            took.append(time.monotonic() - started)
            assert done.error is None, done.error
            assert done.stdout == "".join(f"agent {number} step {step} line {line}\n" for line in range(LINES))
            assert "".join(came) == done.stdout
            assert done.text == str(sum(range(step + 1)))
    return took


def test_ten_agents_of_ten_steps_lose_and_mix_nothing(host: Host, report_line: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(AGENTS) as pool:
        took = [one for each in pool.map(_agent, range(AGENTS)) for one in each]
    assert len(took) == AGENTS * STEPS
    milliseconds = statistics.median(took) * 1e3
    report_line(
        f"{AGENTS} agents at once, {STEPS} steps of {LINES} streamed lines each: {milliseconds:.0f} ms a step at the median, "
        f"{max(took) * 1e3:.0f} at most; the code alone sleeps {LINES * 2} ms"
    )
