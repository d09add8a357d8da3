"""Routes of templates."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from belljar.front.native import schema, schema_snapshots
from belljar.front.native.render import reply
from belljar.front.native.render_snapshots import template_json
from belljar.front.native.route import CHECKED, ProductOf, Who

__all__ = ("router",)

router = APIRouter(prefix="/v1/templates", tags=["templates"], dependencies=CHECKED)
TemplateName = Annotated[str, Path(max_length=64)]


@router.post("", status_code=201, response_model=schema_snapshots.TemplateOut, summary="Create a template")
async def create(body: schema_snapshots.CreateTemplate, product: ProductOf, who: Who) -> Response:
    """Answers when sandboxes can start from it; goes on when the client leaves. A GET of its name says how far it is."""
    made = await product.templates.create(who.workspace, body.spec(), overwrite=body.replace, key=who.key)
    return reply(template_json(made), 201, made=f"/v1/templates/{made.spec.name}")


@router.get("", response_model=schema_snapshots.TemplateList, summary="List templates")
async def list_(product: ProductOf, who: Who) -> Response:
    """In the order of their names; those being made too."""
    return reply({"items": [template_json(one) for one in await product.templates.list(who.workspace)]})


@router.get("/{name}", response_model=schema_snapshots.TemplateOut, summary="Show a template")
async def get(name: TemplateName, product: ProductOf, who: Who) -> Response:
    return reply(template_json(await product.templates.get(who.workspace, name)))


@router.delete("/{name}", response_model=schema.Empty, summary="Delete a template")
async def delete(name: TemplateName, product: ProductOf, who: Who) -> Response:
    """With its snapshot; what was made from it goes on. One that is being made is given up."""
    await product.templates.delete(who.workspace, name)
    return reply({})
