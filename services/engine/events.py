"""What the plugin inside vLLM's processes tells: lines of JSON among the log lines, which become metrics here."""

from __future__ import annotations

from typing import Annotated, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from services.shared.contracts.adapters import ADAPTER_NAME

EVENT_PREFIX = "agentflux-event "


class AdapterLoaded(BaseModel):
    """The weights of an adapter were read and put into memory, which took `seconds`; requests waited for it."""

    event: Literal["adapter_loaded"]
    adapter: str
    seconds: float


class AdapterEvicted(BaseModel):
    """An adapter left memory, because others needed its place."""

    event: Literal["adapter_evicted"]
    adapter: str


class AdapterRefusedEvent(BaseModel):
    """A name was asked for that is no adapter which may be served."""

    event: Literal["adapter_refused"]
    adapter: str
    reason: str = ""


EngineEvent = Annotated[AdapterLoaded | AdapterEvicted | AdapterRefusedEvent, Field(discriminator="event")]
_EVENT: TypeAdapter[EngineEvent] = TypeAdapter(EngineEvent)


def parse_event(message: str) -> EngineEvent | None:
    """The event in a log message, if it is one."""
    if not message.startswith(EVENT_PREFIX):
        return None
    try:
        return _EVENT.validate_json(message.removeprefix(EVENT_PREFIX))
    except ValidationError:
        return None


def alias_of(adapter: str) -> str:
    """`filesystem.select` of `filesystem.select--0123456789ab`; `other` for what is no adapter's name.

    Versions come and go with every publish, so they are no labels; which one serves is what `agentflux_release` says.
    """
    match = ADAPTER_NAME.fullmatch(adapter)
    return f"{match['toolset']}.{match['alias']}" if match else "other"


class AdapterMetrics:
    """Loads, evictions and refusals of adapters, of which vLLM has no metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter("agentflux_adapter_loads_total", "Adapters read from disk.", ["adapter"], registry=registry)
        self.evictions = Counter(
            "agentflux_adapter_evictions_total", "Adapters that left memory for others.", ["adapter"], registry=registry
        )
        self.refusals = Counter(
            "agentflux_adapter_refusals_total", "Requests for an adapter that may not be served.", ["adapter"], registry=registry
        )
        self.load_seconds = Histogram(
            "agentflux_adapter_load_seconds", "Time of one load.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10), registry=registry
        )

    def observe(self, event: EngineEvent) -> None:
        """Counts one event."""
        match event:
            case AdapterLoaded():
                self.loads.labels(alias_of(event.adapter)).inc()
                self.load_seconds.observe(event.seconds)
            case AdapterEvicted():
                self.evictions.labels(alias_of(event.adapter)).inc()
            case AdapterRefusedEvent():
                self.refusals.labels(alias_of(event.adapter)).inc()
