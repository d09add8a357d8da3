"""`run_code` in real sandboxes: state, results, output, errors, contexts."""

import threading
import time

import pytest

import belljar

pytestmark = pytest.mark.node


def test_state_stays_between_calls(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run_code("x = 20").text is None
    done = sandbox.run_code("x + 1")
    assert (done.text, done.error, done.results[0].main) == ("21", None, True)
    assert done.count == sandbox.run_code("1").count - 1


def test_output_streams_while_the_code_runs(sandbox: belljar.Sandbox) -> None:
    came: list[tuple[float, str]] = []
    started = time.monotonic()
    done = sandbox.run_code(
        "import sys, time, subprocess\n"
        "print('one', flush=True); time.sleep(1)\n"
        "print('two', file=sys.stderr); subprocess.run('echo three', shell=True)",
        on_stdout=lambda text: came.append((time.monotonic() - started, text)),
        on_stderr=lambda text: came.append((time.monotonic() - started, text)),
    )
    assert done.stdout == "one\nthree\n"
    assert done.stderr == "two\n"
    assert came[0][1] == "one\n"
    assert came[0][0] < came[-1][0] - 0.9


def test_an_error_has_name_value_and_traceback(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code("print('before')\ndef f(): return 1/0\nf()")
    assert done.stdout == "before\n"
    assert done.error is not None
    assert (done.error.name, done.error.value) == ("ZeroDivisionError", "division by zero")
    assert "in f" in done.error.traceback
    assert "\x1b" not in done.error.traceback
    syntax = sandbox.run_code("def").error
    assert syntax is not None
    assert syntax.name == "SyntaxError"


def test_what_is_shown_has_all_its_forms(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code(
        "import pandas as pd\n"
        "from IPython.display import HTML, JSON, Latex, Markdown, SVG, Javascript, display\n"
        "for one in (HTML('<b>x</b>'), Markdown('*x*'), Latex('$x$'), JSON({'a': 1}), Javascript('1'),\n"
        "            SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')): display(one)\n"
        "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})"
    )
    assert done.error is None, done.error
    html, markdown, latex, json, script, svg, frame = done.results
    assert (html.html, markdown.markdown, latex.latex) == ("<b>x</b>", "*x*", "$x$")
    assert (json.json, script.javascript) == ({"a": 1}, "1")
    assert svg.svg is not None
    assert svg.svg.startswith("<svg")
    assert frame.main
    assert frame.html is not None
    assert frame.data is not None
    assert frame.data["columns"] == ["a", "b"]
    assert frame.data["data"] == [[1, "x"], [2, None]]


def test_a_plot_is_a_picture_and_a_chart(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code(
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2, 3], [4, 5, 7], label='growth'); plt.title('T'); plt.xlabel('X'); plt.ylabel('Y'); plt.show()"
    )
    (shown,) = done.results
    assert shown.png is not None
    assert shown.png.startswith(b"\x89PNG")
    assert shown.chart is not None
    assert (shown.chart["type"], shown.chart["title"]) == ("line", "T")


def test_a_timeout_interrupts_and_keeps_the_state(sandbox: belljar.Sandbox) -> None:
    sandbox.run_code("kept = 5")
    for code in ("while True: pass", "import time; time.sleep(100)", "import os; os.system('sleep 100')"):
        started = time.monotonic()
        done = sandbox.run_code(code, timeout=1)
        assert done.error is not None
        assert done.error.name == "TimeoutError"
        assert "1 s" in done.error.value
        assert time.monotonic() - started < 4
    assert sandbox.run_code("kept").text == "5"


def test_a_dead_kernel_is_reported_and_the_next_call_has_a_new_one(sandbox: belljar.Sandbox) -> None:
    sandbox.run_code("x = 1")
    done = sandbox.run_code("import os, time; print('last words'); time.sleep(0.1); os._exit(3)")
    assert done.error is not None
    assert done.error.name == "KernelDied"
    assert "status 3" in done.error.value
    assert done.stdout == "last words\n"
    again = sandbox.run_code("x").error
    assert again is not None
    assert again.name == "NameError"


def test_contexts_are_apart_and_have_cwd_env_and_user(sandbox: belljar.Sandbox) -> None:
    sandbox.run_code("x = 'default'")
    with sandbox.create_context(cwd="/tmp", env={"MODE": "fast"}, user="user") as context:
        done = context.run_code(
            "import os, getpass; (os.getcwd(), os.environ['MODE'], getpass.getuser(), 'x' in globals())"
        )
        assert done.text == "('/tmp', 'fast', 'user', False)"
        assert context.id in {one.id for one in sandbox.contexts()}
        assert context.info().count == 1
        context.restart()
        assert context.info().restarts == 1
    assert context.id not in {one.id for one in sandbox.contexts()}
    assert sandbox.run_code("x").text == "'default'"
    with pytest.raises(belljar.NotFound):
        sandbox.run_code("1", context=context)


def test_env_holds_for_one_call(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run_code("import os; os.environ['ONCE']", env={"ONCE": "yes"}).text == "'yes'"
    assert sandbox.run_code("os.environ.get('ONCE')").text is None


def test_the_code_calls_the_host(sandbox: belljar.Sandbox) -> None:
    asked: list[tuple[str, str]] = []

    def answer(name: str, payload: str) -> str:
        asked.append((name, payload))
        if name == "fail":
            raise LookupError("no such thing")
        return payload.upper()

    done = sandbox.run_code("import belljar_host; belljar_host.call('shout', 'hé')", on_call=answer)
    assert done.text == "'HÉ'"
    failed = sandbox.run_code("belljar_host.call('fail', '')", on_call=answer).error
    assert failed is not None
    assert failed.name == "HostError"
    assert "LookupError" in failed.value
    assert "no such thing" in failed.value
    assert asked == [("shout", "hé"), ("fail", "")]
    unanswered = sandbox.run_code("belljar_host.call('x', '')").error
    assert unanswered is not None
    assert unanswered.name == "HostError"


def test_time_in_a_call_does_not_count(sandbox: belljar.Sandbox) -> None:
    code = "import belljar_host\nbelljar_host.call('slow', '')"
    done = sandbox.run_code(code, timeout=1, on_call=lambda *_: time.sleep(2) or "late")
    assert done.text == "'late'"


def test_shell_commands_magics_and_await_work(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run_code("!echo from the shell").stdout.strip() == "from the shell"
    assert "3" in (sandbox.run_code("%%bash\necho $((1+2))").stdout)
    assert sandbox.run_code("import asyncio\nawait asyncio.sleep(0, 'awaited')").text == "'awaited'"
    refused = sandbox.run_code("input('name?')").error
    assert refused is not None
    assert "input" in refused.value


def test_an_interrupt_from_another_thread_ends_the_cell(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    context.run_code("y = 3")
    threading.Timer(1.0, context.interrupt).start()
    done = context.run_code("while True: pass")
    assert done.error is not None
    assert done.error.name == "KeyboardInterrupt"
    assert context.run_code("y").text == "3"
    context.close()


def test_a_thousand_calls_in_a_row_leave_nothing_behind(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    size = "import resource; resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    for _ in range(100):
        context.run_code("1+1")
    before = int(context.run_code(size).text or 0)
    for _ in range(1000):
        assert context.run_code("1+1").text == "2"
    assert int(context.run_code(size).text or 0) - before < 2048
    assert context.info().count == 1102
    context.close()


def test_logs_leave_a_kernel_alone(sandbox: belljar.Sandbox) -> None:
    sandbox.run_code("kept = 1")
    kernels = [one for one in sandbox.logs().processes if "--context" in one["process"]["argv"]]
    assert [one["attached"] for one in kernels if one["process"]["returncode"] is None] == [True]
    assert sandbox.run_code("kept").text == "1"


async def test_the_async_twin_does_the_same(sandbox: belljar.Sandbox) -> None:
    same = await belljar.AsyncSandbox.get(sandbox.id)

    async def answer(name: str, payload: str) -> str:
        return name + payload

    async with await same.create_context() as context:
        done = await context.run_code("import belljar_host; belljar_host.call('a', 'b')", on_call=answer)
        assert done.text == "'ab'"
