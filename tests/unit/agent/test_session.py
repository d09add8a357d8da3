"""The agent as a peer: servers that come, go and lie; operations that are unknown, cancelled, or at rest."""

import os
import select
import time
from pathlib import Path

import pytest

from belljar.wire.frames import PAD, Kind, encode


def test_it_answers_fast_and_says_what_it_is(agent):
    client = agent.connect()
    assert client.welcome.version == 1
    assert client.welcome.agent.startswith("belljar-agent/")
    assert "plain" in client.welcome.features


def test_noise_before_and_between_does_no_harm(agent):
    agent.write(os.urandom(30_000))
    client = agent.connect()
    assert client.run("/bin/echo", "x")[1] == b"x\n"
    agent.write(b"\xb3\x4a" * 100)
    assert agent.connect().run("/bin/echo", "y")[1] == b"y\n"


def test_a_server_that_died_in_the_middle_of_a_frame_is_followed_by_the_next(agent):
    agent.connect()
    agent.write(encode(Kind.REQUEST, 5, 0, bytes(60_000))[:30_000])
    assert agent.connect().run("/bin/echo", "x")[1] == b"x\n"


def test_answers_for_an_old_server_do_not_reach_the_next(agent):
    first = agent.connect()
    for number in range(50):
        first.session.request("start", {"key": f"k{number}", "argv": ["/bin/true"]})
    os.writev(first.write_fd, first.session.buffers())
    second = agent.connect()
    assert second.ask("configure") == {}
    assert second.run("/bin/echo", "x")[1] == b"x\n"


def test_a_server_that_breaks_the_rules_must_say_hello_again(agent):
    client = agent.connect()
    process = client.start("/bin/cat", stdin=True)
    out = client.out()
    client.ask("stdin", id=process["id"], stream=out.id, offset=0)
    agent.write(encode(Kind.DATA, out.id, 999, b"gap"))
    with pytest.raises(TimeoutError):
        client.ask("processes", timeout=0.5)
    again = agent.connect()
    assert again.ask("process", id=process["id"])["returncode"] is None


def test_a_version_that_is_too_new_is_told_apart(agent):
    hello = b'{"nonce":"aa","version_min":9,"version_max":9,"time":0}'
    agent.write(PAD)
    agent.write(encode(Kind.HELLO, 0, 0, hello))
    select.select([agent.read_fd], [], [], 10)
    assert b'"version":0' in os.read(agent.read_fd, 65_536)
    assert agent.connect().welcome.version == 1


def test_an_unknown_operation_and_wrong_arguments_are_refused(client):
    for op, args, code in (
        ("dance", {}, "not_supported"),
        ("process", {}, "invalid_argument"),
        ("process", {"id": "x"}, "invalid_argument"),
        ("process", {"id": 5}, "not_found"),
        ("configure", {"env": []}, "invalid_argument"),
        ("configure", {"workdir": "relative"}, "invalid_argument"),
        ("signal", {"id": 1, "signal": 900}, "not_found"),
        ("resize", {"id": True}, "invalid_argument"),
        ("stdin", {"id": 99}, "not_found"),
        ("read", {"path": "/x"}, "invalid_argument"),
    ):
        with pytest.raises(Exception, match=code):
            client.ask(op, **args)


def test_quiesce_answers_when_nothing_is_half_done(client):
    client.session.request("start", {"key": "a", "argv": ["/bin/sleep", "9"]})
    assert client.ask("quiesce") == {}
    assert len(client.ask("processes")["processes"]) == 1


def test_files_go_in_and_out_while_processes_run(client, agent):
    data = os.urandom(5_000_000)
    way = client.out()
    answer = client.ask("write", path="/sub/file", upload="u1", offset=0, stream=way.id, last=True, parents=True)
    way.begin(answer["offset"], answer["credit"])
    way.write(data)
    way.finish()
    assert client.run("/bin/echo", "quick")[1] == b"quick\n"
    assert client.ended(way.id).result["offset"] == len(data)
    assert (agent.root / "sub/file").read_bytes() == data
    reading = client.reading()
    assert client.ask("read", path="/sub/file", offset=0, stream=reading.stream.id, window=1 << 20)["size"] == len(data)
    client.until(lambda: reading.ended)
    assert reading.data == data
    assert client.ask("stat", path="/sub/file", follow=True)["size"] == len(data)
    with pytest.raises(Exception, match="not_found"):
        client.ask("read", path="/nope", offset=0, stream=client.reading().stream.id, window=1000)


def test_a_cancelled_stream_is_closed_and_says_nothing_more(client, agent):
    (agent.root / "big").write_bytes(bytes(20_000_000))
    before = agent.descriptors()
    reading = client.reading()
    reading.auto = False
    client.ask("read", path="/big", offset=0, stream=reading.stream.id, window=65_536)
    client.until(lambda: reading.data)
    client.session.cancel(reading.stream.id)
    client.ask("processes")
    assert agent.descriptors() == before


def test_the_agent_stays_small_whatever_processes_write(client, agent):
    client.start("/bin/sh", "-c", "yes | head -c 200000000", attach=False)
    client.until(lambda: client.ask("process", id=1)["returncode"] is not None, 60)
    time.sleep(0.1)
    (peak,) = [line for line in Path(f"/proc/{agent.process.pid}/status").read_text().splitlines() if "VmHWM" in line]
    assert int(peak.split()[1]) < 80_000
