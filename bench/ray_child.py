"""Ray's local gVisor runtime, measured from within its own environment: bench/ray_side.py starts this and asks it line by line.

`ray_child.py IMAGE.tar ROOTLESS`: a line of JSON in, `{"do": "enter" | "sample" | "leave", "case": NAME}`, one out:
`{"said": {row: value}}` or `{"failed": TEXT}`.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from ray.experimental.sandbox import SandboxRuntime  # pyright: ignore[reportMissingImports]  # only in its own environment

from measure import idle_memory

__all__ = ("CASES", "main")

Sampler = Callable[[], dict[str, float]]
CASES: dict[str, Callable[["Ray"], AbstractContextManager[Sampler]]] = {}


class Ray:
    """One runtime, and its image pulled: a tar, since no registry can be counted on."""

    def __init__(self, image: str, *, rootless: bool) -> None:
        self._runtime = SandboxRuntime()
        self._image = image
        self._rootless = rootless
        self._runtime.pull_image(image)

    def create(self) -> str:
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return self._runtime.create(self._image, rootless=self._rootless, network="none", readonly=False, env=env)

    def run(self, sandbox: str, *argv: str) -> None:
        done = self._runtime.exec(sandbox, list(argv))
        if done.exit_code:
            raise RuntimeError(f"{argv} in Ray's sandbox: {done.exit_code}, {done.stderr[-300:]}")

    def delete(self, sandbox: str) -> None:
        self._runtime.delete(sandbox)


def case(name: str) -> Callable[[Callable[[Ray], Iterator[Sampler]]], object]:
    def keep(function: Callable[[Ray], Iterator[Sampler]]) -> object:
        CASES[name] = contextmanager(function)
        return function

    return keep


def first_command(ray: Ray, row: str, *argv: str) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        started = time.perf_counter()
        sandbox = ray.create()
        created = time.perf_counter()
        ray.run(sandbox, *argv)
        answered = time.perf_counter()
        ray.delete(sandbox)
        return {
            row: answered - started,
            "create, pool empty": created - started,
            "terminate": time.perf_counter() - answered,
        }

    yield sample


@case("echo")
def echo(ray: Ray) -> Iterator[Sampler]:
    yield from first_command(ray, "create + echo, pool empty", "/bin/echo", "hi")


@case("node")
def node(ray: Ray) -> Iterator[Sampler]:
    yield from first_command(ray, "create + node -v, pool empty", "node", "-v")


@case("exec")
def exec_true(ray: Ray) -> Iterator[Sampler]:
    sandbox = ray.create()

    def sample() -> dict[str, float]:
        started = time.perf_counter()
        ray.run(sandbox, "/bin/true")
        return {"exec true": time.perf_counter() - started}

    try:
        yield sample
    finally:
        ray.delete(sandbox)


@case("burst")
def burst(ray: Ray) -> Iterator[Sampler]:
    def one(_: int) -> tuple[str | None, float]:
        started = time.perf_counter()
        try:
            return ray.create(), time.perf_counter() - started
        except Exception as error:  # noqa: BLE001  # counted, whatever Ray's reason
            print(f"Ray: one of the burst: {str(error)[:300]}", file=sys.stderr)
            return None, 0.0

    def sample() -> dict[str, float]:
        started = time.perf_counter()
        with ThreadPoolExecutor(100) as threads:
            made = list(threads.map(one, range(100)))
        took = time.perf_counter() - started
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ray.delete, [name for name, _ in made if name]))
        return {
            "burst of 100 creates: success": float(sum(name is not None for name, _ in made)),
            "burst of 100 creates: wall": took,
        }

    yield sample


@case("idle")
def idle(ray: Ray) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        made: list[str] = []
        found = idle_memory(lambda _: made.append(ray.create()), 10, "ray-sandbox-")
        for sandbox in made:
            ray.delete(sandbox)
        return {
            "idle memory, unshared": found.unshared,
            "idle memory, fall of what is available": found.dropped,
        }

    yield sample


def main(image: str, rootless: bool) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Ray prints is not an answer
    ray = Ray(image, rootless=rootless)
    open_cases: dict[str, tuple[AbstractContextManager[Sampler], Sampler]] = {}
    print(json.dumps({"said": {}}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        name, said = asked["case"], {}
        try:
            if asked["do"] == "enter":
                context = CASES[name](ray)
                open_cases[name] = context, context.__enter__()
            elif asked["do"] == "sample":
                said = open_cases[name][1]()
            else:
                open_cases.pop(name)[0].__exit__(None, None, None)
            print(json.dumps({"said": said}), file=answers, flush=True)
        except Exception as error:  # noqa: BLE001  # told to the caller
            print(json.dumps({"failed": f"{type(error).__name__}: {str(error)[-400:]}"}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "rootless")
