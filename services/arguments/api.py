"""The argument service's door: POST /v1/arguments."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter

from services.shared.chassis.telemetry import describe
from services.shared.contracts import semconv
from services.shared.contracts.arguments import ArgumentGenerator, ArgumentsRequest, GeneratedArguments
from services.shared.contracts.errors import AgentFluxError, ArgumentsInvalid, InvalidToolSchema
from services.shared.contracts.usage import Usage


class ArgumentsMetrics:
    """How often the arguments are right at the first try."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.generated = Counter(
            "agentflux_arguments_total",
            "Arguments by outcome: no_parameters, first_try, repaired, cut, invalid, schema_unusable, error.",
            ["outcome"],
            registry=registry,
        )

    def outcome(self, generated: GeneratedArguments) -> str:
        """The word under which a success is counted."""
        if generated.finish_reason == "length":
            return "cut"
        return {0: "no_parameters", 1: "first_try"}.get(generated.attempts, "repaired")


def router(writer: ArgumentGenerator, metrics: ArgumentsMetrics) -> APIRouter:
    """The routes of the service."""
    routes = APIRouter()

    @routes.post("/v1/arguments")
    async def arguments(request: ArgumentsRequest) -> GeneratedArguments:
        outcome = "error"
        try:
            generated = await writer.generate(request)
            outcome = metrics.outcome(generated)
            describe(
                {
                    semconv.TOOL_NAME: request.tool,
                    semconv.ADAPTER: generated.adapter,
                    semconv.RELEASE: generated.release,
                    semconv.ATTEMPTS: generated.attempts,
                }
            )
            return generated
        except AgentFluxError as error:
            outcome = {ArgumentsInvalid.code: "invalid", InvalidToolSchema.code: "schema_unusable"}.get(error.code, "error")
            raise
        finally:
            metrics.generated.labels(outcome).inc()

    @routes.post("/v1/arguments/prepare")
    async def prepare(request: ArgumentsRequest) -> Usage:
        return await writer.prepare(request)

    return routes
