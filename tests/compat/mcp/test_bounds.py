"""Whatever a model or a sandbox does: a bounded answer in bounded time, and the next call works."""

import asyncio
import json
from typing import Any

import pytest
from mcp import Client
from tests.api.sdk.belljar_command import Command
from tests.compat.mcp.clients import ERAS, Lines, connected, stdio, text_of

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def box(environ: dict[str, str]) -> Any:
    """Raw lines to one server, for tests that leave it as they found it."""
    with Lines(environ) as lines:
        yield lines


def said(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


def test_a_command_that_never_ends_is_killed_with_its_children(box: Lines) -> None:
    result = box.call("run_command", command="sleep 4711 & echo so far; yes > /dev/null", timeout=1.5)
    assert result["isError"] is True
    assert "so far" in said(result)
    assert "did not end within 1.5 s" in said(result)
    assert result["structuredContent"]["timed_out"] is True
    left = box.call("run_command", command="pgrep -f '[s]leep 4711'; pgrep -x yes")
    assert left["structuredContent"]["stdout"] == ""


@pytest.mark.timeout(180)
def test_a_gigabyte_of_output_is_cut_and_its_beginning_is_kept_in_a_file(box: Lines) -> None:
    result = box.call(
        "run_command", command="echo first; head -c 1000000000 /dev/zero | tr '\\0' a; echo last", timeout=150
    )
    value = result["structuredContent"]
    assert value["exit_code"] == 0
    assert value["stdout"].startswith("first\naaa")
    assert value["stdout"].endswith("aaalast\n")
    assert len(value["stdout"]) < 31_000
    assert value["truncated"] is True
    (file,) = value["output_files"]
    assert f"the first part of the output is in {file}" in said(result)
    assert box.call("run_command", command=f"stat -c %s {file}")["structuredContent"]["stdout"] == f"{64 << 20}\n"
    assert box.memory() < 300 << 20
    box.call("run_command", command=f"rm {file}")


def test_the_whole_of_an_output_that_is_cut_can_be_read(box: Lines) -> None:
    result = box.call("run_command", command="seq 100000; seq 200000 >&2")
    files = result["structuredContent"]["output_files"]
    assert len(files) == 2
    whole = box.call("run_command", command=f"cksum < {files[0]}; seq 100000 | cksum; wc -l < {files[1]}")
    one, other, lines = whole["structuredContent"]["stdout"].splitlines()
    assert one == other
    assert lines == "200000"


def test_control_characters_and_bytes_that_are_no_text_do_not_make_an_answer_larger(box: Lines) -> None:
    result = box.call("run_command", command="head -c 200000 /dev/zero; head -c 200000 /dev/urandom >&2")
    assert len(json.dumps(result)) < 1 << 20
    assert result["structuredContent"]["truncated"] is True


def test_a_huge_file_is_read_in_parts(box: Lines) -> None:
    box.call("run_command", command="truncate -s 10G /tmp/huge && printf 'the end' >> /tmp/huge")
    part = box.call("read_file", path="/tmp/huge", length=65536)["structuredContent"]
    assert (part["size"], part["next_offset"], part["encoding"]) == ((10 << 30) + 7, 65536, "base64")
    last = box.call("read_file", path="/tmp/huge", offset=10 << 30)["structuredContent"]
    assert (last["content"], last["next_offset"]) == ("the end", None)
    beyond = box.call("read_file", path="/tmp/huge", offset=11 << 30)["structuredContent"]
    assert (beyond["content"], beyond["next_offset"]) == ("", None)


def test_a_character_on_the_border_of_two_reads_is_not_broken(box: Lines) -> None:
    box.call("write_file", path="/tmp/text", content="aé€😀")
    read, at = "", 0
    while at is not None:
        part = box.call("read_file", path="/tmp/text", offset=at, length=4)["structuredContent"]
        assert part["encoding"] == "utf-8"
        read += part["content"]
        at = part["next_offset"]
    assert read == "aé€😀"


def test_files_without_a_size_and_without_an_end_are_read_within_bounds(box: Lines) -> None:
    assert "gVisor" in said(box.call("read_file", path="/proc/version")) or "Linux" in said(
        box.call("read_file", path="/proc/version")
    )
    endless = box.call("read_file", path="/dev/zero", length=100)
    assert len(json.dumps(endless)) < 2000
    assert box.call("run_command", command="true")["structuredContent"]["exit_code"] == 0


def test_a_large_image_is_not_sent_but_said(box: Lines) -> None:
    box.call(
        "run_command",
        command="printf '\\211PNG\\r\\n\\032\\n' > /tmp/big.png; head -c 600000 /dev/urandom >> /tmp/big.png",
    )
    result = box.call("read_file", path="/tmp/big.png")
    assert result["isError"] is True
    assert "600,008 bytes" in said(result)


def test_a_directory_with_many_entries_and_long_names_is_listed_in_bounded_size(box: Lines) -> None:
    box.call(
        "run_command", command="mkdir /tmp/many; cd /tmp/many; for n in $(seq 1500); do : > $(printf '%0200d' $n); done"
    )
    listed = box.call("list_files", path="/tmp/many", limit=1000)["structuredContent"]
    assert listed["truncated"] is True
    assert 100 <= len(listed["entries"]) <= 1000


def test_names_that_are_no_text_are_listed(box: Lines) -> None:
    box.call(
        "run_command", command="mkdir /tmp/odd; cd /tmp/odd; touch \"$(printf 'a\\377b')\" 'c d' \"$(printf 'e\\nf')\""
    )
    listed = box.call("list_files", path="/tmp/odd")["structuredContent"]
    assert len(listed["entries"]) == 3


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("read_file", {"path": "a\0b"}, "NUL"),
        ("read_file", {"path": ""}, "path"),
        ("read_file", {"path": 7}, "path: Input should be a valid string"),
        ("read_file", {"path": ["a"]}, "path"),
        ("read_file", {"path": "/tmp", "length": 1 << 40}, "length"),
        ("read_file", {"path": "/tmp", "offset": -1}, "offset"),
        ("read_file", {"path": "/tmp"}, "is a directory"),
        ("read_file", {"path": "/nope"}, "not_found"),
        ("read_file", {}, "path: Field required"),
        ("write_file", {"path": "/tmp/x", "content": "not base64!", "encoding": "base64"}, "base64"),
        ("write_file", {"path": "/tmp/x", "content": "x", "encoding": "latin-1"}, "encoding"),
        ("write_file", {"path": "/proc/version", "content": "x"}, ""),
        ("write_file", {"path": "/tmp", "content": "x"}, ""),
        ("list_files", {"path": "/etc/passwd"}, ""),
        ("list_files", {"path": "/etc/passwd", "pattern": "*"}, "no directory"),
        ("list_files", {"path": "/etc", "pattern": "/etc/*"}, "relative"),
        ("list_files", {"limit": 100000}, "limit"),
        ("run_command", {"command": ""}, "command"),
        ("run_command", {"command": "x" * 200_000}, "command"),
        ("run_command", {"command": "echo \0"}, ""),
        ("run_command", {"command": "true", "cwd": "/nope"}, "not_found"),
        ("run_command", {"command": "true", "env": {"A=B": "c"}}, "variable"),
        ("run_command", {"command": "true", "env": {"A": 1}}, "env.A"),
        ("run_command", {"command": "true", "timeout": 100_000}, "at most 600 s"),
        ("run_command", {"command": "true", "timeout": 0}, "timeout"),
        ("run_command", {"command": "true", "timeout": "soon"}, "timeout"),
        ("run_command", {"command": "true", "user": "root"}, "user: Extra inputs"),
        ("run_command", {"command": "true", "sandbox_id": "sb00000000000000000000"}, "no sandbox"),
        ("run_command", {"command": "true", "sandbox_id": "../../etc"}, "no sandbox"),
        ("run_command", {"command": "true", "sandbox_id": ""}, "sandbox_id"),
        ("end_sandbox", {"sandbox_id": "nope"}, "no sandbox"),
        ("end_sandbox", {}, "sandbox_id: Field required"),
        ("create_sandbox", {"note": "x" * 101}, "note"),
        ("create_sandbox", {"network": "open"}, "network: Extra inputs"),
    ],
)
def test_what_cannot_be_done_is_an_answer_that_says_why(
    tool: str, arguments: dict[str, object], words: str, box: Lines
) -> None:
    result = box.call(tool, **arguments)
    assert result["isError"] is True, result
    assert words in said(result)
    assert "internal" not in said(result)
    assert "Traceback" not in said(result)
    assert len(said(result)) < 2000
    assert box.call("run_command", command="echo on")["structuredContent"]["stdout"] == "on\n"


