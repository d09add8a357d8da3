"""The image `code` in a real sandbox: what it brings, and that pip changes it as people expect."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import home, host

import belljar
from belljar.base.home import state_home
from belljar.node.image.catalog import Catalog
from belljar.node.image.code import LOCK
from belljar.node.image.wheels import PLACE, locked

__all__ = ("home", "host")
pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def sandbox(home: object) -> Iterator[belljar.Sandbox]:
    with belljar.Sandbox.create("code", memory="2GiB", network="none") as made:
        yield made


def said(sandbox: belljar.Sandbox, command: str, user: str | None = None) -> str:
    home = f"/home/{user}" if user else None
    done = sandbox.run(["/bin/bash", "-c", command], user=user, cwd=home, env={"HOME": home} if home else None)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_it_has_what_it_promises_in_the_versions_that_its_list_names(sandbox: belljar.Sandbox) -> None:
    names = "numpy pandas matplotlib PIL sklearn scipy requests IPython ipykernel jupyter_client bash_kernel zmq"
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert said(sandbox, f"python3 -W error::ImportWarning -c {shlex.quote(script)} {names}") == ""
    listed = dict(line.split("==") for line in said(sandbox, "pip list --format=freeze").split())
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in listed.items()}
    for line in locked(LOCK.read_text()):
        name, _, version = line.partition("==")
        assert found[name] == version
    assert said(sandbox, "pip check") == "No broken requirements found.\n"
    assert said(sandbox, "apt-get check -qq && dpkg --audit") == ""


def test_the_catalog_knows_it_and_what_is_in_it(sandbox: belljar.Sandbox) -> None:
    images = Catalog(state_home())
    assert {"base", "code"} <= set(images.names())
    packages = (images.get("code").path.parent / "packages.txt").read_text()
    assert re.search(r"(?m)^python:numpy \d", packages)
    assert re.search(r"(?m)^nodejs \d", packages)


def test_everything_of_base_works_as_in_base(sandbox: belljar.Sandbox) -> None:
    assert said(sandbox, "id -u; cd; pwd; sudo id -u", "user").split() == ["1000", "/home/user", "0"]
    assert said(sandbox, "pwd; whoami; echo $LANG").split() == ["/root", "root", "C.UTF-8"]
    assert said(sandbox, "stat -c '%a %U' /usr/bin/sudo /tmp /root /home/user /home/user/.cache").splitlines() == [
        *("4755 root", "1777 root", "700 root"),
        *(said(sandbox, "stat -c '%a user' /home/user").strip(), "755 user"),
    ]
    special = "-type b -o -type c -o -type p -o -type s"
    assert said(sandbox, f"find / -xdev \\( {special} \\) -not -path '/dev/*'") == ""
    assert said(sandbox, "ls -A /tmp /var/tmp /root/.cache; ls -d /root/.ipython 2>/dev/null || true") == (
        "/root/.cache:\nmatplotlib\n\n/tmp:\n\n/var/tmp:\n"
    )


def test_nothing_is_compiled_or_searched_for_when_it_is_first_used(sandbox: belljar.Sandbox) -> None:
    draw = "import matplotlib.pyplot as p; p.plot([1, 2]); p.savefig('/tmp/x.png'); import sklearn.linear_model, pandas"
    for user in (None, "user"):
        before = said(sandbox, "date +%s.%N").strip()
        said(sandbox, f"rm -f /tmp/x.png; python3 -c {shlex.quote(draw)}; head -c 4 /tmp/x.png >/dev/null", user)
        new = f"find /usr /root /home -newermt @{before} -type f"
        assert said(sandbox, new) == ""
        said(sandbox, "sudo rm -f /tmp/x.png", user)


_MAKE_WHEEL = """
import sys, zipfile
name, version = sys.argv[1:]
info = f"{name}-{version}.dist-info/"
with zipfile.ZipFile(f"/tmp/{name}-{version}-py3-none-any.whl", "w") as wheel:
    wheel.writestr(name + "/__init__.py", f"version = {version!r}\\ndef main(): print('hi')")
    wheel.writestr(info + "METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "entry_points.txt", f"[console_scripts]\\nsay-{name}={name}:main\\n")
    wheel.writestr(info + "RECORD", "")
"""


@pytest.mark.parametrize("user", [None, "user"])
@pytest.mark.parametrize(
    ("name", "whose"), [("tiny", "new"), ("requests", "ours"), ("packaging", "both"), ("wheel", "Debian's")]
)
def test_pip_installs_and_replaces_packages(home: object, name: str, whose: str, user: str | None) -> None:
    with belljar.Sandbox.create("code", network="none") as sandbox:
        said(sandbox, f"python3 -c {shlex.quote(_MAKE_WHEEL)} {name} 99", user)
        pip = f"pip install --quiet --no-index --upgrade /tmp/{name}-99-py3-none-any.whl"
        assert said(sandbox, f"{pip} && python3 -c 'import {name}; print({name}.version)'", user) == "99\n", whose
        assert said(
            sandbox, f"pip list --format=freeze | grep '^{name}=='; PATH=~/.local/bin:$PATH say-{name}", user
        ) == (f"{name}==99\nhi\n")
        # What the system's own programs use of it is as Debian has it.
        assert said(sandbox, "apt-get check -qq && dpkg --audit") == ""


def test_a_cell_installs_what_the_next_imports(sandbox: belljar.Sandbox) -> None:
    for way in ("!", "%"):
        name = {"!": "shelled", "%": "magic"}[way]
        said(sandbox, f"python3 -c {shlex.quote(_MAKE_WHEEL)} {name} 1")
        done = sandbox.run_code(
            f"{way}pip install --quiet --no-index /tmp/{name}-1-py3-none-any.whl\nimport {name}\n{name}.version"
        )
        assert done.error is None, done.error
        assert done.text == "'1'"


def test_the_first_plot_is_quick(sandbox: belljar.Sandbox) -> None:
    done = sandbox.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()", timeout=20)
    assert done.error is None
    assert done.results[0].png is not None
    assert done.stderr == ""  # no note that a cache of fonts is being made


def test_its_python_packages_lie_where_pip_of_root_puts_them(sandbox: belljar.Sandbox) -> None:
    assert said(sandbox, "python3 -c 'import numpy; print(numpy.__file__)'").startswith(f"/{PLACE}/")
    assert Path(PLACE).parts[:2] == ("usr", "local")
