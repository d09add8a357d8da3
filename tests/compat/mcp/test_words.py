"""What is shown of much: heads, tails, schemas. Without a sandbox."""

import asyncio

import pytest
from mcp_types import ImageContent
from pydantic import BaseModel

from belljar.integrations.mcp.arguments import ListFiles, RunCommand, parsed, schema_of
from belljar.integrations.mcp.kept import clipped
from belljar.integrations.mcp.policy import MAX_ANSWER, Policy
from belljar.integrations.mcp.results import Answer, clean, fitted
from belljar.integrations.mcp.told import Told
from belljar.integrations.mcp.tools import TOOLS, described
from belljar.model.errors import InvalidArgument


class Value(BaseModel):
    text: str


def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("a" * 500 + "b" * 1000 + "c" * 500, 1000) == "\n".join(
        ["a" * 500, "[… 1,000 characters left out …]", "c" * 500]
    )


@pytest.mark.parametrize("letter", ["a", "é", "\0", "😀", '"'])
def test_an_answer_fits_whatever_its_letters_cost(letter: str) -> None:
    made: list[int] = []

    def make(limit: int) -> Answer:
        made.append(limit)
        return Answer(letter * limit, Value(text=letter * limit))

    answer = fitted(make, 200_000)
    assert len(answer.result(None).model_dump_json()) < MAX_ANSWER
    assert len(answer.text) >= 50_000 or letter in "\0😀é"


def test_images_count_for_the_size_of_an_answer() -> None:
    image = ImageContent(data="x" * 800_000, mime_type="image/png")
    answer = fitted(lambda limit: Answer("a" * limit, Value(text="a" * limit), images=[image]), 200_000)
    assert len(answer.text) < 100_000


def test_text_that_no_json_can_carry_is_replaced() -> None:
    assert clean("a\udcffb") == "a?b"
    assert clean("é") == "é"


async def test_progress_tells_only_what_a_message_can_carry() -> None:
    told, heard = Told(), asyncio.Event()
    told.speak_with(lambda: "half \ud800")

    async def report(seconds: float, line: str | None) -> None:
        assert line == "half ?"
        heard.set()

    telling = asyncio.create_task(told.report(report))
    async with asyncio.timeout(5):
        await heard.wait()
    telling.cancel()


def test_wrong_arguments_are_named_without_their_values() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parsed(RunCommand, {"command": 5, "secret": "hush", "timeout": "soon"})
    said = str(caught.value)
    assert "command: " in said and "secret: " in said and "timeout: " in said
    assert "hush" not in said and "soon" not in said


def test_schemas_are_short_and_have_the_operators_bounds() -> None:
    schema = schema_of(RunCommand, Policy(timeout=5, max_timeout=7))
    assert schema["properties"]["timeout"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 7,
        "default": 5,
        "description": "Seconds after which it is stopped.",
    }
    assert "anyOf" not in str(schema) and "'title'" not in str(schema)
    assert schema["required"] == ["command"]
    assert schema_of(ListFiles, Policy(default_sandbox=False))["required"] == ["sandbox_id"]


def test_all_that_a_model_reads_of_the_tools_is_not_much() -> None:
    told = "".join(
        tool.model_dump_json(exclude={"output_schema"}, exclude_none=True)
        for tool in (described(kind, Policy()) for kind in TOOLS.values())
    )
    assert len(told) < 8000
