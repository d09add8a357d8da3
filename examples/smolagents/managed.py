"""A managed agent: called from the sandbox like a function, it runs on this machine, with an executor of its own."""

from scripted import ScriptedModel
from smolagents import CodeAgent

from belljar.integrations.smolagents import BelljarExecutor

manager_executor = BelljarExecutor()
# The same sandbox, another Python in it: files are shared, variables are not. Without `sandbox` it has a sandbox of its own.
counter_executor = BelljarExecutor(sandbox=manager_executor.sandbox)

counter = CodeAgent(
    tools=[],
    model=ScriptedModel('text = open("story.txt").read()', "final_answer(len(text.split()))"),
    executor=counter_executor,
    name="counter",
    description="Counts the words of a file.",
    verbosity_level=0,
)
manager = CodeAgent(
    tools=[],
    model=ScriptedModel(
        'open("story.txt", "w").write("Once upon a time there was a jar")\nreport = counter("Count the words of story.txt")',
        "print(report)\nfinal_answer(int(''.join(filter(str.isdigit, report))))",
    ),
    managed_agents=[counter],
    executor=manager_executor,
    verbosity_level=0,
)
with manager, counter:
    print("words:", manager.run("Write a story and have its words counted."))
