"""The agent inside gVisor: what the users' namespace shows, what it hides, and what outlives attacks on it."""

import pytest

from belljar.model.errors import LimitExceeded
from belljar.model.sandbox import Limits
from belljar.node.engine.conformance import Bed
from belljar.node.engine.conformance.bed import command

pytestmark = pytest.mark.node

FORKS = """
import os, time
made = 0
for _ in range(60):
    try:
        if not os.fork():
            time.sleep(60)
            os._exit(0)
        made += 1
    except BlockingIOError:
        pass
print(made, flush=True)
os.killpg(0, 9)
"""
LIMITS = Limits(cpus=1, memory=256 << 20, disk=256 << 20, pids=40)


async def test_users_see_their_init_and_their_own_processes_alone(bed: Bed) -> None:
    async with bed.box() as box:
        lines = (await box.sh("ps axo pid,args")).text.splitlines()[1:]
        assert lines[0].split() == ["1", "init"]
        assert all("python" not in line and "belljar" not in line for line in lines)
        status = (await box.sh("grep ^Cap /proc/self/status | grep -v Amb")).text.split()
        assert status[1::2] == ["0" * 16, "00000000a80405fb", "00000000a80405fb", "00000000a80405fb"]
        assert "00000000a80405fb" in (await box.sh("grep CapBnd /proc/1/status")).text
        as_user = (
            await box.sh("grep -E 'Cap(Prm|Eff)|^Uid' /proc/self/status; sudo -n id -u", user="user")
        ).text.split()
        assert sorted(as_user) == sorted(["Uid:", *["1000"] * 4, "CapPrm:", "0" * 16, "CapEff:", "0" * 16, "0"])


async def test_no_descriptor_inside_leads_to_the_host(bed: Bed) -> None:
    async with bed.box() as box:
        await box.start("sleep", "60")
        links = (await box.sh("for f in /proc/[0-9]*/fd/*; do readlink $f; done")).text.split()
        assert "/dev/null" in links
        assert [link for link in links if link.startswith("host:") or "belljar" in link] == []


async def test_an_own_user_namespace_loosens_nothing(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        script = (
            "mkdir /tmp/c; mount -t cgroup2 none /tmp/c && ls /tmp/c/pids.max; echo max > /tmp/c/pids.max; "
            "umount -l /proc; mount -t proc proc /proc; cat /proc/*/cmdline | tr '\\0' '\\n' | grep -c '[s]tart.py'"
        )
        done = await box.run("unshare", "-Urm", "sh", "-c", script)
        assert done.text.split() == ["0"]
        assert int((await box.run("python3", "-c", FORKS)).stdout) < 40


async def test_ending_the_whole_cgroup_ends_only_the_users_processes(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        sleeper = await box.start("sleep", "60")
        kill = "mkdir /tmp/c; mount -t cgroup2 none /tmp/c; echo 1 > /tmp/c/cgroup.kill; sleep 5"
        assert (await box.run("unshare", "-Urm", "sh", "-c", kill)).returncode == -9
        assert (await box.guest.wait(sleeper.id, timeout=10)).returncode == -9
        assert (await box.sh("echo on")).text == "on\n"
        assert int((await box.run("python3", "-c", FORKS)).stdout) < 40


async def test_orphans_of_a_stopped_init_are_reaped_again(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        await box.sh("kill -STOP 1; for i in $(seq 10); do (sleep 0.1 &) ; done; sleep 1.5")
        assert (await box.sh("sleep 1; ps axo stat | grep -c Z")).text.strip() == "0"


async def test_at_the_limit_a_start_says_so_and_works_again_afterwards(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        hog = await box.start("python3", "-c", FORKS.replace("os.killpg(0, 9)", "time.sleep(60)"))
        await box.seen(hog.id, b"\n")
        with pytest.raises(LimitExceeded):
            for _ in range(5):
                await box.guest.start(command("true"))
        await box.guest.signal(hog.id, 9, group=True)
        assert (await box.sh("echo on")).text == "on\n"


async def test_files_of_identity_replace_links_and_never_follow_them(bed: Bed) -> None:
    async with bed.box() as box:
        await box.sh("echo mine > /root/kept; ln -sf /root/kept /etc/resolv.conf; ln -sf /proc/1/environ /etc/hostname")
        await box.guest.configure(hostname="another", resolv="nameserver 192.0.2.1\n", pids=99, workdir="/")
        done = await box.sh("cat /root/kept /etc/resolv.conf /etc/hostname; hostname")
        assert done.text == "mine\nnameserver 192.0.2.1\nanother\nanother\n"


async def test_each_sandbox_has_a_boot_id_of_its_own(bed: Bed) -> None:
    seen: set[str] = set()
    for _ in range(2):
        async with bed.box() as box:
            text = "cat /proc/sys/kernel/random/boot_id"
            first = (await box.sh(text)).text
            assert (await box.sh(f"kill -9 1; {text}")).returncode == -9
            assert (await box.sh(text)).text == first
            assert len(first.strip()) == 36
            seen.add(first)
    assert len(seen) == 2


async def test_another_user_starts_at_home(bed: Bed) -> None:
    async with bed.box() as box:
        await box.guest.configure(workdir="/root")
        assert (await box.sh("pwd")).text == "/root\n"
        assert (await box.sh("pwd; echo $HOME", user="user")).text == "/home/user\n/home/user\n"


async def test_a_user_can_be_started_where_it_may_not_go_by_itself(bed: Bed) -> None:
    async with bed.box() as box:
        assert (await box.run("pwd", cwd="/root", user="user")).text == "/root\n"
        outcome = await box.run("ls", cwd="/root", user="user")
        assert (outcome.returncode, outcome.stderr.count(b"Permission denied")) == (2, 1)


async def test_sudo_keeps_which_cas_to_trust(bed: Bed) -> None:
    async with bed.box() as box:
        kept = (await box.sh("SSL_CERT_FILE=/some.pem OTHER=1 sudo -n env", user="user")).text.splitlines()
        assert "SSL_CERT_FILE=/some.pem" in kept and "OTHER=1" not in kept
