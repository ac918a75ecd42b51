"""The call cache's door: look back at a conversation's calls, or forget them."""

from __future__ import annotations

from fastapi import APIRouter

from services.shared.contracts.calls import CallMemory, LookBack, Standings


def router(memory: CallMemory) -> APIRouter:
    """The routes of the service."""
    routes = APIRouter()

    @routes.post("/v1/look-back")
    async def look_back(request: LookBack) -> Standings:
        return await memory.look_back(request)

    # `:path`, because a client's conversation id may hold a slash.
    @routes.delete("/v1/conversations/{conversation:path}", status_code=204)
    async def clear(conversation: str) -> None:
        await memory.clear(conversation)

    return routes
