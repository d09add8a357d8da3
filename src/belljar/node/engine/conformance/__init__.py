"""What every engine must pass: ``belljar doctor --engine`` runs it, and so do the tests of each driver."""

from belljar.node.engine.conformance.bed import Bed, Box, Outcome
from belljar.node.engine.conformance.checks_life import LIFE
from belljar.node.engine.conformance.checks_limits import LIMITS
from belljar.node.engine.conformance.checks_processes import PROCESSES
from belljar.node.engine.conformance.checks_snapshots import SNAPSHOTS
from belljar.node.engine.conformance.suite import Check, Result, Verdict, run_check, run_suite

__all__ = ("ALL_CHECKS", "Bed", "Box", "Check", "Outcome", "Result", "Verdict", "run_check", "run_suite")

ALL_CHECKS = (*PROCESSES, *LIFE, *LIMITS, *SNAPSHOTS)
