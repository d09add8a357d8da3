"""What comes in and goes out of contexts, as the OpenAPI shows it."""

import secrets
from typing import Annotated, Literal

from pydantic import Field

from belljar.base.ids import new_id
from belljar.front.native.schema import In, Out
from belljar.front.native.text import Duration, RawText, Text
from belljar.model.code import MAX_EVENT, CodeSpec, ContextSpec
from belljar.model.errors import InvalidArgument, TooLarge

__all__ = ("AnswerCall", "ContextList", "ContextOut", "CreateContext", "Execute", "Interrupt")


class CreateContext(In):
    """A second one with the same `id` gives the context that is there; without an id each is a new one."""

    id: Annotated[Text | None, Field(min_length=1, max_length=64)] = None
    language: Annotated[Text, Field(examples=["python", "bash"])] = "python"
    cwd: RawText | None = None
    env: Annotated[dict[str, RawText], Field(default_factory=dict[str, str])]
    user: Text | None = None

    def spec(self, id: str | None = None) -> ContextSpec:
        return ContextSpec(id or self.id or new_id("cx"), self.language, self.cwd, self.env, self.user)


class Execute(In):
    """`key`: a repeated request with the same one follows the execution that is there, from the event after `after`.

    `timeout` in seconds of its own running, or text such as ``5m``. `silent`: nothing is counted or shown. `create`: makes the
    context where it is not there yet (the id of the address counts).
    """

    key: Annotated[Text | None, Field(min_length=1, max_length=64)] = None
    code: Annotated[str, Field(examples=["1+1"])]
    env: Annotated[dict[str, RawText], Field(default_factory=dict[str, str])]
    timeout: Duration | None = None
    silent: bool = False
    after: Annotated[int, Field(ge=0, lt=1 << 53)] = 0
    create: CreateContext | None = None

    def spec(self) -> CodeSpec:
        return CodeSpec(self.key or secrets.token_hex(16), self.code, self.env, self.timeout, self.silent)


class Interrupt(In):
    """Without a `key` whatever runs."""

    key: Text | None = None


class CallError(In):
    name: Annotated[str, Field(max_length=128)]
    message: str


class AnswerCall(In):
    """To a `call` event of the execution with this `key`: either a `value` or an `error`."""

    key: Annotated[str, Field(min_length=1, max_length=64)]
    value: str | None = None
    error: CallError | None = None

    def parts(self) -> tuple[str | None, dict[str, str] | None]:
        if (self.value is None) == (self.error is None):
            raise InvalidArgument("say either value or error")
        if self.value is not None and len(self.value) > MAX_EVENT:
            raise TooLarge(f"an answer has at most {MAX_EVENT >> 20} Mi characters", hint="put the data into a file")
        return self.value, None if self.error is None else {"name": self.error.name, "message": self.error.message}


class ContextOut(Out):
    """`count`: cells its kernel has run; `restarts`: kernels lost or restarted; `pid` is null while it has none."""

    id: str
    language: str
    state: Literal["idle", "busy", "dead"]
    count: int
    restarts: int
    pid: int | None
    cwd: str | None
    user: str | None


class ContextList(Out):
    items: list[ContextOut]
