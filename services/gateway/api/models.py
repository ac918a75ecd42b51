"""The door for GET /v1/models: the base model and the registered toolsets."""

from __future__ import annotations

from fastapi import APIRouter

from services.gateway.toolsets import Catalogue
from services.shared.contracts.tools import JsonObject


def router(catalogue: Catalogue, *, created: int) -> APIRouter:
    """The routes; `created` (Unix seconds) is when this deployment came up."""
    routes = APIRouter()

    def entry(name: str) -> JsonObject:
        model = {"id": name, "object": "model", "created": created, "owned_by": "agentflux"}
        return model if name == catalogue.base_model else {**model, "parent": catalogue.base_model}

    @routes.get("/v1/models")
    async def models() -> JsonObject:
        return {"object": "list", "data": [entry(name) for name in catalogue.models]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> JsonObject:
        catalogue.default_tools(name)
        return entry(name)

    return routes
