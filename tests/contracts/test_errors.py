"""Errors cross every hop as themselves, and the picture at the head of the module is true."""

from __future__ import annotations

import json
import re

import pytest

from services.shared.contracts import errors
from services.shared.contracts.errors import (
    AgentFluxError,
    EngineUnavailable,
    InvalidRequest,
    RateLimited,
    Unavailable,
    UpstreamError,
    error_from,
)


def subclasses(parent: type[AgentFluxError]) -> list[type[AgentFluxError]]:
    return [parent, *(found for child in parent.__subclasses__() for found in subclasses(child))]


# Only those of the module itself: a test elsewhere may derive one of its own.
CLASSES = [error for error in subclasses(AgentFluxError) if error.__module__ == errors.__name__]
TREE_LINE = re.compile(r"^    ((?:│   |    )*)(?:[├└]── )?(\w+) +(\w+) +(\d{3})$")


def drawn_tree() -> list[tuple[str, str | None, str, int]]:
    """The docstring's lines as (class, parent, code, status)."""
    trail: list[str] = []
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        if found := TREE_LINE.match(line):
            indent, name, code, status = found.groups()
            depth = len(indent) // 4 + ("──" in line)
            trail = [*trail[:depth], name]
            drawn.append((name, trail[-2] if depth else None, code, int(status)))
    return drawn


def test_the_drawn_tree_is_the_tree_of_classes():
    real = [
        (error.__name__, None if error is AgentFluxError else error.__mro__[1].__name__, error.code, error.status)
        for error in CLASSES
    ]
    assert sorted(drawn_tree(), key=str) == sorted(real, key=str)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
@pytest.mark.parametrize("param", [None, "messages.0.content"])
def test_every_error_crosses_a_hop_as_its_own_class(error, param):
    sent = error("the toolset 'files' is unknown", param=param)
    arrived = error_from(sent.status, json.loads(json.dumps(sent.envelope())), service="selector")
    assert type(arrived) is error
    assert (arrived.message, arrived.param, arrived.status) == (sent.message, sent.param, sent.status)
    assert str(arrived) == sent.message


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_an_openai_error_object(error):
    body = error("what happened").envelope()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "code", "param"]
    assert body["error"]["type"] == ("invalid_request_error" if error.status < 500 else "server_error")


def test_a_retry_is_never_put_off_longer_than_client_sdks_accept():
    assert RateLimited("wait", retry_after=3600).retry_after == 120
    assert RateLimited("wait", retry_after=7).retry_after == 7
    assert RateLimited.retry_after == 1


def test_codes_are_unique_and_every_class_says_when_it_is_raised():
    assert len({error.code for error in CLASSES}) == len(CLASSES)
    assert all(error.__doc__ for error in CLASSES)


def test_a_retry_is_suggested_only_where_it_can_help():
    assert {error.code for error in CLASSES if error.retry_after} == {
        "service_unavailable",
        "engine_unavailable",
        "deadline_exceeded",
        "rate_limit_exceeded",
        "overloaded",
    }
    assert issubclass(EngineUnavailable, Unavailable)


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (500, {"error": {"message": "CUDA error", "code": 500}}, UpstreamError, "CUDA error"),
        (503, {"error": {"message": "sleeping", "code": "model_overloaded"}}, UpstreamError, "sleeping"),
        (400, {"error": {"message": "bad n", "code": None}}, InvalidRequest, "bad n"),
        (404, {"detail": "Not Found"}, InvalidRequest, "Not Found"),
        (502, "<html>Bad Gateway</html>", UpstreamError, "Bad Gateway"),
        (500, None, UpstreamError, "None"),
        (500, [], UpstreamError, "[]"),
        (500, {"error": "a string"}, UpstreamError, "a string"),
    ],
)
def test_a_strangers_error_says_who_answered_what(status, body, expected, said):
    error = error_from(status, body, service="engine")
    assert type(error) is expected
    assert error.message.startswith(f"engine answered {status}: ")
    assert said in error.message


def test_a_strangers_long_page_is_quoted_in_part():
    assert len(error_from(500, "x" * 100_000, service="engine").message) < 1000
