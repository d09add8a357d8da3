"""Processes through the agent, which is an ordinary host process here."""

import signal
import time
from pathlib import Path

import pytest


def refused(client, op, **args):
    with pytest.raises(Exception, match=":") as caught:
        client.ask(op, **args)
    return caught.value.code


def writing(client, process):
    """An open way into the process's stdin."""
    out = client.out()
    answer = client.ask("stdin", id=process["id"], stream=out.id, offset=0)
    assert not answer["closed"]
    out.begin(answer["offset"], answer["credit"])
    return out


def test_a_command_gives_its_output_and_its_exit_code(client):
    assert client.run("/bin/sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


def test_a_program_is_looked_for_in_the_path_it_gets(client, agent):
    (agent.root / "hello").write_text("#!/bin/sh\necho found\n")
    (agent.root / "hello").chmod(0o755)
    assert client.run("hello", env={"PATH": f"/nowhere:{agent.root}"})[1] == b"found\n"


def test_a_signal_is_a_negative_exit_code(client):
    assert client.run("/bin/sh", "-c", "kill -USR1 $$")[0] == -signal.SIGUSR1


def test_megabytes_of_both_outputs_come_whole(client):
    code = "for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; done"
    returncode, out, err = client.run("/bin/sh", "-c", code)
    assert (returncode, len(out), len(err)) == (0, 8_000_000, 8_000_000)


def test_environment_directory_and_configuration_reach_the_process(client, agent):
    (agent.root / "work").mkdir()
    client.ask("configure", env={"ONE": "1", "TWO": "2"}, workdir="/work")
    code, out, _ = client.run("/bin/sh", "-c", "echo $ONE $TWO $THREE; pwd", env={"TWO": "zwei", "THREE": "3"})
    assert code == 0
    assert out.decode().splitlines() == ["1 zwei 3", str(agent.root / "work")]
    (agent.root / "work/deeper").mkdir()
    assert client.run("/bin/pwd", cwd="deeper")[1].decode().strip() == str(agent.root / "work/deeper")


def test_a_process_gets_no_descriptor_but_its_own_and_default_signals(client):
    script = "ls /proc/self/fd | wc -l; grep -E 'Sig(Ign|Blk)' /proc/self/status"
    out = client.run("/bin/sh", "-c", script)[1].decode().split()
    assert out[0] == "4"
    internal = 0b11 << 31  # glibc's own, which nobody can reset
    assert [int(out[2], 16) & ~internal, int(out[4], 16) & ~internal] == [0, 0]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"argv": ["no-such-program"]}, "not_found"),
        ({"argv": ["/no/such/program"]}, "not_found"),
        ({"argv": ["/etc/passwd"]}, "permission_denied"),
        ({"argv": ["/bin/true"], "cwd": "/nowhere"}, "not_found"),
        ({"argv": ["/bin/true"], "user": "nobody-like-that"}, "invalid_argument"),
        ({"argv": ["/bin/true", "x" * 3_000_000]}, "too_large"),
        ({"argv": ["/bin/true", "x" * 7_000_000]}, "too_large"),
        ({"argv": []}, "invalid_argument"),
        ({"argv": ["/bin/true", "a\0b"]}, "invalid_argument"),
        ({"argv": "ls"}, "invalid_argument"),
        ({"argv": ["/bin/true"], "env": {"A=B": "x"}}, "invalid_argument"),
        ({"argv": ["/bin/true"], "pty": {"cols": 0}}, "invalid_argument"),
        ({"argv": ["/bin/true", "\ud800"]}, "invalid_argument"),
    ],
)
def test_what_cannot_start_says_why(client, args, code):
    assert refused(client, "start", key="k", **args) == code
    assert client.ask("processes")["processes"] == []
    assert client.run("/bin/echo", "on")[1] == b"on\n"


def test_a_script_without_interpreter_and_a_broken_one_are_told_apart(client, agent):
    for name, text in (("broken", "#!/no/such/interpreter\n"), ("nothing", "\x00\x01\x02")):
        (agent.root / name).write_text(text)
        (agent.root / name).chmod(0o755)
    assert refused(client, "start", key="a", argv=[str(agent.root / "broken")]) == "not_found"
    assert refused(client, "start", key="b", argv=[str(agent.root / "nothing")]) == "invalid_argument"


def test_stdin_is_written_and_closed(client):
    process = client.start("/bin/sh", "-c", "wc -c; echo done", stdin=True)
    out = writing(client, process)
    out.write(b"x" * 3_000_000)
    out.finish()
    client.wait(process["id"])
    client.until(lambda: process["out"].ended)
    assert process["out"].data == b"3000000\ndone\n"
    assert client.ended(out.id).result == {"offset": 3_000_000}


def test_without_stdin_a_process_reads_nothing(client):
    process = client.start("/bin/cat")
    assert client.wait(process["id"])["returncode"] == 0
    assert client.ask("stdin", id=process["id"], stream=999, offset=0)["closed"]


