"""Belljar: sandboxes for the code of AI agents, inside gVisor, on your own machine.

>>> import belljar
>>> with belljar.Sandbox.create() as sandbox:
...     print(sandbox.run(["python3", "-c", "print(6*7)"]).stdout)
42
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from belljar.model.audit import AuditEntry
    from belljar.model.code import ContextInfo, ContextState
    from belljar.model.errors import (
        AlreadyExists,
        Cancelled,
        Conflict,
        DeadlineExceeded,
        DiskFull,
        EngineFailed,
        Error,
        ImageNotFound,
        Internal,
        InvalidArgument,
        LimitExceeded,
        NoCapacity,
        NotFound,
        NotSupported,
        PermissionDenied,
        PolicyDenied,
        SandboxGone,
        SnapshotCorrupt,
        SnapshotIncompatible,
        Starting,
        TemplateFailed,
        TooLarge,
        Unauthenticated,
    )
    from belljar.model.events import Event, EventKind
    from belljar.model.file import Change, ChangeKind, FileInfo, FileKind
    from belljar.model.process import Output, ProcessInfo
    from belljar.model.sandbox import Ended, Network, Status
    from belljar.model.snapshot import PathChange, SnapshotKind
    from belljar.model.stats import StatsPoint
    from belljar.model.usage import UsageEntry
    from belljar.sdk._async import (
        AsyncAuditLog,
        AsyncContext,
        AsyncEvents,
        AsyncKey,
        AsyncProcess,
        AsyncSandbox,
        AsyncSandboxPath,
        AsyncSnapshot,
        AsyncTemplate,
        AsyncUsage,
        AsyncWorkspace,
    )
    from belljar.sdk._sync import (
        AuditLog,
        Context,
        Events,
        Key,
        Process,
        Sandbox,
        SandboxPath,
        Snapshot,
        Template,
        Usage,
        Workspace,
    )
    from belljar.sdk.errors import OutputLost, ProcessFailed, ProcessTimeout, ServerUnreachable, UnsafeEntry
    from belljar.sdk.executions import Execution, ExecutionError, Result
    from belljar.sdk.kept import KeyInfo, LineageNode, Quota, Ready, SnapshotInfo, TemplateInfo, WorkspaceInfo
    from belljar.sdk.values import CompletedProcess, SandboxInfo, SandboxLogs, SandboxStats

__all__ = (
    "AlreadyExists",
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
    "AuditEntry",
    "AuditLog",
    "Cancelled",
    "Change",
    "ChangeKind",
    "CompletedProcess",
    "Conflict",
    "Context",
    "ContextInfo",
    "ContextState",
    "DeadlineExceeded",
    "DiskFull",
    "Ended",
    "EngineFailed",
    "Error",
    "Event",
    "EventKind",
    "Events",
    "Execution",
    "ExecutionError",
    "FileInfo",
    "FileKind",
    "ImageNotFound",
    "Internal",
    "InvalidArgument",
    "Key",
    "KeyInfo",
    "LimitExceeded",
    "LineageNode",
    "Network",
    "NoCapacity",
    "NotFound",
    "NotSupported",
    "Output",
    "OutputLost",
    "PathChange",
    "PermissionDenied",
    "PolicyDenied",
    "Process",
    "ProcessFailed",
    "ProcessInfo",
    "ProcessTimeout",
    "Quota",
    "Ready",
    "Result",
    "Sandbox",
    "SandboxGone",
    "SandboxInfo",
    "SandboxLogs",
    "SandboxPath",
    "SandboxStats",
    "ServerUnreachable",
    "Snapshot",
    "SnapshotCorrupt",
    "SnapshotIncompatible",
    "SnapshotInfo",
    "SnapshotKind",
    "Starting",
    "StatsPoint",
    "Status",
    "Template",
    "TemplateFailed",
    "TemplateInfo",
    "TooLarge",
    "Unauthenticated",
    "UnsafeEntry",
    "Usage",
    "UsageEntry",
    "Workspace",
    "WorkspaceInfo",
    "__version__",
)

_ASYNC = (
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
_KEPT = ("KeyInfo", "LineageNode", "Quota", "Ready", "SnapshotInfo", "TemplateInfo", "WorkspaceInfo")
_SDK_ERRORS = ("OutputLost", "ProcessFailed", "ProcessTimeout", "ServerUnreachable", "UnsafeEntry")
_HOMES = {
    "AuditEntry": "belljar.model.audit",
    "StatsPoint": "belljar.model.stats",
    "UsageEntry": "belljar.model.usage",
    **dict.fromkeys(("Event", "EventKind"), "belljar.model.events"),
    **dict.fromkeys(("Change", "ChangeKind", "FileInfo", "FileKind"), "belljar.model.file"),
    **dict.fromkeys(("ContextInfo", "ContextState"), "belljar.model.code"),
    **dict.fromkeys(("Output", "ProcessInfo"), "belljar.model.process"),
    **dict.fromkeys(("Ended", "Network", "Status"), "belljar.model.sandbox"),
    **dict.fromkeys(("PathChange", "SnapshotKind"), "belljar.model.snapshot"),
    **dict.fromkeys(_ASYNC, "belljar.sdk._async"),
    **dict.fromkeys((name.removeprefix("Async") for name in _ASYNC), "belljar.sdk._sync"),
    **dict.fromkeys(_KEPT, "belljar.sdk.kept"),
    **dict.fromkeys(("Execution", "ExecutionError", "Result"), "belljar.sdk.executions"),
    **dict.fromkeys(_SDK_ERRORS, "belljar.sdk.errors"),
    **dict.fromkeys(("CompletedProcess", "SandboxInfo", "SandboxLogs", "SandboxStats"), "belljar.sdk.values"),
}
"""Where a public name lives; the others are of the error tree. Looked up at first use, so that the import stays light."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in __all__:
        value = getattr(import_module(_HOMES.get(name, "belljar.model.errors")), name)
    else:
        raise AttributeError(f"module 'belljar' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 20 ms, and few ask

    try:
        return version("belljar")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0.0.0"


if TYPE_CHECKING:
    __version__: str
