"""What set-up makes, in a real sandbox: the engine with its flags, the runtime's interpreter and agent, the image `base`."""

import contextlib
import io
import json
import re
import shlex
import shutil
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from belljar.base import proc
from belljar.base.mounts import unmount_below
from belljar.base.tasks import in_thread
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Limits
from belljar.node import sources
from belljar.node.engine.api import InstanceSpec
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.guest import runtime
from belljar.node.guest.guest import Guest
from belljar.node.progress import PlainProgress
from belljar.node.setup import Installation, damaged, engine_named, runtime_named, set_up

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
LIMITS = Limits(cpus=1.5, memory=512 << 20, disk=1 << 30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return await set_up(tmp_path_factory.mktemp("home"), PlainProgress())


@contextlib.asynccontextmanager
async def booted(made: Installation, home: Path, limits: Limits = LIMITS) -> AsyncGenerator[Guest]:
    """A sandbox on `base` without a network, gone at the end."""
    name = f"t{uuid.uuid4().hex[:8]}"
    run = Path("/run/belljar-test") / name
    run.mkdir(parents=True, mode=0o700)
    engine = GvisorEngine(run, f"belljar-test-{name}", lambda key: engine_named(home, key))
    image = made.images.get("base")
    spec = InstanceSpec(
        id=name,
        folder=run / "sandbox",
        build=made.engine.key,
        root=image.path,
        runtime=made.runtime.folder,
        overlay=run / "overlay",
        argv=made.runtime.argv,
        env=made.runtime.env,
        hostname="box",
        limits=limits,
        cgroup=f"belljar-test-{name}/{name}",
    )
    spec.folder.mkdir(mode=0o700)
    spec.overlay.mkdir(mode=0o700)
    instance = await engine.prepare(spec)
    lost: list[str] = []
    try:
        instance = await engine.create(instance)
        await engine.start(instance, None)
        guest = await Guest.open(
            engine.open_channel(instance),
            on_lost=lambda reason, message: lost.append(f"{reason} {message}"),
            timeout=20,
        )
        try:
            await guest.configure(
                hostname="box",
                env={**image.env, **made.runtime.guest_env},
                user=image.user,
                workdir=image.workdir,
                pids=256,
                hosts="127.0.0.1 localhost box\n",
                resolv="nameserver 127.0.0.1\n",
            )
            yield guest
        finally:
            await guest.close()
    finally:
        await engine.delete(instance)
        await engine.close()
        shutil.rmtree(run)
    assert lost == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(installation: Installation) -> AsyncIterator[Guest]:
    async with booted(installation, home_of(installation)) as opened:
        yield opened


async def said(guest: Guest, command: str, user: str | None = None) -> str:
    """What it wrote, both streams; fails unless it ended well."""
    home = f"/home/{user}" if user and user != "root" else None
    spec = ProcessSpec(key=uuid.uuid4().hex, argv=("/bin/bash", "-c", command), user=user, cwd=home, stdin=False)
    text, code = b"", None
    async for event in guest.start_attached(spec):
        if isinstance(event, Output):
            text += event.data
        elif isinstance(event, Exit):
            code = event.returncode
    assert code == 0, text.decode()
    return text.decode()


async def test_a_second_set_up_finds_all_of_it(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    home = home_of(installation)
    again = await set_up(home, PlainProgress())
    assert (again.engine, again.runtime) == (installation.engine, installation.runtime)
    assert again.images.get("base") == installation.images.get("base")
    assert capsys.readouterr().err == ""
    assert damaged(home) == []
    assert engine_named(home, installation.engine.key) == installation.engine
    assert runtime_named(home, installation.runtime.key) == installation.runtime


async def test_the_state_directory_works_without_the_cache(installation: Installation) -> None:
    told = io.StringIO()
    empty = Path(f"/run/belljar-test-{uuid.uuid4().hex[:8]}")  # where nobody may enter, unlike pytest's folder
    try:
        again = await set_up(home_of(installation), PlainProgress(told), cache=empty)
    finally:
        await in_thread(shutil.rmtree, empty)
    assert (again.engine.key, again.engine.digest) == (installation.engine.key, installation.engine.digest)
    assert again.runtime == installation.runtime
    assert again.images.get("base") == installation.images.get("base")
    assert told.getvalue() == ""


async def test_a_sandbox_sees_its_own_limits(guest: Guest) -> None:
    table = (await said(guest, "free -m | sed -n 2p")).split()
    assert int(table[1]) == 512
    assert (await said(guest, "nproc")).strip() == "2"
    assert (await said(guest, "df -BM --output=size / | tail -n 1")).strip() == "1024M"


async def test_base_has_what_people_expect_at_a_prompt(guest: Guest) -> None:
    for program in (
        "bash",
        "git",
        "curl",
        "python",
        "pip",
        "node",
        "npm",
        "ps",
        "less",
        "vim",
        "nano",
        "ip",
        "sudo",
        "su",
    ):
        assert (await said(guest, f"command -v {program}")).startswith("/")
    assert (await said(guest, "python3 --version")).startswith("Python 3.13")
    assert re.fullmatch(r"v\d+\.\d+\.\d+\n", await said(guest, "node -v"))
    assert (await said(guest, "pwd; whoami; echo $LANG")).split() == ["/root", "root", "C.UTF-8"]
    assert (await said(guest, "apt-get check -qq && dpkg --audit")) == ""


async def test_the_second_user_may_become_root(guest: Guest) -> None:
    assert (await said(guest, "id -u; cd; pwd; sudo id -u", "user")).split() == ["1000", "/home/user", "0"]


async def test_npm_installs_and_node_runs_a_package_as_both_users(guest: Guest) -> None:
    for user in ("root", "user"):
        script = f"""
            set -e; mkdir -p /tmp/{user}/left /tmp/{user}/app; cd /tmp/{user}/left
            npm init --yes >/dev/null; echo 'module.exports = 42' > index.js
            cd ../app; npm init --yes >/dev/null; npm install --offline ../left >/dev/null
            node -p 'require("left")'
            npm install --offline --global ../left >/dev/null; npm ls --global
        """
        answer = await said(guest, script, user)
        assert answer.startswith("42\n"), answer
        assert "left@1.0.0" in answer


_MAKE_WHEEL = """
import sys, zipfile
name = sys.argv[1]
info = name + "-1.dist-info/"
with zipfile.ZipFile(f"/tmp/{name}-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr(name + ".py", "def main(): print('hi')")
    wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "entry_points.txt", f"[console_scripts]\\n{name}={name}:main\\n")
    wheel.writestr(info + "RECORD", "")
"""


async def test_pip_installs_outside_of_a_virtual_environment_as_both_users(guest: Guest) -> None:
    for user in ("root", "user"):
        name = f"hello_{user}"
        await said(guest, f"python3 -c {shlex.quote(_MAKE_WHEEL)} {name}", user)
        script = f"cd /; pip install --quiet --no-index /tmp/{name}-1-py3-none-any.whl && {name} && python3 -c 'import {name}'"
        assert await said(guest, f"HOME=$(eval echo ~$(whoami)); {script}", user) == "hi\n"


async def test_a_login_shell_starts_no_process_of_its_own(guest: Guest) -> None:
    # Process ids are given out one by one, so two shells one after the other show what ran between.
    answer = await said(guest, "for i in 1 2 3; do bash -lc 'echo $$'; done")
    first, second, third = (int(word) for word in answer.split())
    assert (second - first, third - second) == (1, 1)


async def test_nothing_of_the_host_is_in_the_image(guest: Guest) -> None:
    bundle = await said(guest, "cat /etc/ssl/certs/ca-certificates.crt")
    assert bundle.count("BEGIN CERTIFICATE") > 100
    for own in Path("/usr/local/share/ca-certificates").glob("**/*.crt"):
        assert own.read_text().strip() not in bundle
    assert (await said(guest, "cat /etc/apt/apt.conf.d/* | grep -ci proxy || true")).strip() == "0"
    special = "-type b -o -type c -o -type p -o -type s"
    assert await said(guest, f"find / -xdev \\( {special} \\) -not -path '/dev/*'") == ""


async def test_the_runtime_needs_nothing_of_the_image(installation: Installation, guest: Guest) -> None:
    start = " ".join(word for word in installation.runtime.argv if not word.endswith("start.py"))
    code = "import sys, ssl, ctypes, json, tarfile, asyncio, hashlib, lzma; print(sys.version_info[:2], sys.path)"
    answer = await said(guest, f"env -i LC_ALL=C {start} -c '{code}'")
    assert answer.startswith("(3, 13)")
    assert "/usr" not in answer
    maps = await said(
        guest, f"env -i LC_ALL=C {start} -c 'import ssl, ctypes; print(open(\"/proc/self/maps\").read())'"
    )
    files = {line.split()[-1] for line in maps.splitlines() if "/" in line}
    assert files
    assert {name for name in files if not name.startswith("/.belljar/run/")} == set()


async def test_the_runtime_is_read_only_and_readable_for_all(guest: Guest) -> None:
    assert (
        await said(
            guest, "head -c 4 /.belljar/run/agent/start.py >/dev/null && ls /.belljar/run/lib >/dev/null", "user"
        )
        == ""
    )
    answer = await said(guest, "touch /.belljar/run/x; echo $?; touch /.belljar/run/agent/start.py; echo $?")
    assert [line for line in answer.splitlines() if line.isdigit()] == ["1", "1"]


async def test_the_kernel_process_uses_its_ready_filter(installation: Installation, tmp_path: Path) -> None:
    # The debug log is the only place where it says so.
    bundle = _bundle(tmp_path, ["/bin/true"])
    log = tmp_path / "log"
    log.mkdir()
    flags = (
        "--debug",
        f"--debug-log={log}/",
        "--network=none",
        "--ignore-cgroups",
        "--directfs=false",
        "--host-settings=ignore",
    )
    runsc = installation.engine.runsc
    root = f"--root={tmp_path / 'r'}"
    policy = "--sidecar-usage-policy=STRICT"
    try:
        words = [runsc, root, policy, *flags, "--overlay2=root:memory", "run", f"--bundle={bundle}", "filters"]
        await proc.run(words, timeout=60)
    finally:
        await in_thread(unmount_below, tmp_path)  # runsc's empty network namespace
    text = "".join(path.read_text(errors="replace") for path in log.iterdir())
    assert "Loaded precompiled seccomp instructions" in text
    assert "No precompiled program found" not in text


async def test_a_new_agent_costs_no_download(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "agent"
    shutil.copytree(sources.agent_sources(), changed)
    (changed / "belljar_agent/changed.py").write_text("")
    monkeypatch.setattr(runtime, "agent_sources", lambda: changed)
    told = io.StringIO()
    again = await set_up(home_of(installation), PlainProgress(told))
    assert again.runtime.key != installation.runtime.key
    assert again.engine == installation.engine
    assert "downloaded" not in told.getvalue()
    assert runtime_named(home_of(installation), installation.runtime.key).folder.is_dir()


def _bundle(folder: Path, argv: list[str]) -> Path:
    """The smallest OCI bundle, on the host's own files, read-only."""
    spec = {
        "ociVersion": "1.0.0",
        "root": {"path": "/", "readonly": True},
        "process": {"user": {"uid": 0, "gid": 0}, "args": argv, "cwd": "/", "env": ["PATH=/usr/bin:/bin"]},
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")]},
    }
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def home_of(installation: Installation) -> Path:
    return installation.images.store.root.parent
