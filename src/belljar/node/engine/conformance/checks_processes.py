"""Processes inside: what starts, what it is given, how it ends."""

import secrets
import signal

from belljar.model.errors import InvalidArgument, NotFound
from belljar.model.process import Exit, Output, PtySize, Stream
from belljar.node.engine.conformance.bed import Bed, command, fails_with
from belljar.node.engine.conformance.suite import Check, expect

__all__ = ("PROCESSES",)

_BIG = 100_000_000


async def _exit_codes(bed: Bed) -> None:
    async with bed.box() as box:
        for code in (0, 1, 3, 255):
            done = await box.sh(f"exit {code}")
            expect(done.returncode == code, f"exit {code} came back as {done.returncode}")


async def _signals(bed: Bed) -> None:
    async with bed.box() as box:
        done = await box.sh("kill -TERM $$")
        expect(done.returncode == -signal.SIGTERM, f"killed by SIGTERM came back as {done.returncode}")
        sleeper = await box.start("sleep", "1000")
        await box.guest.signal(sleeper.id, signal.SIGKILL)
        info = await box.guest.wait(sleeper.id, timeout=10)
        expect(info.returncode == -signal.SIGKILL, f"killed by SIGKILL came back as {info.returncode}")
        trap = await box.start(
            "/bin/sh", "-c", "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.02; done"
        )
        behind = await box.seen(trap.id, b"ready\n")
        await box.guest.signal(trap.id, signal.SIGUSR1)
        await box.seen(trap.id, b"caught\n", offset=behind)
        info = await box.guest.wait(trap.id, timeout=10)
        expect(info.returncode == 7, f"a caught signal, then exit 7, came back as {info.returncode}")


async def _stdin(bed: Bed) -> None:
    async with bed.box() as box:
        data = secrets.token_bytes(1 << 20)
        done = await box.run("cat", input=data)
        expect(done.stdout == data, f"{len(data)} bytes in gave {len(done.stdout)} others out")
        done = await box.run("wc", "-c")
        expect(done.text.strip() == "0", f"no input was {done.text.strip()!r} bytes")


async def _both_outputs(bed: Bed) -> None:
    async with bed.box() as box:
        done = await box.sh("echo out; echo err >&2")
        expect((done.stdout, done.stderr) == (b"out\n", b"err\n"), f"got {done.stdout!r} and {done.stderr!r}")


async def _big_output(bed: Bed) -> None:
    async with bed.box() as box:
        taken, wrong = 0, ""
        spec = command("/bin/sh", "-c", f"head -c {_BIG} /dev/zero | tr '\\0' x", stdin=False)
        async for event in box.guest.start_attached(spec):
            if isinstance(event, Output) and event.stream is Stream.STDOUT:
                if event.offset != taken or event.data.count(b"x") != len(event.data):
                    wrong = wrong or f"a piece at {event.offset} after {taken} bytes: {event.data[:20]!r}"
                taken += len(event.data)
            elif isinstance(event, Exit):
                expect(event.returncode == 0, f"the writer ended with {event.returncode}")
        expect(not wrong and taken == _BIG, wrong or f"{taken} of {_BIG} bytes came")


async def _process_trees(bed: Bed) -> None:
    async with bed.box() as box:
        mark = f"{1000 + secrets.randbelow(1 << 30)}.5"
        parent = await box.start("/bin/sh", "-c", f"sleep {mark} & (sleep {mark}; :) & echo up; sleep {mark}; :")
        await box.seen(parent.id, b"up\n")
        # A child is a copy of the shell for a moment before it is the program.
        found = await box.sh(f"until [ $(pgrep -c -x -f 'sleep {mark}') -ge 2 ]; do sleep 0.05; done")
        expect(found.returncode == 0, f"the children were not to be seen: {found}")
        await box.guest.signal(parent.id, signal.SIGKILL, group=True)
        info = await box.guest.wait(parent.id, timeout=10)
        expect(info.returncode == -signal.SIGKILL, f"the leader ended with {info.returncode}")
        found = await box.sh(
            f"for i in 1 2 3 4 5 6 7 8 9 10; do pgrep -x -f 'sleep {mark}' || exit 0; sleep 0.1; done; exit 1"
        )
        expect(found.returncode == 0, f"children outlived their group: {found.text.split()}")


