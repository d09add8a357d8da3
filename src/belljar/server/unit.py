"""The systemd unit of a server whose restart keeps the sandboxes."""

import shlex

__all__ = ("unit",)

_UNIT = """\
[Unit]
Description=Belljar, sandboxes for the code of AI agents
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=1
# Sandboxes are processes of their own: only the server is ended, and the next one goes on with them.
KillMode=process
TimeoutStopSec=10
# Each sandbox has its own cgroup, made by the server.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def unit(python: str) -> str:
    """For this interpreter."""
    return _UNIT.format(command=shlex.join([python, "-m", "belljar.server"]))
