"""Belljar as a user has it: SDK, unix socket, server, node. A state directory of its own, ended and purged afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from belljar.base.home import ServerFile, read_server_file, state_home
from measure import Series, idle_memory, rate

__all__ = ("measure_belljar",)

FLOW = Path(__file__).with_name("flow.py")
FLOW_SIZE = 1_000_000_000


def measure_belljar(home: Path, rounds: int, blob: Path) -> dict[str, object]:
    """Milliseconds, MB/s and MiB. The warm pool is off: every create is cold."""
    with _server(home):
        import belljar  # after the environment names the state directory

        start, create, first, probe, true, python, end = (Series() for _ in range(7))
        with start.time():
            sandbox = belljar.Sandbox.create(image="base")
        sandbox.terminate()
        for _ in range(rounds):
            with create.time():
                sandbox = belljar.Sandbox.create(image="base")
            with end.time():
                sandbox.terminate()
        for command, series in ((["echo", "hi"], first), (["node", "-v"], probe)):
            for _ in range(rounds):
                with series.time():
                    sandbox = belljar.Sandbox.create(image="base")
                    sandbox.run(command, check=True)
                sandbox.terminate()
        with belljar.Sandbox.create(image="base") as sandbox:
            for _ in range(rounds * 3):
                with true.time():
                    sandbox.run(["true"], check=True)
            for _ in range(rounds):
                with python.time():
                    sandbox.run(["python3", "-c", "print(1+1)"], check=True)
            up, down = _throughput(sandbox, blob)
        busy = _while_data_flows(rounds * 3)
        idle: list[belljar.Sandbox] = []
        server = _server_file()
        folder = str(Path(server.socket).parent)
        memory = idle_memory(lambda _: idle.append(belljar.Sandbox.create(image="base")), 10, folder, server=server.pid)
        for sandbox in idle:
            sandbox.terminate()
        return {
            "the server's start and its first sandbox": start.as_json(),
            "create": create.as_json(),
            "create + first command (echo)": first.as_json(),
            "create + first command (node -v)": probe.as_json(),
            "exec true": true.as_json(),
            "exec true while 1 GB flows in and out": busy,
            "exec python3 -c": python.as_json(),
            "terminate": end.as_json(),
            "file up 100 MB": up,
            "file down 100 MB": down,
            "idle memory": memory.as_json(),
        }


@contextmanager
def _server(home: Path) -> Iterator[None]:
    os.environ |= {"BELLJAR_HOME": str(home), "BELLJAR_POOL": "0"}
    for name in ("BELLJAR_URL", "BELLJAR_API_KEY"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        subprocess.run([Path(sys.executable).parent / "belljar", "down", "--purge", "--yes"], check=True)


def _server_file() -> ServerFile:
    server = read_server_file(state_home())
    if server is None:
        raise RuntimeError("no server runs")
    return server


def _throughput(sandbox: "object", blob: Path) -> tuple[dict[str, float], dict[str, float]]:
    size, up, down = blob.stat().st_size, [], []
    back = blob.with_suffix(".back")
    for _ in range(3):
        started = perf_counter()
        sandbox.path("/blob").upload(blob)  # type: ignore[attr-defined]
        up.append(rate(size, perf_counter() - started))
        started = perf_counter()
        sandbox.path("/blob").download(back)  # type: ignore[attr-defined]
        down.append(rate(size, perf_counter() - started))
        if back.read_bytes() != blob.read_bytes():
            raise RuntimeError("the file that came back differs")
    return {"MB/s": max(up)}, {"MB/s": max(down)}


def _while_data_flows(most: int) -> dict[str, float]:
    """exec `true` while two other clients send 1 GB into the same sandbox and read 1 GB out of it."""
    import belljar

    series = Series()
    with belljar.Sandbox.create(image="base") as sandbox:
        flows = [
            subprocess.Popen([sys.executable, FLOW, sandbox.id, way, str(FLOW_SIZE)], stdout=subprocess.PIPE)
            for way in ("in", "out")
        ]
        for flow in flows:
            assert flow.stdout is not None
            flow.stdout.readline()  # it says when it begins
        while len(series.seconds) < most * 100 and all(flow.poll() is None for flow in flows):
            with series.time():
                sandbox.run(["true"], check=True)
        rates = [float(flow.communicate()[0]) for flow in flows]
        if any(flow.returncode for flow in flows):
            raise RuntimeError("a flow failed")
    return series.as_json() | {"in MB/s": rates[0], "out MB/s": rates[1]}
