"""Gateway, selector and argument service as they are, over HTTP, in front of an engine that does what the user says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from deploy.local import base_model
from deploy.local.plan import REPOSITORY, LocalSettings
from services.arguments.app import create_app as arguments_app
from services.arguments.settings import ArgumentsSettings
from services.gateway.app import create_app as gateway_app
from services.gateway.settings import GatewaySettings
from services.selector.app import create_app as selector_app
from services.selector.settings import SelectorSettings
from tests.shared.serving import served
from tests.talking_engine import TalkingEngine

NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Stack:
    """`url` is the gateway's, without /v1; those of selector and argument service beside it."""

    url: str
    selector: str
    arguments: str
    engine: TalkingEngine
    gateway: FastAPI


@asynccontextmanager
async def running_stack(*, delay_s: float = 0.0, word_s: float = 0.0, **settings: Any) -> AsyncIterator[Stack]:
    """The stack with these settings of the gateway; without call cache, sandbox and Redis unless they say where."""
    model = LocalSettings().model
    base_model.prepare(model, say=lambda _: None)
    engine = TalkingEngine(model, delay_s=delay_s, word_s=word_s)
    async with AsyncExitStack() as stack:
        engine_url = await stack.enter_async_context(served(engine.app))
        common: dict[str, Any] = {"engine_url": engine_url, "base_model": "base", "port": 0}
        staged = {**common, "model_dir": model}
        selector = await stack.enter_async_context(served(selector_app(SelectorSettings(**staged))))
        arguments = await stack.enter_async_context(served(arguments_app(ArgumentsSettings(**staged))))
        toolsets = REPOSITORY / "deploy" / "toolsets"
        others = {"selector_url": selector, "arguments_url": arguments, "callcache_url": NOBODY, "toolsets_dir": toolsets}
        gateway = gateway_app(GatewaySettings(**{**common, **others, **settings}))
        yield Stack(await stack.enter_async_context(served(gateway)), selector, arguments, engine, gateway)
