"""Live output: what the code prints is seen while it runs, here with the seconds since the start."""

import time

from scripted import ScriptedModel
from smolagents import CodeAgent

from belljar.integrations.smolagents import BelljarExecutor

COUNT = """
import time
for number in range(3):
    print("step", number, flush=True)
    time.sleep(0.5)
final_answer("done")
"""
started = time.monotonic()
seen: list[float] = []


def show(text: str) -> None:
    seen.append(time.monotonic() - started)
    print(f"{seen[-1]:5.1f} s  {text}", end="")


# `stream_outputs=True` does the same with the agent's logger.
executor = BelljarExecutor(on_output=show)
with CodeAgent(tools=[], model=ScriptedModel(COUNT), executor=executor, verbosity_level=0) as agent:
    print(agent.run("Count slowly."))
assert seen[-1] - seen[0] > 0.8, "it came at once, not as it was printed"
