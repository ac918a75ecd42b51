"""Tells the supervisor what happens to adapters: one line of vLLM's log per event, which a machine can read.

    agentflux-event {"event": "adapter_loaded", "adapter": "files.select--0123456789ab", "seconds": 0.21}
    agentflux-event {"event": "adapter_evicted", "adapter": "…"}
    agentflux-event {"event": "adapter_refused", "adapter": "…", "reason": "…"}

`seconds` is how long the engine stood still for it. `adapter` of a refused one is whatever was asked for, shortened.
"""

from __future__ import annotations

import json
import logging

MARKER = "agentflux-event"
_LONGEST = 500

# vLLM writes what comes from loggers under its own name, and nothing else.
log = logging.getLogger("vllm.agentflux")


def adapter_loaded(adapter: str, seconds: float) -> None:
    """A worker has read the adapter and put it into a slot."""
    _emit(event="adapter_loaded", adapter=adapter, seconds=round(seconds, 4))


def adapter_evicted(adapter: str) -> None:
    """A worker has dropped the adapter to make room for another; its next request reads it again."""
    _emit(event="adapter_evicted", adapter=adapter)


def adapter_refused(adapter: str, reason: str) -> None:
    """The adapter was asked for and is not served, because of `reason`."""
    _emit(event="adapter_refused", adapter=adapter[:_LONGEST], reason=reason[:_LONGEST])


def _emit(**event: str | float) -> None:
    log.info("%s %s", MARKER, json.dumps(event))
