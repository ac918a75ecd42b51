"""What has to be in the volumes before the services start. Runs once, in the engine's image, at every `up`.

The CPU image carries a base model and starter adapters: they are put into the volumes where they are missing or of another
version of the image. The GPU image carries none: the mounted model folder is checked, so that one sentence says what is wrong.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from deploy.local.starters import seed
from services.engine.preflight import obstacle
from services.engine.settings import EngineSettings
from services.shared.contracts.errors import AgentFluxError

BAKED = Path("/opt/agentflux")


def place_model(baked: Path, volume: Path) -> bool:
    """Makes `volume` hold the model in `baked`; False when it does already. The manifest, with every file's hash, comes last."""
    manifest = (baked / "manifest.json").read_bytes()
    if (volume / "manifest.json").is_file() and (volume / "manifest.json").read_bytes() == manifest:
        return False
    (volume / "manifest.json").unlink(missing_ok=True)
    for file in sorted(baked.iterdir()):
        if file.name != "manifest.json":
            # Beside it first: whoever has the old file open keeps it whole.
            shutil.copyfile(file, volume / f".{file.name}")
            (volume / f".{file.name}").rename(volume / file.name)
    (volume / "manifest.json").write_bytes(manifest)
    return True


def main() -> int:
    """Prepares the volumes that this container has mounted; the exit status is 1 when the engine could not start on them."""
    settings = EngineSettings()
    try:
        if (BAKED / "model").is_dir():
            print(
                "base model copied into its volume" if place_model(BAKED / "model", settings.model_dir) else "base model is there"
            )
            if settings.adapter_store is not None:
                seed(BAKED / "adapters", settings.adapter_store, say=print)
    except (AgentFluxError, OSError) as error:
        print(f"prepare: {error}; who may write there? This container is user {os.getuid()}", file=sys.stderr)
        return 1
    if reason := obstacle(settings):
        print(f"prepare: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