def test_input_for_a_process_that_reads_no_more_is_a_conflict(client):
    process = client.start("/bin/sh", "-c", "exec 0<&-; sleep 30", stdin=True)
    out = writing(client, process)
    time.sleep(0.2)
    out.write(b"x" * 100)
    assert client.ended(out.id).error[0] == "conflict"


def test_a_process_that_does_not_read_holds_up_only_its_own_input(client):
    process = client.start("/bin/sleep", "30", stdin=True)
    out = writing(client, process)
    out.write(b"x" * 2_000_000)
    assert client.run("/bin/echo", "quick")[1] == b"quick\n"
    assert out.buffered > 1_000_000


def test_input_is_taken_once_over_a_change_of_servers(agent):
    first = agent.connect()
    process = first.start("/bin/cat", stdin=True, attach=False)
    out = writing(first, process)
    out.write(b"0123456789")
    first.until(lambda: first.ask("process", id=process["id"])["stdin"] == 10)
    second = agent.connect()
    again = second.out()
    answer = second.ask("stdin", id=process["id"], stream=again.id, offset=4)
    assert answer["offset"] == 10
    again.begin(answer["offset"], answer["credit"])
    again.write(b"abc")
    again.finish()
    assert second.wait(process["id"])["stdin"] == 13
    reading = second.reading()
    second.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": 0}, window=1 << 20)
    second.until(lambda: reading.ended)
    assert reading.data == b"0123456789abc"
    assert refused(second, "stdin", id=process["id"], stream=77, offset=14) == "conflict"


def test_a_key_starts_one_process_however_often_it_is_asked(client):
    requests = [client.session.request("start", {"key": "once", "argv": ["/bin/sleep", "30"]}) for _ in range(3)]
    assert len({client.answer(request)["pid"] for request in requests}) == 1
    assert len(client.ask("processes")["processes"]) == 1


