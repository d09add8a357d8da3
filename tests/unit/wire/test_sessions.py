"""Both ends together, over pipes that are byte strings."""

import itertools

import pytest

from belljar.wire.agent import AgentSession
from belljar.wire.events import Cancelled, Credited, Data, Ended, Happened, Hello, Request, Response, Welcomed
from belljar.wire.faults import Busy, WireFault
from belljar.wire.frames import Kind, encode
from belljar.wire.messages import dump
from belljar.wire.server import MAX_REQUESTS, MAX_STREAMS, PING_AFTER, PING_EVERY, SILENT_AFTER, ServerSession


class Pair:
    def __init__(self) -> None:
        self.now = 1000.0
        self.agent = AgentSession("agent/1", ["users"], 5.0)
        self.server = self.new_server()

    def new_server(self, nonce: str = "ab" * 16) -> ServerSession:
        self.server = ServerSession(nonce, now=self.now, wall_time=1.5)
        return self.server

    def pump(self, rounds: int = 1000) -> list:
        """Until nobody has anything to say; all events in order."""
        events: list = []
        for _ in range(rounds):
            there = b"".join(self.server.buffers())
            self.server.wrote(len(there))
            events += self.agent.receive(there)
            back = b"".join(self.agent.buffers())
            self.agent.wrote(len(back))
            events += self.server.receive(back, self.now)
            if not there and not back:
                return events
        raise AssertionError("they never stop")


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    assert made.pump() == [Hello(1.5), Welcomed(1, "agent/1", frozenset({"users"}), 5.0)]
    return made


def test_a_request_is_answered_once(pair):
    request = pair.server.request("stat", {"path": "/x" * 50_000})
    (asked,) = pair.pump()
    assert asked == Request(request, "stat", {"path": "/x" * 50_000})
    pair.agent.respond(request, {"size": 3})
    pair.agent.respond(request, {"size": 4})
    assert pair.pump() == [Response(request, {"size": 3}, None)]


def test_an_error_comes_with_its_code(pair):
    request = pair.server.request("stat", {})
    pair.pump()
    pair.agent.refuse(request, "not_found", "/x: no such file")
    assert pair.pump() == [Response(request, None, ("not_found", "/x: no such file"))]


def test_an_answer_beyond_the_bound_becomes_an_error(pair):
    request = pair.server.request("list", {})
    pair.pump()
    pair.agent.respond(request, {"x": "y" * (9 << 20)})
    (answer,) = pair.pump()
    assert answer.error is not None
    assert answer.error[0] == "too_large"


def test_a_stream_from_the_agent_flows_by_credit(pair):
    stream = pair.server.open_in(window=100_000)
    rest = [bytes([number]) * 50_000 for number in range(10)]

    def pull(limit):
        if not rest:
            return None
        piece = rest[0][:limit]
        rest[0] = rest[0][limit:]
        if not rest[0]:
            rest.pop(0)
        return piece

    pair.agent.open_out(stream.id, pull, window=100_000).wake()
    got = b""
    for _ in range(20):
        for event in pair.pump():
            if isinstance(event, Data):
                got += event.data
                stream.consumed(len(event.data))
            elif isinstance(event, Ended):
                assert event.offset == len(got) == 500_000
                assert event.error is None
                assert got == b"".join(bytes([number]) * 50_000 for number in range(10))
                assert not pair.agent._outs
                assert not pair.server._ins
                return
    raise AssertionError("it did not end")


def test_a_stream_to_the_agent_is_answered_with_its_result(pair):
    stream = pair.server.open_out()
    pair.server.request("write", {"stream": stream.id})
    pair.pump()
    inward = pair.agent.open_in(stream.id, offset=7, window=1000)
    stream.begin(7, inward.granted)
    stream.write(bytes(3000))
    stream.finish()
    got = 0
    while True:
        events = pair.pump()
        for event in events:
            if isinstance(event, Data):
                assert event.offset == 7 + got
                got += len(event.data)
                inward.consumed(len(event.data))
        if any(isinstance(event, Ended) for event in events):
            break
    assert got == 3000
    pair.agent.end_in(stream.id, result={"offset": 3007})
    assert pair.pump()[-1] == Ended(stream.id, 3007, {"offset": 3007}, None)
    assert not pair.server._outs
    assert not pair.agent._ins


def test_the_agent_may_end_a_stream_before_all_came(pair):
    stream = pair.server.open_out()
    inward = pair.agent.open_in(stream.id, window=1000)
    stream.begin(0, 1000)
    stream.write(bytes(500))
    pair.pump()
    pair.agent.end_in(inward.id, error=("disk_full", "no space"))
    stream.write(bytes(400))
    assert pair.pump() == [Ended(stream.id, 500, {}, ("disk_full", "no space"))]
    stream.write(b"late")
    assert pair.pump() == []


def test_after_a_cancel_nothing_more_is_heard(pair):
    stream = pair.server.open_in()
    request = pair.server.request("read", {})
    pair.pump()
    out = pair.agent.open_out(stream.id, lambda limit: b"x" * min(limit, 10), window=1 << 20)
    pair.server.cancel(stream.id)
    pair.server.cancel(request)
    pair.server.cancel(request)
    assert pair.pump() == [Cancelled(stream.id), Cancelled(request)]
    out.wake()
    pair.agent.respond(request, {})
    assert pair.pump() == []


