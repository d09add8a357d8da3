"""Kills a store at every step that it takes on the disk, and looks what the next one finds: ``killed.py FOLDER STRIDE TIMES``.

Each run is a child of this process, so that all that must be imported is there already. The child tells what was acknowledged to
it through a pipe, and is killed with SIGKILL when it comes to its n-th step: Python tells before each call that changes a folder.
The object store's own writes are not told of: so many TIMES it is killed at any moment, too. Prints ``kills runs``.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.unit.storage.conftest import draft_of, keep, read_all

from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.model.errors import NotFound
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

__all__ = ()

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "os.chmod", "shutil.rmtree")
_WRITES = os.O_WRONLY | os.O_RDWR
SHARED = os.urandom(700_000)
KEYS = {"plain": Keys(), "sealed": Keys((Key.of(b"k" * 32),))}


def content(number: int) -> dict[str, bytes]:
    return {"pages.img": bytes([number]) * 1000 + SHARED, "checkpoint.img": b"c" * number}


async def live(home: Path, keys: Keys, tell: int) -> None:
    """A life of a store, with everything that it does. Says first what it is about to do, and then what was acknowledged."""

    def say(*words: object) -> None:
        os.write(tell, json.dumps(words).encode() + b"\n")

    async with SnapshotStore(home, home / "run", keys=keys) as store:
        ids: list[str] = []
        for number in range(3):
            ids.append(new_id("sn"))
            say("begin", ids[-1], number)
            await keep(store, content(number), draft_of(ids[-1]))
            say("kept", ids[-1], number)
        await store.cool(0)
        await read_all(store, ids[1])
        say("delete", ids[0])
        await store.delete(ids[0])
        say("deleted", ids[0])
        await store.collect()
        pieces = [piece async for piece in store.export(ids[2])]
        copy = new_id("sn")
        say("begin", copy, 2)

        async def again():
            for piece in pieces:
                yield piece

        await store.import_(copy, again())
        say("kept", copy, 2)
        await store.cool(0)
        say("delete", ids[1])
        await store.delete(ids[1])
        say("deleted", ids[1])
        await store.collect()


async def look(home: Path, keys: Keys, told: list[list[object]]) -> str | None:
    """What is wrong with what a killed one left; None when nothing is."""
    kept = {str(line[1]): int(str(line[2])) for line in told if line[0] == "kept"}
    begun = {str(line[1]): int(str(line[2])) for line in told if line[0] == "begin"}
    leaving = {str(line[1]) for line in told if line[0] == "delete"}
    deleted = {str(line[1]) for line in told if line[0] == "deleted"}
    async with SnapshotStore(home, home / "run", keys=keys) as store:
        if store.broken():
            return f"broken: {store.broken()}"
        there = {manifest.draft.id for manifest in store.list()}
        if lost := kept.keys() - there - leaving:
            return f"lost {lost}"
        if back := there & deleted:
            return f"came back {back}"
        if foreign := there - begun.keys():
            return f"foreign {foreign}"
        for id in there:
            if await read_all(store, id) != content(begun[id]):
                return f"{id} is another one"
        entries = {path.name for path in (home / "snapshots").iterdir()}
        if half := {name for name in entries - there if not name.endswith(".gone")}:
            return f"half-made {half}"
        if (found := await store.collect()).blocked:
            return f"blocked: {found.blocked}"
        for id in there:
            if await read_all(store, id) != content(begun[id]):
                return f"{id} is another one after a collection"
            await store.delete(id)
        await store.collect()
        left = [path for path in home.rglob("*") if path.is_file() and path.name not in ("owner", "snapshots.owner")]
        if left := [path for path in left if "#" not in path.name and path.parent.name != "run"]:
            return f"left over {left[:3]}"
        for id in there:
            try:
                store.get(id)
                return f"{id} is there after it was deleted"
            except NotFound:
                pass
    return None


def kill_at(step: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if event in _CHANGES or writes:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(home: Path, keys: Keys, step: int, after: float = 0.0) -> tuple[bool, str | None]:
    """Whether it was killed before its end, and what was wrong after."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        kill_at(step)
        try:
            asyncio.run(live(home, keys, writer))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 # whatever it is, the child ends here
            os.write(writer, json.dumps(["failed", repr(error)]).encode() + b"\n")
            os._exit(1)
    os.close(writer)
    if after:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        told = [json.loads(line) for line in pipe]
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        return False, f"it failed: {told[-1]}"
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        try:
            wrong = asyncio.run(look(home, keys, told))
        except BaseException as error:  # noqa: BLE001 # whatever it is, the child ends here
            wrong = f"the next one failed: {error!r}"
        os.write(writer, (wrong or "").encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        wrong = pipe.read()
    os.waitpid(pid, 0)
    return os.WIFSIGNALED(status), wrong or None


def main(folder: Path, stride: int, times: int) -> None:
    kills = runs = 0
    for kind, keys in KEYS.items():
        step = 1
        while True:
            home = folder / f"{kind}{step}"
            home.mkdir()
            killed, wrong = run(home, keys, step)
            if wrong is not None:
                sys.exit(f"{kind}, killed at step {step}: {wrong}")
            remove_tree(home)
            runs += 1
            if not killed:
                break
            kills += 1
            step += stride
        for number in range(times):
            home = folder / f"{kind}-{number}"
            home.mkdir()
            killed, wrong = run(home, keys, -1, random.uniform(0.001, 0.15))
            if wrong is not None:
                sys.exit(f"{kind}, killed at any moment: {wrong}")
            remove_tree(home)
            runs += 1
            kills += killed
    print(kills, runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