def test_lines_that_are_no_messages_do_not_end_the_server(box: Lines) -> None:
    for line in (b"nonsense", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"jsonrpc":"2.0","id":{}}', b"\xed\xa0\x80"):
        box.write(b"\n" + line + b"\n")
        refused = box.answer()
        assert refused["id"] is None
        assert refused["error"]["code"] in (-32700, -32600)
    half = {"name": "run_command", "arguments": {"command": "echo \ud800"}}
    assert "surrogate" in box.ask("tools/call", half)["error"]["message"]
    box.write(b'{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"')
    box.write(b"x" * (17 << 20))
    box.write(b'"}}\n')
    assert "at most 16 MiB" in box.answer()["error"]["message"]
    assert box.call("run_command", command="echo on")["structuredContent"]["stdout"] == "on\n"


async def test_sandboxes_of_others_are_as_unknown_as_those_that_never_were(
    environ: dict[str, str], belljar: Command
) -> None:
    foreign = belljar("sandbox", "create", "--name", "foreign").stdout.decode().split()[0]
    try:
        async with stdio(environ) as client:
            for tool, arguments in (
                ("run_command", {"command": "true"}),
                ("read_file", {"path": "/etc/passwd"}),
                ("write_file", {"path": "/x", "content": ""}),
                ("list_files", {}),
                ("end_sandbox", {}),
            ):
                for name in (foreign, "foreign"):
                    refused = await client.call_tool(tool, arguments | {"sandbox_id": name})
                    never = await client.call_tool(tool, arguments | {"sandbox_id": name[::-1]})
                    assert refused.is_error
                    assert text_of(refused).replace(name, "") == text_of(never).replace(name[::-1], "")
            assert (await client.call_tool("list_sandboxes", {})).structured_content == {"sandboxes": []}
        async with stdio(environ, "--all-sandboxes") as client:
            ran = await client.call_tool("run_command", {"command": "echo seen", "sandbox_id": "foreign"})
            assert text_of(ran) == "seen"
            listed = (await client.call_tool("list_sandboxes", {})).structured_content["sandboxes"]
            assert foreign in [one["sandbox_id"] for one in listed]
        assert foreign in [one["id"] for one in json.loads(belljar("sandbox", "ls", "--json").stdout)]
    finally:
        belljar("sandbox", "rm", "--yes", "foreign")


