"""The same tasks on BelljarExecutor and on smolagents' own local executor: what each can do, and how long it takes.

Runs where smolagents and pandas are installed (the environment of ``tests/compat/smolagents``); prints a Markdown table.

    python bench/smolagents_table.py [--rounds 5] [--output results.json]

Each task is code actions of an agent, run one after the other in a fresh state; milliseconds are the p50 of the whole task,
without a model. The local executor may import anything (``"*"``) and has its own defaults otherwise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import smolagents
from smolagents import FinalAnswerTool, tool
from smolagents.local_python_executor import LocalPythonExecutor

from belljar.integrations.smolagents import BelljarExecutor

_TIMEOUT = 5.0
_SAYS = 60
"""Characters of a refusal."""
FIRST = "start, and a first step"


@dataclass(frozen=True)
class Task:
    """`answer`: the final answer of the last action, or what makes sure of it."""

    name: str
    actions: tuple[str, ...]
    answer: Any
    variables: dict[str, Any] = field(default_factory=dict)
    rounds: int = 0


@tool
def double(x: int) -> int:
    """Doubles.

    Args:
        x: What.
    """
    return 2 * x


def tasks() -> list[Task]:
    import pandas as pd

    table = pd.DataFrame({"a": range(1000), "b": [str(n) for n in range(1000)]})
    doubled = "final_answer([double(n) for n in range(100)])"
    grouped = "import pandas as pd\nt = pd.DataFrame({'k': [1, 2] * 500, 'v': range(1000)})"
    summed = "final_answer(int(t.groupby('k').v.sum().sum()))"
    written = "with open('/tmp/belljar-bench.txt', 'w') as f:\n    f.write('hi')"
    echoed = "import subprocess\nfinal_answer(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout)"
    matched = "match [1, 2]:\n    case [a, b]:\n        final_answer(a + b)"
    yielded = "def f():\n    yield 1\n    yield from (2, 3)\nfinal_answer(list(f()))"
    awaited = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5"
    dataclass_ = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int"
    endless = "kept = 7\nimport time\nwhile True:\n    time.sleep(0.01)"
    return [
        Task("one step", ("final_answer(1 + 1)",), 2),
        Task("state over twelve steps", ("n = 0", *["n += 1"] * 10, "final_answer(n)"), 10),
        Task("100 calls of a tool on the host", (doubled,), [2 * n for n in range(100)]),
        Task(
            "a table of 1,000 rows in and out",
            ("final_answer(table.assign(c=table.a * 2))",),
            lambda got: got.shape == (1000, 3),
            {"table": table},
        ),
        Task("a loop of 300,000 rounds", (looped(300_000),), sum(range(300_000))),
        Task("a loop of 5,000,000 rounds", (looped(5_000_000),), sum(range(5_000_000))),
        Task("pandas: group and sum", (grouped, summed), 499500),
        Task("300 kB printed, shortened", ("print('x' * 300_000)", "final_answer(1)"), 1),
        Task("a file written and read", (written, "final_answer(open('/tmp/belljar-bench.txt').read())"), "hi"),
        Task("a shell command", (echoed,), "hi\n"),
        Task("`match`", (matched,), 3),
        Task("a generator with `yield from`", (yielded,), [1, 2, 3]),
        Task("`async` and top-level `await`", (awaited, "final_answer(await f())"), 5),
        Task("a dataclass", (dataclass_, "final_answer(P(3).x)"), 3),
        Task("`!pip install` of what is missing", ("!pip install -q six", "import six\nfinal_answer(six.PY3)"), True),
        Task(
            f"an endless loop ends after {_TIMEOUT:g} s, its state is kept",
            (endless, "final_answer(kept)"),
            7,
            rounds=1,
        ),
        Task("the process exits, the agent goes on", ("import os\nos._exit(1)", "final_answer('alive')"), "alive"),
    ]


def looped(rounds: int) -> str:
    return f"n = 0\nfor i in range({rounds}):\n    n += i\nfinal_answer(n)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--local", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.local is not None:
        print(json.dumps(measured(new_local, tasks()[options.local], options.rounds)))
        return
    belljar = BelljarExecutor(image="code", timeout=_TIMEOUT)
    started = time.perf_counter()
    belljar("1")
    first = (time.perf_counter() - started) * 1000
    started = time.perf_counter()
    new_local()("1")
    rows = [(FIRST, [True, first], [True, (time.perf_counter() - started) * 1000])]
    for number, task in enumerate(tasks()):
        rows.append((task.name, measured(lambda: belljar, task, options.rounds), apart(number, options.rounds)))
    belljar.cleanup()
    if options.output:
        options.output.write_text(json.dumps({"smolagents": smolagents.__version__, "rows": rows}, indent=1) + "\n")
    print(f"| milliseconds, p50 of {options.rounds}; smolagents {smolagents.__version__} | Belljar | local |")
    print("|---|---|---|")
    for name, ours, theirs in rows:
        print(f"| {name} | {shown(ours)} | {shown(theirs)} |")


def apart(number: int, rounds: int) -> list[Any]:
    """The local executor's result, measured in a process of its own: code there can end or stop its process."""
    words = [sys.executable, __file__, "--local", str(number), "--rounds", str(rounds)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return [False, "never returns"]
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return [False, "ends the host's own process"]


def new_local() -> LocalPythonExecutor:
    try:
        return LocalPythonExecutor(["*"], timeout_seconds=int(_TIMEOUT))
    except TypeError:  # 1.24
        return LocalPythonExecutor(["*"])


def measured(executor_of: Callable[[], Any], task: Task, rounds: int) -> list[Any]:
    """Whether it can, and the p50 in milliseconds, or why not."""
    spent: list[float] = []
    for _ in range(task.rounds or rounds):
        executor = executor_of()
        executor.send_variables(task.variables)
        executor.send_tools({"final_answer": FinalAnswerTool(), "double": double})
        started = time.perf_counter()
        try:
            answer = played(executor, task)
        except Exception as error:  # noqa: BLE001 (whatever an executor raises is its answer)
            return [False, said(error)]
        spent.append((time.perf_counter() - started) * 1000)
        if not (task.answer(answer) if callable(task.answer) else answer == task.answer):
            return [False, f"another answer: {str(answer)[:_SAYS]}"]
    return [True, statistics.median(spent)]


def played(executor: Any, task: Task) -> Any:
    """All actions; the failure of one that is not the last is what an agent would see, and go on from."""
    for action in task.actions[:-1]:
        try:
            executor(action)
        except Exception:  # noqa: BLE001 (the last action tells)
            continue
    done = executor(task.actions[-1])
    assert done.is_final_answer, "no final answer"
    return done.output


def said(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    reason = lines[-1].rpartition("due to: ")[2] if lines else type(error).__name__
    return reason[:_SAYS].replace("|", "/").replace("`", "'")


def shown(result: list[Any]) -> str:
    able, detail = result
    return f"{detail:,.1f}" if able else f"no: {detail}"


if __name__ == "__main__":
    main()
