"""Snapshots through the SDK and the command, over a whole server: the fake engine keeps files, and those it shows."""

import json
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import Command

import belljar


def test_files_are_kept_compared_carried_and_started_from(sandbox: belljar.Sandbox, tmp_path: Path) -> None:
    sandbox.path("/kept").mkdir()
    sandbox.path("/kept/one").write_text("1")
    kept = sandbox.snapshot("kept-files", labels={"a": "b"})
    try:
        sandbox.path("/kept/two").write_text("2")
        with kept.create(labels={"from": "kept"}) as twin:
            assert [path.name for path in twin.path("/kept").iterdir()] == ["one"]
            assert twin.last_info.snapshot == kept.id
        first, second = kept.fork(2, name="from-kept")
        assert {first.name, second.name} == {"from-kept-1", "from-kept-2"}
        first.terminate()
        second.terminate()
        seen: list[int] = []
        kept.export(tmp_path / "kept.belljar", progress=lambda done, total: seen.append(done))
        loaded = belljar.Snapshot.load(tmp_path / "kept.belljar", progress=lambda done, total: seen.append(done))
        assert (loaded.kind, loaded.size, seen[-1]) == (
            kept.kind,
            kept.size,
            (tmp_path / "kept.belljar").stat().st_size,
        )
        with loaded.create() as twin:
            assert twin.path("/kept/one").read_text() == "1"
        loaded.delete()
        (tmp_path / "torn").write_bytes((tmp_path / "kept.belljar").read_bytes()[:-10])
        with pytest.raises(belljar.SnapshotCorrupt):
            belljar.Snapshot.load(tmp_path / "torn")
        with pytest.raises(belljar.AlreadyExists):
            sandbox.snapshot("kept-files")
        assert [one.id for one in belljar.Snapshot.list(labels={"a": "b"})] == [kept.id]
    finally:
        kept.delete()
    with pytest.raises(belljar.NotFound, match="deleted"):
        belljar.Snapshot.get(kept.id)


def test_the_command_takes_lists_shows_draws_carries_and_deletes(
    command: Command, sandbox: belljar.Sandbox, tmp_path: Path
) -> None:
    sandbox.path("/kept").write_text("1")
    done = command("snapshot", "create", sandbox.id, "cli", "--label", "cli=1", "--ttl", "1h")
    id = done.stdout.decode().strip()
    assert b"stood still" in done.stderr
    assert command("snapshot", "ls", "--label", "cli=1", "-q").stdout.decode().split() == [id]
    row = command("snapshot", "ls").stdout.decode().splitlines()[0].split("\t")
    assert (row[0], row[1], row[2]) == (id, "cli", "filesystem")
    (listed,) = json.loads(command("snapshot", "ls", "--json").stdout)
    assert listed == json.loads(command("snapshot", "show", "cli", "--json").stdout)
    assert (listed["kind"], listed["labels"]) == ("filesystem", {"cli": "1"})
    assert sandbox.id in command("snapshot", "show", "cli").stdout.decode()
    assert command("snapshot", "diff", "cli").stdout.decode().splitlines()[-1].startswith("+ /")
    assert command("run", "--snapshot", "cli", "--", "cat", "kept").stdout == b"1"
    assert b"exclude each other" in command("run", "-i", "base", "--snapshot", "cli", "--", "true", status=2).stderr

    tree = command("snapshot", "tree", sandbox.id).stdout.decode().splitlines()
    assert tree[0].startswith(f"sandbox {sandbox.id}")
    assert tree[1].startswith(f"`-- snapshot {id} cli  filesystem, ")
    assert len(tree) == 2
    with_ended = command("snapshot", "tree", "cli", "--all").stdout.decode().splitlines()
    assert with_ended[2].startswith("    `-- sandbox ") and "killed after" in with_ended[2]
    (root,) = json.loads(command("snapshot", "tree", "cli", "--json").stdout)
    assert [child["id"] for child in root["children"]] == [id]

    assert command("snapshot", "export", "cli").stdout == b"cli.belljar\n"
    assert b"Write over" in command("snapshot", "export", "cli", status=2).stderr
    command("snapshot", "export", "cli", "--yes")
    second = command("snapshot", "import", "cli.belljar", "--name", "cli2").stdout.decode().strip()
    assert b"there is no file" in command("snapshot", "import", "nothing", status=2).stderr
    (tmp_path / "bad").write_bytes(b"x" * 1000)
    assert b"bad" not in command("snapshot", "import", "bad", status=1).stdout
    refused = command("snapshot", "rm", "cli", status=2)
    assert b"--yes" in refused.stderr
    assert b"did you mean" in command("snapshot", "show", "clii", status=1).stderr
    command("snapshot", "rm", "cli", second, "--yes")
    assert command("snapshot", "ls", "-q").stdout == b""
    assert b"deleted at" in command("snapshot", "show", id, status=1).stderr


def test_the_tree_is_drawn_with_lines_on_a_terminal_and_in_ascii_without_colour(
    command: Command, sandbox: belljar.Sandbox
) -> None:
    kept = sandbox.snapshot("drawn")
    try:
        with command.terminal("snapshot", "tree", sandbox.id) as screen:
            screen.expect("└── ".encode())
            screen.expect(b"drawn")
        with command.terminal("snapshot", "tree", sandbox.id, NO_COLOR="1") as screen:
            screen.expect(b"`-- snapshot")
    finally:
        kept.delete()


def test_directories_are_kept_and_mounts_of_other_kinds_refused(command: Command, sandbox: belljar.Sandbox) -> None:
    sandbox.path("/data/deep").mkdir(parents=True)
    sandbox.path("/data/deep/x").write_text("1")
    data, files = sandbox.snapshot(path="/data"), sandbox.snapshot()
    try:
        assert [change.path for change in data.diff()] == ["deep", "deep/x"]
        assert b"not of a directory" in command("sandbox", "mount", sandbox.id, files.id, "/mnt/a", status=1).stderr
        assert (
            b"nothing can be mounted over /usr"
            in command("sandbox", "mount", sandbox.id, data.id, "/usr", status=1).stderr
        )
        assert b"where is it to appear" in command("sandbox", "mount", sandbox.id, data.id, status=2).stderr
        with pytest.raises(belljar.InvalidArgument, match="mount"):
            data.create()
        with pytest.raises(belljar.NotFound):
            sandbox.snapshot(path="/nothing/there")
    finally:
        data.delete()
        files.delete()


def test_what_cannot_be_forked_or_gone_back_to_is_said(command: Command, sandbox: belljar.Sandbox) -> None:
    assert b"between 1 and 100" in command("sandbox", "fork", sandbox.id, "-n", "10000", status=1).stderr
    assert b"no snapshot" in command("sandbox", "rollback", sandbox.id, "nothing", "--yes", status=1).stderr
    kept = sandbox.snapshot()
    try:
        assert b"--yes" in command("sandbox", "rollback", sandbox.id, kept.id, status=2).stderr
    finally:
        kept.delete()
    sandbox.terminate()
    assert b"gone" in command("sandbox", "fork", sandbox.id, status=1).stderr


def test_templates_that_are_not_there_and_lines_that_make_no_sense(command: Command) -> None:
    assert command("template", "ls", "-q").stdout == b""
    assert b"no template" in command("template", "show", "nothing", status=1).stderr
    assert b"no template" in command("template", "rm", "nothing", "--yes", status=1).stderr
    assert b"exclude" in command("template", "create", "x", "--run", "a", "--", "b", status=2).stderr
    assert (
        b"one thing" in command("template", "create", "x", "--port", "1", "--file", "/x", "--run", "a", status=1).stderr
    )
