"""The `belljar` command over a whole server: pipes, statuses, lists, copies."""

import json
import os
import signal
import time
from pathlib import Path

from tests.api.sdk.belljar_command import Command

import belljar


def test_the_status_of_the_command_comes_through(command: Command) -> None:
    assert command("run", "--", "sh", "-c", "echo out; echo err >&2; exit 3", status=3).stdout == b"out\n"
    assert command("run", "--", "sh", "-c", "kill -9 $$", status=137).stdout == b""


def test_a_program_that_is_not_there_is_127_and_one_that_may_not_run_126(command: Command, tmp_path: Path) -> None:
    assert b"nonono" in command("run", "--", "nonono", status=127).stderr
    (tmp_path / "f").mkdir()
    command("run", "-c", "f", "--", "./f", status=126)


def test_a_file_is_run_by_its_kind_with_its_arguments(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys; print(sys.argv[1:]); sys.exit(4)")
    assert command("run", "a.py", "--image", "-h", "--", status=4).stdout == b"['--image', '-h', '--']\n"
    (tmp_path / "b.sh").write_text('echo "$0 $1"')
    assert command("run", "b.sh", "x y").stdout == b"b.sh x y\n"
    (tmp_path / "c").write_text("#!/bin/sh\necho shebang")
    assert command("run", "c").stdout == b"shebang\n"
    (tmp_path / "d").write_text("what is this")
    assert b"cannot tell how to run d" in command("run", "d", status=2).stderr
    assert b"belljar run -- nofile" in command("run", "nofile", status=2).stderr


def test_files_are_copied_in_and_results_out(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"data")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "more").write_text("more")
    words = ("-c", "in.txt", "-c", "folder:deep/er", "-o", "out", "-o", "made:results/made")
    script = "cat in.txt deep/er/more > out; mkdir made; echo x > made/y"
    command("run", *words, "--", "sh", "-c", script)
    assert (tmp_path / "out").read_bytes() == b"datamore"
    assert (tmp_path / "results" / "made" / "y").read_text() == "x\n"
    done = command("run", "-o", "missing", "--", "sh", "-c", "exit 3", status=3)
    assert b"no missing to copy out" in done.stderr
    command("run", "-o", "missing", "--", "true", status=1)


def test_binary_input_passes_through(command: Command) -> None:
    data = bytes(range(256)) * 20_000
    assert command("run", "--", "cat", input=data).stdout == data


def test_arguments_after_the_command_are_its_own(command: Command) -> None:
    done = command("run", "--network", "none", "--", "printf", "%s|", "--image", "-h", "a b", "--")
    assert done.stdout == b"--image|-h|a b|--|"


def test_a_command_that_takes_too_long_is_ended(command: Command) -> None:
    started = time.monotonic()
    done = command("run", "--timeout", "1s", "--", "sh", "-c", "echo up; sleep 50 & wait", status=124)
    assert done.stdout == b"up\n"
    assert time.monotonic() - started < 20


