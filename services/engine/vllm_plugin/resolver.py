"""Decides which adapters the engine serves: those of the store, every byte of them checked at their first request.

Whether one fits the base model and the prompts is not asked here; who sends the requests knows that.
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from pathlib import Path

from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMNotFoundError
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from services.engine.vllm_plugin import events
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import ADAPTER_NAME
from services.shared.contracts.errors import AdapterRefused, Unavailable

_NAME = "AgentFlux adapter store"


def install(store: Path, *, max_rank: int | None, activated: bool) -> None:
    """Makes vLLM ask the store in the folder `store` for models it does not know."""
    LoRAResolverRegistry.resolvers[_NAME] = StoreResolver(store, max_rank=max_rank, activated=activated)


class StoreResolver(LoRAResolver):  # type: ignore[misc]
    """vLLM asks once per name, whatever the number of requests that wait for it, and never again once it was answered."""

    def __init__(self, store: Path, *, max_rank: int | None, activated: bool) -> None:
        self._root = store.resolve()
        self._store = AdapterStore(self._root)
        self._max_rank = max_rank
        self._activated = activated

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest:
        """The adapter of that name.

        Raises:
            VLLMNotFoundError: no adapter is called so (404).
            VLLMClientError: the adapter is refused (400); the message says why.
            GracefulHTTPError: the store cannot be read (503).
        """
        try:
            # Weights are large and are hashed; meanwhile the server has other requests to answer.
            path = await asyncio.to_thread(self._checked, lora_name)
        except Unavailable as error:
            raise GracefulHTTPError(error.message, HTTPStatus.SERVICE_UNAVAILABLE) from None
        except (VLLMNotFoundError, AdapterRefused) as error:
            events.adapter_refused(lora_name, str(error))
            raise error if isinstance(error, VLLMNotFoundError) else VLLMClientError(str(error)) from None
        # vLLM puts an id of its own in the place of the 0.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path))

    def _checked(self, name: str) -> Path:
        path = self._root / name
        if not ADAPTER_NAME.fullmatch(name) or (self._root.is_dir() and not os.path.lexists(path)):
            raise VLLMNotFoundError(f"{name!r:.300} does not exist: it is neither the base model nor a published adapter.")
        if path.resolve().parent != self._root:
            raise AdapterRefused(f"adapter {name} is a link that leads out of the store")
        card = self._store.verify(name)
        # A worker would refuse it too, but the client would only hear that it could not be loaded.
        if self._max_rank is not None and card.rank > self._max_rank:
            raise AdapterRefused(
                f"adapter {name} has rank {card.rank}, this engine takes up to {self._max_rank}; restart it, and it makes room "
                "for what is published, or set its max_lora_rank"
            )
        if card.activation_tokens and not self._activated:
            raise AdapterRefused(f"adapter {name} is an activated one, and this engine would let it act on the whole prompt")
        return path
