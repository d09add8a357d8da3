"""A model whose answers stand in the script that uses it, so that these examples need no network and no key.

Put any model of smolagents in its place, for example ``InferenceClientModel()``.
"""

from typing import Any

from smolagents import ChatMessage, Model
from smolagents.models import MessageRole

__all__ = ("ScriptedModel",)


class ScriptedModel(Model):
    """Says one code action after the other. `messages` are the prompts it got."""

    def __init__(self, *actions: str) -> None:
        super().__init__(model_id="scripted")
        self.actions = list(actions)
        self.messages: list[Any] = []

    def generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatMessage:
        self.messages.append(messages)
        code = self.actions.pop(0).strip()
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"Thought: on to it.\n<code>\n{code}\n</code>")
