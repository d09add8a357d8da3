"""The network as programs in a real gVisor sandbox find it, through the node and its agent."""

import re
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from belljar.base import proc
from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.base.tasks import in_thread
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Limits, Network, SandboxSpec
from belljar.node.instance import instance_of
from belljar.node.machine import Machine
from belljar.node.net.dial import dial
from belljar.node.purge import purge
from belljar.node.record import Records
from belljar.node.residue import host_objects, leaks
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
LIMITS = Limits(cpus=2, memory=1 << 30, disk=2 << 30)


@dataclass(frozen=True)
class Node:
    machine: Machine
    service: NodeService

    async def say(self, id: str, command: str, user: str | None = None) -> tuple[int | None, str]:
        """Exit status and both streams."""
        home = f"/home/{user}" if user else None
        spec = ProcessSpec(key=uuid.uuid4().hex, argv=("/bin/bash", "-c", command), user=user, cwd=home, stdin=False)
        text, code = b"", None
        async for event in self.service.guest(id).start_attached(spec):
            if isinstance(event, Output):
                text += event.data
            elif isinstance(event, Exit):
                code = event.returncode
        return code, text.decode(errors="replace")

    async def create(self, network: Network) -> str:
        id = new_id("sb")
        await self.service.create(id, SandboxSpec(limits=LIMITS, network=network))
        return id

    def address(self, id: str) -> str:
        records, _ = Records(self.machine.instance.sandboxes).load()
        (slot,) = [record.slot for record in records if record.id == id]
        assert slot is not None
        return slot.address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    instance = instance_of(tmp_path_factory.mktemp("net") / "home")
    instance.make_run()
    async with open_machine(read_settings(instance.home), instance) as machine:
        async with NodeService(machine) as service:
            yield Node(machine, service)
            for sandbox in await service.sandboxes():
                await service.terminate(sandbox.id)
            assert await in_thread(leaks, instance) == []
        await purge(machine)
    await in_thread(remove_tree, instance.home)
    assert await in_thread(host_objects, instance) == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_one(node: Node) -> str:
    return await node.create(Network.OPEN)


async def test_packages_come_over_tls_as_an_ordinary_user(node: Node, open_one: str) -> None:
    code, text = await node.say(
        open_one, "pip install --user --quiet six && python -c 'import six; print(six.__version__)'", "user"
    )
    assert code == 0, text


async def test_npm_installs_too(node: Node, open_one: str) -> None:
    code, text = await node.say(
        open_one, "cd $(mktemp -d) && npm install --silent is-number && ls node_modules", "user"
    )
    assert (code, text.strip()) == (0, "is-number")


async def test_a_name_that_is_not_there_is_told_at_once(node: Node, open_one: str) -> None:
    began = time.monotonic()
    code, text = await node.say(open_one, "getent hosts does-not-exist.invalid")
    assert (code, text) == (2, "")
    assert time.monotonic() - began < 3


async def test_private_ranges_and_the_host_are_refused_quickly(node: Node, open_one: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        targets = ["10.1.2.3", "172.16.1.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
        own = await proc.run(["ip", "-4", "-brief", "address"])
        targets += [one for one in re.findall(r" ([0-9.]+)/", own.stdout.decode()) if not one.startswith("127.")]
        gateway = node.address(open_one).rpartition(".")
        targets.append(f"{gateway[0]}.{int(gateway[2]) - 1}")
        script = (
            "import socket, sys, time\n"
            "for target in sys.argv[2:]:\n"
            "    began = time.monotonic()\n"
            "    try: socket.create_connection((target, int(sys.argv[1])), 5); print(target, 'REACHED')\n"
            "    except OSError: print(target, 'slow' if time.monotonic() - began > 2 else 'refused')\n"
        )
        code, text = await node.say(open_one, f"python - {port} {' '.join(targets)} <<'END'\n{script}END")
        assert code == 0, text
        assert {line.split()[1] for line in text.splitlines()} == {"refused"}, text


async def test_without_a_network_everything_is_refused_at_once_but_itself(node: Node) -> None:
    id = await node.create(Network.NONE)
    began = time.monotonic()
    for command in (
        "getent hosts example.com",
        "curl -sS -m 5 https://example.com/",
        "curl -sS -m 5 http://192.0.2.1/",
    ):
        code, text = await node.say(id, command)
        assert code != 0, text
    assert time.monotonic() - began < 5
    own = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print('in')"
    assert await node.say(id, f'python -c "{own}"') == (0, "in\n")
    await node.service.terminate(id)


async def test_the_server_reaches_a_port_inside(node: Node, open_one: str) -> None:
    serve = "import socket; s = socket.create_server(('0.0.0.0', 7000)); s.accept()[0].sendall(b'from inside')"
    code, text = await node.say(open_one, f'setsid python -c "{serve}" >/dev/null 2>&1 & sleep 0.5')
    assert code == 0, text
    connection = await dial(node.address(open_one), 7000, timeout=3)
    connection.setblocking(True)
    assert await in_thread(connection.recv, 100) == b"from inside"
    connection.close()


async def test_siblings_do_not_see_each_other(node: Node, open_one: str) -> None:
    other = await node.create(Network.OPEN)
    await node.say(other, "setsid python -m http.server 8000 >/dev/null 2>&1 & sleep 1")
    code, text = await node.say(open_one, f"curl -sS -m 5 http://{node.address(other)}:8000/")
    assert code == 7, text  # refused
    await node.service.terminate(other)
