"""A POST route without FastAPI's dependency machinery, which costs more than what a busy door does itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from services.shared.contracts.errors import InvalidRequest


class DirectRoute(APIRoute):
    """For endpoints of the form `async (body: Model, http: Request) -> Response`; documented as any other route.

    The body is JSON whatever the content type says. Raises RequestValidationError as FastAPI does.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        model = get_type_hints(endpoint)["body"]

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            http = Request(scope, receive, send)
            try:
                given = await http.json()
                if not isinstance(given, dict):
                    raise InvalidRequest(f"the body is {given!r:.100}; it is a JSON object")
                body = model.model_validate(given)
            except ValidationError as error:
                raise RequestValidationError(error.errors()) from None
            except ValueError as error:
                # Of json.loads: no JSON, no UTF-8, an integer of thousands of digits.
                problem = {"type": "json_invalid", "loc": ("body",), "msg": "not JSON", "ctx": {"error": str(error)}}
                raise RequestValidationError([problem]) from None
            response: Response = await endpoint(body, http)
            await response(scope, receive, send)

        # Not by way of starlette's `request_response`: errors find their handlers one layer further out, too.
        self.app = serve
