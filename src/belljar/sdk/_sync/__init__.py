# Made by scripts/make_sync.py from _async/__init__.py: do not edit.
"""The SDK for asyncio, written by hand; scripts/make_sync.py makes the sync twin of it."""

from belljar.sdk._sync.audit import AuditLog
from belljar.sdk._sync.context import Context
from belljar.sdk._sync.events import Events
from belljar.sdk._sync.key import Key
from belljar.sdk._sync.path import SandboxPath
from belljar.sdk._sync.process import Process
from belljar.sdk._sync.sandbox import Sandbox
from belljar.sdk._sync.snapshot import Snapshot
from belljar.sdk._sync.template import Template
from belljar.sdk._sync.usage import Usage
from belljar.sdk._sync.workspace import Workspace

__all__ = (
    "AuditLog",
    "Context",
    "Events",
    "Key",
    "Process",
    "Sandbox",
    "SandboxPath",
    "Snapshot",
    "Template",
    "Usage",
    "Workspace",
)
