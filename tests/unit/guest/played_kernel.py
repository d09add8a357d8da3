"""A kernel that does what its code says, word for word, for tests of the host's side: honest and hostile ones.

Code is lines of Python that may use `say(**event)` (of this execution, `seq` by itself), `raw(bytes)`, `wait()` (for the next
request) and `end(status)`. It knows nothing of users' code.
"""

import json
import os
import sys

__all__ = ()

SEEN: set[str] = set()


def raw(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def line(**value: object) -> None:
    raw(json.dumps(value).encode() + b"\n")


def wait() -> dict[str, object]:
    while True:
        text = sys.stdin.readline()
        if not text:
            sys.exit(0)
        if text.strip():
            return json.loads(text)


def run(request: dict[str, object]) -> None:
    key = str(request["key"])
    if key in SEEN:
        return
    SEEN.add(key)
    count = [0]

    def say(**event: object) -> None:
        count[0] += 1
        line(**{"key": key, "seq": count[0]} | event)

    def end(status: str = "ok") -> None:
        say(kind="done", status=status, count=len(SEEN))

    exec(
        str(request["code"]),
        {"say": say, "end": end, "raw": raw, "wait": wait, "line": line, "request": request, "key": key, "told": TOLD},
    )


WARM = [False]
TOLD: list[dict[str, object]] = []


def hello(request: dict[str, object]) -> None:
    said = {"version": 1, "language": "played", "running": None, "elapsed": 0, "queued": [], "warm": WARM[0]}
    line(kind="state", session=request["session"], **said)


def renewed(request: dict[str, object]) -> None:
    """What a kernel may answer is in a variable: code that uses `line`, `raw` and `request`."""
    TOLD.append(request)
    WARM[0] = WARM[0] and not request.get("taken")
    exec(os.environ.get("ANSWER", "line(kind='renewed', name=request['name'])"), globals() | {"request": request})


if __name__ == "__main__":
    while True:
        request = wait()
        if request["op"] == "hello":
            hello(request)
        elif request["op"] == "execute":
            WARM[0] = False
            run(request)
        elif request["op"] == "warm":
            WARM[0] = True
            line(kind="warmed", name=request["name"])
        elif request["op"] == "renew":
            renewed(request)
