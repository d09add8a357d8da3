"""bash and JavaScript by the Jupyter kernels of the image `code`, in real sandboxes."""

import time
from collections.abc import Callable
from functools import partial

import pytest

import belljar

pytestmark = pytest.mark.node


def test_state_stays_between_calls_in_javascript(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run_code("const x = 41; let y = 1", language="javascript").error is None
    done = sandbox.run_code("function add(a, b) { return a + b } add(x, y)", language="javascript")
    assert (done.text, done.results[0].main, done.error) == ("42", True, None)
    assert done.count == 2


def test_javascript_awaits_imports_and_requires(sandbox: belljar.Sandbox) -> None:
    code = "import path from 'node:path'\nconst fs = require('fs')\n"
    code += "const n = await new Promise(done => setTimeout(() => done(7), 50));\n"
    done = sandbox.run_code(code + "[path.join('/a', 'b'), fs.existsSync('/etc/passwd'), n]", language="javascript")
    assert done.text == '[ "/a/b", true, 7 ]'
    module = "mkdir -p node_modules/left && echo 'module.exports = 42' > node_modules/left/index.js"
    sandbox.run(module, cwd="/root", check=True)
    assert sandbox.run_code("require('left')", language="javascript").text == "42"


def test_typescript_is_javascript_with_types(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code("interface P { n: number }\nconst p: P = { n: 3 }\np.n", language="typescript")
    assert (done.text, done.error) == ("3", None)


def test_javascript_shows_pictures_and_html(sandbox: belljar.Sandbox) -> None:
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    done = sandbox.run_code(
        f"await Deno.jupyter.broadcast('display_data', {{data: {{'image/png': '{picture}'}}, metadata: {{}}, transient: {{}}}})\n"
        "Deno.jupyter.html`<b>bold</b>`",
        language="javascript",
    )
    shown, main = done.results
    assert shown.png is not None
    assert shown.png.startswith(b"\x89PNG")
    assert (main.html, main.main) == ("<b>bold</b>", True)


def test_state_stays_between_calls_in_bash(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code('x=41; cd /tmp; f() {\n  echo "$1 $((x + 1))"\n}', language="bash")
    assert done.error is None
    assert sandbox.run_code("f a; pwd; echo $x | cat", language="bash").stdout == "a 42\n/tmp\n41\n"


def test_bash_shows_pictures(sandbox: belljar.Sandbox) -> None:
    draw = 'python3 -c \'from PIL import Image; Image.new("RGB", (2, 2)).save("/tmp/p.png")\''
    done = sandbox.run_code(f"{draw}\ndisplay < /tmp/p.png", language="bash")
    assert done.results[0].png is not None
    assert done.results[0].png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("bash", "echo one; sleep 1; echo two"),
        ("javascript", "console.log('one'); await new Promise(done => setTimeout(done, 1000)); console.log('two')"),
    ],
)
def test_output_streams_while_the_code_runs(sandbox: belljar.Sandbox, language: str, code: str) -> None:
    came: list[tuple[float, str]] = []
    sandbox.run_code("1" if language != "bash" else ":", language=language)  # its kernel is there
    started = time.monotonic()
    done = sandbox.run_code(
        code, language=language, on_stdout=lambda text: came.append((time.monotonic() - started, text))
    )
    assert done.stdout == "one\ntwo\n"
    assert [text for _, text in came] == ["one\n", "two\n"]
    assert came[0][0] < 0.8 < came[1][0]


@pytest.mark.parametrize(
    ("language", "code", "name", "value"),
    [
        ("bash", "echo before; nosuchcommand", "ExitStatus", "127"),
        ("bash", "echo before; (exit 3)", "ExitStatus", "3"),
        ("javascript", "console.log('before'); throw new TypeError('no')", "TypeError", "no"),
        ("javascript", "console.log('before'); await Promise.reject(new RangeError('late'))", "RangeError", "late"),
    ],
)
def test_an_error_has_name_and_value_and_keeps_the_output(
    sandbox: belljar.Sandbox, language: str, code: str, name: str, value: str
) -> None:
    done = sandbox.run_code(code, language=language)
    assert done.stdout.startswith("before\n")
    assert done.error is not None
    assert (done.error.name, done.error.value) == (name, value)
    assert done.error.traceback
    assert "\x1b" not in done.error.traceback


@pytest.mark.parametrize(("language", "code"), [("bash", 'echo "no end'), ("javascript", "const = 1")])
def test_a_syntax_error_is_told_and_the_next_call_works(sandbox: belljar.Sandbox, language: str, code: str) -> None:
    done = sandbox.run_code(code, language=language, timeout=20)
    assert done.error is not None
    assert done.error.name == "SyntaxError"
    assert len(done.error.value) > 10
    assert sandbox.run_code(_SAY["hi"][language], language=language).stdout == "hi\n"


_SAY = {"hi": {"bash": "echo hi", "javascript": "console.log('hi')"}}
_LOOPS = [
    ("bash", "kept=5", "while :; do :; done", "echo $kept"),
    ("bash", "kept=5", "sleep 100", "echo $kept"),
    ("javascript", "globalThis.kept = 5", "while (true) {}", "console.log(kept)"),
    (
        "javascript",
        "globalThis.kept = 5",
        "await new Deno.Command('sleep', { args: ['100'] }).output()",
        "console.log(kept)",
    ),
]


@pytest.mark.parametrize(("language", "before", "endless", "after"), _LOOPS)
def test_a_timeout_interrupts_and_keeps_the_state(
    sandbox: belljar.Sandbox, language: str, before: str, endless: str, after: str
) -> None:
    sandbox.run_code(before, language=language)
    started = time.monotonic()
    done = sandbox.run_code(endless, language=language, timeout=1)
    assert done.error is not None
    assert done.error.name == "TimeoutError"
    assert "1 s" in done.error.value
    assert time.monotonic() - started < 5
    assert sandbox.run_code(after, language=language).stdout == "5\n"


@pytest.mark.parametrize("heard", [2, 3])
def test_a_program_that_does_not_hear_the_first_interrupt_does_not_run_on(sandbox: belljar.Sandbox, heard: int) -> None:
    """As one that was just about to start: the shell heard it in its place."""
    sandbox.run_code("kept=6", language="bash")
    deaf = f"n=0; trap 'n=$((n + 1)); ((n < {heard})) || exit' INT; while :; do echo line; sleep 0.1; done"
    done = sandbox.run_code(f'bash -c "{deaf.replace("$", chr(92) + "$")}"', language="bash", timeout=1)
    assert done.error is not None
    assert done.error.name == "TimeoutError"
    for _ in range(3):
        assert sandbox.run_code("echo $kept", language="bash", timeout=20).stdout == "6\n"


def test_a_callers_own_exception_interrupts_the_cell(sandbox: belljar.Sandbox) -> None:
    def stop(text: str) -> None:
        raise LookupError(text)

    sandbox.run_code("kept=7", language="bash")
    with pytest.raises(LookupError, match="go"):
        sandbox.run_code("echo go; while :; do :; done", language="bash", on_stdout=stop)
    assert sandbox.run_code("echo $kept", language="bash").stdout == "7\n"


@pytest.mark.parametrize(
    ("language", "show"),
    [
        ("bash", 'echo "${ONCE-none} $BASE"'),
        ("javascript", "console.log(process.env.ONCE ?? 'none', process.env.BASE)"),
    ],
)
def test_a_context_has_its_folder_and_environment_and_a_cell_its_own(
    sandbox: belljar.Sandbox, language: str, show: str
) -> None:
    context = sandbox.create_context(language, cwd="/usr", env={"BASE": "base"})
    where = {"bash": "pwd", "javascript": "console.log(process.cwd())"}[language]
    assert context.run_code(where).stdout == "/usr\n"
    assert context.run_code(show, env={"ONCE": "it's", "BASE": "other"}).stdout == "it's other\n"
    assert context.run_code(show).stdout == "none base\n"
    context.close()


def test_a_context_of_the_second_user_is_that_users(sandbox: belljar.Sandbox) -> None:
    for language, show in (("bash", "id -un; echo $HOME"), ("javascript", _WHO)):
        context = sandbox.create_context(language, user="user", cwd="/home/user")
        assert context.run_code(show).stdout.split() == ["user", "/home/user"]
        context.close()


_WHO = "console.log(require('os').userInfo().username, process.env.HOME)"


@pytest.mark.parametrize(("language", "end"), [("bash", "kill -9 $PPID"), ("javascript", "Deno.exit(3)")])
def test_a_dead_kernel_is_reported_and_the_next_call_has_a_new_one(
    sandbox: belljar.Sandbox, language: str, end: str
) -> None:
    done = sandbox.run_code(end, language=language, timeout=30)
    assert done.error is not None
    assert done.error.name == "KernelDied"
    assert "Jupyter kernel" in done.error.value
    assert sandbox.run_code(_SAY["hi"][language], language=language).stdout == "hi\n"


def test_a_shell_that_no_interrupt_reaches_ends_with_its_kernel(sandbox: belljar.Sandbox) -> None:
    with sandbox.create_context("bash") as context:
        before = _kernels(sandbox)
        done = context.run_code("trap '' INT; while :; do sleep 0.1; done", timeout=1)
        assert done.error is not None
        assert done.error.name == "KernelDied"
        assert context.run_code("echo hi").stdout == "hi\n"
        _until(lambda: _kernels(sandbox) == before)


def test_no_kernel_outlives_its_context(sandbox: belljar.Sandbox) -> None:
    before = _kernels(sandbox)
    for language in ("bash", "javascript"):
        sandbox.create_context(language).close()
        context = sandbox.create_context(language)
        pid = context.info().pid
        assert pid is not None
        sandbox.run(["kill", "-9", str(pid)], check=True)
        _until(partial(_is_dead, context))
        context.close()
    _until(lambda: _kernels(sandbox) == before)


def _kernels(sandbox: belljar.Sandbox) -> int:
    return int(sandbox.run("ps -eo args | grep -Ec '[k]ernel.json|[b]ashrc.sh'", check=False).stdout)


def _is_dead(context: belljar.Context) -> bool:
    return context.info().state == "dead"


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_a_language_without_a_kernel_is_refused_with_those_that_are_there(sandbox: belljar.Sandbox) -> None:
    with pytest.raises(belljar.NotSupported, match="cobol") as refused:
        sandbox.run_code("x", language="cobol")
    assert "bash" in str(refused.value.hint)
    assert "typescript" in str(refused.value.hint)


def test_twenty_thousand_lines_come_whole_and_in_order(sandbox: belljar.Sandbox) -> None:
    wanted = "".join(f"{n}\n" for n in range(1, 20_001))
    assert sandbox.run_code("seq 1 20000", language="bash", timeout=60).stdout == wanted
    code = "for (let n = 1; n <= 20000; n++) console.log(n)"
    assert sandbox.run_code(code, language="javascript", timeout=60).stdout == wanted


def test_big_results_and_endless_output_stay_within_bounds(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code("'x'.repeat(50_000_000)", language="javascript", timeout=60)
    assert done.error is None
    assert len(done.text or "") <= 1 << 20
    done = sandbox.run_code("yes", language="bash", timeout=3)
    assert done.error is not None
    assert done.error.name == "TimeoutError"
    assert sandbox.run_code("echo hi", language="bash").stdout == "hi\n"
