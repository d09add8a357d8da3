"""An instance from its making to its end, and across the death of its maker."""

import asyncio
from dataclasses import replace

from belljar.base.tasks import in_thread, wait_until
from belljar.node.engine.api import Engine, Instance, InstanceState
from belljar.node.engine.conformance.bed import Bed
from belljar.node.engine.conformance.suite import Check, expect
from belljar.node.engine.process import dead_children

__all__ = ("LIFE",)

_COUNTER = "i=0; while :; do i=$((i+1)); echo n$i; sleep 0.02; done"


async def _states(bed: Bed) -> None:
    engine = bed.engine
    async with bed.made() as instance:
        never = replace(instance.spec, id=instance.spec.id[::-1], folder=instance.spec.folder / "never")
        state = await engine.state(Instance(never))
        expect(state == InstanceState.ABSENT, f"one that was never made is {state}")
        state = await engine.state(instance)
        expect(state == InstanceState.CREATED, f"after create it is {state}")
        await engine.start(instance, None)
        state = await engine.state(instance)
        expect(state == InstanceState.RUNNING, f"after start it is {state}")
        await engine.delete(instance)
        state = await engine.state(instance)
        expect(state == InstanceState.ABSENT, f"after delete it is {state}")


async def _repeated(bed: Bed) -> None:
    engine = bed.engine
    async with bed.made() as instance:
        instance = await engine.create(await engine.prepare(instance.spec))
        await engine.start(instance, None)
        await engine.start(instance, None)
        async with bed.session(engine, instance) as box:
            expect((await box.sh("exit 4")).returncode == 4, "it does not answer after repeated calls")
        await engine.delete(instance)
        await engine.delete(instance)


async def _delete_leaves_nothing(bed: Bed) -> None:
    async with bed.box() as box:
        await box.start("/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
        await box.sh("head -c 1000000 /dev/zero > /conformance-file")
        instance = box.instance
        before = await _left(bed.engine, instance)
        expect(bool(before), "a running instance was nowhere to be seen, so its absence would say nothing")
        await bed.engine.delete(instance)
        await _expect_nothing(bed.engine, instance)


async def _half_made(bed: Bed) -> None:
    engine = bed.engine
    instance = Instance(bed.new_spec())
    try:
        await engine.delete(instance)
        await engine.prepare(instance.spec)
        await engine.delete(instance)
        await _expect_nothing(engine, instance)
        instance = Instance(bed.new_spec())
        await engine.create(await engine.prepare(instance.spec))
        # What a server knows that died before it could write down what create returned.
        await engine.delete(instance)
        await _expect_nothing(engine, instance)
    finally:
        await engine.delete(instance)


async def _interrupted_create(bed: Bed) -> None:
    before = dead_children()
    for wait in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15):
        instance = await bed.engine.prepare(bed.new_spec())
        making = asyncio.create_task(bed.engine.create(instance))
        await asyncio.sleep(wait)
        making.cancel()
        await asyncio.wait([making])
        await bed.engine.delete(instance)
        await _expect_nothing(bed.engine, instance)

    async def reaped() -> bool:
        return await in_thread(dead_children) <= before

    expect(await wait_until(reaped, timeout=5), "dead processes stay, whose end nobody takes")


async def _without_a_record(bed: Bed) -> None:
    async with bed.box() as kept, bed.made() as orphan:
        await bed.engine.start(orphan, None)
        owners = {thing.owner for thing in await bed.successor().residue()}
        expect(orphan.spec.id in owners, "a running instance is not among what the engine has on the host")
        # Of one whose record is lost, no more is known than the names that follow from its id.
        bare = replace(orphan.spec, build=orphan.spec.build[::-1], argv=(), env={}, hostname="x")
        await bed.successor().delete(Instance(bare))
        left = await _left(bed.engine, orphan)
        expect(not left, f"still there: {left}")
        expect((await kept.sh("exit 4")).returncode == 4, "another one was harmed")


