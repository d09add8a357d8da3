"""A server under load: 200 sandboxes of the fake engine and requests from wrk, then 20 real ones that stream under the same load.

Prints requests per second, latency as wrk saw it, how late the event loop was at most, the server's memory, and whether each line
of each stream came once, whole, in order, to whom it belongs. Needs root for the second half, and wrk (Debian's package).
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
_BELLJAR = [sys.executable, "-c", "from belljar.cli.main import main; main()"]
_LINES = """
import sys, time
for n in range({count}):
    print("{who}", n, "x" * 200, flush=n % 20 == 19)
    n % 20 == 19 and time.sleep(0.02)
"""


@dataclass(frozen=True)
class Server:
    url: str
    key: str
    pid: int
    environ: Mapping[str, str]

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=60)

    def memory(self) -> float:
        """MiB that it has resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@contextlib.contextmanager
def server(engine: str | None) -> Generator[Server]:
    """Its state directory is purged at the end."""
    with tempfile.TemporaryDirectory(prefix="bj-load-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        environ = dict(os.environ) | {"BELLJAR_HOME": str(home), "BELLJAR_MEMORY_RESERVE": "1MiB"}
        environ |= {"BELLJAR_ENGINE": engine} if engine else {}
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                [*_BELLJAR, "serve", "--port", "0", "--json"],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield Server(url, (home / "key").read_text().strip(), process.pid, environ)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
            subprocess.run([*_BELLJAR, "down", "--purge", "--yes"], env=environ, check=True, capture_output=True)


@contextlib.contextmanager
def load(server: Server, ids: list[str], seconds: float, connections: int, folder: Path) -> Generator[dict[str, Any]]:
    """wrk beside what happens inside; its numbers are in the dictionary afterwards."""
    list_of_ids = folder / "ids"
    list_of_ids.write_text("\n".join(ids) + "\n")
    words = [
        "wrk",
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{seconds:.0f}s",
        "-s",
        str(HERE / "load.lua"),
        server.url,
    ]
    running = subprocess.Popen(
        [*words, "--", str(list_of_ids)],
        env=dict(os.environ) | {"BELLJAR_LOAD_KEY": server.key},
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = {}
    try:
        yield found
        said, _ = running.communicate(timeout=seconds + 60)
    finally:
        running.kill()
    found.update(json.loads(said.splitlines()[-1]))
    found["per_second"] = round(found["requests"] / found["seconds"])


class Watch:
    """The server's memory, and how late its event loop was, while it is open."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.memory = [server.memory()]
        self.lag: list[float] = []

    def __enter__(self) -> "Watch":
        self._lag()  # what was before does not count
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _lag(self) -> float:
        answer = httpx2.get(
            f"{self._server.url}/metrics", headers={"authorization": f"Bearer {self._server.key}"}, timeout=60
        )
        return float(re.search(r"^belljar_event_loop_lag_seconds (\S+)", answer.text, re.M)[1])  # type: ignore[index]

    def _look(self) -> None:
        while not self._over.wait(2):
            self.memory.append(self._server.memory())
            self.lag.append(self._lag() * 1e3)
        self.lag.append(self._lag() * 1e3)

    def as_json(self) -> dict[str, float]:
        """MiB and milliseconds."""
        return {
            "memory_before": round(self.memory[0], 1),
            "memory_most": round(max(self.memory), 1),
            "memory_after": round(self.memory[-1], 1),
            "loop_late_most": round(max(self.lag), 1),
        }


async def make(server: Server, count: int) -> list[str]:
    async with server.http() as http:

        async def one() -> str:
            said = {"image": "base", "memory": "64MiB", "lifetime": "1h"}
            answer = await http.post("/v1/sandboxes", json=said)
            answer.raise_for_status()
            return answer.json()["id"]

        ids: list[str] = []
        for _ in range(0, count, 10):
            ids += await asyncio.gather(*(one() for _ in range(min(10, count - len(ids)))))
        return ids


async def streams(server: Server, ids: list[str], lines: int) -> dict[str, Any]:
    """What each sandbox printed, as it came through the SDK."""
    os.environ |= {"BELLJAR_URL": server.url, "BELLJAR_API_KEY": server.key}
    import belljar

    async def one(number: int, id: str) -> int:
        sandbox = await belljar.AsyncSandbox.get(id)
        heard: list[str] = []
        done = await sandbox.run(
            ["python3", "-c", _LINES.format(count=lines, who=f"box{number}")], on_stdout=heard.append, timeout=600
        )
        assert done.returncode == 0, done.stderr
        wanted = [f"box{number} {n} {'x' * 200}" for n in range(lines)]
        return sum(found != line for found, line in zip("".join(heard).splitlines(), wanted, strict=True))

    started = time.monotonic()
    wrong = await asyncio.gather(*(one(number, id) for number, id in enumerate(ids)))
    return {"streams": len(ids), "lines": lines * len(ids), "wrong": sum(wrong), "seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of load on the fake engine")
    parser.add_argument("--sandboxes", type=int, default=200)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--lines", type=int, default=20_000, help="of each stream")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--fake-only", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server("fake") as fake:
            ids = asyncio.run(make(fake, options.sandboxes))
            with Watch(fake) as watch, load(fake, ids, options.seconds, options.connections, folder) as found:
                pass
            print(json.dumps({"fake": found | watch.as_json()}), flush=True)
        if options.fake_only:
            return
        with server(None) as real:
            ids = asyncio.run(make(real, options.streams))
            with Watch(real) as watch, load(real, ids, 30, options.connections, folder) as found:
                streamed = asyncio.run(streams(real, ids, options.lines))
            print(json.dumps({"real": found | watch.as_json() | streamed}), flush=True)


if __name__ == "__main__":
    main()
