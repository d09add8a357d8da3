import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from belljar.model.errors import ImageNotFound, InvalidArgument
from belljar.node.artifacts import Artifact, Store
from belljar.node.image.catalog import Catalog
from belljar.node.image.ref import check_image_name

GOOD = ["base", "code", "python:3.13-slim", "ghcr.io/astral-sh/uv:0.9", "localhost:5000/team/tool", "a__b-c.d/e:T_1.x"]
BAD = [
    "",
    "Base",
    "a b",
    "../base",
    "/base",
    "base/",
    "a//b",
    "a:",
    ":1",
    "a:b:c",
    "base\n",
    "b\0",
    "ä",
    "-a",
    "a" * 256,
    "a@sha256:12",
]


@pytest.mark.parametrize("name", [*GOOD, f"base@sha256:{'0' * 64}"])
def test_a_name_that_could_be_an_image_is_taken(name: str) -> None:
    assert check_image_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused_with_what_is_legal(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_image_name(name)
    assert len(refused.value.message) < 200
    assert name == "" or refused.value.hint


async def image_artifact(root: Path, content: bytes = b"image", config: object = None) -> Artifact:
    async def build(folder: Path) -> Mapping[str, str]:
        (folder / "image.erofs").write_bytes(content)
        good = {"env": {"PATH": "/bin"}, "user": "root", "workdir": "/root"}
        (folder / "image.json").write_text(json.dumps(config or good))
        return {}

    return await Store(root).make("image", {"content": content.hex(), "config": repr(config)}, build)


async def test_an_image_is_found_by_the_name_it_was_put_under(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "home")
    put = await catalog.put("python:3.13", await image_artifact(tmp_path / "cache"))
    assert put == catalog.get("python:3.13")
    assert put.path.read_bytes() == b"image"
    assert put.path.is_relative_to(tmp_path / "home")
    assert (put.env, put.user, put.workdir, put.size) == ({"PATH": "/bin"}, "root", "/root", 5)
    assert put.digest.startswith("sha256:")
    assert catalog.names() == ("python:3.13",)
    assert catalog.list() == (put,)


async def test_a_name_can_stand_for_newer_content_while_the_older_stays(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "home")
    old = await catalog.put("base", await image_artifact(tmp_path / "cache", b"old"))
    new = await catalog.put("base", await image_artifact(tmp_path / "cache", b"new"))
    assert catalog.get("base") == new
    assert old.path.read_bytes() == b"old"


async def test_an_unknown_image_is_named_with_those_that_exist(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "home")
    with pytest.raises(ImageNotFound, match="belljar setup"):
        catalog.get("base")
    await catalog.put("base", await image_artifact(tmp_path / "cache"))
    with pytest.raises(ImageNotFound) as unknown:
        catalog.get("bass")
    assert "did you mean base?" in (unknown.value.hint or "")
    with pytest.raises(InvalidArgument):
        catalog.get("../base")


async def test_a_damaged_image_is_not_found(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "home")
    put = await catalog.put("base", await image_artifact(tmp_path / "cache"))
    put.path.unlink()
    with pytest.raises(ImageNotFound):
        catalog.get("base")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 3}', '{"key": "../../etc"}', '{"key": "00000000"}'])
async def test_a_record_that_is_no_record_is_not_followed(tmp_path: Path, text: str) -> None:
    catalog = Catalog(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/base.json").write_text(text)
    with pytest.raises(ImageNotFound):
        catalog.get("base")


async def test_a_configuration_that_is_none_is_not_followed(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "home")
    with pytest.raises(ImageNotFound):
        await catalog.put("base", await image_artifact(tmp_path / "cache", config=[1]))
