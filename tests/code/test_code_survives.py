"""Code that runs while its server is killed: it goes on, and its caller does not notice."""

import threading
import time

import pytest
from tests.faults.conftest import Host

import belljar

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_cell_and_its_state_go_on_over_a_killed_server(host: Host) -> None:
    with belljar.Sandbox.create("code") as sandbox:
        sandbox.run_code("total = 100")
        threading.Timer(2.0, host.kill_server).start()
        lines: list[str] = []
        done = sandbox.run_code(
            "import time, belljar_host\n"
            "for n in range(50):\n"
            "    print(n, belljar_host.call('double', str(n)), flush=True); time.sleep(0.1)\n"
            "total += n\n"
            "total",
            timeout=60,
            on_stdout=lines.append,
            on_call=lambda _, payload: str(2 * int(payload)),
        )
        assert done.error is None, done.error
        assert done.stdout == "".join(f"{n} {2 * n}\n" for n in range(50))
        assert "".join(lines) == done.stdout
        assert done.text == "149"
        assert sandbox.run_code("total").text == "149"


def test_a_big_result_comes_whole_over_a_killed_server(host: Host) -> None:
    with belljar.Sandbox.create("code") as sandbox:
        sandbox.run_code("import time; from IPython.display import Image, display")
        code = "for n in range(8):\n    display({'text/html': str(n) * 6_000_000}, raw=True); time.sleep(0.3)"
        threading.Timer(1.5, host.kill_server).start()
        done = sandbox.run_code(code, timeout=100)
        assert done.error is None, done.error
        assert [result.html for result in done.results] == [str(n) * 6_000_000 for n in range(8)]


def test_code_of_a_client_that_died_is_interrupted_in_time(host: Host) -> None:
    with belljar.Sandbox.create("code") as sandbox:
        sandbox.run_code("import time")
        link = sandbox._link  # pyright: ignore[reportPrivateUsage]
        path = f"/v1/sandboxes/{sandbox.id}/contexts/python/execute"
        body = link.open("POST", path, json={"code": "while True: time.sleep(0.1)"})
        time.sleep(1)
        body.close()
        (context,) = sandbox.contexts()
        assert context.info().state is belljar.ContextState.BUSY
        deadline = time.monotonic() + 45
        while context.info().state is not belljar.ContextState.IDLE:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert sandbox.run_code("1").text == "1"
