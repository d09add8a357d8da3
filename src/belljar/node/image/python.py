"""Debian's own Python packages, as pip sees them."""

from pathlib import Path

__all__ = ("let_pip_replace",)


def let_pip_replace(packages: Path) -> None:
    """Lets `pip install --upgrade` replace what Debian installed (pip itself, packaging) instead of failing on it.

    pip removes the old one first, by its list of files, and Debian ships none. This one names the metadata alone: that goes, the
    code stays where dpkg put it, and the new one comes before it on the path.
    """
    for info in packages.glob("*.dist-info"):
        record = info / "RECORD"
        if not record.exists():
            names = sorted(path.relative_to(packages).as_posix() for path in (*info.iterdir(), record))
            record.write_text("".join(f"{name},,\n" for name in names))
            record.chmod(0o644)
