"""How the repository looks: sizes, doors, READMEs, links, and what must not be in it."""

import ast
import re
from pathlib import Path

import pytest

from .tree import ROOT, Module, modules, tracked

CAP = 600
VENDORS = ("e2b", "modal", "daytona", "blaxel", "sprites", "northflank", "beam", "smolagents")
BELOW_FRONT = ("base", "model", "wire", "node", "control", "agent")
REGISTRIES = [
    ".".join(words)
    for words in (
        ("pypi", "org"), ("pythonhosted", "org"), ("crates", "io"), ("proxy", "golang", "org"), ("npmjs", "org"),
        ("npmjs", "com"), ("maven", "org"), ("deb", "debian", "org"), ("security", "debian", "org"),
    )
]  # fmt: skip
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".go",
    ".mod",
    ".sum",
    ".sh",
    ".json",
    ".lock",
    ".yml",
    ".yaml",
    ".txt",
    ".cfg",
    ".service",
    "",
}


def texts() -> list[tuple[Path, str]]:
    return [(path, (ROOT / path).read_text(errors="replace")) for path in tracked() if path.suffix in TEXT]


def rooms() -> set[Path]:
    """Folders that need a README: packages (folders with a leading underscore are part of the room above), and what stands
    beside src/."""
    packages = {module.path.parent for module in modules("src", "agent") if module.path.name == "__init__.py"}
    own = {room for room in packages if not any(part == "migrations" or part.startswith("_") for part in room.parts)}
    tops = {path.parent for path in tracked() if len(path.parts) == 2 and not path.parts[0].startswith(".")}
    tests = {Path(*path.parts[:2]) for path in tracked() if path.parts[0] == "tests" and len(path.parts) > 2}
    return (own | tops | tests) - {Path("src/belljar"), Path("docs"), Path("agent/belljar_agent")}


def test_no_file_is_longer_than_the_cap() -> None:
    written = [module for module in modules() if not module.generated]
    sizes = {module.name: module.text.count("\n") for module in written}
    sizes |= {
        str(path): text.count("\n") for path, text in texts() if path.suffix == ".go" or path.parts[0] == "scripts"
    }
    assert {name: lines for name, lines in sizes.items() if lines > CAP} == {}


def test_every_room_says_what_it_is_for() -> None:
    assert sorted(str(room) for room in rooms() if not (ROOT / room / "README.md").is_file()) == []


def test_a_readme_fits_on_a_screen_or_two() -> None:
    readmes = [ROOT / room / "README.md" for room in rooms()]
    long = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in readmes if file.is_file()}
    assert {name: lines for name, lines in long.items() if lines > 80} == {}


def names_its_door(module: Module) -> bool:
    body = ast.parse(module.text).body
    assigned = [target for node in body if isinstance(node, ast.Assign | ast.AnnAssign) for target in targets(node)]
    only_words = all(isinstance(node, ast.Expr) for node in body)
    return "__all__" in assigned or only_words


def targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    found = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in found if isinstance(target, ast.Name)]


def test_every_module_names_what_it_offers() -> None:
    assert [m.name for m in modules("src", "agent") if not m.migration and not names_its_door(m)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [('"""Words."""\n', True), ("x = 1\n", False), ('"""Words."""\n__all__ = ("x",)\nx = 1\n', True)],
)
def test_a_module_without_a_door_is_found(text: str, expected: bool) -> None:
    assert names_its_door(Module(Path("src/belljar/planted.py"), text)) is expected


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [module.name for module in modules() if module.path.stem in empty or empty & set(module.path.parts)] == []


def test_vendor_words_stay_above_the_core() -> None:
    words = re.compile(rf"\b({'|'.join(VENDORS)})\b", re.IGNORECASE)
    core = [module for module in modules("src", "agent") if module.room.split("/")[0] in BELOW_FRONT]
    assert len(core) > 10
    assert [f"{m.name}: {found[0]}" for m in core for found in words.finditer(m.text)] == []


def test_no_path_of_one_machine_and_no_registry_is_named() -> None:
    here = {f"{folder}/" for folder in (ROOT, ROOT.parent) if len(folder.parts) > 2}
    forbidden = [*here, *REGISTRIES, "../" + "shared"]
    found = [(str(path), word) for path, text in texts() for word in forbidden if word in text]
    assert found == []


def test_links_in_the_docs_lead_somewhere() -> None:
    link = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
    broken = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        for target in link.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (ROOT / path.parent / target.partition("#")[0]).exists():
                broken.append(f"{path}: {target}")
    assert broken == []


def test_every_decision_record_is_in_the_index() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    records = [path.name for path in tracked() if path.parent == Path("docs/adr") and path.name[0].isdigit()]
    assert records
    assert [name for name in records if f"({name})" not in index] == []
    numbers = [name.split("-")[0] for name in records]
    assert len(numbers) == len(set(numbers)), "two records have one number"
