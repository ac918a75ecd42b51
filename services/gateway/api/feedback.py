"""The door for POST /v1/feedback: whether a reply's decision was right."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from services.gateway.api.callers import visit
from services.gateway.api.door import DirectRoute
from services.gateway.records.feedback import Feedback, Judgement
from services.gateway.wire.encoding import as_json


def router(feedback: Feedback) -> APIRouter:
    """The route; `feedback` knows the replies, and whose they are."""
    routes = APIRouter(route_class=DirectRoute)

    @routes.post("/v1/feedback")
    async def judge(body: Judgement, _: Request) -> Response:
        return Response(as_json(await feedback.judge(visit().caller.name, body)), media_type="application/json")

    return routes
