"""Which parts of the plugin are on. The one file here that reads the environment, which the launcher of vLLM writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "AGENTFLUX_ENGINE_PLUGIN_"


@dataclass(frozen=True)
class Switches:
    """`store` is the adapter store, None for an engine that serves the base model alone. `max_rank` is vLLM's, None where the
    launcher does not say it."""

    store: Path | None
    max_rank: int | None
    kernels: bool
    activated: bool


def read_switches() -> Switches:
    """`AGENTFLUX_ENGINE_PLUGIN_STORE` (a path; not set: no store), `…_MAX_RANK`, `…_KERNELS` (`0` leaves vLLM's) and
    `…_ACTIVATED` (`1`)."""
    store, max_rank = os.environ.get(f"{_PREFIX}STORE"), os.environ.get(f"{_PREFIX}MAX_RANK")
    return Switches(
        store=Path(store) if store else None,
        max_rank=int(max_rank) if max_rank else None,
        kernels=os.environ.get(f"{_PREFIX}KERNELS") != "0",
        activated=os.environ.get(f"{_PREFIX}ACTIVATED") == "1",
    )
