"""An agent that wakes in a clone, or after its sandbox has stood still for long."""

from pathlib import Path

import pytest
from tests.unit.agent.conftest import Agent, Client, Refused

from belljar_agent import service as service_module
from belljar_agent.service import Service

FLOOD = "import os\nwhile True: os.write(1, b'x' * 65536)"


def test_a_process_waits_for_no_reader_of_another_sandbox(agent: Agent) -> None:
    first = agent.connect()
    process = first.start("python3", "-c", FLOOD)
    process["out"].auto = False
    first.until(lambda: first.ask("process", id=process["id"])["stdout"]["end"] > 1 << 20)
    second = agent.connect()
    held = second.ask("process", id=process["id"])["stdout"]["end"]
    with pytest.raises(TimeoutError):
        second.until(lambda: second.ask("process", id=process["id"])["stdout"]["end"] > held + (2 << 20), timeout=0.5)
    assert second.ask("release") == {}
    second.until(lambda: second.ask("process", id=process["id"])["stdout"]["end"] > held + (4 << 20), timeout=5)
    second.ask("signal", id=process["id"], signal=9)


def test_what_ran_before_anybody_came_is_forgotten_and_what_runs_is_not(client: Client) -> None:
    running = client.start("sleep", "60")
    client.run("/bin/sh", "-c", "echo once")
    assert len(client.ask("processes")["processes"]) == 2
    assert client.ask("forget") == {}
    assert [one["id"] for one in client.ask("processes")["processes"]] == [running["id"]]
    assert client.run("/bin/sh", "-c", "echo again")[1] == b"again\n"
    assert [one["id"] for one in client.ask("processes")["processes"]] == [running["id"], running["id"] + 1]
    client.ask("signal", id=running["id"], signal=9)


@pytest.mark.parametrize("args", [{"tmp": 0}, {"tmp": -1}, {"shm": "1G"}, {"shm": True}, {"tmp": 1 << 63}])
def test_a_size_that_is_none_is_refused_and_nothing_is_changed(client: Client, args: dict[str, object]) -> None:
    with pytest.raises(Refused):
        client.ask("configure", env={"A": "1"}, **args)
    assert client.run("/bin/sh", "-c", "echo $A")[1] == b"\n"


def test_a_server_is_silent_only_while_the_sandbox_itself_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(service_module, "monotonic", lambda: clock[0])
    service = Service(str(tmp_path), None)
    for step, silent in ((10, False), (10, False), (9_000, False), (10, False), (10, False), (10, False), (10, True)):
        clock[0] += step
        service._housekeeping()
        assert service._silent is silent
