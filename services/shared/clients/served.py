"""What selector and arguments have in common: engines that serve a base model and the releases of an adapter store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from services.shared.chassis.http import Check
from services.shared.clients.adapters import AdapterStore, check_fit
from services.shared.clients.engines import EngineFleet
from services.shared.clients.releases import ReleaseWatcher
from services.shared.contracts.adapters import AdapterSet, NoReleases, Releases, ServedRelease
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.errors import NotFound, Unavailable
from services.shared.contracts.prompts import PromptRenderer


class EngineSettings(Protocol):
    """The settings of a service that has engines write for it."""

    @property
    def engine_url(self) -> str: ...

    @property
    def engine_timeout_s(self) -> float: ...

    @property
    def base_model(self) -> str: ...

    @property
    def model_dir(self) -> Path: ...

    @property
    def adapter_store(self) -> Path | None: ...


class ServedEngines:
    """What both roles of a turn stand on: the engines, the renderer of their prompts, and the releases they serve.

    Without a store, the base model serves every toolset. The model folder is read here, the engines are asked only when a
    request comes.

    Raises:
        Unavailable: the model folder cannot be used; names what is wrong and the setting.
    """

    def __init__(self, settings: EngineSettings, *, role: str) -> None:
        with _reading(settings.model_dir, role):
            self.renderer = PromptRenderer.load(settings.model_dir)
        prompt = self.renderer.name_prompt(self.renderer.prefix([{"role": "user", "content": "?"}], [], "compact"))
        self.engine = EngineFleet.connect(
            settings.engine_url,
            timeout_s=settings.engine_timeout_s,
            role=role,
            base_model=settings.base_model,
            adapters=lambda: dict.fromkeys(self._watcher.adapters() if self._watcher else (), prompt),
        )
        self._watcher: ReleaseWatcher | None = None
        self._store: AdapterStore | None = None
        if settings.adapter_store is not None:
            self._store = AdapterStore(settings.adapter_store)
            with _reading(settings.model_dir, role):
                fingerprint = base_fingerprint(settings.model_dir)
            self._fits = partial(check_fit, base_fingerprint=fingerprint, template_hash=self.renderer.template_hash)
            self._watcher = ReleaseWatcher(self._store, warm=lambda name: self.engine.warm(name, prompt), fits=self._fits)
        self.releases: Releases = self._watcher or NoReleases()

    def candidate(self, selector: str) -> ServedRelease:
        """A published selector adapter as if it had been promoted.

        Raises:
            AgentFluxError: there is no such adapter, it is broken, or it is for another base model.
        """
        if self._store is None:
            raise NotFound(f"{selector!r} cannot be found: no adapter store is configured")
        card = self._store.verify(selector)
        self._fits(card)
        return ServedRelease(card.toolset, 0, AdapterSet(selector=selector), {selector: card})

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """The store is followed until the end of the block; then the engines are let go. The lifespan of an app."""
        async with self._watcher.following() if self._watcher else nullcontext():
            yield
        await self.engine.aclose()

    @property
    def required(self) -> dict[str, Check]:
        """What has to be ready before a request can be served."""
        required: dict[str, Check] = {"engine": self.engine.ready}
        if self._watcher:
            required["adapters"] = self._watcher.obstacle
        return required

    def register(self, registry: CollectorRegistry) -> None:
        """Shows the metrics of engines and releases on the page of `registry`."""
        registry.register(self.engine.metrics)
        if self._watcher:
            self._watcher.metrics.register(registry)


@contextmanager
def _reading(model_dir: Path, role: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # A tokenizer that cannot be read raises no more special one.
        said = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise Unavailable(
            f"the model folder {model_dir} cannot be used: {said}; put the engine's base model there, or set "
            f"AGENTFLUX_{role.upper()}_MODEL_DIR"
        ) from error