async def _adoption(bed: Bed) -> None:
    async with bed.box() as box:
        counter = await box.start("/bin/sh", "-c", _COUNTER)
        await box.seen(counter.id, b"n5\n")
        await box.guest.close()
        successor, instance = bed.successor(), bed.restored(box.instance)
        state = await successor.state(instance)
        expect(state == InstanceState.RUNNING, f"the successor finds it {state}")
        async with bed.session(successor, instance) as again:
            info = await again.guest.process(counter.id)
            expect(info.returncode is None, f"the process ended with {info.returncode}")
            behind = await again.seen(counter.id, b"n5\nn6\n")
            await again.seen(counter.id, b"n30\n", offset=behind)
            expect((await again.sh("exit 4")).returncode == 4, "nothing new starts under the successor")
            ended = asyncio.create_task(successor.wait(instance))
            await asyncio.sleep(0.05)
            expect(not ended.done(), "wait returned while it runs")
        await successor.delete(instance)
        async with asyncio.timeout(10):
            await ended
        await _expect_nothing(successor, instance)


async def _death_is_noticed(bed: Bed) -> None:
    async with bed.made() as instance:
        await bed.engine.start(instance, None)
        async with bed.session(bed.engine, instance) as box:
            await box.sh("exit 0")
        ended = asyncio.create_task(bed.engine.wait(instance))
        await asyncio.sleep(0.05)
        expect(not ended.done(), "wait returned while it runs")
        await bed.successor().delete(instance)
        async with asyncio.timeout(10):
            exit = await ended
        expect(not exit.out_of_memory, "an end by force was called out of memory")


async def _pause(bed: Bed) -> None:
    async with bed.box() as box:
        counter = await box.start("/bin/sh", "-c", _COUNTER)
        await box.seen(counter.id, b"n3\n")
        await bed.engine.pause(box.instance)
        await bed.engine.pause(box.instance)
        await asyncio.sleep(0.1)
        first = await bed.engine.usage(box.instance)
        await asyncio.sleep(0.5)
        second = await bed.engine.usage(box.instance)
        spent = second.cpu_seconds - first.cpu_seconds
        expect(spent < 0.1, f"it used {spent:.2f} s of CPU while it was paused")
        await bed.engine.resume(box.instance)
        start = (await box.guest.process(counter.id)).stdout.end

        async def grows() -> bool:
            return (await box.guest.process(counter.id)).stdout.end > start

        expect(await wait_until(grows, timeout=10), "the process did not go on after the pause")


async def _usage(bed: Bed) -> None:
    async with bed.box() as box:
        first = await bed.engine.usage(box.instance)
        await box.sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
        second = await bed.engine.usage(box.instance)
        expect(second.memory > 1 << 20, f"a running guest uses {second.memory} bytes")
        expect(second.cpu_seconds > first.cpu_seconds, f"work used no CPU: {first.cpu_seconds}, {second.cpu_seconds}")


async def _neighbours(bed: Bed) -> None:
    async with bed.box() as one, bed.box() as two:
        await one.sh("echo one > /conformance-mark")
        done = await two.sh("test -e /conformance-mark")
        expect(done.returncode != 0, "one instance sees the other's file")
        await bed.engine.delete(one.instance)
        expect((await two.sh("exit 4")).returncode == 4, "deleting one harmed the other")


async def _left(engine: Engine, instance: Instance) -> list[str]:
    things = [f"{thing.kind} {thing.name}" for thing in await engine.residue() if thing.owner == instance.spec.id]
    folder, overlay = instance.spec.folder, instance.spec.overlay
    files = await in_thread(lambda: [*folder.glob("*"), *([overlay] if overlay.exists() else [])])
    return things + [str(file) for file in files]


async def _expect_nothing(engine: Engine, instance: Instance) -> None:
    left = await _left(engine, instance)
    expect(not left, f"still there: {', '.join(left)}")
    await in_thread(instance.spec.folder.rmdir)


LIFE = (
    Check("an instance is absent, created, running, absent", (), _states),
    Check("every call may be repeated", (), _repeated),
    Check("delete leaves nothing", (), _delete_leaves_nothing),
    Check("delete takes away what is half made", (), _half_made),
    Check("delete takes away what was interrupted", (), _interrupted_create, 120.0),
    Check("what has no record is found and freed, and nothing else", (), _without_a_record),
    Check("an instance survives its maker, and a successor goes on", (), _adoption),
    Check("the end of a guest is noticed", (), _death_is_noticed),
    Check("a paused guest stands still and goes on", ("pause",), _pause),
    Check("use is counted", (), _usage),
    Check("instances do not see each other", ("isolation",), _neighbours),
)
