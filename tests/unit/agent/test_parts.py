"""The agent's parts by themselves: rings, the loop, the guard's judgement, users."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar_agent.api import Refused
from belljar_agent.guard import Task, guilty
from belljar_agent.loop import READ, Loop
from belljar_agent.people import People
from belljar_agent.ring import Ring


@given(st.lists(st.binary(max_size=3000), max_size=60), st.integers(0, 20_000), st.data())
def test_a_ring_gives_back_what_was_put_in(pieces, keep, data):
    ring, whole = Ring(), b""
    for piece in pieces:
        ring.append(piece)
        whole += piece
        ring.trim(keep)
        assert ring.end == len(whole)
        assert ring.dropped == ring.start
        assert min(keep, ring.end) <= ring.size <= keep + 2 * 65_536
    at, got = ring.start, b""
    while piece := ring.read(at, data.draw(st.integers(1, 5000))):
        got, at = got + piece, at + len(piece)
    assert got == whole[ring.start :]


def test_a_ring_of_single_bytes_is_not_larger_than_what_it_keeps():
    ring = Ring()
    for _ in range(200_000):
        ring.append(b"x")
    assert len(ring._blocks) == 4
    assert sum(map(len, ring._blocks)) == 200_000


def test_a_ring_keeps_what_a_reader_has_still_to_get():
    ring = Ring()
    for _ in range(100):
        ring.append(bytes(65_536))
    ring.trim(65_536, reader=10 * 65_536)
    assert ring.start == 10 * 65_536
    ring.sent = 50 * 65_536
    ring.trim(65_536)
    assert (ring.start, ring.dropped) == (99 * 65_536, 10 * 65_536 + 49 * 65_536)


def test_long_work_is_done_in_steps_between_other_things():
    loop, order = Loop(lambda error: order.append(error)), []
    read, write = os.pipe()
    os.set_blocking(read, False)

    def work():
        for _ in range(10):
            time.sleep(0.003)
            yield
        return "done"

    def ready(_events):
        order.append(os.read(read, 10))

    def finished(result, error):
        order.append(result)
        loop.stop()

    loop.watch(read, READ, ready)
    loop.work(work(), finished)
    loop.after(0.001, lambda: os.write(write, b"now"))
    loop.run()
    assert order == [b"now", "done"]
    os.close(read)
    os.close(write)


def test_a_fault_in_a_callback_is_reported_and_the_loop_goes_on():
    faults = []
    loop = Loop(faults.append)
    loop.soon(lambda: 1 / 0)
    loop.after(0.01, loop.stop)
    cancelled = loop.after(0.001, lambda: faults.append("never"))
    cancelled.cancel()
    loop.run()
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


def tree(*rows):
    return [Task(pid, parent, weight, f"p{pid}") for pid, parent, weight in rows]


def judged(tasks, spared=frozenset({1, 2, 3})):
    top = guilty(tasks, set(spared))
    return top.pid if top else None


OURS = ((1, 0, 50), (2, 1, 50), (3, 2, 5))


def test_the_heaviest_process_is_guilty_and_not_the_shell_that_started_it():
    assert judged(tree(*OURS, (10, 2, 5), (11, 10, 900), (20, 2, 300))) == 11


def test_a_bomb_of_many_small_children_ends_with_their_parent():
    children = [(100 + number, 11, 20) for number in range(50)]
    assert judged(tree(*OURS, (10, 2, 5), (11, 10, 30), *children, (20, 2, 300))) == 11


def test_orphans_of_the_init_stand_for_themselves():
    assert judged(tree(*OURS, (10, 3, 400), (11, 3, 300))) == 10


def test_nobody_but_ourselves_is_nobody():
    assert judged(tree(*OURS)) is None


def test_the_guilty_tree_takes_its_descendants_along():
    tasks = tree(*OURS, (10, 2, 500), (11, 10, 100), (12, 11, 100))
    top = guilty(tasks, {1, 2, 3})
    assert top is not None
    assert (top.pid, top.total) == (10, 700)


@pytest.fixture
def people(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\nbad line\nodd:x:nan:1::/:\n+::::::\n"
    )
    (etc / "group").write_text("root:x:0:\nuser:x:1000:\nsudo:x:27:user\ndocker:x:99:other,user\n")
    return People(str(tmp_path))


def test_users_are_known_by_name_number_and_group(people):
    user = people.identity("user")
    assert (user.uid, user.gid, user.home, user.groups) == (1000, 1000, "/home/user", [1000, 27, 99])
    assert people.identity(1000).name == "user"
    assert people.identity("1000").name == "user"
    assert (people.identity("4711").uid, people.identity("4711").home) == (4711, "/")
    assert people.identity("user:sudo").gid == 27
    assert people.identity("0:5").groups == [5]
    assert people.user_name(1000) == "user"
    assert people.user_name(77) == "77"
    assert people.group_name(27) == "sudo"


@pytest.mark.parametrize(
    "wrong", ["nobody-here", "", "user:nogroup", "99999999999", -1, 1.5, None, "a\0b", "odd", True]
)
def test_unknown_users_are_refused(people, wrong):
    with pytest.raises(Refused) as caught:
        people.identity(wrong)
    assert caught.value.code == "invalid_argument"


def test_an_image_without_users_has_root(tmp_path):
    assert People(str(tmp_path)).identity("root").uid == 0
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    assert People(str(tmp_path)).identity("root").uid == 0