def test_a_group_dies_with_its_children(client):
    process = client.start("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
    client.until(lambda: process["out"].data)
    child = int(process["out"].data)
    client.ask("signal", id=process["id"], signal=9, group=True)
    assert client.wait(process["id"])["returncode"] == -9
    client.until(lambda: not alive(child))
    assert client.ask("signal", id=process["id"], signal=9, group=True) == {}


def test_output_can_be_read_again_from_an_offset(client):
    process = client.start("/bin/sh", "-c", "echo 0123456789; sleep 30", attach=False)
    client.until(lambda: client.ask("process", id=process["id"])["stdout"]["end"] == 11)
    for offset, wanted in ((0, b"0123456789\n"), (4, b"456789\n"), (11, b"")):
        reading = client.reading(offset=offset)
        client.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": offset}, window=1 << 20)
        client.until(lambda r=reading, w=wanted: r.data == w)
    assert refused(client, "attach", id=process["id"], stdout={"stream": 900, "from": 12}) == "conflict"


def test_a_second_reader_takes_over(client):
    process = client.start("/bin/sh", "-c", "echo x; sleep 30")
    client.until(lambda: process["out"].data)
    reading = client.reading()
    client.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": 0}, window=1 << 20)
    client.until(lambda: process["out"].ended and reading.data == b"x\n")
    assert process["out"].ended.error[0] == "conflict"


def test_nobody_attached_the_process_never_waits_and_the_newest_bytes_are_kept(client):
    client.ask("configure", keep_output=1 << 20)
    process = client.start("/bin/sh", "-c", "head -c 5000000 /dev/zero; echo end", attach=False)
    info = client.wait(process["id"])
    stdout = info["stdout"]
    assert stdout["end"] == 5_000_004
    assert stdout["start"] == stdout["dropped"]
    assert (1 << 20) <= stdout["end"] - stdout["start"] < (1 << 20) + 2 * 262_144
    reading = client.reading(floating=True)
    client.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": 0}, window=1 << 20)
    client.until(lambda: reading.ended)
    assert reading.start == stdout["start"]
    assert reading.data.endswith(b"\0end\n")


def test_an_attached_reader_that_is_slow_makes_the_process_wait_and_loses_nothing(client):
    out = client.reading(window=65_536)
    out.auto = False
    process = client.start(
        "/bin/sh", "-c", "head -c 30000000 /dev/zero; echo end", attach=False, stdout=out.stream.id, window=65_536
    )
    time.sleep(0.5)
    info = client.ask("process", id=process["id"])
    assert info["returncode"] is None
    assert info["stdout"]["end"] < 3 << 20
    out.auto = True
    out.stream.consumed(len(out.data))
    client.until(lambda: out.ended)
    assert len(out.data) == 30_000_004
    assert client.wait(process["id"])["stdout"]["dropped"] == 0


def test_the_last_bytes_of_a_process_that_ended_reach_a_slow_reader(client):
    out = client.reading(window=65_536)
    out.auto = False
    size = (1 << 20) + 100_000  # more than waits for a reader: the rest is still in the pipe when the process ends
    process = client.start(
        "/bin/sh", "-c", f"head -c {size} /dev/zero; echo end", attach=False, stdout=out.stream.id, window=65_536
    )
    client.wait(process["id"])
    client.idle(0.5)
    out.auto = True
    out.stream.consumed(len(out.data))
    client.until(lambda: out.ended)
    assert len(out.data) == size + 4
    assert out.data.endswith(b"end\n")


def test_detached_a_waiting_process_goes_on(client):
    out = client.reading(window=65_536)
    out.auto = False
    process = client.start(
        "/bin/sh", "-c", "head -c 30000000 /dev/zero", attach=False, stdout=out.stream.id, window=65_536
    )
    time.sleep(0.2)
    client.ask("detach", id=process["id"])
    info = client.wait(process["id"])
    assert info["stdout"]["end"] == 30_000_000
    assert info["stdout"]["dropped"] > 10_000_000


def test_one_stream_that_nobody_reads_delays_no_other(client):
    stuck = client.reading(window=65_536)
    stuck.auto = False
    client.start("/usr/bin/yes", attach=False, stdout=stuck.stream.id, window=65_536)
    for _ in range(20):
        assert client.run("/bin/echo", "quick")[1] == b"quick\n"


def test_a_new_server_finds_processes_and_their_output(agent):
    first = agent.connect()
    process = first.start("/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); sleep 0.01; done")
    first.until(lambda: process["out"].data.count(b"\n") > 10)
    seen = bytes(process["out"].data)
    second = agent.connect()
    reading = second.reading(offset=len(seen))
    second.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": len(seen)}, window=1 << 20)
    second.until(lambda: reading.ended)
    assert seen + reading.data == b"".join(b"%d\n" % number for number in range(100))
    assert second.wait(process["id"])["returncode"] == 0


def test_a_process_waits_for_the_next_server_and_loses_nothing(agent):
    first = agent.connect()
    out = first.reading(window=65_536)
    out.auto = False
    process = first.start(
        "/bin/sh", "-c", "head -c 30000000 /dev/zero", attach=False, stdout=out.stream.id, window=65_536
    )
    first.until(lambda: len(out.data) == 65_536)
    second = agent.connect()
    time.sleep(0.3)
    assert second.ask("process", id=process["id"])["returncode"] is None
    reading = second.reading(offset=65_536)
    second.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": 65_536}, window=1 << 20)
    second.until(lambda: reading.ended)
    assert len(reading.data) == 30_000_000 - 65_536
    assert second.wait(process["id"])["stdout"]["dropped"] == 0


def test_a_daemon_that_holds_the_pipe_does_not_hold_up_the_end(client):
    begin = time.monotonic()
    process = client.start("/bin/sh", "-c", "(sleep 1; echo late) & echo now")
    client.until(lambda: process["out"].ended)
    assert time.monotonic() - begin < 0.9
    assert process["out"].data == b"now\n"
    client.until(lambda: client.ask("process", id=process["id"])["stdout"]["end"] == 9)
    reading = client.reading()
    client.ask("attach", id=process["id"], stdout={"stream": reading.stream.id, "from": 0}, window=1 << 20)
    client.until(lambda: reading.ended)
    assert reading.data == b"now\nlate\n"


def test_ended_processes_are_kept_up_to_a_bound(client):
    for number in range(70):
        client.run("/bin/echo", str(number))
    listed = client.ask("processes")["processes"]
    assert len(listed) == 64
    assert listed[-1]["argv"] == ["/bin/echo", "69"]
    assert refused(client, "process", id=1) == "not_found"
    assert client.ask("process", pid=listed[-1]["pid"])["id"] == listed[-1]["id"]


def test_long_arguments_are_cut_in_lists(client):
    client.run("/bin/true", "x" * 100_000)
    (process,) = client.ask("processes")["processes"]
    assert process["argv"][1].endswith("…")
    assert len(process["argv"][1]) < 5000


def test_many_at_once_all_end(client):
    processes = [client.start("/bin/sh", "-c", f"echo {number}; exit {number % 7}") for number in range(60)]
    for number, process in enumerate(processes):
        assert client.wait(process["id"])["returncode"] == number % 7
        client.until(lambda p=process: p["out"].ended)
        assert process["out"].data == b"%d\n" % number


def test_the_agents_own_pipes_are_out_of_reach_and_nothing_leaks(client, agent):
    client.run("/bin/true")
    before = agent.descriptors()
    for _ in range(20):
        client.run("/bin/sh", "-c", "echo x > /dev/null")
    with pytest.raises(Exception, match="not_found"):
        client.ask("start", key="x", argv=["nope"])
    assert agent.descriptors() == before


def test_when_the_agent_dies_so_do_its_processes(agent):
    client = agent.connect()
    process = client.start("/bin/sleep", "1000")
    agent.process.kill()
    agent.process.wait()
    limit = time.monotonic() + 5
    while alive(process["pid"]) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not alive(process["pid"])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
