"""A command in a sandbox, from its start to an answer of bounded size."""

import asyncio
import contextlib
import signal
import time

import belljar
from belljar.integrations.mcp.arguments import RunCommand
from belljar.integrations.mcp.kept import KeptOutput
from belljar.integrations.mcp.results import Answer, CommandResult, fitted
from belljar.integrations.mcp.told import Told
from belljar.model.errors import Error
from belljar.model.process import Stream

__all__ = ("run_command",)

_KILL_SECONDS = 10.0
_GRACE_SECONDS = 2.0
"""After the kill, for the rest of the output: what left the process group may hold it open."""


async def run_command(
    sandbox: belljar.AsyncSandbox, said: RunCommand, timeout: float, output: int, told: Told
) -> Answer:
    """Ends the command also when the caller is cancelled. `output`: characters of each stream in the answer."""
    started = time.monotonic()
    kept = {stream: KeptOutput(sandbox, stream.value, output) for stream in (Stream.STDOUT, Stream.STDERR)}
    told.speak_with(lambda: kept[Stream.STDOUT].last_line or kept[Stream.STDERR].last_line)
    process = await _started(sandbox, said)
    reading = asyncio.create_task(_read(process, kept), name="reading output")
    timed_out = False
    try:
        done, _ = await asyncio.wait([reading], timeout=timeout)
        if not done:
            timed_out = True
            await _kill(process)
            await asyncio.wait([reading], timeout=_GRACE_SECONDS)
        if reading.done():
            reading.result()
    except BaseException:
        await _kill(process)
        raise
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        await process.aclose()
    for one in kept.values():
        await one.add(b"", final=True)
    seconds = round(time.monotonic() - started, 3)
    return fitted(lambda limit: _answer(sandbox.id, process, kept, timed_out, timeout, seconds, limit), output)


async def _started(sandbox: belljar.AsyncSandbox, said: RunCommand) -> belljar.AsyncProcess:
    """A caller that leaves while the start is under way must not leave the command running."""
    starting = asyncio.create_task(sandbox.popen(said.command, stdin=False, cwd=said.cwd, env=said.env))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(Error, TimeoutError):
            await _kill(await asyncio.wait_for(starting, _KILL_SECONDS))
        raise


async def _read(process: belljar.AsyncProcess, kept: dict[Stream, KeptOutput]) -> None:
    async for piece in process.output():
        await kept[piece.stream].add(piece.data)


async def _kill(process: belljar.AsyncProcess) -> None:
    with contextlib.suppress(Error, TimeoutError):
        async with asyncio.timeout(_KILL_SECONDS):
            await process.send_signal(signal.SIGKILL, group=True)


def _answer(
    sandbox_id: str,
    process: belljar.AsyncProcess,
    kept: dict[Stream, KeptOutput],
    timed_out: bool,
    timeout: float,
    seconds: float,
    limit: int,
) -> Answer:
    stdout, stderr = (kept[stream].text(limit) for stream in (Stream.STDOUT, Stream.STDERR))
    cut = [one for one in kept.values() if one.length > limit]
    value = CommandResult(
        sandbox_id=sandbox_id,
        stdout=stdout,
        stderr=stderr,
        exit_code=None if timed_out else process.returncode,
        timed_out=timed_out,
        seconds=seconds,
        truncated=bool(cut),
        output_files=[one.file for one in cut if one.file],
    )
    parts = [stdout.rstrip("\n")] if stdout else []
    if stderr:
        parts.append(f"[stderr]\n{stderr.rstrip()}")
    parts.extend(_whole(one) for one in cut)
    if timed_out:
        parts.append(f"[it did not end within {timeout:g} s and was killed; a larger timeout gives it longer]")
    elif process.out_of_memory:
        parts.append(f"[it was ended at the sandbox's memory limit; exit code {process.returncode}]")
    elif process.returncode:
        parts.append(f"[exit code {process.returncode}]")
    return Answer("\n".join(parts) or "[no output]", value, failed=timed_out)


def _whole(one: KeptOutput) -> str:
    if one.file is None:
        return "[what was left out is not kept: send the output to a file and read parts of it]"
    how_much = "the whole output is" if one.complete else "the first part of the output is"
    return f"[{how_much} in {one.file}]"