def test_a_reader_that_leaves_ends_it_quietly(command: Command) -> None:
    process = command.start("run", "--name", "left", "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(30) == 141
    process.communicate()
    assert "left" not in [one.name for one in belljar.Sandbox.list()]


def test_a_signal_to_the_command_ends_its_sandbox(command: Command) -> None:
    process = command.start("run", "--name", "ended", "--", "sh", "-c", "echo up; sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert b"interrupted" in said
    assert "ended" not in [one.name for one in belljar.Sandbox.list()]


def test_what_is_kept_can_be_used_and_removed(command: Command, tmp_path: Path) -> None:
    done = command("run", "--keep", "--name", "kept", "--", "true")
    assert b"belljar sandbox shell kept" in done.stderr
    assert command("sandbox", "exec", "kept", "cat", input=b"x").stdout == b"x"
    command("sandbox", "exec", "kept", "sh", "-c", "exit 4", status=4)
    assert command("sandbox", "exec", "kept", "--", "echo", "--", "x").stdout == b"-- x\n"
    command("sandbox", "rm", "kept", status=2)  # nobody can answer
    command("sandbox", "rm", "--yes", "kept")
    assert b"is gone" in command("sandbox", "exec", "kept", "true", status=1).stderr


def test_lists_have_three_forms(command: Command) -> None:
    id = command("sandbox", "create", "--name", "one", "--label", "job=7").stdout.decode().strip()
    listed = json.loads(command("sandbox", "ls", "--label", "job=7", "--json").stdout)
    assert [(one["id"], one["name"], one["labels"]) for one in listed] == [(id, "one", {"job": "7"})]
    assert command("sandbox", "ls", "-l", "job=7", "--quiet").stdout.decode() == f"{id}\n"
    line = command("sandbox", "ls", "-l", "job=7").stdout.decode()
    assert line.split("\t")[:3] == [id, "one", "running"]
    shown = json.loads(command("sandbox", "show", "one", "--json").stdout)
    assert shown["id"] == id
    assert b"1.0 GiB" in command("sandbox", "show", "one").stdout
    command("sandbox", "rm", "-y", id)
    ended = json.loads(command("sandbox", "ls", "--all", "-l", "job=7", "--json").stdout)
    assert [one["status"] for one in ended] == ["terminated"]


def test_names_that_are_nearly_right_are_corrected(command: Command) -> None:
    command("sandbox", "create", "--name", "web-1")
    done = command("sandbox", "show", "web1", status=1)
    assert b"belljar sandbox show web-1" in done.stderr
    assert b"belljar sandbox ls --json" in command("sandbox", "lss", "--json", status=2).stderr
    assert b"belljar sandbox rm" in command("sandbx", "rm", "x", status=2).stderr
    assert b"belljar run --image x -- ls" in command("run", "--imag", "x", "--", "ls", status=2).stderr
    command("sandbox", "rm", "-y", "web-1")


def test_copies_go_both_ways(command: Command, sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    sandbox.path("/inside").mkdir()
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(os.urandom(300_000))
    command("sandbox", "cp", "tree/sub/f", f"{sandbox.id}:/inside/g")
    assert sandbox.path("/inside/g").read_bytes() == (tree / "sub" / "f").read_bytes()
    command("sandbox", "cp", "tree", f"{sandbox.id}:inside")
    assert sandbox.path("/inside/tree/sub/f").exists()
    command("sandbox", "cp", f"{sandbox.id}:/inside/tree", "back")
    assert (tmp_path / "back" / "sub" / "f").read_bytes() == (tree / "sub" / "f").read_bytes()
    command("sandbox", "cp", f"{sandbox.id}:/inside/g", ".")
    assert (tmp_path / "g").exists()
    assert b"nofile" in command("sandbox", "cp", f"{sandbox.id}:/nofile", ".", status=1).stderr
    sandbox.path("/inside/evil").mkdir()
    sandbox.path("/inside/evil/link").symlink_to("/etc")
    assert b"link" in command("sandbox", "cp", f"{sandbox.id}:/inside/evil", "evil", status=1).stderr
    command("sandbox", "cp", "--skip-unsafe", f"{sandbox.id}:/inside/evil", "evil")
    assert not (tmp_path / "evil" / "link").is_symlink()


def test_events_are_listed_and_followed(command: Command, sandbox: belljar.Sandbox) -> None:
    rows = command("events", "--sandbox", sandbox.id).stdout.decode().splitlines()
    assert [row.split("\t")[2] for row in rows] == ["sandbox.started", "sandbox.created"]
    (said,) = json.loads(command("events", "-s", sandbox.id, "-k", "sandbox.started", "--since", "1h", "--json").stdout)
    assert (said["sandbox"], said["kind"]) == (sandbox.id, "sandbox.started")
    following = command.start("events", "-f", "--json", "--after", str(said["seq"] - 1), "--sandbox", sandbox.id)
    assert following.stdout is not None
    assert json.loads(following.stdout.readline()) == said
    sandbox.terminate()
    assert json.loads(following.stdout.readline())["kind"] == "sandbox.ended"
    following.send_signal(signal.SIGINT)
    assert following.wait(20) == 130
    following.communicate()
    assert b"belljar events --follow" in command("events", "--after", "3", status=2).stderr
    command("events", "--follow", "--since", "1h", status=2)
    assert b"no kind of event" in command("events", "-k", "nothing", status=1).stderr


def test_logs_show_events_and_output_without_control_characters(command: Command, sandbox: belljar.Sandbox) -> None:
    sandbox.run(r"printf 'hello\n\033]0;title\007'")
    done = command("sandbox", "logs", sandbox.id)
    assert b"sandbox.started" in done.stdout
    assert b"hello" in done.stdout
    assert b"\x1b" not in done.stdout
    assert json.loads(command("sandbox", "logs", sandbox.id, "--json").stdout)["processes"]


def test_doctor_finds_nothing_that_is_lost(command: Command, sandbox: belljar.Sandbox) -> None:
    found = json.loads(command("doctor", "--leaks", "--json").stdout)
    assert any(one["owner"] == sandbox.id for one in found)
    assert [one for one in found if one["owner"] is None] == []
    checks = json.loads(command("doctor", "--json", status=None).stdout)
    assert {"kernel", "server"} <= {check["name"] for check in checks}


def test_a_bad_image_is_an_error_with_a_hint(command: Command) -> None:
    done = command("run", "--image", "nonono", "--", "true", status=1)
    assert b"nonono" in done.stderr
    assert b"Traceback" not in done.stderr


def test_down_ends_the_server_and_its_sandboxes_and_the_next_command_starts_one(command: Command, home: Path) -> None:
    command("sandbox", "create", "--name", "doomed")
    assert b"has ended" in command("down").stderr
    assert command("sandbox", "ls", "--quiet").stdout == b""
    assert b"has ended" in command("down").stderr
    assert b"no server runs" in command("down").stderr


def test_keys_are_made_listed_and_revoked(command: Command) -> None:
    made = command("key", "create", "ci", "--scope", "read", "--expires", "30d")
    secret = made.stdout.decode().strip()
    assert secret.startswith("bjk_")
    assert b"not shown again" in made.stderr
    (shown,) = [key for key in json.loads(command("key", "ls", "--json").stdout) if key["name"] == "ci"]
    assert (shown["scope"], shown["used"], shown["revoked"]) == ("read", None, None)
    assert secret not in command("key", "ls", "--all").stdout.decode()
    other = json.loads(command("key", "create", "other", "--json").stdout)
    assert (other["scope"], other["expires"]) == ("run", None)
    assert b"belljar key revoke other --yes" in command("key", "revoke", "othr", "--yes", status=1).stderr
    command("key", "revoke", "ci", other["id"], "--yes")
    assert command("key", "ls", "--quiet").stdout == b""
    assert b"revoked" in command("key", "ls", "--all").stdout
    assert b"read, run, admin" in command("key", "create", "x", "--scope", "rot", status=2).stderr
    assert b"duration" in command("key", "create", "x", "--expires", "soon", status=2).stderr


def test_workspaces_are_made_bounded_shown_and_removed(command: Command) -> None:
    command("workspace", "create", "team", "--sandboxes", "2", "--memory", "4GiB")
    key = json.loads(command("key", "create", "ci", "--workspace", "team", "--creates", "0.5", "--json").stdout)
    assert (key["workspace"], key["quota"]["creates"]) == ("team", 0.5)
    assert command("workspace", "ls", "-q").stdout.split() == [b"default", b"team"]
    shown = command("workspace", "show", "team").stdout.decode()
    assert "0 / 2" in shown
    assert "0 B / 4.0 GiB" in shown
    command("workspace", "set", "team", "--sandboxes", "5", "--memory", "none")
    told = json.loads(command("workspace", "show", "team", "--json").stdout)
    assert (told["quota"]["sandboxes"], told["quota"]["memory"], told["use"]["sandboxes"]) == (5, None, 0)
    assert b"team" in command("workspace", "show", "taem", status=1).stderr
    assert b"which bound" in command("workspace", "set", "team", status=2).stderr
    assert b"--sandboxes is a number" in command("workspace", "set", "team", "--sandboxes", "many", status=2).stderr
    assert b"lots" in command("workspace", "set", "team", "--memory", "lots", status=2).stderr
    assert b"--yes" in command("workspace", "rm", "team", status=2).stderr
    command("workspace", "rm", "team", "--yes")
    assert b"team" not in command("workspace", "ls", "-q").stdout


def test_the_audit_log_is_listed_exported_and_verified(command: Command, tmp_path: Path) -> None:
    made = json.loads(command("key", "create", "seen", "--json").stdout)
    (newest,) = json.loads(command("audit", "ls", "-n", "1", "--json").stdout)
    assert (newest["method"], newest["target"], newest["via"]) == ("POST", f"/v1/keys/{made['id']}", "unix")
    assert newest["peer"] == f"uid:{os.geteuid()}"
    line = command("audit", "ls", "--since", "1h", "-n", "1").stdout.decode()
    assert line.split("\t")[2:] == ["unix", newest["peer"], "POST", newest["target"], "201\n"]
    head = f"{newest['seq']}:{newest['hash']}"
    assert head in command("audit", "export", "a.jsonl").stderr.decode()
    command("key", "revoke", made["id"], "--yes")
    whole = command("audit", "export", "-").stdout
    assert whole.startswith((tmp_path / "a.jsonl").read_bytes())
    said = command("audit", "verify", "-", "--head", head, input=whole).stdout.decode()
    assert said.startswith(f"entries 1 to {newest['seq'] + 1} hold; the newest is {newest['seq'] + 1}:")
    part = command("audit", "export", "-", "--after", str(newest["seq"])).stdout
    command("audit", "verify", "-", input=(tmp_path / "a.jsonl").read_bytes() + part)
    assert b"not here" in command("audit", "verify", "-", input=part).stdout
    changed = whole.replace(f'"target":"/v1/keys/{made["id"]}"'.encode(), b'"target":"/x"', 1)
    assert (
        f"entry {newest['seq']} was changed" in command("audit", "verify", "-", input=changed, status=1).stderr.decode()
    )
    lines = whole.splitlines(keepends=True)
    assert b"missing" in command("audit", "verify", "-", "--head", head, input=b"".join(lines[:-2]), status=1).stderr
    assert b"line 1 is no entry" in command("audit", "verify", "-", input=b"\0" * 100_000, status=1).stderr
    assert b"there is no entry" in command("audit", "verify", "-").stdout


def test_what_was_used_is_told_by_sandbox_hour_and_workspace(command: Command) -> None:
    id = command("sandbox", "create").stdout.decode().strip()
    command("sandbox", "rm", id, "--yes")
    lines = json.loads(command("usage", "--json", "--from", "1h").stdout)
    (own,) = [line for line in lines if line["sandbox"] == id]
    assert own["workspace"] == "default"
    assert own["running_us"] > 0
    row = next(row for row in command("usage").stdout.decode().splitlines() if row.startswith(id))
    assert len(row.split("\t")) == 7
    for by in ("hour", "workspace"):
        told = json.loads(command("usage", "--by", by, "--json").stdout)
        assert sum(line["running_us"] for line in told) >= own["running_us"]
        assert all(line["sandbox"] is None for line in told)
    (line,) = command("usage", "--by", "workspace", "--workspace", "default", "-n", "1").stdout.splitlines()
    assert line.startswith(b"default\t")
    assert json.loads(command("usage", "--json", "--to", "3h").stdout) == []
    assert b"duration" in command("usage", "--from", "soon", status=2).stderr
    assert b"--by" in command("usage", "--by", "day", status=2).stderr
    assert b"from lies before to" in command("usage", "--from", "1h", "--to", "2h", status=1).stderr


def test_lines_about_the_audit_log_that_cannot_be_understood(command: Command, tmp_path: Path) -> None:
    assert b"--head" in command("audit", "verify", "-", "--head", "5:abc", status=2).stderr
    assert b"no file" in command("audit", "verify", "none.jsonl", status=2).stderr
    assert b"no folder" in command("audit", "export", "no/a.jsonl", status=2).stderr
    assert b"audit.jsonl" in command("audit", "export", ".", status=2).stderr
    assert b"duration" in command("audit", "ls", "--since", "soon", status=2).stderr
    (tmp_path / "a.jsonl").touch()
    assert b"--yes" in command("audit", "export", "a.jsonl", status=2).stderr
    command("audit", "export", "a.jsonl", "--yes")


def test_a_reader_of_an_export_that_leaves_early_ends_it_quietly(command: Command) -> None:
    command("key", "create", "x")
    process = command.start("audit", "export", "-")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 128 + signal.SIGPIPE
