"""The mount that an instance needs on the host: its volume carrier."""

from pathlib import Path

from belljar.base.mounts import MS_NODEV, MS_NOSUID, MS_SHARED, mount, mounts_below

__all__ = ("make_carrier",)


def make_carrier(folder: Path) -> None:
    """Makes the folder a mount point of its own that passes mounts on to those that bound it. Repeating is fine.

    So a volume mounted below it later appears inside a guest that has it as ``rbind,rslave``. It is a file system of 64 KiB,
    because root inside can write to it, and beyond every limit of the guest's disk. Raises OSError.
    """
    if folder not in mounts_below(folder):
        mount("tmpfs", folder, MS_NOSUID | MS_NODEV, kind="tmpfs", options="size=64k,nr_inodes=1k,mode=755")
    mount(None, folder, MS_SHARED)
