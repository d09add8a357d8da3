"""An agent spoils its work in the third step: its run goes back to the second, and two agents go on from there."""

from scripted import ScriptedModel
from smolagents import CodeAgent

from belljar.integrations.smolagents import BelljarExecutor, remembered, rewind_agent

READ = """
rows = [line.split(",") for line in "kiel,720 rome,799 oslo,763".split()]
rain = {city: int(millimetres) for city, millimetres in rows}
"""
SORT = """
order = sorted(rain, key=rain.get)
open("order.txt", "w").write(" ".join(order))
"""
SPOIL = """
import os
os.remove("order.txt")
rain.clear()
"""
WET = "final_answer((open('order.txt').read(), rain[order[-1]]))"
DRY = "final_answer((open('order.txt').read(), rain[order[0]]))"

executor = BelljarExecutor(image="base", snapshot_each_step=True)
model = ScriptedModel(READ, SORT, SPOIL, "final_answer(len(rain))", WET)
with CodeAgent(tools=[], model=model, executor=executor, verbosity_level=0) as agent:
    print("cities left:", agent.run("Which city is the wettest?"))
    for one in executor.snapshots:
        print(f"step {one.step}: {one.snapshot.name}, {one.snapshot.size / 1e6:.0f} MB, said {one.excerpt!r}")

    other = CodeAgent(tools=[], model=ScriptedModel(DRY), executor=executor.fork(2), verbosity_level=0)
    with other:
        other.memory.steps = remembered(agent, 2)
        print("driest:", other.run("Which is the driest?", reset=False))

    rewind_agent(agent, 2)
    print("wettest:", agent.run("Look at the file.", reset=False))
