"""What two sandboxes of one template must never share, and what a fork may keep of its source: through server and SDK."""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.faults.conftest import Host, home, host

import belljar
from belljar.node.holding import owned
from belljar.node.instance import instance_of
from belljar.node.record import Records

__all__ = ("home", "host")

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

# Run in the context that was warm before anybody came: what it draws comes from a process that all clones have in common.
LOOK = """
import json, os, pathlib, random, secrets, socket, ssl, subprocess, sys, uuid
def fresh(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
places = ["/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), "/etc", "/run"]
print(json.dumps({
    "unique": {
        "hostname": socket.gethostname(),
        "machine id": pathlib.Path("/etc/machine-id").read_text().strip(),
        "kernel, warm process": os.urandom(16).hex(),
        "kernel, new process": fresh("od", "-An", "-N16", "-tx1", "/dev/urandom"),
        "kernel's own uuid": pathlib.Path("/proc/sys/kernel/random/uuid").read_text().strip(),
        "OpenSSL, warm process": ssl.RAND_bytes(16).hex(),
        "OpenSSL, new process": fresh(sys.executable, "-c", "import ssl; print(ssl.RAND_bytes(16).hex())"),
        "global random stream": random.random().hex(),
        "secrets": secrets.token_hex(16),
        "uuid4": str(uuid.uuid4()),
        **({"numpy's global stream": sys.modules["numpy"].random.random().hex()} if "numpy" in sys.modules else {}),
    },
    "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    "markers": [place for place in places if os.path.exists(place + "/belljar-marker")]
        + [name for name in ("belljar_marker",) if name in globals()]
        + [name for name in ("BELLJAR_MARKER",) if name in os.environ],
    "processes": fresh("ps", "-eo", "args").count("belljar-marker"),
}))
"""
# Also what the next one must not find.
MARK = """
for place in places:
    pathlib.Path(place, "belljar-marker").write_text(socket.gethostname())
belljar_marker = os.environ["BELLJAR_MARKER"] = "here"
left_running = subprocess.Popen(["sh", "-c", "sleep 1000; : belljar-marker"], start_new_session=True)
"""
# A question to the name service over TCP: the one address outside that every sandbox may connect to.
CONNECT = """
gateway = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
outside = socket.create_connection((gateway, 53), timeout=5)
def ask_outside():
    question = b"\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\x07belljar\\x04test\\0\\0\\x01\\0\\x01"
    outside.sendall(len(question).to_bytes(2, "big") + question)
    answer = outside.recv(2)
    return bool(answer)
print(ask_outside())
"""
ASK = """
try:
    print(ask_outside())
except OSError as error:
    print(type(error).__name__)
"""


def said(sandbox: belljar.Sandbox, code: str) -> str:
    done = sandbox.run_code(code, timeout=60)
    assert done.error is None, done.error
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Look:
    """`markers`: what somebody before left behind, by name. `processes`: how many of theirs run."""

    unique: Mapping[str, str]
    boot: str
    markers: list[str]
    processes: int


def look(sandbox: belljar.Sandbox) -> Look:
    return Look(**json.loads(said(sandbox, LOOK)))


def alike(looks: list[Look]) -> dict[str, int]:
    """What should be unique and is not: how many different values there were."""
    found = {name: {one.unique[name] for one in looks} for name in looks[0].unique}
    return {name: len(values) for name, values in found.items() if len(values) < len(looks)}


def asks(sandbox: belljar.Sandbox) -> str:
    return said(sandbox, ASK)


def claim(host: Host) -> belljar.Sandbox:
    """One that waited before it was asked for. AssertionError when the pool has none for half a minute."""
    instance, until = instance_of(host.home), time.monotonic() + 30
    while time.monotonic() < until:
        before = owned(instance.run)
        sandbox = belljar.Sandbox.create("code")
        records, _ = Records(instance.sandboxes).load()
        record = next(record for record in records if record.id == sandbox.id)
        if record.instance is not None and record.instance.spec.id in before:
            return sandbox
        sandbox.terminate()  # none was ready: it was made anew
        time.sleep(0.5)
    raise AssertionError("the pool has no members")


def claims_share_nothing(host: Host, count: int) -> None:
    looks: list[Look] = []
    for _ in range(count):
        with claim(host) as sandbox:
            looks.append(look(sandbox))
            said(sandbox, MARK)
    assert [one.markers for one in looks] == [[]] * count
    assert [one.processes for one in looks] == [0] * count
    assert alike(looks) == {}
    assert len({one.boot for one in looks}) == count


def forks_share_only_their_past(count: int) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(belljar.Sandbox.create("code"))
        said(source, "import numpy; numpy.random.random()")
        first = look(source)
        assert said(source, CONNECT) == "True"
        children = source.fork(count)
        for child in children:
            stack.enter_context(child)
        assert said(source, ASK) == "True", "the source's connection does not go on"
        with ThreadPoolExecutor(4) as threads:
            outside = list(threads.map(asks, children))
            looks = [look(source), *threads.map(look, children)]
    assert "True" not in outside, "a fork speaks over its source's connection"
    assert "numpy's global stream" in first.unique
    kept = {"hostname", "machine id"}
    assert alike(looks) == {}
    assert looks[0].unique["hostname"] == first.unique["hostname"]
    assert alike([first, looks[0]]).keys() <= kept
    # One kernel's past.
    assert {one.boot for one in looks} == {first.boot}


def test_claims_of_the_pool_share_neither_names_nor_randomness_nor_files(host: Host) -> None:
    claims_share_nothing(host, 12)


def test_forks_keep_their_past_and_share_nothing_from_then_on(host: Host) -> None:
    forks_share_only_their_past(4)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_claims_share_nothing(host: Host) -> None:
    claims_share_nothing(host, 100)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_forks_share_only_their_past(host: Host) -> None:
    forks_share_only_their_past(20)
