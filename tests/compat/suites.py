"""Runs a framework's own suite in its environment and says what came of it, case by case.

A suite lives in ``suite.py`` beside its pinned requirements: pytest there, not ours, collects it. What fails or skips there must
be declared with its reason; what is declared and passes is a complaint too, and so is a case that did not run.
"""

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.compat.environments import Environment

__all__ = ("Report", "Suite", "run_suite")


@dataclass(frozen=True, slots=True)
class Suite:
    """`cases`: how many there are. `failures` and `skips`: the name of a case → why it cannot pass or run here."""

    file: Path
    cases: int
    failures: Mapping[str, str] = field(default_factory=dict[str, str])
    skips: Mapping[str, str] = field(default_factory=dict[str, str])
    options: tuple[str, ...] = ()
    """For pytest there."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of each case (``passed``, ``failed``, ``skipped``), with the seconds and the words of pytest."""

    outcomes: Mapping[str, str]
    seconds: float
    output: str

    def count(self, outcome: str) -> int:
        return sum(one == outcome for one in self.outcomes.values())

    def line(self, name: str) -> str:
        """For the summary of a run."""
        others = [f"{self.count(one)} {one}" for one in ("failed", "skipped") if self.count(one)]
        return ", ".join([f"{name}: {self.count('passed')} of {len(self.outcomes)} cases passed", *others]) + (
            f" in {self.seconds:.1f} s"
        )

    def complaints(self, suite: Suite) -> list[str]:
        """Where it is not as declared; empty when all is well."""
        found: list[str] = []
        for outcome, declared in (("failed", suite.failures), ("skipped", suite.skips)):
            came = {name for name, one in self.outcomes.items() if one == outcome}
            found += [f"{name} {outcome}, and nothing declares it" for name in sorted(came - declared.keys())]
            found += [f"{name} is declared as {outcome}, but it is not" for name in sorted(declared.keys() - came)]
        if len(self.outcomes) != suite.cases:
            found.append(f"{len(self.outcomes)} cases ran, {suite.cases} are declared")
        return found


def run_suite(environment: Environment, suite: Suite, environ: Mapping[str, str], *, timeout: float) -> Report:
    """Runs it to its end with `environ` (that of a server), within `timeout` seconds. Raises RuntimeError without a report."""
    with tempfile.TemporaryDirectory(prefix="belljar-suite-") as folder:
        result = Path(folder) / "result.xml"
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={result}"]
        # None of this repository's own settings and fixtures count there.
        words += [
            "-c",
            "/dev/null",
            "-o",
            "asyncio_mode=auto",
            f"--rootdir={suite.file.parent}",
            f"--confcutdir={suite.file.parent}",
        ]
        # A test's home: what a framework leaves in there goes with it.
        environ = dict(environ) | {"HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = environment.run(*words, str(suite.file), cwd=Path(folder), timeout=timeout, environ=environ)
        if not result.exists():
            raise RuntimeError(f"{suite.file} gave no result (status {done.returncode}):\n{done.stdout[-8000:]}")
        return _report(result.read_text(), done.stdout)


def _report(xml: str, output: str) -> Report:
    outcomes: dict[str, str] = {}
    seconds = 0.0
    for case in ET.fromstring(xml).iter("testcase"):
        name = case.get("name", "")
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        # A case whose clean-up fails is told twice; the worse counts.
        if outcomes.get(name, "passed") != "failed":
            outcomes[name] = outcome
        seconds += float(case.get("time", "0"))
    return Report(outcomes, seconds, output)
