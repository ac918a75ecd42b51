"""The notes server as a toolset that the sandbox can start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from services.sandbox.pinning import PinnedTool, lock_of
from services.shared.contracts.tools import Tool
from tests.trainer.grammars import notes_server

LIMITS = {"wall_s": 10, "start_s": 10, "memory_bytes": 256 * 1024 * 1024, "processes": 24}
TOOLS = [Tool(name=tool["name"], description=tool["description"], parameters=tool["inputSchema"]) for tool in notes_server.TOOLS]


def notes_toolset(root: Path) -> Path:
    """Writes `root`/notes; gives `root`."""
    folder = root / "notes"
    folder.mkdir(parents=True)
    shutil.copy(notes_server.__file__, folder / "server.py")
    entries = {"command": ["/usr/bin/python3", "/toolset/server.py"], "limits": LIMITS}
    (folder / "toolset.yaml").write_text(yaml.safe_dump(entries))
    (folder / "tools.json").write_text(json.dumps([tool.openai() for tool in TOOLS]))
    (folder / "toolset.lock.json").write_text(json.dumps(lock_of([PinnedTool(tool) for tool in TOOLS], None)))
    # Tools run as another user when the tests run as root.
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root
