"""Plots: what the code shows comes to the agent as an image, an image as the answer comes to you, and so do files."""

import sys
from pathlib import Path

from scripted import ScriptedModel
from smolagents import CodeAgent

from belljar.integrations.smolagents import BelljarExecutor

DRAW = """
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 4, 9, 16])
axes.set_title("squares")
figure.savefig("squares.pdf")
plt.show()
"""
ANSWER = """
import io
from PIL import Image
buffer = io.BytesIO()
figure.savefig(buffer, format="png")
final_answer(Image.open(buffer))
"""

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build")
folder.mkdir(parents=True, exist_ok=True)
model = ScriptedModel(DRAW, ANSWER)
executor = BelljarExecutor(["matplotlib", "PIL"])
with CodeAgent(tools=[], model=model, executor=executor, verbosity_level=0) as agent:
    image = agent.run("Draw the squares.")
    shown = agent.memory.steps[1].action_output  # the figure of the first step, as a PIL image
    written = [artefact.path for artefact in executor.files.changed()]
    executor.files.download("squares.pdf", folder / "squares.pdf")
image.save(folder / "squares.png")
print("shown:", shown.size, "answer:", image.to_raw().size, "written:", written)
