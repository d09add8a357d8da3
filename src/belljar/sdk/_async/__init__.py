"""The SDK for asyncio, written by hand; scripts/make_sync.py makes the sync twin of it."""

from belljar.sdk._async.audit import AsyncAuditLog
from belljar.sdk._async.context import AsyncContext
from belljar.sdk._async.events import AsyncEvents
from belljar.sdk._async.key import AsyncKey
from belljar.sdk._async.path import AsyncSandboxPath
from belljar.sdk._async.process import AsyncProcess
from belljar.sdk._async.sandbox import AsyncSandbox
from belljar.sdk._async.snapshot import AsyncSnapshot
from belljar.sdk._async.template import AsyncTemplate
from belljar.sdk._async.usage import AsyncUsage
from belljar.sdk._async.workspace import AsyncWorkspace

__all__ = (
    "AsyncAuditLog",
    "AsyncContext",
    "AsyncEvents",
    "AsyncKey",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSandboxPath",
    "AsyncSnapshot",
    "AsyncTemplate",
    "AsyncUsage",
    "AsyncWorkspace",
)
