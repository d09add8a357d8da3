"""What the guest runtime carries: one file of compiled modules, and an IPython that gives way to the image's."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .conftest import KernelProcess

Start = Callable[..., KernelProcess]
WHERE = "import IPython, traitlets; type(IPython.__spec__.loader).__name__, type(traitlets.__spec__.loader).__name__"


def pack(folder: Path) -> None:
    words = [sys.executable, str(folder / "belljar_kernel/packing.py"), str(folder), "/.belljar/run/kernel"]
    subprocess.run(words, check=True, timeout=60)


def test_compiled_modules_are_used_and_the_images_own_ipython_wins(
    kernel_folder: Path, tmp_path: Path, kernel_of: Start
) -> None:
    folder = tmp_path / "kernel"
    shutil.copytree(kernel_folder, folder)
    assert kernel_of().run(WHERE).text == "('SourceFileLoader', 'SourceFileLoader')"
    pack(folder)
    start = [sys.executable, str(folder / "start.py"), "--context", "c", "--language", "python"]
    packed = KernelProcess(start)
    try:
        assert packed.run(WHERE).text == "('Packed', 'Packed')"
        assert packed.run("%timeit -n 1 -r 1 1").status == "ok"
        assert Path(packed.run("print(IPython.core.__file__)").out.strip()).is_file(), "its source can be read"
    finally:
        packed.close()
    shutil.copytree(folder / "py311/IPython", tmp_path / "image/IPython")
    own = KernelProcess(start, {"PYTHONPATH": str(tmp_path / "image"), "PATH": "/usr/bin:/bin"})
    try:
        assert own.run(WHERE).text == "('SourceFileLoader', 'Packed')"
        assert own.run("IPython.__file__").text == repr(str(tmp_path / "image/IPython/__init__.py"))
    finally:
        own.close()


def test_the_packages_stand_at_the_end_of_the_path(kernel_of: Start, kernel_folder: Path) -> None:
    kernel = kernel_of()
    ran = kernel.run("import sys; print(sys.path[0] == '', sys.path[-1])")
    assert ran.out.split() == ["True", str(kernel_folder / ("py311" if sys.version_info >= (3, 11) else "py39"))]


def test_what_is_not_needed_is_left_out_and_the_licenses_are_not(kernel_folder: Path) -> None:
    # Kernels of other tests may have left compiled files here; in a sandbox the folder cannot be written.
    files = [path for path in kernel_folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert sum(path.stat().st_size for path in files) < 12 << 20
    assert not [path for path in files if "tests" in path.parts or path.suffix == ".so"]
    for name in ("py39", "py311"):
        assert "Redistribution and use in source and binary forms" in (kernel_folder / name / "LICENSES").read_text()
        assert {"IPython", "traitlets"} <= {path.name for path in (kernel_folder / name).iterdir()}
