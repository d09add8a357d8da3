"""What a model does with the tools, over both transports and in both eras of the protocol."""

import base64
import json
import struct
import zlib

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from tests.api.sdk.belljar_command import Command
from tests.compat.mcp.clients import ERAS, connected, http_client, http_server, stdio, text_of

pytestmark = pytest.mark.node

TOOLS = {
    "create_sandbox", "list_sandboxes", "run_code", "run_command", "read_file", "write_file", "list_files", "end_sandbox",
}  # fmt: skip


async def made(client: Client, **arguments: object) -> str:
    return (await client.call_tool("create_sandbox", dict(arguments))).structured_content["sandbox_id"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_sandbox_is_made_used_and_ended(
    transport: str, era: str, environ: dict[str, str], belljar: Command
) -> None:
    async with connected(environ, transport, era=era) as client:
        assert (client.protocol_version == "2026-07-28") == (era == "2026-07-28")
        box = await made(client, note="the flow")
        shown = json.loads(belljar("sandbox", "show", box, "--json").stdout)
        assert "mcp" in shown["labels"]
        ran = await client.call_tool(
            "run_command", {"command": "uname -r; pwd; echo no >&2; exit 3", "sandbox_id": box}
        )
        assert ran.structured_content["exit_code"] == 3
        assert ran.structured_content["stdout"].endswith("gvisor\n/root\n")
        assert text_of(ran).endswith("gvisor\n/root\n[stderr]\nno\n[exit code 3]")
        assert not ran.is_error
        await client.call_tool("write_file", {"path": "a/b.txt", "content": "hé\n", "sandbox_id": box})
        await client.call_tool("write_file", {"path": "a/b.txt", "content": "more", "append": True, "sandbox_id": box})
        read = await client.call_tool("read_file", {"path": "a/b.txt", "sandbox_id": box})
        assert text_of(read) == "hé\nmore"
        assert read.structured_content["next_offset"] is None
        listed = await client.call_tool("list_files", {"path": "/root", "pattern": "**/*.txt", "sandbox_id": box})
        entry = listed.structured_content["entries"][0]
        assert (entry["path"], entry["kind"], entry["size"]) == ("/root/a/b.txt", "file", 8)
        boxes = (await client.call_tool("list_sandboxes", {})).structured_content["sandboxes"]
        assert [(one["sandbox_id"], one["note"]) for one in boxes] == [(box, "the flow")]
        await client.call_tool("end_sandbox", {"sandbox_id": box})
        gone = await client.call_tool("run_command", {"command": "true", "sandbox_id": box})
        assert gone.is_error
        assert "end_sandbox ended it" in text_of(gone)
    assert json.loads(belljar("sandbox", "ls", "--json").stdout) == []


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_the_tools_say_what_they_do_and_within_which_bounds(transport: str, environ: dict[str, str]) -> None:
    async with connected(environ, transport, "--network", "none", "--max-timeout", "2m", era="2026-07-28") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools.keys() == TOOLS
    for tool in tools.values():
        assert tool.description and tool.title and tool.output_schema
        assert tool.input_schema["additionalProperties"] is False
        hints = tool.annotations
        assert hints is not None
        assert not (hints.read_only_hint and hints.destructive_hint)
        assert hints.idempotent_hint is not None
        assert hints.open_world_hint is False, "nothing is reached without a network"
    assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == {
        "list_sandboxes", "read_file", "list_files",
    }  # fmt: skip
    run = tools["run_command"].input_schema
    assert run["properties"]["timeout"]["maximum"] == 120
    assert ("sandbox_id" in run["required"]) == (transport == "http")


async def test_calls_without_an_id_share_one_sandbox_over_stdio(environ: dict[str, str]) -> None:
    async with stdio(environ) as client:
        calls = [client.call_tool("run_command", {"command": f"echo {n} >> /tmp/all"}) for n in range(4)]
        for call in calls:
            assert not (await call).is_error
        read = await client.call_tool("read_file", {"path": "/tmp/all"})
        assert sorted(text_of(read).split()) == ["0", "1", "2", "3"]
        (only,) = (await client.call_tool("list_sandboxes", {})).structured_content["sandboxes"]
        assert only["default"] is True


async def test_calls_without_an_id_are_refused_over_http(environ: dict[str, str]) -> None:
    with http_server(environ) as server:
        async with http_client(server) as client:
            refused = await client.call_tool("run_command", {"command": "true"})
    assert refused.is_error
    assert "create_sandbox" in text_of(refused)


async def test_two_clients_of_one_http_server_work_on_one_sandbox(environ: dict[str, str]) -> None:
    with http_server(environ) as server:
        async with http_client(server, "handshake") as one, http_client(server, "2026-07-28") as two:
            box = await made(one)
            await one.call_tool("write_file", {"path": "/tmp/x", "content": "from one", "sandbox_id": box})
            assert text_of(await two.call_tool("read_file", {"path": "/tmp/x", "sandbox_id": box})) == "from one"


async def test_an_image_is_read_as_an_image_and_other_bytes_as_base64(environ: dict[str, str]) -> None:
    png = png_of(8)
    async with stdio(environ) as client:
        content = base64.b64encode(png).decode()
        await client.call_tool("write_file", {"path": "p.png", "content": content, "encoding": "base64"})
        read = await client.call_tool("read_file", {"path": "p.png"})
        (image,) = [one for one in read.content if one.type == "image"]
        assert base64.b64decode(image.data) == png
        assert image.mime_type == "image/png"
        other = await client.call_tool("read_file", {"path": "p.png", "offset": 1, "length": 12})
        assert base64.b64decode(other.structured_content["content"]) == png[1:13]
        assert other.structured_content["next_offset"] == 13


def png_of(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([n % 256, 0, 0] * side) for n in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_nothing_of_this_machine_comes_in(environ: dict[str, str]) -> None:
    async with stdio(environ | {"SECRET_OF_THE_HOST": "hush"}, "--network", "none") as client:
        seen = await client.call_tool("run_command", {"command": "env; cat /etc/hostname /proc/mounts"})
        assert "hush" not in text_of(seen)
        assert environ["BELLJAR_HOME"] not in text_of(seen)
        tried = await client.call_tool(
            "run_command", {"command": "curl -sS -m 2 http://1.1.1.1/; curl -sS -m 2 http://10.0.0.1/"}
        )
        assert tried.structured_content["exit_code"] != 0
        assert tried.structured_content["stdout"] == ""


async def test_the_operator_chooses_what_sandboxes_are_like(environ: dict[str, str], belljar: Command) -> None:
    async with stdio(environ, "--memory", "256MiB", "--cpu", "0.5", "--network", "none", "--lifetime", "5m") as client:
        box = await made(client)
        shown = json.loads(belljar("sandbox", "show", box, "--json").stdout)
        assert (shown["memory"], shown["cpu"], shown["network"]) == (256 << 20, 0.5, "none")
        assert 0 < shown["expires"] - shown["created"] <= 305


async def test_a_choice_of_images_is_in_the_schema_and_nothing_else_is_taken(environ: dict[str, str]) -> None:
    async with stdio(environ, "--image", "base", "--image", "nosuch") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["create_sandbox"].input_schema["properties"]["image"]["enum"] == ["base", "nosuch"]
        assert await made(client, image="base")
        missing = await client.call_tool("create_sandbox", {"image": "nosuch"})
        assert text_of(missing).startswith("image_not_found: ")
        refused = await client.call_tool("create_sandbox", {"image": "other"})
        assert "images: base, nosuch" in text_of(refused)


async def test_an_unknown_tool_is_an_error_of_the_protocol(environ: dict[str, str]) -> None:
    async with stdio(environ) as client:
        with pytest.raises(MCPError, match="no tool"):
            await client.call_tool("expose_port", {"port": 80})