async def test_sandboxes_are_counted_also_while_they_are_made(environ: dict[str, str]) -> None:
    async with stdio(environ, "--max-sandboxes", "2") as client:
        results = await asyncio.gather(*(client.call_tool("create_sandbox", {}) for _ in range(4)))
        made = [one.structured_content["sandbox_id"] for one in results if not one.is_error]
        assert len(made) == 2
        assert all("end_sandbox" in text_of(one) for one in results if one.is_error)
        await client.call_tool("end_sandbox", {"sandbox_id": made[0]})
        assert not (await client.call_tool("create_sandbox", {})).is_error


async def test_calls_beyond_the_bound_wait_for_a_slot(environ: dict[str, str]) -> None:
    async with stdio(environ, "--max-calls", "2") as client:
        await client.call_tool("run_command", {"command": "true"})
        line = "mine=$(mktemp -d /tmp/now.XXXXXX); sleep 0.5; set -- /tmp/now.*; echo $#; rmdir $mine"
        results = await asyncio.gather(*(client.call_tool("run_command", {"command": line}) for _ in range(5)))
        assert max(int(text_of(one)) for one in results) <= 2


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_call_that_is_cancelled_ends_its_command(transport: str, era: str, environ: dict[str, str]) -> None:
    async with connected(environ, transport, era=era) as client:
        box = (await client.call_tool("create_sandbox", {})).structured_content["sandbox_id"]
        line = "sleep 5544 & touch /tmp/started; sleep 5544"
        call = asyncio.create_task(client.call_tool("run_command", {"command": line, "sandbox_id": box}))
        await until(client, box, "ls /tmp/started")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(client, box, "! pgrep -f '[s]leep 5544'")


async def until(client: Client, box: str, command: str) -> None:
    async with asyncio.timeout(15):
        while True:
            ran = await client.call_tool("run_command", {"command": command, "sandbox_id": box})
            if ran.structured_content["exit_code"] == 0:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_long_call_tells_its_progress_to_who_asked(transport: str, era: str, environ: dict[str, str]) -> None:
    heard: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with connected(environ, transport, era=era) as client:
        box = (await client.call_tool("create_sandbox", {})).structured_content["sandbox_id"]
        line = "for n in 1 2 3 4; do echo line $n; sleep 1; done"
        await client.call_tool("run_command", {"command": line, "sandbox_id": box}, progress_callback=hear)
    assert len(heard) in (2, 3)
    assert [seconds for seconds, _ in heard] == sorted(seconds for seconds, _ in heard)
    assert all(message is not None and message.startswith("line ") for _, message in heard)
