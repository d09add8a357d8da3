"""Checkpoints and saved files: a running guest goes on, and again elsewhere."""

import contextlib
import secrets
import tarfile
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from belljar.base.files import remove_tree
from belljar.base.tasks import in_thread
from belljar.model.errors import TooLarge
from belljar.model.process import PtySize, Stream
from belljar.node.engine.api import Instance
from belljar.node.engine.conformance.bed import Bed, Box
from belljar.node.engine.conformance.suite import Check, expect

__all__ = ("SNAPSHOTS",)

_COUNTER = "i=0; while :; do i=$((i+1)); echo n$i; sleep 0.02; done"


async def _twice(bed: Bed) -> None:
    target = bed.scratch / f"checkpoint-{secrets.token_hex(4)}"
    try:
        async with bed.box() as box:
            counter = await box.start("/bin/sh", "-c", _COUNTER)
            shell = await box.start("/bin/sh", pty=PtySize(cols=90, rows=20))
            line = b"mark=forty; cd /usr; echo re''ady\n"
            written = await box.guest.write_stdin(shell.id, 0, line)
            await box.seen(shell.id, b"ready\r\n")
            await box.seen(counter.id, b"n3\n")
            await box.sh("echo kept > /root/before")
            await box.guest.quiesce()
            await bed.engine.checkpoint(box.instance, target)
            await _goes_on(box, "the original", counter.id, shell.id, written)
        for number in (1, 2):
            async with bed.made() as twin:
                await bed.engine.restore(twin, target, None)
                async with bed.session(bed.engine, twin) as box:
                    await _goes_on(box, f"twin {number}", counter.id, shell.id, written)
    finally:
        await in_thread(remove_tree, target)


async def _goes_on(box: Box, who: str, counter: int, shell: int, written: int) -> None:
    info = await box.guest.process(counter)
    expect(info.returncode is None, f"{who}: the counter ended with {info.returncode}")
    end = info.stdout.end
    await box.seen(counter, b"\n", offset=end)
    await box.guest.write_stdin(shell, written, b"echo $mark-$(pwd)-$(stty size)\n")
    await box.seen(shell, b"forty-/usr-20 90\r\n", Stream.STDOUT)
    kept = await box.run("cat", "/root/before")
    expect(kept.text == "kept\n", f"{who}: a file written before is {kept.text!r}")
    expect((await box.sh("exit 4")).returncode == 4, f"{who}: nothing new starts")


async def _files(bed: Bed) -> None:
    first, second = (bed.scratch / f"files-{secrets.token_hex(4)}.tar" for _ in range(2))
    try:
        async with bed.box() as box:
            counter = await box.start("/bin/sh", "-c", _COUNTER)
            await box.guest.make_directory("/kept")
            await box.guest.touch("/kept/one")
            await bed.engine.save_files(box.instance, first)
            expect("./kept/one" in await in_thread(_names, first), "a new file is not among those saved")
            end = (await box.guest.process(counter.id)).stdout.end
            await box.seen(counter.id, b"\n", offset=end)
        async with _begun(bed, first) as box:
            await box.guest.touch("/kept/two")
            await bed.engine.save_files(box.instance, second)
        async with _begun(bed, second) as box:
            entries, _ = await box.guest.list_directory("/kept")
            names = [entry.path.rpartition("/")[2] for entry in entries]
            expect(names == ["one", "two"], f"after two generations there are {names}")
    finally:
        for file in (first, second):
            await in_thread(remove_tree, file)


async def _too_large(bed: Bed) -> None:
    target = bed.scratch / f"files-{secrets.token_hex(4)}.tar"
    async with bed.box() as box:
        await box.guest.touch("/small")
        try:
            await bed.engine.save_files(box.instance, target, limit=600)
        except TooLarge:
            expect(not target.exists(), "a tar that was given up is there")
        else:
            expect(False, "more was written than the limit says")
        await box.guest.touch("/after")
        await bed.engine.save_files(box.instance, target)
        expect("./after" in await in_thread(_names, target), "after one that failed nothing can be saved")
        await in_thread(remove_tree, target)


@contextlib.asynccontextmanager
async def _begun(bed: Bed, upper: Path) -> AsyncGenerator[Box]:
    """Booted with saved files."""
    spec = replace(bed.new_spec(), upper=upper)
    instance = Instance(spec)
    try:
        instance = await bed.engine.create(await bed.engine.prepare(spec))
        await bed.engine.start(instance, None)
        async with bed.session(bed.engine, instance) as box:
            yield box
    finally:
        await bed.engine.delete(instance)
        await in_thread(remove_tree, spec.folder)


def _names(file: Path) -> list[str]:
    with tarfile.open(file) as archive:
        return archive.getnames()


SNAPSHOTS = (
    Check("a checkpoint with a process and a terminal is restored twice", ("checkpoint",), _twice, 120.0),
    Check("saved files start again, and those of the second generation too", (), _files, 120.0),
    Check("files beyond the limit are refused and leave nothing", (), _too_large, 60.0),
)
