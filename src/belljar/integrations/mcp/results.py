"""What the tools answer: models for the structured part, and text and images for what is read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcp_types import CallToolResult, ContentBlock, TextContent
from pydantic import BaseModel, Field

from belljar.integrations.mcp.policy import MAX_ANSWER
from belljar.model.errors import Error

__all__ = (
    "Answer",
    "CodeError",
    "CodeResult",
    "CommandResult",
    "EndedSandbox",
    "Entry",
    "FileContent",
    "Listing",
    "SandboxList",
    "SandboxView",
    "Written",
    "clean",
    "failed",
    "fitted",
    "size_in_json",
)


class SandboxView(BaseModel):
    sandbox_id: str
    status: str
    image: str
    network: str
    created: float = Field(description="Seconds since 1970.")
    note: str = ""
    default: bool = Field(False, description="It is the one that calls without sandbox_id use.")


class SandboxList(BaseModel):
    sandboxes: list[SandboxView]


class EndedSandbox(BaseModel):
    sandbox_id: str
    ended: bool


class CommandResult(BaseModel):
    sandbox_id: str
    stdout: str
    stderr: str
    exit_code: int | None = Field(description="Negative: ended by that signal. Null: it was stopped at its timeout.")
    timed_out: bool
    seconds: float
    truncated: bool = Field(description="The middle of the output was left out.")
    output_files: list[str] = Field(
        default_factory=list, description="Files in the sandbox that hold the whole of what was left out."
    )


class CodeError(BaseModel):
    name: str
    value: str
    traceback: str


class CodeResult(BaseModel):
    sandbox_id: str
    stdout: str
    stderr: str
    result: str | None = Field(description="The value of the last expression, as text.")
    error: CodeError | None = Field(description="What the code raised.")
    count: int = Field(description="Number of this cell in its kernel; 1 again after the state was lost.")
    images: int = Field(description="Images among the answer's content.")
    truncated: bool


class FileContent(BaseModel):
    sandbox_id: str
    path: str
    encoding: str = Field(description="utf-8, base64, or image: then the content is an image of the answer.")
    content: str
    size: int = Field(description="Bytes of the whole file.")
    offset: int
    next_offset: int | None = Field(description="Where to read on; null at the end.")


class Written(BaseModel):
    sandbox_id: str
    path: str
    bytes: int


class Entry(BaseModel):
    path: str
    kind: str = Field(description="file, directory, symlink or other.")
    size: int
    modified: float = Field(description="Seconds since 1970.")


class Listing(BaseModel):
    sandbox_id: str
    entries: list[Entry]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what a model reads, `value` the same for programs. `failed`: the model should notice."""

    text: str
    value: BaseModel
    images: Sequence[ContentBlock] = ()
    failed: bool = False

    def result(self, note: str | None) -> CallToolResult:
        """As the protocol wants it; `note` stands before the text."""
        text = f"{note}\n{self.text}" if note else self.text
        return CallToolResult(
            content=[TextContent(text=text), *self.images],
            structured_content=self.value.model_dump(mode="json"),
            is_error=self.failed,
        )


def failed(error: Error) -> CallToolResult:
    """Message and hint, for the model to put right what it said."""
    text = clean(f"{error.code}: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
    return CallToolResult(content=[TextContent(text=text[:8000])], is_error=True, _meta={"belljar/code": error.code})


def fitted(make: Callable[[int], Answer], limit: int, *, least: int = 500) -> Answer:
    """What `make` makes of the largest limit (halved until it does, but not below `least`) whose answer fits."""
    while True:
        answer = make(limit)
        if limit // 2 < least or size_in_json(answer) <= MAX_ANSWER:
            return answer
        limit //= 2


def size_in_json(answer: Answer) -> int:
    """Bytes of the answer at most, whichever way the transport escapes."""
    images = sum(len(getattr(image, "data", "")) + 100 for image in answer.images)
    return len(json.dumps(answer.text)) + len(json.dumps(answer.value.model_dump(mode="json"))) + images + 1000


def clean(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8, which no JSON can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
