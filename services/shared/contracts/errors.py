"""Every error that crosses a hop, with its stable code and HTTP status.

    AgentFluxError                     internal_error             500
    ├── InvalidRequest                 invalid_request            400
    │   ├── InvalidToolSchema          invalid_tool_schema        400
    │   ├── AdapterRefused             adapter_refused            400
    │   └── ContextLengthExceeded      context_length_exceeded    400
    ├── Unauthorized                   invalid_api_key            401
    ├── Forbidden                      forbidden                  403
    ├── NotFound                       not_found                  404
    │   └── ModelNotFound              model_not_found            404
    ├── MethodNotAllowed               method_not_allowed         405
    ├── RequestTooLarge                request_too_large          413
    ├── ArgumentsInvalid               arguments_invalid          422
    ├── RateLimited                    rate_limit_exceeded        429
    ├── BudgetSpent                    insufficient_quota         429
    ├── UpstreamError                  upstream_error             502
    ├── Unavailable                    service_unavailable        503
    │   ├── EngineUnavailable          engine_unavailable         503
    │   └── Overloaded                 overloaded                 503
    └── DeadlineExceeded               deadline_exceeded          504

Over the wire an error is the OpenAI error object, `{"error": {"message", "type", "code", "param"}}`; the code names the
class again on the other side. Normal outcomes (no majority, a cache miss, a tool that reports an error) are values, not errors.
"""

from __future__ import annotations

from typing import Any

# A client SDK that is told to wait longer does not retry at all.
LONGEST_RETRY_AFTER_S = 120.0


class AgentFluxError(Exception):
    """Something that should not happen; `message` names the thing, the value and the next step."""

    code = "internal_error"
    status = 500
    # Seconds after which a retry is worthwhile; None where a retry of the same request cannot help.
    retry_after: float | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if retry_after is not None:
            self.retry_after = min(retry_after, LONGEST_RETRY_AFTER_S)

    @property
    def type(self) -> str:
        """OpenAI's coarse class of the error: whose turn it is to act."""
        return "invalid_request_error" if self.status < 500 else "server_error"

    def envelope(self) -> dict[str, Any]:
        """The OpenAI error object, as every HTTP reply with status ≥ 400 carries it."""
        return {"error": {"message": self.message, "type": self.type, "code": self.code, "param": self.param}}


class InvalidRequest(AgentFluxError):
    """The request cannot be served as it is written; `param` names the field."""

    code = "invalid_request"
    status = 400


class InvalidToolSchema(InvalidRequest):
    """A tool's `parameters` is not a JSON Schema, or one that no decoder can follow."""

    code = "invalid_tool_schema"


class AdapterRefused(InvalidRequest):
    """An adapter, or a manifest of adapters, is not what it says, or does not fit what is served; the message says why."""

    code = "adapter_refused"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and reply together do not fit in the model's context; nothing was truncated."""

    code = "context_length_exceeded"


class Unauthorized(AgentFluxError):
    """The caller's API key is missing, unknown or expired."""

    code = "invalid_api_key"
    status = 401


class Forbidden(AgentFluxError):
    """The caller's API key is good, but not for this."""

    code = "forbidden"
    status = 403


class NotFound(AgentFluxError):
    """No such route or thing."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """The `model` is neither the base model nor a toolset."""

    code = "model_not_found"


class MethodNotAllowed(AgentFluxError):
    """The route exists, the method does not."""

    code = "method_not_allowed"
    status = 405


class RequestTooLarge(AgentFluxError):
    """The body is larger than the service's `max_body_bytes`."""

    code = "request_too_large"
    status = 413


class ArgumentsInvalid(AgentFluxError):
    """The model wrote arguments which do not satisfy the tool's schema, twice."""

    code = "arguments_invalid"
    status = 422


class RateLimited(AgentFluxError):
    """The caller used up what its API key allows per minute."""

    code = "rate_limit_exceeded"
    status = 429
    retry_after = 1.0


class BudgetSpent(AgentFluxError):
    """The caller used up what its API key allows per day; retrying soon cannot help."""

    code = "insufficient_quota"
    status = 429


class UpstreamError(AgentFluxError):
    """A dependency answered, but not with what its contract promises."""

    code = "upstream_error"
    status = 502


class Unavailable(AgentFluxError):
    """A dependency cannot be reached, or says it cannot serve now."""

    code = "service_unavailable"
    status = 503
    retry_after = 2.0


class EngineUnavailable(Unavailable):
    """The engine is starting, restarting or gone."""

    code = "engine_unavailable"


class Overloaded(Unavailable):
    """This service has as much to do as it can; nothing of the request was begun."""

    code = "overloaded"


class DeadlineExceeded(AgentFluxError):
    """A hop did not answer within its deadline."""

    code = "deadline_exceeded"
    status = 504
    retry_after = 2.0


_BY_CODE: dict[str, type[AgentFluxError]] = {
    error.code: error
    for error in (
        AgentFluxError, InvalidRequest, InvalidToolSchema, AdapterRefused, ContextLengthExceeded, NotFound, ModelNotFound,
        MethodNotAllowed, RequestTooLarge, ArgumentsInvalid, UpstreamError, Unavailable, EngineUnavailable, DeadlineExceeded,
        Unauthorized, Forbidden, RateLimited, BudgetSpent, Overloaded,
    )
}  # fmt: skip


def error_from(status: int, body: object, *, service: str) -> AgentFluxError:
    """The error which `service` sent as `body` with HTTP `status`.

    A body of ours gives its own class back. Anything else says what arrived: 5xx become `UpstreamError`,
    4xx `InvalidRequest`, because the request that we passed on was refused.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(error.get("code"), str) and error["code"] in _BY_CODE:
        return _BY_CODE[error["code"]](str(error.get("message")), param=error.get("param"))
    said = error.get("message") if isinstance(error, dict) else None
    message = f"{service} answered {status}: {said or body!r:.500}"
    return UpstreamError(message) if status >= 500 else InvalidRequest(message)
