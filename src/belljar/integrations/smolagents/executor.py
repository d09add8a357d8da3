"""The executor for smolagents' CodeAgent: code runs in a sandbox, tools and managed agents stay on the host."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import belljar
from belljar.base.units import Duration, Size
from belljar.integrations.smolagents.files import Files, Mount
from belljar.integrations.smolagents.framework import (
    AgentError,
    AgentLogger,
    CodeOutput,
    Logger,
    LogLevel,
    PythonExecutor,
)
from belljar.integrations.smolagents.history import History, Moment, StepSnapshot
from belljar.integrations.smolagents.home import Home, PackagesMissing
from belljar.integrations.smolagents.inside.codec import CodecError
from belljar.integrations.smolagents.ledger import Ledger
from belljar.integrations.smolagents.output import (
    DEFAULT_LENGTH,
    Printout,
    error_text,
    plain,
    shown_image,
    shown_text,
)
from belljar.integrations.smolagents.packages import imports_of
from belljar.integrations.smolagents.session import Session, SessionFailed
from belljar.integrations.smolagents.settings import DEFAULT_KEPT, Settings
from belljar.integrations.smolagents.toolbox import Budget, Toolbox, unwrapped

__all__ = ("BelljarExecutor",)

_PRINTED = "_print_outputs"
_GRACE = 5.0
"""Seconds that code may go on after its final answer, and after it was interrupted for that."""


class BelljarExecutor(PythonExecutor):
    """Runs a CodeAgent's code in a gVisor sandbox with its state kept from step to step and from run to run.

    >>> from smolagents import CodeAgent
    >>> with CodeAgent(tools=[], model=model, executor=BelljarExecutor(image="base")) as agent:
    ...     agent.run("What is the 100th Fibonacci number?")

    Tools, MCP tools, closures and managed agents stay on the host: the sandbox has functions of their names that call them. So do
    the model and its key. The sandbox starts with the first step and ends with `cleanup` (or the ``with`` of the agent), when the
    executor is collected, with the interpreter, or 15 minutes after the process was killed.
    """

    def __init__(
        self,
        additional_authorized_imports: Iterable[str] = (),
        logger: Logger | None = None,
        *,
        image: str = "code",
        sandbox: "belljar.Sandbox | belljar.Snapshot | str | None" = None,
        name: str | None = None,
        cpu: float | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
        network: str = "open",
        user: str | None = "user",
        timeout: Duration | None = 300.0,
        lifetime: Duration | None = None,
        env: Mapping[str, str] | None = None,
        packages: Iterable[str] = (),
        max_print_outputs_length: int | None = None,
        stream_outputs: bool = False,
        on_output: Callable[[str], Any] | None = None,
        budget: Budget | None = None,
        allow_pickle: bool = False,
        snapshot_each_step: bool | str = False,
        keep: int = DEFAULT_KEPT,
        keep_snapshots: bool = False,
    ) -> None:
        """Nothing is started yet.

        `additional_authorized_imports`: import names; what the image lacks of them is installed with pip before the first step.
        `packages`: further requirements for pip. `sandbox`: run in this one (or the one of this id or name), which the executor
        does not end; or go on from this snapshot (or the one of this id) in a new one. `name`: of the sandbox that it makes.
        `cpu`, `memory`, `disk`: by default 1.0, 2GiB and 10GiB, or as in the snapshot. `network`: ``"open"`` (the internet, no
        private addresses) or ``"none"``. `user`: who runs the code inside. `timeout`: of one step; time in tools does not count.
        `lifetime`: of the sandbox at most; None is as long as this process. `env`: variables inside. `stream_outputs`: tell the
        logger what code prints while it runs; `on_output` gets the same text. `budget`: what a step may use of the host's tools.

        `snapshot_each_step`: True or ``"memory"`` keeps the whole sandbox after each step, ``"filesystem"`` its files alone, so
        that `rewind` and `fork` can go back there. The newest `keep` snapshots stay; those too are deleted at the end, unless
        `keep_snapshots`.
        Raises ValueError, TypeError.
        """
        if allow_pickle:
            raise ValueError("allow_pickle: nothing from a sandbox is ever unpickled here, and nothing needs it")
        if isinstance(additional_authorized_imports, str) or isinstance(packages, str):
            raise TypeError("additional_authorized_imports and packages are lists, not one text")
        given = sandbox if isinstance(sandbox, belljar.Sandbox) else None
        settings = Settings(
            image=image,
            sandbox=sandbox if isinstance(sandbox, str) or sandbox is None else sandbox.id,
            name=name,
            cpu=cpu,
            memory=memory,
            disk=disk,
            network=network,
            user=user,
            timeout=timeout,
            lifetime=lifetime,
            env=dict(env or {}),
            packages=tuple(packages),
            max_print_outputs_length=DEFAULT_LENGTH if max_print_outputs_length is None else max_print_outputs_length,
            stream_outputs=stream_outputs,
            snapshot_each_step=snapshot_each_step,
            keep=keep,
            keep_snapshots=keep_snapshots,
        )
        self._set_up(settings, additional_authorized_imports, logger, on_output, budget or Budget())
        self._home = Home(settings, given, imports_of(self.additional_authorized_imports), self._say)

    def _set_up(
        self,
        settings: Settings,
        imports: Iterable[str],
        logger: Logger | None,
        on_output: Callable[[str], Any] | None,
        budget: Budget,
    ) -> None:
        """All but its home."""
        self._settings = settings
        level = LogLevel.INFO if settings.stream_outputs else LogLevel.OFF
        self.logger = logger if logger is not None else AgentLogger(level)
        self.additional_authorized_imports = list(imports)
        self.state: dict[str, Any] = {_PRINTED: ""}
        self._on_output = on_output
        self._budget = budget
        self._toolbox = Toolbox(budget, self._stop)
        self._ledger = Ledger()
        self._busy = False
        self._history = History(settings.kind, settings.keep, settings.keep_snapshots) if settings.kind else None
        self.files = Files(self._prepared, settings.user)

    # what an agent asks ----------------------------------------------------------------------------------------------

    def send_variables(self, variables: Mapping[str, Any]) -> None:
        """They are set before the next step. A `pathlib.Path` of an existing file or folder is copied into the sandbox."""
        self._ledger.variables |= variables
        self._ledger.new_variables = bool(self._ledger.variables)

    def send_tools(self, tools: Mapping[str, Any]) -> None:
        """From the next step on the sandbox has these, and no others. The objects themselves are never changed."""
        self._ledger.tools = dict(tools)
        self._ledger.new_tools = True
        self._toolbox.fill(tools)

    def __call__(self, code_action: str) -> CodeOutput:
        """Runs one step. Raises AgentError for whatever goes wrong in it or with its sandbox; then too `state` has its output."""
        if self._busy:
            # Its kernel waits for the answer to a tool's call, so that a second cell would wait for ever.
            raise AgentError("this executor runs a step already: give each agent an executor of its own", self.logger)
        self._busy = True
        self.state[_PRINTED] = ""
        try:
            done = self._tried(code_action)
        finally:
            self._busy = False
        if isinstance(done, AgentError):
            raise done
        return done

    def cleanup(self) -> None:
        """Ends the sandbox (of a given one the context in it) and deletes the snapshots. Idempotent; a later step starts anew."""
        if (home := getattr(self, "_home", None)) is None:
            return
        self._ledger.session = None
        home.close()
        if self._history is not None:
            self._history.close()

    def restart(self) -> None:
        """A new Python in the same sandbox, for when code has broken the old one: files and packages stay, variables go."""
        self._stop(True)
        self._home.lost()

    # what a user asks ------------------------------------------------------------------------------------------------

    @property
    def sandbox(self) -> "belljar.Sandbox":
        """Its sandbox, started if it is not yet. Raises belljar.Error."""
        return self._home.sandbox

    @property
    def snapshots(self) -> list[StepSnapshot]:
        """Those to which it can `rewind`, in the order of their steps."""
        return self._history.snapshots if self._history is not None else []

    @property
    def steps(self) -> int:
        """How many it has run since its start; `rewind` takes it back too."""
        return len(self._ledger.codes)

    @property
    def codes(self) -> list[str]:
        """The code of these steps."""
        return list(self._ledger.codes)

    def rewind(self, step: int) -> None:
        """Goes back to the moment after this step (0: before the first): the sandbox, and what this side knows of it.

        Processes, variables and files (with ``"filesystem"`` the files alone), given tools and variables are as they were. What
        tools did on this machine stays done. One can also go forward again, until another step is run. Raises LookupError (no
        snapshot of it), belljar.Error (then it is as before), RuntimeError (a step is running).

        >>> executor.rewind(2)
        """
        moment = self._moment(step)
        place = self._home.go_back(moment.shown.snapshot, moment.place)
        self._stand(moment.ledger.copy(place.session))

    def fork(self, step: int | None = None) -> "BelljarExecutor":
        """Another one that goes on from the moment after this step, or from now, in a sandbox of its own; end both.

        It has the same tools, which stay on this machine, until its agent gives it others. Raises as `rewind` does.

        >>> with executor.fork(step=2) as other:
        ...     other("print(x)")
        """
        self._refuse_while_busy()
        moment = self._moment(step) if step is not None else None
        image = self.sandbox.last_info.image
        settings = replace(self._settings, sandbox=None, name=None, image=image)
        made = type(self).__new__(type(self))
        made._set_up(settings, self.additional_authorized_imports, self.logger, self._on_output, self._budget)
        snapshot, place = (None, None) if moment is None else (moment.shown.snapshot, moment.place)
        made._home = self._home.fork(settings, snapshot, place, made._say)
        ledger = self._noted(self._home.place.session) if moment is None else moment.ledger
        made._stand(ledger.copy(made._home.place.session))
        return made

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments, fit for JSON, that make an executor like this one; `save_agent` writes them down."""
        return self._settings.saved()

    def __enter__(self) -> "BelljarExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    # a step ----------------------------------------------------------------------------------------------------------

    def _tried(self, code: str) -> "CodeOutput | AgentError":
        """A step, with the snapshots before and after it that are wanted."""
        outcome: CodeOutput | AgentError
        try:
            outcome = self._step(self._begun(code), code)
        except AgentError as error:
            outcome = error
        except (belljar.Error, SessionFailed, PackagesMissing, CodecError, ValueError) as error:
            outcome = AgentError(f"{type(error).__name__}: {error}", self.logger)
            outcome.__cause__ = error
        said = outcome if isinstance(outcome, AgentError) else outcome.output
        self._keep(f"{self.state[_PRINTED]}{'' if said is None else said}")
        return outcome

    def _begun(self, code: str) -> Session:
        try:
            session = self._prepared()
            self._keep("")
            return session
        finally:
            # It counts also when it cannot run: the agent remembers it all the same.
            if self._history is not None:
                self._history.branch(self.steps)
            self._ledger.codes.append(code)

    def _step(self, session: Session, code: str) -> CodeOutput:
        printout = Printout(self._stream if self._settings.stream_outputs or self._on_output is not None else None)
        ended = threading.Event()
        self._toolbox.open(session.exchange, lambda: self._hurry(ended))
        try:
            execution = session.run(
                code,
                timeout=self._settings.limit,
                on_stdout=printout.add,
                on_stderr=printout.add,
                on_call=self._toolbox.call,
            )
        finally:
            ended.set()
            self._toolbox.close()
            self.state[_PRINTED] = self._logs(session, printout)
        if execution.error is not None and execution.error.name == "KernelDied":
            self._home.lost()
        return self._outcome(execution)

    def _outcome(self, execution: "belljar.Execution") -> CodeOutput:
        logs: str = self.state[_PRINTED]
        if self._toolbox.answered:
            return CodeOutput(output=self._toolbox.answer, logs=logs, is_final_answer=True)
        if execution.error is not None:
            raise AgentError(error_text(execution, self._settings.limit), self.logger)
        text, image = shown_text(execution.results), shown_image(execution.results)
        if image is None:
            return CodeOutput(output=text, logs=logs, is_final_answer=False)
        logs = self.state[_PRINTED] = f"{logs}{text}\n" if text else logs
        return CodeOutput(output=image, logs=logs, is_final_answer=False)

    def _prepared(self) -> Session:
        """A living session in which all variables and tools are set. One that code has broken is replaced."""
        try:
            return self._send(self._home.session())
        except SessionFailed:
            self.restart()
            return self._send(self._home.session())

    def _send(self, session: Session) -> Session:
        ledger = self._ledger
        fresh = ledger.session is not session
        mount = Mount(session, self._settings.user) if fresh or ledger.mount is None else ledger.mount
        variables = ledger.variables if fresh or ledger.new_variables else None
        tools = ledger.tools if fresh or ledger.new_tools else None
        session.send(variables, tools, lambda value: mount(unwrapped(value)))
        ledger.session, ledger.mount = session, mount
        ledger.new_variables = ledger.new_tools = False
        return session

    def _logs(self, session: Session, printout: Printout) -> str:
        def store(text: str) -> str | None:
            path = f"{session.cwd}/.belljar/output-{self.steps}.txt"
            try:
                session.sandbox.path(path).write_text(text, errors="replace")
            except belljar.Error:
                return None
            return path

        return printout.shortened(printout.text, self._settings.max_print_outputs_length, store)

    # back and aside --------------------------------------------------------------------------------------------------

    def _keep(self, outcome: str) -> None:
        """A snapshot of now, unless there is one. The step is worth more than its snapshot: the logger is told of a failure."""
        place = self._home.place
        if self._history is None or self._history.has(self.steps) or place.sandbox is None:
            return
        code = self._ledger.codes[-1] if self._ledger.codes else ""
        ledger = self._noted(place.session if self._settings.kind == "memory" else None)
        try:
            self._history.take(self.sandbox, self.steps, code, outcome, ledger, place)
        except belljar.Error as error:
            self.logger.log_error(f"There is no snapshot of step {self.steps}: {error}")

    def _noted(self, session: Session | None) -> Ledger:
        """What holds now, for where this session goes on; None: it does not."""
        self._ledger.seen, self._ledger.state = self.files.seen, self.state
        return self._ledger.copy(session if session is self._ledger.session else None)

    def _moment(self, step: int) -> Moment:
        self._refuse_while_busy()
        if self._history is None:
            raise LookupError("there are no snapshots: give snapshot_each_step=True")
        return self._history.at(step)

    def _refuse_while_busy(self) -> None:
        if self._busy:
            raise RuntimeError("a step is running")

    def _stand(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._toolbox.fill(ledger.tools or {})
        self.files.seen = ledger.seen
        self.state = ledger.state

    # while it runs ---------------------------------------------------------------------------------------------------

    def _hurry(self, ended: threading.Event) -> None:
        """The answer is here: code that goes on all the same is interrupted, then ended."""

        def watch() -> None:
            for kill in (False, True):
                if ended.wait(_GRACE):
                    return
                self._stop(kill)

        threading.Thread(target=watch, name="belljar-answered", daemon=True).start()

    def _stop(self, kill: bool) -> None:
        context = self._home.context
        if context is None:
            return
        try:
            if kill:
                context.restart()
            else:
                context.interrupt()
        except belljar.Error:
            pass  # it ended by itself

    def _stream(self, text: str) -> None:
        if self._on_output is not None:
            self._on_output(text)
        if self._settings.stream_outputs:
            self.logger.log(plain(text), level=LogLevel.INFO, end="", markup=False, highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self.logger.log(text, level=LogLevel.INFO, markup=False)
