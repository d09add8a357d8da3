"""A real task on real data: which wines are of which grower, said by a forest that is trained in the sandbox.

The data are scikit-learn's (178 wines, 13 measurements). Two runs of one agent, a tool of this machine, a managed agent that
checks, a plot that lands here, and an answer. Used by scripts/demo.
"""

import sys
from pathlib import Path

from scripted import ScriptedModel
from smolagents import CodeAgent, tool

from belljar.integrations.smolagents import BelljarExecutor

target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo/wine.png")
noted: dict[str, float] = {}


@tool
def note(name: str, value: float) -> str:
    """Writes a result into the laboratory's book, which is on this machine.

    Args:
        name: What was measured.
        value: What came out.
    """
    noted[name] = value
    return f"noted as number {len(noted)}"


CHECK = """
wrong = [i for i, (said, true) in enumerate(zip(predicted, expected)) if said != true]
print(len(wrong), "of", len(expected), "are wrong")
final_answer(1 - len(wrong) / len(expected))
"""
LOAD = """
import pandas as pd
from sklearn.datasets import load_wine
wines = load_wine(as_frame=True)
table = wines.frame
print(table.groupby("target")[["alcohol", "flavanoids"]].mean().round(2))
"""
TRAIN = """
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
train, test = train_test_split(table, test_size=0.3, random_state=0, stratify=table["target"])
forest = RandomForestClassifier(n_estimators=50, random_state=0).fit(train[wines.feature_names], train["target"])
predicted = forest.predict(test[wines.feature_names])
report = checker("How good are these?", additional_args={"predicted": predicted, "expected": test["target"]})
accuracy = float(report.split()[-1])
print(note("accuracy", accuracy))
final_answer(f"{len(test)} wines that it had not seen, {accuracy:.1%} of them right")
"""
DRAW = """
import io
import matplotlib.pyplot as plt
from PIL import Image
weights = pd.Series(forest.feature_importances_, wines.feature_names).sort_values()
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
weights.plot.barh(ax=axes, title="What tells the growers apart")
buffer = io.BytesIO()
figure.savefig(buffer, format="png")
plt.close(figure)
print("most telling:", weights.index[-1], "of", len(weights))
final_answer(Image.open(buffer))
"""

checker = CodeAgent(
    tools=[],
    model=ScriptedModel(CHECK),
    executor=BelljarExecutor(),
    name="checker",
    description="Says which share of predictions is right.",
    verbosity_level=0,
)
agent = CodeAgent(
    tools=[note],
    model=ScriptedModel(LOAD, TRAIN, DRAW),
    managed_agents=[checker],
    executor=BelljarExecutor(["pandas", "sklearn", "matplotlib", "PIL"], stream_outputs=True),
    verbosity_level=1,
)
with agent, checker:
    answer = agent.run("Learn to tell the growers of wines apart, and have it checked.")
    chart = agent.run("Draw what it looks at.", reset=False)
target.parent.mkdir(parents=True, exist_ok=True)
chart.save(target)
print(f"answer: {answer}; noted on this machine: {noted}; chart: {chart.to_raw().size} in {target}")
assert noted["accuracy"] > 0.9, noted
