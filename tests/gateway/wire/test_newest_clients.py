"""Whatever the installed clients' own types know of is understood here, or refused on purpose: a new release may bring more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from anthropic.types.beta import BetaContentBlockParam
from anthropic.types.beta.beta_tool_result_block_param import Content
from openai.types.chat import completion_create_params as chat
from openai.types.responses import input_token_count_params, response_compact_params, response_create_params
from openai.types.responses.response_function_call_output_item_list_param import ResponseFunctionCallOutputItemParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam

from services.gateway.wire import requests, responses_requests
from services.gateway.wire.media import MEDIA
from services.gateway.wire.messages_requests import BLOCKS, LEFT_OUT, READ_AS_TEXT, RESULT_BLOCKS
from services.gateway.wire.responses_items import CLIENT_CALLS, CLIENT_OUTPUTS, ITEMS, TEXT_PARTS
from services.gateway.wire.responses_items import LEFT_OUT as ITEMS_LEFT_OUT


def kinds(union: Any) -> Iterator[str]:
    """The values of `type` in the members of a union of typed dictionaries."""
    for member in (each for each in get_args(union) if isinstance(each, type)):
        hint = get_type_hints(member).get("type")
        while hint is not None and get_origin(hint) is not Literal:
            hint = next((each for each in get_args(hint) if each is not type(None)), None)
        yield from get_args(hint)


def test_every_field_of_a_chat_request_is_known() -> None:
    known = {*requests.ChatBody.model_fields, *requests.RELAYED, *requests.WITHOUT_EFFECT}
    assert set(get_type_hints(chat.CompletionCreateParamsStreaming)) - known == set()


@pytest.mark.parametrize(
    "params",
    [
        response_create_params.ResponseCreateParamsStreaming,
        input_token_count_params.InputTokenCountParams,
        response_compact_params.ResponseCompactParams,
    ],
)
def test_every_field_of_a_responses_request_is_known(params: type) -> None:
    known = {*responses_requests.ResponsesBody.model_fields, *responses_requests.WITHOUT_EFFECT}
    assert set(get_type_hints(params)) - known == set()


def test_every_item_of_a_responses_input_is_known() -> None:
    understood = {*ITEMS, *CLIENT_CALLS, *CLIENT_OUTPUTS, *ITEMS_LEFT_OUT, "compaction", "compaction_trigger"}
    found = set(kinds(ResponseInputItemParam))
    assert len(found) > 25, "the types are not where they were"
    assert found - understood == set()


def test_every_block_of_a_message_is_known_or_refused_on_purpose() -> None:
    understood = {*READ_AS_TEXT, *(kind for kinds in (*BLOCKS.values(), *LEFT_OUT.values()) for kind in kinds)}
    found = set(kinds(BetaContentBlockParam))
    assert len(found) > 15, "the types are not where they were"
    # Pictures, and files for a container that there is not.
    assert found - understood == {"image", "container_upload"}


@pytest.mark.parametrize(("union", "understood"), [(Content, RESULT_BLOCKS), (ResponseFunctionCallOutputItemParam, TEXT_PARTS)])
def test_whatever_a_tool_may_return_is_understood(union: Any, understood: tuple[str, ...]) -> None:
    found = set(kinds(union))
    assert len(found) > 2, "the types are not where they were"
    assert found - {*understood, *MEDIA} == set()
