#!/usr/bin/env python3
"""Writes docs/api.md, every route of the native API, from its OpenAPI; `--check` only says whether it is stale."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from belljar.front.native.app import native_routes

__all__ = ("main", "page")

TARGET = Path(__file__).resolve().parent.parent / "docs/api.md"
Schema = Mapping[str, Any]
HEAD = """# The native HTTP API

Made by scripts/make_api.py: do not edit. A running server has the same as OpenAPI at `/openapi.json`.

Requests have `Authorization: Bearer KEY` on TCP and nothing on the unix socket; scopes are told in [keys](keys.md). Bodies are
JSON with no names but those below; **bold** ones must be there, all others may be left out. Times are seconds since 1970, sizes
bytes or text such as `512MiB`, durations seconds or text such as `5m`. Lists come in pages: `limit`, and `cursor` with what
`next` of the page before said. What can go wrong, on every route: [errors](errors.md).
"""
_MEANT = {
    "application/json": "",
    "application/octet-stream": "bytes",
    "application/x-tar": "a tar",
    "application/vnd.belljar.output": "pieces of output ([wire](wire.md))",
    "application/x-ndjson": "lines of JSON",
    "text/plain": "text",
}


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        fresh = TARGET.is_file() and TARGET.read_text() == page()
        if not fresh:
            print("docs/api.md is stale (run scripts/make_api.py)", file=sys.stderr)
        return 0 if fresh else 1
    TARGET.write_text(page())
    return 0


def page() -> str:
    said = native_routes().openapi()
    schemas: Mapping[str, Schema] = said["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, methods in said["paths"].items():
        for method, route in methods.items():
            tag = (route.get("tags") or ["server"])[0]
            groups.setdefault(tag, []).append("\n".join(_route(method, path, route, schemas)))
    return HEAD + "".join(f"\n## {tag.capitalize()}\n\n" + "\n\n".join(routes) + "\n" for tag, routes in groups.items())


def _route(method: str, path: str, route: Schema, schemas: Mapping[str, Schema]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"{route['summary']}. {_line(route.get('description', ''))}".rstrip() + "\n"
    rows = [
        (one["name"], one["in"], one["schema"], one["required"])
        for one in route.get("parameters", [])
        if one["in"] != "path"
    ]
    body = route.get("requestBody", {}).get("content", {})
    for kind, content in body.items():
        named = _resolved(content.get("schema", {}), schemas)
        required = named.get("required", [])
        if told := _line(named.get("description", "")):
            yield f"{told}\n"
        if kind == "application/json":
            rows += [(name, "", field, name in required) for name, field in named.get("properties", {}).items()]
        else:
            yield f"Body: {_MEANT.get(kind) or kind}.\n"
    if rows:
        yield "| | | |\n|---|---|---|"
        for name, where, field, required in rows:
            shown = f"**`{name}`**" if required else f"`{name}`"
            yield f"| {shown}{f' ({where})' if where else ''} | {_type(field, schemas)} | {_about(field)} |"
        yield ""
    yield f"→ {_answers(route['responses'], schemas)}"


def _answers(responses: Mapping[str, Any], schemas: Mapping[str, Schema]) -> str:
    told: list[str] = []
    for status, response in responses.items():
        if status.endswith("XX") or not status.startswith("2"):
            continue
        kinds = [_meant(kind, content, schemas) for kind, content in response.get("content", {}).items()]
        told.append(f"{status}: {' or '.join(kinds) or 'nothing'}")
    return "; ".join(told)


def _meant(kind: str, content: Schema, schemas: Mapping[str, Schema]) -> str:
    if kind != "application/json":
        return _MEANT.get(kind) or f"`{kind}`"
    schema = _resolved(content.get("schema", {}), schemas)
    names = ", ".join(f"`{name}`" for name in schema.get("properties", {}))
    return f"{{{names}}}" if names else "{}"


def _resolved(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    return schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _type(schema: Schema, schemas: Mapping[str, Schema]) -> str:
    if "$ref" in schema:
        found = _resolved(schema, schemas)
        inside = found.get("properties", {})
        return "{" + ", ".join(f"`{name}`" for name in inside) + "}" if inside else _type(found, schemas)
    if "anyOf" in schema:
        kinds = dict.fromkeys(_type(one, schemas) for one in schema["anyOf"])
        return " or ".join(kinds)
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(word)}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}), schemas)}"
        case "object" if isinstance(more := schema.get("additionalProperties"), dict):
            return f"object of {_type(more, schemas)}"  # pyright: ignore[reportUnknownArgumentType]
        case str(kind):
            return kind
        case _:
            return "any"


def _about(schema: Schema) -> str:
    said = [_line(schema.get("description", "")).rstrip(".")]
    if schema.get("default") is not None and schema["default"] not in ([], {}):
        said.append(f"default `{json.dumps(schema['default'])}`")
    elif examples := schema.get("examples"):
        said.append(f"for example `{json.dumps(examples[0])}`")
    return "; ".join(word for word in said if word).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
