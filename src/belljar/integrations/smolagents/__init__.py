"""smolagents in Belljar's sandboxes: see docs/smolagents.md.

>>> from belljar.integrations.smolagents import BelljarExecutor
>>> agent = CodeAgent(tools=[], model=model, executor=BelljarExecutor())
"""

from belljar.integrations.smolagents.executor import BelljarExecutor
from belljar.integrations.smolagents.files import Artefact
from belljar.integrations.smolagents.history import StepSnapshot
from belljar.integrations.smolagents.inside.codec import CodecError, Record, RemoteObject
from belljar.integrations.smolagents.memory import remembered, rewind_agent
from belljar.integrations.smolagents.saving import load_agent, save_agent
from belljar.integrations.smolagents.toolbox import Budget
from belljar.integrations.smolagents.whole import AgentRunFailed, run_agent

__all__ = (
    "AgentRunFailed",
    "Artefact",
    "BelljarExecutor",
    "Budget",
    "CodecError",
    "Record",
    "RemoteObject",
    "StepSnapshot",
    "load_agent",
    "remembered",
    "rewind_agent",
    "run_agent",
    "save_agent",
)
