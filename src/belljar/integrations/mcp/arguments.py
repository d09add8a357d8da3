"""What the tools take. The JSON schemas of these models are what a model reads before it calls."""

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from belljar.integrations.mcp.policy import MAX_COMMAND, MAX_LISTED, MAX_READ, MAX_WRITE, Policy
from belljar.model.errors import InvalidArgument

__all__ = (
    "Arguments",
    "CreateSandbox",
    "EndSandbox",
    "InSandbox",
    "ListFiles",
    "ListSandboxes",
    "ReadFile",
    "RunCode",
    "RunCommand",
    "WriteFile",
    "parsed",
    "schema_of",
)

_Id = Annotated[str, Field(min_length=1, max_length=64)]
_Path = Annotated[str, Field(min_length=1, max_length=4096)]
_Env = Annotated[dict[str, str], Field(max_length=100)]
_Seconds = Annotated[float, Field(gt=0)]


class Arguments(BaseModel):
    """Of one tool. A word that is not in the schema is an error, so that nothing is ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class CreateSandbox(Arguments):
    image: str | None = Field(None, description="Image to start from.")
    note: str | None = Field(
        None, max_length=100, description="What it is for, in a few words; list_sandboxes shows it."
    )


class ListSandboxes(Arguments):
    pass


class InSandbox(Arguments):
    sandbox_id: _Id | None = None


class EndSandbox(Arguments):
    sandbox_id: _Id = Field(description="Id of the sandbox to end.")


class RunCommand(InSandbox):
    command: str = Field(
        min_length=1, max_length=MAX_COMMAND, description="Shell command for /bin/sh -c; pipes and && work."
    )
    cwd: _Path | None = Field(None, description="Working directory; the sandbox's own by default.")
    env: _Env | None = Field(None, description="Environment variables for this command.")
    timeout: _Seconds | None = None


class RunCode(InSandbox):
    code: str = Field(min_length=1, max_length=MAX_WRITE, description="The code to run.")
    language: str = Field(
        "python",
        min_length=1,
        max_length=64,
        description="python, or another language for which the image has a Jupyter kernel.",
    )
    timeout: _Seconds | None = None


class ReadFile(InSandbox):
    path: _Path = Field(description="Path in the sandbox; a relative one starts in its working directory.")
    offset: int = Field(0, ge=0, le=1 << 50, description="Byte to begin at.")
    length: int = Field(MAX_READ // 2, ge=1, le=MAX_READ, description="Bytes to read at most.")


class WriteFile(InSandbox):
    path: _Path = Field(description="Path in the sandbox; missing folders are made.")
    content: str = Field(max_length=MAX_WRITE, description="The content, as text or as base64 (see encoding).")
    encoding: Literal["utf-8", "base64"] = Field("utf-8", description="base64 for binary content.")
    append: bool = Field(False, description="Add to the end of the file instead of replacing it.")
    executable: bool = Field(False, description="Make the file executable.")


class ListFiles(InSandbox):
    path: _Path = Field(".", description="The directory; by default the sandbox's working directory.")
    pattern: str | None = Field(
        None, min_length=1, max_length=1024, description="Glob below the directory, for example *.csv or **/*.py."
    )
    limit: int = Field(200, ge=1, le=MAX_LISTED, description="Entries to list at most.")


def parsed(kind: type[Arguments], said: dict[str, Any]) -> Arguments:
    """Raises InvalidArgument that names each wrong argument, without its value."""
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in error.errors()[:10]]
        raise InvalidArgument(
            "; ".join(problems), hint=f"arguments: {', '.join(kind.model_fields) or 'none'}"
        ) from None


def schema_of(kind: type[BaseModel], policy: Policy) -> dict[str, Any]:
    """The JSON schema of a tool's arguments or result, with the operator's choices in it."""
    schema = _plain(kind.model_json_schema())
    properties: dict[str, Any] = schema.setdefault("properties", {})
    if issubclass(kind, InSandbox):
        properties["sandbox_id"]["description"] = (
            "Id of the sandbox. Without it: the default sandbox, which is made when it is first used."
            if policy.default_sandbox
            else "Id of the sandbox, from create_sandbox."
        )
        if not policy.default_sandbox:
            schema["required"] = ["sandbox_id", *schema.get("required", [])]
    if issubclass(kind, Arguments) and "timeout" in properties:
        properties["timeout"] |= {
            "maximum": policy.max_timeout,
            "default": policy.timeout,
            "description": "Seconds after which it is stopped.",
        }
    if issubclass(kind, CreateSandbox):
        if len(policy.images) > 1:
            properties["image"] |= {"enum": list(policy.images), "default": policy.images[0]}
        else:
            del properties["image"]
    return schema


def _plain(value: Any) -> Any:
    """Without the titles and the alternatives to null that pydantic writes: models choose better from short schemas."""
    if isinstance(value, list):
        return [_plain(item) for item in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    found = {key: _plain(item) for key, item in cast(dict[str, Any], value).items() if key != "title"}
    kinds = found.get("anyOf")
    if isinstance(kinds, list) and "default" in found and found["default"] is None:
        others = [one for one in cast(list[dict[str, Any]], kinds) if one != {"type": "null"}]
        if len(others) == 1:
            del found["anyOf"], found["default"]
            found = {**others[0], **found}
    return found