def test_credit_reaches_the_writer(pair):
    stream = pair.server.open_out()
    inward = pair.agent.open_in(stream.id, window=1000)
    stream.begin(0, 1000)
    stream.write(bytes(1000))
    pair.pump()
    inward.consumed(1000)
    assert pair.pump() == [Credited(stream.id, 2000)]


def test_events_come_through(pair):
    pair.agent.tell({"event": "exit", "process": {"id": 1}})
    assert pair.pump() == [Happened({"event": "exit", "process": {"id": 1}})]


def test_a_new_server_ends_the_old_session(pair):
    request = pair.server.request("stat", {})
    stream = pair.server.open_in()
    pair.pump()
    out = pair.agent.open_out(stream.id, lambda limit: b"x" * limit, window=1 << 20)
    out.wake()
    half = b"".join(pair.agent.buffers())[:1000]
    pair.agent.wrote(1000)
    old = pair.server
    new = pair.new_server("cd" * 16)
    pair.agent.respond(request, {"late": True})
    # The old server died with half a frame read and half a frame written.
    pair.agent.receive(encode(Kind.DATA, 3, 0, bytes(30_000))[:9_999])
    assert old is not new
    assert new.receive(half[500:], pair.now) == []
    assert pair.pump() == [Hello(1.5), Welcomed(1, "agent/1", frozenset({"users"}), 5.0)]
    out.wake()
    pair.agent.respond(request, {"late": True})
    assert pair.pump() == []
    assert pair.server.request("x", {}) == 1


def test_no_version_in_common_is_said(pair):
    pair.agent.receive(encode(Kind.HELLO, 0, 0, dump({"nonce": "q", "version_min": 7, "version_max": 9})))
    assert b'"version":0' in b"".join(pair.agent.buffers())
    assert not pair.agent.open


def test_the_server_pings_a_quiet_agent_and_gives_up_on_a_silent_one(pair):
    asked = []
    for _ in range(30):
        pair.now += 1
        pair.server.tick(pair.now)
        asked += pair.pump()
    assert asked == []
    with pytest.raises(TimeoutError):
        for _ in range(30):
            pair.now += 1
            pair.server.tick(pair.now)
    assert 1000 + 30 + SILENT_AFTER - PING_AFTER <= pair.now <= 1000 + 30 + SILENT_AFTER + 2


def test_an_agent_that_talks_all_the_time_hears_from_the_server_too(pair):
    heard = [pair.now]
    for _ in range(100):
        pair.now += 0.5
        pair.agent.tell({"event": "x"})
        pair.pump()
        pair.server.tick(pair.now)
        if pair.server.buffers():
            heard.append(pair.now)
            pair.pump()
    assert max(later - earlier for earlier, later in itertools.pairwise(heard)) <= PING_EVERY + 1
    assert heard[-1] > pair.now - PING_EVERY - 1


def test_an_agent_that_was_stopped_is_roused_at_once(pair):
    pair.server.rouse()
    assert b"".join(pair.server.buffers()) == encode(Kind.PING, 0, 1)
    assert pair.pump() == []


def test_an_agent_that_has_not_said_hello_is_not_roused():
    server = ServerSession("ab" * 16, now=0)
    hello = b"".join(server.buffers())
    server.rouse()
    assert b"".join(server.buffers()) == hello


def test_an_agent_that_never_answers_is_silent():
    server = ServerSession("ab" * 16, now=0)
    with pytest.raises(TimeoutError):
        for second in range(20):
            server.tick(second)
    assert second == SILENT_AFTER


def test_a_server_that_slept_does_not_blame_the_agent(pair):
    pair.server.tick(pair.now)
    pair.server.tick(pair.now + 3600)
    pair.now += 3601
    pair.server.forgive(pair.now)
    for _ in range(5):
        pair.now += 1
        pair.server.tick(pair.now)


def test_requests_and_streams_are_bounded(pair):
    for _ in range(MAX_REQUESTS):
        pair.server.request("x", {})
    with pytest.raises(Busy):
        pair.server.request("x", {})
    for _ in range(MAX_STREAMS):
        pair.server.open_in()
    with pytest.raises(Busy):
        pair.server.open_out()


def test_a_server_that_breaks_the_rules_loses_its_session(pair):
    stream = pair.server.open_out()
    pair.agent.open_in(stream.id, window=10)
    assert pair.agent.receive(encode(Kind.DATA, stream.id, 5, b"gap")) == [Hello(0.0)]
    assert not pair.agent.open
    pair.new_server()
    assert isinstance(pair.pump()[-1], Welcomed)


def test_an_agent_that_lies_about_a_stream_is_a_fault(pair):
    stream = pair.server.open_in(window=10)
    with pytest.raises(WireFault, match="credit"):
        pair.server.receive(encode(Kind.DATA, stream.id, 0, bytes(11)), pair.now)


@pytest.mark.parametrize(
    "frame",
    [
        encode(Kind.DATA, 99, 0, b"x"),
        encode(Kind.END, 99, 0, b"{}"),
        encode(Kind.RESPONSE, 99, 0, b'{"ok":{}}'),
        encode(Kind.HELLO, 0, 0, b"{}"),
        encode(Kind.REQUEST, 1, 0, b"{}"),
        encode(Kind.PONG, 0, 5),
        encode(55, 0, 0),
        encode(Kind.EVENT, 0, 0, b"[]"),
        encode(Kind.WELCOME, 0, 0, b"{}"),
        encode(Kind.DATA, 1, 0, b"x", True),
    ],
)
def test_what_no_honest_agent_says_is_a_fault(pair, frame):
    with pytest.raises(WireFault):
        pair.server.receive(frame, pair.now)
