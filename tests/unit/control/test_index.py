"""What is live, from memory: pages of it are those that the store would give."""

import random
from dataclasses import replace

from belljar.base.ids import new_id
from belljar.control.index import Index
from belljar.control.store.sandboxes import Filter, Record
from belljar.model.sandbox import Ended, Sandbox, SandboxSpec, Status

LIVE = (Status.CREATING, Status.RUNNING)


async def test_pages_from_memory_are_those_of_the_store(plant):
    chance, index, records = random.Random(7), Index(), []
    for number in range(60):
        spec = SandboxSpec(
            image=chance.choice(("base", "code")),
            name=f"n{number}" if number % 4 == 0 else None,
            labels={"team": chance.choice("ab")} if number % 3 else {},
        )
        ended = Ended("killed", 2.0) if number % 5 == 0 else None
        status = Status.TERMINATED if ended else chance.choice(LIVE)
        records.append(Record("default", Sandbox(new_id("sb"), spec, status, 1.0, ended=ended), "b"))
    chance.shuffle(records)
    await plant.store.insert_all(records)
    for record in records:
        # As in a server: known while it lives, and then not.
        index.add("default", replace(record.sandbox, status=Status.RUNNING, ended=None))
        index.follow(record.sandbox)
    wanted = [
        Filter(),
        Filter((Status.RUNNING,)),
        Filter(LIVE, {"team": "a"}),
        Filter(labels={"team": "b"}, image="code"),
        Filter(name="n8"),
        Filter(name="n0"),
    ]
    for one in wanted:
        assert one.only_live
        after, pages = None, 0
        while True:
            from_memory = index.page("default", one.fits, after=after, limit=7)
            from_store = await plant.store.page("default", one, after=after, limit=7)
            assert from_memory == [record.sandbox for record in from_store]
            if len(from_memory) < 7:
                break
            after, pages = from_memory[-1].id, pages + 1
        assert index.page("other", one.fits, after=None, limit=7) == []
    assert pages == 0
    assert len(index.page("default", Filter().fits, after=None, limit=1000)) == 48
    assert [Filter(None).only_live, Filter((Status.RUNNING, Status.FAILED)).only_live] == [False, False]
