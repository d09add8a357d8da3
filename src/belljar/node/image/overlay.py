"""What is put over the packages in `base`, and what of them is taken away."""

from collections.abc import Mapping, Sequence

from belljar.node.trust import GUEST_VARIABLES

__all__ = ("FILES", "FOLDERS", "REMOVED")

_PROFILE = """\
# Starts no process: every command that runs through a login shell would wait for it.
: "${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
if [ -d "${HOME:-/}/.local/bin" ]; then
    case ":$PATH:" in
    *":$HOME/.local/bin:"*) ;;
    *) PATH="$HOME/.local/bin:$PATH" ;;
    esac
fi
export PATH
if [ -n "${PS1-}" ]; then
    if [ -n "${BASH-}" ] && [ "$BASH" != /bin/sh ]; then
        [ -f /etc/bash.bashrc ] && . /etc/bash.bashrc
    else
        PS1='$ '
    fi
fi
for file in /etc/profile.d/*.sh; do
    [ -r "$file" ] && . "$file"
done
unset file
"""
_HOME_PROFILE = """\
if [ -n "${BASH_VERSION-}" ] && [ -f "$HOME/.bashrc" ]; then
    . "$HOME/.bashrc"
fi
"""
# Debian's pip refuses to install outside of a virtual environment; in a sandbox the system's Python is the user's own.
_PIP = """\
[global]
break-system-packages = true
disable-pip-version-check = true
root-user-action = ignore
"""

FILES: Mapping[str, tuple[int, str]] = {
    "etc/profile": (0o644, _PROFILE),
    "root/.profile": (0o644, _HOME_PROFILE),
    "home/user/.profile": (0o644, _HOME_PROFILE),
    "home/user/.npmrc": (0o644, "prefix=/home/user/.local\n"),
    "etc/npmrc": (0o644, "update-notifier=false\nfund=false\n"),
    "etc/pip.conf": (0o644, _PIP),
    "etc/sudoers.d/user": (0o440, "user ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    # sudo forgets the environment, and with it which CAs to trust where a company's proxy opens TLS.
    "etc/sudoers.d/trust": (0o440, f'Defaults env_keep += "{" ".join(GUEST_VARIABLES)}"\n'),
    "etc/hostname": (0o644, "sandbox\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
    "etc/resolv.conf": (0o644, ""),
    "etc/machine-id": (0o444, ""),
}
"""Path → mode and text."""

FOLDERS: Mapping[str, int] = {
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "run": 0o755,
    ".belljar": 0o755,
    ".belljar/run": 0o755,
    ".belljar/vol": 0o755,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "var/cache/apt/archives": 0o755,
    "var/cache/apt/archives/partial": 0o700,
    "var/lib/apt/lists/partial": 0o700,
}
"""Mount points and what apt wants to find, with their modes."""

REMOVED: Sequence[str] = (
    *("dev/*", "run/*", "tmp/*", "proc/*", "sys/*"),
    *("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "var/cache/ldconfig/aux-cache", "var/cache/debconf/*-old"),
    *("var/lib/dpkg/*-old", "etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"),
    # Settings of the host's apt (proxies) that were good for making the image only.
    "etc/apt/apt.conf.d/99mmdebstrap",
    "usr/lib/python3*/EXTERNALLY-MANAGED",
)
"""Patterns."""
