"""A cell in a sandbox's kernel as an answer with text and images."""

import base64

from mcp_types import ContentBlock, ImageContent

import belljar
from belljar.integrations.mcp.arguments import RunCode
from belljar.integrations.mcp.kept import clipped
from belljar.integrations.mcp.policy import MAX_ANSWER
from belljar.integrations.mcp.results import Answer, CodeError, CodeResult, clean, fitted
from belljar.integrations.mcp.told import Told

__all__ = ("run_code",)

_STOPPED = ("TimeoutError", "KernelDied")
"""Not the code's own fault alone: a client shows it as an error. What else code raises is a result."""
_MAX_IMAGES = 16
_IMAGE_ROOM = MAX_ANSWER * 3 // 5
"""Characters of base64 of all images; the rest is for text."""


async def run_code(sandbox: belljar.AsyncSandbox, said: RunCode, timeout: float, output: int, told: Told) -> Answer:
    """What the code raises is part of the answer. A caller that is cancelled interrupts the cell."""
    last = ""

    def heard(text: str) -> None:
        nonlocal last
        last = text[-2000:].rstrip().rpartition("\n")[2].strip()[-200:] or last

    told.speak_with(lambda: last)
    done = await sandbox.run_code(said.code, language=said.language, timeout=timeout, on_stdout=heard, on_stderr=heard)
    images, left_out = _images(done)
    return fitted(lambda limit: _answer(sandbox.id, done, images, left_out, limit), output)


def _answer(sandbox_id: str, done: belljar.Execution, images: list[ContentBlock], left_out: int, limit: int) -> Answer:
    stdout, stderr = clean(done.stdout), clean(done.stderr)
    result = None if done.text is None else clean(done.text)
    error = None
    if done.error is not None:
        error = CodeError(
            name=clipped(clean(done.error.name), 200),
            value=clipped(clean(done.error.value), limit // 4),
            traceback=clipped(clean(done.error.traceback), limit // 2),
        )
    value = CodeResult(
        sandbox_id=sandbox_id,
        stdout=clipped(stdout, limit),
        stderr=clipped(stderr, limit),
        result=None if result is None else clipped(result, limit),
        error=error,
        count=done.count,
        images=len(images),
        truncated=bool(left_out or done.dropped) or max(len(stdout), len(stderr), len(result or "")) > limit,
    )
    parts = [value.stdout.rstrip("\n")] if value.stdout else []
    if value.stderr:
        parts.append(f"[stderr]\n{value.stderr.rstrip()}")
    shown = [clipped(clean(one.text), limit // 4) for one in done.results if not one.main and one.text]
    parts.extend(clipped("\n".join(shown), limit).splitlines() if shown else [])
    if value.result is not None:
        parts.append(value.result)
    if error is not None:
        parts.append(error.traceback.rstrip() or f"{error.name}: {error.value}")
        if error.name == "KernelDied":
            parts.append("[the state is lost: the next call starts anew]")
    if left_out:
        parts.append(f"[{left_out} images were left out: too many or too large; save them smaller and use read_file]")
    stopped = error is not None and error.name in _STOPPED
    return Answer("\n".join(parts) or "[no output]", value, images=images, failed=stopped)


def _images(done: belljar.Execution) -> tuple[list[ContentBlock], int]:
    """Those that fit, and how many did not."""
    found: list[ContentBlock] = []
    room, left_out = _IMAGE_ROOM, 0
    for one in done.results:
        kind, data = ("image/png", one.png) if one.png else ("image/jpeg", one.jpeg)
        if not data:
            continue
        size = (len(data) + 2) // 3 * 4
        if len(found) == _MAX_IMAGES or size > room:
            left_out += 1
            continue
        room -= size
        found.append(ImageContent(data=base64.b64encode(data).decode(), mime_type=kind))
    return found, left_out
