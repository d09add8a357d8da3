"""`run_code`: state that stays, images that come back, and code that does its worst."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from tests.compat.mcp.clients import ERAS, Lines, connected, http_client, http_server, stdio, text_of

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def box(environ: dict[str, str]) -> Iterator[Lines]:
    with Lines(environ) as lines:
        yield lines


def said(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_state_stays_between_calls_and_belongs_to_the_sandbox(
    transport: str, era: str, environ: dict[str, str]
) -> None:
    async with connected(environ, transport, era=era) as client:
        boxes = [(await client.call_tool("create_sandbox", {})).structured_content["sandbox_id"] for _ in range(2)]
        await client.call_tool("run_code", {"code": "x = 20", "sandbox_id": boxes[0]})
        done = await client.call_tool("run_code", {"code": "print('seen')\nx + 1", "sandbox_id": boxes[0]})
        assert text_of(done) == "seen\n21"
        value = done.structured_content
        assert (value["stdout"], value["result"], value["error"], value["count"]) == ("seen\n", "21", None, 2)
        other = await client.call_tool("run_code", {"code": "x", "sandbox_id": boxes[1]})
        assert other.structured_content["error"]["name"] == "NameError"
        assert "NameError: name 'x' is not defined" in text_of(other)
        assert not other.is_error, "what code raises is its result"


async def test_state_outlives_the_session_of_a_client(environ: dict[str, str]) -> None:
    with http_server(environ) as server:
        async with http_client(server, "handshake") as client:
            box = (await client.call_tool("create_sandbox", {})).structured_content["sandbox_id"]
            await client.call_tool("run_code", {"code": "x = 1", "sandbox_id": box})
        async with http_client(server, "2026-07-28") as client:
            assert text_of(await client.call_tool("run_code", {"code": "x", "sandbox_id": box})) == "1"


def test_figures_come_back_as_images(box: Lines) -> None:
    code = "import matplotlib.pyplot as plt\nfor n in range(2):\n    plt.plot([n, 1, 2])\n    plt.show()"
    result = box.call("run_code", code=code)
    images = [one for one in result["content"] if one["type"] == "image"]
    assert len(images) == result["structuredContent"]["images"] == 2
    assert all(base64.b64decode(image["data"]).startswith(b"\x89PNG") for image in images)
    assert {image["mimeType"] for image in images} == {"image/png"}


def test_images_that_do_not_fit_are_left_out_and_counted(box: Lines) -> None:
    code = (
        "import numpy as np\nfrom PIL import Image\n"
        "for side in (200, 200, 900, 200, 200, 200):\n"
        "    display(Image.fromarray(np.random.randint(0, 255, (side, side, 3), dtype='uint8')))"
    )
    result = box.call("run_code", code=code)
    images = [one for one in result["content"] if one["type"] == "image"]
    assert 1 <= len(images) <= 4
    assert f"[{6 - len(images)} images were left out" in said(result)
    assert sum(len(image["data"]) for image in images) < 600 << 10
    assert box.call("run_code", code="1")["structuredContent"]["result"] == "1"


def test_code_that_never_ends_is_interrupted_and_its_state_stays(box: Lines) -> None:
    box.call("run_code", code="kept = 5")
    result = box.call("run_code", code="print('so far')\nwhile True:\n    pass", timeout=1.5)
    assert result["isError"] is True
    assert result["structuredContent"]["error"]["name"] == "TimeoutError"
    assert said(result).startswith("so far\n")
    assert box.call("run_code", code="kept")["structuredContent"]["result"] == "5"


def test_a_kernel_that_dies_is_said_and_the_next_call_has_a_new_one(box: Lines) -> None:
    result = box.call("run_code", code="import os\nos._exit(3)")
    assert result["isError"] is True
    assert "the state is lost" in said(result)
    after = box.call("run_code", code="1 + 1")["structuredContent"]
    assert (after["result"], after["count"]) == ("2", 1)


def test_printing_without_end_and_results_without_measure_are_cut(box: Lines) -> None:
    printed = box.call("run_code", code="for n in range(300_000):\n    print('line', n)")["structuredContent"]
    assert printed["truncated"] is True
    assert len(printed["stdout"]) < 31_000
    assert printed["stdout"].endswith("line 299999\n")
    shown = box.call("run_code", code="'é' * 5_000_000")["structuredContent"]
    assert len(shown["result"]) < 31_000
    assert box.memory() < 300 << 20


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(): f()\nf()", "RecursionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("input()", "EOFError"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E"),
        ("raise Exception('x' * 10_000_000)", "Exception"),
        ("(", "SyntaxError"),
        ("import belljar_host\nbelljar_host.call('final_answer', '1')", "Error"),
        ("print('\\ud800')\n1/0", "ZeroDivisionError"),
    ],
)
def test_what_code_raises_is_a_bounded_result(code: str, words: str, box: Lines) -> None:
    result = box.call("run_code", code=code, timeout=30)
    error = result["structuredContent"]["error"]
    assert words in error["name"]
    assert len(said(result)) < 100_000
    assert box.call("run_code", code="6 * 7")["structuredContent"]["result"] == "42"


@pytest.mark.parametrize("language", ["", "x" * 65, "no such", "../sh", 5])
def test_a_language_that_cannot_be_is_an_error(language: object, box: Lines) -> None:
    assert box.call("run_code", code="1", language=language)["isError"] is True


def test_other_languages_have_state_too(box: Lines) -> None:
    box.call("run_code", code="x=5", language="bash")
    assert box.call("run_code", code="echo $((x + 1))", language="bash")["structuredContent"]["stdout"] == "6\n"


@pytest.mark.parametrize("era", ERAS)
async def test_a_cell_that_is_cancelled_is_interrupted(era: str, environ: dict[str, str]) -> None:
    async with stdio(environ, era=era) as client:
        await client.call_tool("run_code", {"code": "kept = 5"})
        code = "import time, pathlib\npathlib.Path('/tmp/on').touch()\nwhile True:\n    time.sleep(0.01)"
        call = asyncio.create_task(client.call_tool("run_code", {"code": code}))
        wait = {"command": "until [ -e /tmp/on ]; do sleep 0.1; done", "timeout": 20}
        assert not (await client.call_tool("run_command", wait)).is_error
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        after = await client.call_tool("run_code", {"code": "kept", "timeout": 20})
        assert after.structured_content["result"] == "5"


async def test_what_a_long_cell_prints_is_told(environ: dict[str, str]) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with stdio(environ) as client:
        code = "import time\nfor n in range(5):\n    print('step', n)\n    time.sleep(1)"
        await client.call_tool("run_code", {"code": "1"})
        await client.call_tool("run_code", {"code": code}, progress_callback=hear)
    assert heard
    assert all(message is not None and message.startswith("step ") for message in heard)