async def _working_directory(bed: Bed) -> None:
    async with bed.box() as box:
        await box.guest.make_directory("/conformance/deep", parents=True)
        await box.run("sh", "-c", "echo here > file", cwd="/conformance/deep")
        done = await box.run("cat", "deep/file", cwd="/conformance")
        expect(done.text == "here\n", f"the file was not where the directory is: {done}")
        seen = await fails_with(NotFound, box, command("true", cwd="/conformance/none"))
        expect(not seen, f"a missing directory is NotFound, but: {seen}")


async def _environment(bed: Bed) -> None:
    async with bed.box() as box:
        value = "two words\nand a line = 'quoted' \N{SNOWMAN}"
        done = await box.run("sh", "-c", 'printf %s "$CONFORMANCE"', env={"CONFORMANCE": value})
        expect(done.stdout == value.encode(), f"the variable came as {done.stdout!r}")
        done = await box.run("printenv", "CONFORMANCE")
        expect(done.returncode == 1, f"a variable of one process reached another: {done.text!r}")


async def _users(bed: Bed) -> None:
    async with bed.box() as box:
        for user, expected in ((None, "0 0"), ("user", "1000 1000"), ("1000", "1000 1000"), ("1234", "1234")):
            done = await box.sh("echo $(id -u) $(id -g)", user=user)
            expect(done.text.strip().startswith(expected), f"as {user}: {done.text.strip()!r}, not {expected!r}")
        done = await box.sh("touch /root/mine", user="user")
        expect(done.returncode != 0, "an ordinary user could write to /root")
        seen = await fails_with(InvalidArgument, box, command("true", user="nobody-of-this-name"))
        expect(not seen, f"an unknown user is InvalidArgument, but: {seen}")


async def _sudo(bed: Bed) -> None:
    async with bed.box() as box:
        done = await box.run("sudo", "-n", "id", "-u", user="user")
        expect(done.text.strip() == "0", f"sudo gave {done.text.strip()!r} and said {done.stderr!r}")


async def _terminal(bed: Bed) -> None:
    async with bed.box() as box:
        script = "stty size; trap 'stty size' WINCH; trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done"
        shell = await box.start("/bin/sh", "-c", script, pty=PtySize(cols=100, rows=30))
        behind = await box.seen(shell.id, b"30 100\r\n")
        behind = await box.seen(shell.id, b"ready\r\n", offset=behind)
        await box.guest.resize(shell.id, PtySize(cols=120, rows=40))
        behind = await box.seen(shell.id, b"40 120\r\n", offset=behind)
        await box.guest.write_stdin(shell.id, 0, b"\x03")
        await box.seen(shell.id, b"caught\r\n", offset=behind)
        info = await box.guest.wait(shell.id, timeout=10)
        expect(info.returncode == 5, f"Ctrl-C, caught, then exit 5, came back as {info.returncode}")


async def _unknown_program(bed: Bed) -> None:
    async with bed.box() as box:
        for name in ("no-such-program", "/no/such/program"):
            seen = await fails_with(NotFound, box, command(name))
            expect(not seen, f"{name} is NotFound, but: {seen}")
        done = await box.sh("exit 0")
        expect(done.returncode == 0, "nothing could be started after an unknown program")


PROCESSES = (
    Check("exit codes come through", (), _exit_codes),
    Check("signals end processes, and can be caught", (), _signals),
    Check("stdin arrives byte for byte and ends", (), _stdin),
    Check("output and error are two streams", (), _both_outputs),
    Check("100 MB of output arrive whole and in order", (), _big_output),
    Check("killing a group takes the children", (), _process_trees),
    Check("the working directory is the one asked for", (), _working_directory),
    Check("the environment is the one asked for", (), _environment),
    Check("a process runs as the user asked for", ("isolation",), _users),
    Check("sudo works", ("isolation",), _sudo),
    Check("a terminal has a size, changes it, and Ctrl-C interrupts", (), _terminal),
    Check("an unknown program is an error of its own", (), _unknown_program),
)
