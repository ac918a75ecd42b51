"""A POST route without FastAPI's dependency machinery, which costs more than what a busy door does itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.routing import request_response


class DirectRoute(APIRoute):
    """For endpoints of the form `async (body: Model, http: Request) -> Response`; documented as any other route.

    The body is JSON whatever the content type says. Raises RequestValidationError as FastAPI does.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        model = get_type_hints(endpoint)["body"]

        async def respond(http: Request) -> Response:
            try:
                body = model.model_validate(await http.json())
            except ValidationError as error:
                raise RequestValidationError(error.errors()) from None
            except ValueError as error:
                # Of json.loads: no JSON, no UTF-8, an integer of thousands of digits.
                problem = {"type": "json_invalid", "loc": ("body",), "msg": "not JSON", "ctx": {"error": str(error)}}
                raise RequestValidationError([problem]) from None
            response: Response = await endpoint(body, http)
            return response

        self.app = request_response(respond)
