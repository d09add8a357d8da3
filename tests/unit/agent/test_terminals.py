"""Terminals: size, control characters, paste, end of input."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest


def shell(client, *argv, **pty):
    out = client.reading()
    process = client.ask(
        "start", key="tty", argv=list(argv), pty={"cols": 80, "rows": 24, **pty}, stdout=out.stream.id, window=1 << 20
    )
    way = client.out()
    answer = client.ask("stdin", id=process["id"], stream=way.id, offset=0)
    way.begin(answer["offset"], answer["credit"])
    return process, out, way


def test_a_terminal_has_its_size_and_follows_a_resize(client):
    process, out, _ = shell(client, "/bin/sh", "-c", "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done")
    client.until(lambda: b"24 80" in out.data)
    client.ask("resize", id=process["id"], cols=100, rows=40)
    client.until(lambda: b"40 100" in out.data)
    assert process["pty"] is True


def test_the_terminal_is_the_controlling_one_and_interrupts_reach_the_foreground(client):
    process, out, way = shell(client, "/bin/bash", "--norc", "-i")
    way.write(b"tty; sleep 1000\n")
    client.until(lambda: b"/dev/pts/" in out.data)
    client.idle(0.3)
    way.write(b"\x03")
    way.write(b"echo code $?\n")
    client.until(lambda: b"code 130" in out.data)
    way.write(b"sleep 1000\n")
    client.idle(0.3)
    way.write(b"\x1a")
    client.until(lambda: b"Stopped" in out.data)
    way.write(b"fg\n")
    client.until(lambda: out.data.count(b"sleep 1000") > 3)
    client.idle(0.3)
    way.write(b"\x03")
    way.write(b"exit 7\n")
    assert client.wait(process["id"])["returncode"] == 7


def test_the_end_of_input_is_a_character(client):
    process, out, way = shell(client, "/bin/cat")
    way.write(b"one\ntwo")
    way.finish()
    assert client.wait(process["id"])["returncode"] == 0
    client.until(lambda: out.ended)
    assert b"one\r\n" in out.data


def test_a_paste_of_100_kilobytes_arrives(client):
    code = """
import hashlib, sys, tty
tty.setraw(0)
print("ready", flush=True)
data = b""
while len(data) < 100_000:
    data += sys.stdin.buffer.raw.read(4096)
print(hashlib.md5(data).hexdigest())
"""
    process, out, way = shell(client, "python3", "-c", code)
    client.until(lambda: b"ready" in out.data)
    data = bytes(33 + number % 90 for number in range(100_000))
    way.write(data)
    client.wait(process["id"])
    client.until(lambda: out.ended)
    assert hashlib.md5(data).hexdigest().encode() in out.data


def test_output_after_the_program_ended_is_complete(client):
    process, out, _ = shell(client, "/bin/sh", "-c", "seq 20000")
    client.wait(process["id"])
    client.until(lambda: out.ended)
    assert out.data.count(b"\n") == 20_000


def test_only_terminals_can_be_resized(client):
    process = client.start("/bin/sleep", "30")
    with pytest.raises(Exception, match="conflict"):
        client.ask("resize", id=process["id"], cols=80, rows=24)


def test_a_hang_up_reaches_every_job_of_the_terminal(client):
    process, out, way = shell(client, "/bin/bash", "--norc", "-i")
    script = "trap '' HUP; (exec sleep 4243) & sleep 4244 & trap - HUP; sleep 4245 & sleep 4246\n"
    way.write(script.encode())
    client.until(lambda: b"[3]" in out.data)
    client.idle(0.3)
    client.ask("signal", id=process["id"], signal=1, group=True)
    client.until(lambda: client.ask("process", id=process["id"])["returncode"] is not None)
    assert client.ask("process", id=process["id"])["returncode"] in (-1, 129)
    left = subprocess.run(
        ["pgrep", "-f", "^sleep 424[3-6]"], capture_output=True, text=True, check=False
    ).stdout.split()
    names = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1].decode() for pid in left]
    for pid in left:
        os.kill(int(pid), 9)
    assert sorted(names) == ["4243", "4244"], "those that ignore it go on, as after nohup"
