"""Sockets: who may open them, and which addresses need TLS."""

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from belljar.model.errors import Conflict, InvalidArgument, PermissionDenied
from belljar.server.listen import Tls, check_address, tcp_socket, unix_socket


def test_a_unix_socket_is_for_its_user_alone_and_gone_at_the_end(state: Path):
    path = state / "run" / "api.sock"
    with unix_socket(path) as made:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert made.family == socket.AF_UNIX
    assert not path.exists()


def test_a_shared_one_is_for_the_group_too(state: Path, monkeypatch: pytest.MonkeyPatch):
    own = grp.getgrgid(os.getegid())
    monkeypatch.setattr(grp, "getgrnam", lambda name: own if name == "belljar" else None)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: asked.append((uid, gid)))
    asked: list[tuple[int, int]] = []
    path = state / "run" / "api.sock"
    with unix_socket(path, group=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert asked == [(0, own.gr_gid)]


def test_without_the_group_a_shared_one_is_for_its_user_alone(state: Path, monkeypatch: pytest.MonkeyPatch):
    def none(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", none)
    path = state / "run" / "api.sock"
    with unix_socket(path, group=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_dead_server_left_is_replaced(state: Path):
    path = state / "api.sock"
    path.write_text("left")
    with unix_socket(path):
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_folder_of_another_user_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionDenied, match="another user"), unix_socket(state / "api.sock"):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str):
    check_address(host, tls=None, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_what_others_reach_needs_tls_or_a_word(host: str):
    with pytest.raises(PermissionDenied, match="clear"):
        check_address(host, tls=None, insecure=False)
    check_address(host, tls=None, insecure=True)
    check_address(host, tls=Tls(Path("c"), Path("k")), insecure=False)


def test_a_port_that_is_taken_or_a_host_that_is_none_is_refused():
    with tcp_socket("127.0.0.1", 0) as made, pytest.raises(Conflict, match="in use"):
        tcp_socket("127.0.0.1", made.getsockname()[1])
    with pytest.raises(InvalidArgument):
        tcp_socket("no.such.host.invalid", 0)
    with pytest.raises(InvalidArgument):
        check_address("no.such.host.invalid", tls=None, insecure=False)
