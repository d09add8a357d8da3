"""Waits until a sandbox is what its template promises."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path

from belljar.base.log import get_logger
from belljar.model.errors import DeadlineExceeded, Error, NotFound, NotSupported, TemplateFailed
from belljar.model.process import ProcessInfo, ProcessSpec
from belljar.model.template import Ready, TemplateSpec
from belljar.node.api import GuestApi, tail_of

__all__ = ("LAST_WORDS", "make_ready")

LAST_WORDS = 4000
_TIME_UP = 75
_LOOK_SECONDS = 0.5
_ATTEMPT_SECONDS = 10.0
_KILL = 9
_PYTHONS = (
    "python3",
    "python",
    # Where the image has none, the agent's own, through its own loader.
    'for loader in /.belljar/run/lib/ld-*.so*; do exec "$loader" --library-path /.belljar/run/lib '
    '/.belljar/run/bin/python3 -S -E -s -B "$@"; done; exit 127',
)
_PROBE = Path(__file__).with_name("probe.py").read_text()
_log = get_logger("control.ready")


async def make_ready(guest: GuestApi, spec: TemplateSpec, said: Callable[[str, str], None]) -> None:
    """Starts the template's command and returns when its check holds. `said` is told the step and the command's last words.

    Raises TemplateFailed with the last words of the command and of the check; NotSupported where nothing can look inside.
    """
    command = None
    if spec.command is not None:
        said(f"starting {spec.command[:60]}", "")
        command = await guest.start(_process(("/bin/sh", "-c", spec.command)))
        await guest.detach(command.id)  # it must never wait for a reader
    if not spec.ready.what:
        if command is not None:
            await _ended(guest, command, spec.ready, said)
        return
    await _looked(guest, command, spec.ready, said)


async def _ended(guest: GuestApi, command: ProcessInfo, ready: Ready, said: Callable[[str, str], None]) -> None:
    try:
        async with asyncio.timeout(ready.timeout):
            while True:
                now = await guest.wait(command.id, timeout=_LOOK_SECONDS)
                said("waiting for the command to end", await _words(guest, command))
                if now.returncode is not None:
                    break
    except DeadlineExceeded:
        raise  # the agent did not answer
    except TimeoutError:
        words = await _words(guest, command)
        raise TemplateFailed(_with(f"the command did not end within {ready.timeout:g} s", words)) from None
    if now.returncode != 0:
        raise TemplateFailed(_with(f"the command ended with {now.returncode}", await _words(guest, command)))


async def _looked(guest: GuestApi, command: ProcessInfo | None, ready: Ready, said: Callable[[str, str], None]) -> None:
    said(f"waiting for {ready.what}", "")
    if ready.file is None and ready.command is None:
        looker = _FromInside(guest, ready, await _probe(guest, ready))
    else:
        looker = _FromHere(guest, ready)
    words = ""
    try:
        while not await looker.look():
            words = await _words(guest, command)
            said(f"waiting for {ready.what}", words)
            now = None if command is None else await guest.process(command.id)
            if now is not None and now.returncode not in (None, 0):
                raise TemplateFailed(
                    _with(f"the command ended with {now.returncode} before there was {ready.what}", words)
                )
    except _TimeUp as up:
        words = await _words(guest, command)
        spoken = f"\nthe command said:\n{words}" if words else ""
        raise TemplateFailed(_with(f"no {ready.what} within {ready.timeout:g} s", up.seen) + spoken) from None
    finally:
        await looker.end()


class _TimeUp(Exception):
    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen


class _FromInside:
    """A program in the sandbox looks."""

    def __init__(self, guest: GuestApi, ready: Ready, probe: ProcessInfo) -> None:
        self._guest = guest
        self._ready = ready
        self._probe = probe

    async def look(self) -> bool:
        """After at most half a second. Raises _TimeUp, NotSupported."""
        now = await self._guest.wait(self._probe.id, timeout=_LOOK_SECONDS)
        if now.returncode in (None, 0):
            return now.returncode == 0
        seen = await _words(self._guest, self._probe)
        if now.returncode != _TIME_UP:
            raise NotSupported(_with(f"nothing in this image can look for {self._ready.what}", seen))
        raise _TimeUp(seen)

    async def end(self) -> None:
        with contextlib.suppress(Error):
            await self._guest.signal(self._probe.id, _KILL, group=True)


class _FromHere:
    """Asks again and again whether the file is there, or how the command ends."""

    def __init__(self, guest: GuestApi, ready: Ready) -> None:
        self._guest = guest
        self._ready = ready
        self._until = asyncio.get_running_loop().time() + ready.timeout
        self._begun = False

    async def look(self) -> bool:
        """Raises _TimeUp."""
        if self._begun:
            await asyncio.sleep(self._ready.interval)
        self._begun = True
        seen = await (self._file(self._ready.file) if self._ready.file is not None else self._command())
        if seen is not None and asyncio.get_running_loop().time() + self._ready.interval > self._until:
            raise _TimeUp(seen)
        return seen is None

    async def _file(self, path: str) -> str | None:
        try:
            await self._guest.stat(path, follow=False)
        except NotFound as error:
            return error.message
        return None

    async def _command(self) -> str | None:
        command = self._ready.command or ""
        seconds = max(min(_ATTEMPT_SECONDS, self._until - asyncio.get_running_loop().time()), 0.1)
        run = await self._guest.start(_process(("/bin/sh", "-c", command)))
        await self._guest.detach(run.id)
        try:
            ended = await self._guest.wait(run.id, timeout=seconds)
        finally:
            with contextlib.suppress(Error):
                await self._guest.signal(run.id, _KILL, group=True)
        if ended.returncode == 0:
            return None
        how = f"did not end within {seconds:g} s" if ended.returncode is None else f"ended with {ended.returncode}"
        return _with(f"{command[:80]} {how}", await _words(self._guest, run))

    async def end(self) -> None:
        """Nothing is left to end."""


async def _probe(guest: GuestApi, ready: Ready) -> ProcessInfo:
    """Starts what looks, with the first Python there is."""
    what = next(name for name in ("port", "url", "process") if getattr(ready, name) is not None)
    check = {"what": what, "value": getattr(ready, what), "timeout": ready.timeout, "interval": ready.interval}
    words = ("-c", _PROBE, json.dumps(check))
    for python in _PYTHONS:
        argv = ("/bin/sh", "-c", python, "probe", *words) if " " in python else (python, *words)
        try:
            probe = await guest.start(_process(argv))
        except NotFound as error:
            _log.info("the image cannot look with this", python=python.partition(" ")[0], reason=error.message)
            continue
        await guest.detach(probe.id)
        return probe
    raise NotSupported(f"nothing in this image can look for {ready.what}: it has no shell and no Python")


async def _words(guest: GuestApi, process: ProcessInfo | None) -> str:
    """The end of what it said on both streams."""
    if process is None:
        return ""
    tail = await tail_of(guest, await guest.process(process.id), LAST_WORDS)
    return b"\n".join(part.strip() for part in tail if part.strip()).decode(errors="replace")[-LAST_WORDS:]


def _with(message: str, words: str) -> str:
    return f"{message}:\n{words}" if words else message


def _process(argv: tuple[str, ...]) -> ProcessSpec:
    return ProcessSpec(key=secrets.token_hex(16), argv=argv, stdin=False)
