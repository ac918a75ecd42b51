"""What vLLM calls in each of its processes before it does anything else: puts the parts of the plugin in their places."""

from __future__ import annotations

from functools import cache

from vllm.platforms import current_platform

from services.engine.vllm_plugin import activated, loads, punica
from services.engine.vllm_plugin.events import log
from services.engine.vllm_plugin.guard import obstacle, vllm_version
from services.engine.vllm_plugin.switches import Switches, read_switches


# Cached, because there are two entry points where the repository is both installed and on PYTHONPATH.
@cache
def register() -> None:
    """Patches vLLM as the environment says, or not at all if it is not the vLLM that the patches were written for."""
    switches = read_switches()
    activated_on = _patch(switches)
    if switches.store:
        # Not a patch: vLLM has a place for it. Imported here, since an engine without a store needs nothing of it.
        from services.engine.vllm_plugin import resolver

        resolver.install(switches.store, max_rank=switches.max_rank, activated=activated_on)


def _patch(switches: Switches) -> bool:
    """Whether adapters can be activated ones now."""
    kernels = switches.kernels and current_platform.is_cpu()
    # vLLM's own CPU kernels let adapters act on tokens that have none.
    activating = switches.activated and (kernels or not current_platform.is_cpu())
    expected = loads.EXPECTED | (punica.EXPECTED if kernels else {})
    if activating:
        expected |= activated.EXPECTED | ({} if current_platform.is_cpu() else activated.EXPECTED_ON_GPU)
    if reason := obstacle(expected, vllm_version()):
        log.warning("agentflux leaves vLLM unpatched: %s", reason)
        return False
    loads.install()
    if kernels:
        punica.install()
    if activating:
        activated.enable()
    log.info("agentflux: adapter events%s%s", ", LoRA kernels" if kernels else "", ", activated LoRA" if activating else "")
    return activating
