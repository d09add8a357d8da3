"""What LangChain's tests leave out: ends by force, bounds, order of output, event loops, and an agent that uses the tools."""

import asyncio
from collections.abc import Iterator

import pytest
from deepagents import create_deep_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage

import belljar
from belljar.integrations.langchain import BelljarSandbox


@pytest.fixture(scope="module")
def backend() -> Iterator[BelljarSandbox]:
    with BelljarSandbox.create(timeout=20) as made:
        yield made


def test_both_streams_come_in_the_order_in_which_they_were_printed(backend: BelljarSandbox) -> None:
    done = backend.execute("for n in 1 2 3; do echo out $n; echo err $n >&2; done")
    assert done.output.split("\n")[:-1] == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"]
    broken = backend.execute("echo 'unfinished")
    assert (broken.exit_code, "Syntax error" in broken.output) == (2, True)


def test_a_command_that_takes_too_long_is_killed_and_tells_what_it_printed(backend: BelljarSandbox) -> None:
    done = backend.execute("echo so far; sleep 4242", timeout=1)
    assert done.exit_code == 124
    assert done.output.startswith("so far\n\nThe command did not end within 1 seconds")
    assert backend.execute("pgrep -f '^sleep 4242'").exit_code == 1


def test_a_flood_of_output_is_ended_and_said_to_be_cut(backend: BelljarSandbox) -> None:
    done = backend.execute("yes flood")
    assert (len(done.output), done.truncated, done.exit_code) == (10 << 20, True, None)
    assert backend.execute("pgrep -x yes").exit_code == 1


def test_bytes_that_are_no_text_and_signals_come_through(backend: BelljarSandbox) -> None:
    assert backend.execute("printf 'a\\377b'").output == "a\ufffdb"
    assert backend.execute("kill -9 $$").exit_code == 137


def test_one_backend_serves_several_event_loops_and_threads(backend: BelljarSandbox) -> None:
    async def many() -> list[str]:
        done = await asyncio.gather(*(backend.aexecute(f"sleep 0.5; echo {n}") for n in range(8)))
        return [one.output.strip() for one in done]

    for _ in range(2):
        assert asyncio.run(many()) == [str(n) for n in range(8)]
    assert backend.execute("echo after").output == "after\n"


def test_each_file_has_its_own_answer(backend: BelljarSandbox) -> None:
    given = backend.upload_files(
        [("/srv/a", b"a"), ("relative", b"b"), ("/srv", b"c"), ("/srv/a/b", b"d"), ("/srv/e", b"e")]
    )
    assert [one.error for one in given] == [None, "invalid_path", "is_directory", "invalid_path", None]
    taken = backend.download_files(["/srv/a", "/srv/none", "/srv", "/srv/e", "/srv/a\0b"])
    assert [one.content for one in taken] == [b"a", None, None, b"e", None]
    assert [one.error for one in taken] == [None, "file_not_found", "is_directory", None, "invalid_path"]


def test_a_sandbox_that_is_gone_is_an_error() -> None:
    with BelljarSandbox.create() as backend:
        backend.terminate()
        with pytest.raises(belljar.SandboxGone):
            backend.execute("true")
        with pytest.raises(belljar.SandboxGone):
            backend.upload_files([("/x", b"")])


def test_an_agent_uses_its_tools_in_the_sandbox(backend: BelljarSandbox) -> None:
    class Scripted(GenericFakeChatModel):
        def bind_tools(self, tools: object, **options: object) -> "Scripted":
            return self

    def call(number: int, name: str, **arguments: object) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": str(number)}])

    script = [
        call(1, "write_file", file_path="/srv/job.py", content="print('Hello')\n"),
        call(2, "edit_file", file_path="/srv/job.py", old_string="Hello", new_string="Goodbye"),
        call(3, "execute", command="python3 /srv/job.py"),
        call(4, "grep", pattern="Goodbye", path="/srv"),
        call(5, "glob", pattern="*.py", path="/srv"),
        AIMessage("done"),
    ]
    agent = create_deep_agent(model=Scripted(messages=iter(script)), backend=backend)
    messages = agent.invoke({"messages": [("user", "go")]})["messages"]
    told = [message.text for message in messages if isinstance(message, ToolMessage)]
    assert messages[-1].text == "done"
    assert told[2].startswith("Goodbye\n")
    assert "/srv/job.py" in told[3]
    assert "job.py" in told[4]
