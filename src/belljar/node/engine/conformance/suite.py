"""Named checks and how they are run: each passes, fails with what was seen, or says why this engine cannot do it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from belljar.model.errors import Error
from belljar.node.engine.api import Capabilities
from belljar.node.engine.conformance.bed import Bed

__all__ = ("Check", "Mismatch", "Result", "Verdict", "expect", "run_check", "run_suite")


class Mismatch(Exception):
    """The engine did something else than the contract says; the message has what was seen."""


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_SUPPORTED = "not supported"


@dataclass(frozen=True, slots=True)
class Check:
    """`needs`: names of Capabilities without which it cannot be. `timeout` in seconds."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Bed], Awaitable[None]]
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """`detail`: what was seen, or why it is not supported; empty when passed."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


def expect(condition: bool, seen: str) -> None:
    """Raises Mismatch with what was seen unless `condition` holds."""
    if not condition:
        raise Mismatch(seen)


async def run_check(check: Check, bed: Bed, capabilities: Capabilities) -> Result:
    """Never raises for what the engine does."""
    for need in check.needs:
        capability = getattr(capabilities, need)
        if not capability.available:
            return Result(check.name, Verdict.NOT_SUPPORTED, capability.reason, 0.0)
    started = time.monotonic()
    detail = ""
    try:
        async with asyncio.timeout(check.timeout):
            await check.run(bed)
    except Mismatch as mismatch:
        detail = str(mismatch)
    except TimeoutError as error:
        detail = str(error) or f"took longer than {check.timeout:g} s"
    except (Error, OSError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"
    verdict = Verdict.FAILED if detail else Verdict.PASSED
    return Result(check.name, verdict, detail, time.monotonic() - started)


async def run_suite(
    bed: Bed, checks: Iterable[Check], *, on_result: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """One after the other; `on_result` hears of each as it ends."""
    capabilities = await bed.engine.capabilities()
    results: list[Result] = []
    for check in checks:
        result = await run_check(check, bed, capabilities)
        results.append(result)
        on_result(result)
    return results
