"""The door for POST /v1/feedback: whether a reply's decision was right."""

from __future__ import annotations

from fastapi import APIRouter

from services.gateway.records.feedback import Feedback, Judgement
from services.shared.contracts.tools import JsonObject


def router(feedback: Feedback) -> APIRouter:
    """The route; `feedback` knows the replies."""
    routes = APIRouter()

    @routes.post("/v1/feedback")
    async def judge(judgement: Judgement) -> JsonObject:
        return await feedback.judge(judgement)

    return routes
