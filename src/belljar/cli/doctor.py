"""`belljar doctor`: what works here, what does not, why, and what mends it."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from belljar.base.home import read_server_file, state_home
from belljar.cli import options
from belljar.cli.console import UsageProblem, plain, print_data, print_json, say, table

if TYPE_CHECKING:
    from belljar.node.doctor import Check

__all__ = ("add_to",)

_SIGNS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def add_to(app: typer.Typer) -> None:
    app.command(
        "doctor",
        epilog="Examples:  belljar doctor   ·   belljar doctor --leaks --json   ·   belljar doctor --engine",
    )(_doctor)


def _doctor(
    leaks: Annotated[
        bool, typer.Option("--leaks", help="List all that this state directory has on the host; 1 if any has no owner.")
    ] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="Run the engine's conformance suite (a minute or two).")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what works on this machine, what does not, why, and the command that mends it.

    Ends with status 1 when something is broken.
    """
    if leaks and engine:
        raise UsageProblem("--leaks and --engine are two questions", "belljar doctor --leaks")
    from belljar.base.log import set_up_logging

    set_up_logging("warning")
    if leaks:
        good = _leaks(as_json=as_json)
    elif engine:
        good = _engine(as_json=as_json)
    else:
        good = _machine(as_json=as_json)
    raise typer.Exit(0 if good else 1)


def _machine(*, as_json: bool) -> bool:
    import asyncio

    from belljar.node.doctor import examine  # the whole node: a quarter of a second that other commands do not pay

    checks = [*asyncio.run(examine()), _server()]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print_data(f"{_sign(check.status)}  {check.name:<{width}}  {plain(check.found)}")
            if check.mend:
                print_data(f"      {'':<{width}}  → {plain(check.mend)}")
    broken = [check.name for check in checks if check.status == "fail"]
    if not as_json:
        say(f"broken: {', '.join(broken)}" if broken else "sandboxes work here")
    return not broken


def _server() -> "Check":
    from belljar.base.proc import is_alive
    from belljar.node.doctor import Check

    home = state_home()
    server = read_server_file(home)
    if server is None or not is_alive(server.pid):
        return Check("server", "ok", f"none runs on {home}; the first command starts one")
    kind = "embedded" if server.embedded else f"on {server.url}"
    return Check("server", "ok", f"process {server.pid}, {kind}, state in {home}")


def _sign(status: str) -> str:
    return typer.style(_SIGNS[status], fg=_COLOURS[status]) if sys.stdout.isatty() else _SIGNS[status]


def _leaks(*, as_json: bool) -> bool:
    from belljar.node.instance import instance_of
    from belljar.node.residue import host_objects

    home = state_home()
    if not (home / "instance").exists():  # looking must not make one
        say(f"{home} has never had a server")
        if as_json:
            print_json([])
        return True
    found = host_objects(instance_of(home))
    lost = [thing for thing in found if thing.owner is None]
    if as_json:
        print_json([asdict(thing) for thing in found])
    else:
        table(("KIND", "NAME", "OWNER"), [(thing.kind, thing.name, thing.owner or "NOBODY") for thing in found])
        say(f"{len(found)} things of {home} on this host, {len(lost)} of them without an owner")
        if lost:
            say("  hint: a server frees them when it starts; belljar down --purge removes all")
    return not lost


def _engine(*, as_json: bool) -> bool:
    import asyncio

    from belljar.cli.conformance import Result, check_engine

    def told(result: Result) -> None:
        if not as_json:
            status = {"passed": "ok", "not supported": "warn"}.get(result.verdict, "fail")
            print_data(f"{_sign(status)}  {result.name}  {result.seconds:.1f} s  {plain(result.detail)}".rstrip())

    results = asyncio.run(check_engine(told))
    if as_json:
        print_json([asdict(result) for result in results])
    failed = sum(result.verdict == "failed" for result in results)
    say(f"{len(results)} checks, {failed} failed")
    return not failed
