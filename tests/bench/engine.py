"""Every measurement of the engine, one after the other, and one table of their ratios: `make bench-engine`.

Each part starts its own vLLM with the base model of `make up`, so nothing else should be running.
"""

from __future__ import annotations

import json

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from tests.bench import activated, agent_step, grounding, lora_kernels, placement

PARTS = (placement, lora_kernels, grounding, agent_step, activated)


def main() -> None:
    """Runs the parts and collects what they wrote into build/bench/engine.json."""
    folder = REPOSITORY / "build" / "bench"
    collected = {}
    for part in PARTS:
        name = part.__name__.rpartition(".")[2]
        Progress().show(f"\n{name}")
        part.main()
        collected[name] = json.loads((folder / f"{name}.json").read_text())
    (folder / "engine.json").write_text(json.dumps(collected, indent=2) + "\n")


if __name__ == "__main__":
    main()
