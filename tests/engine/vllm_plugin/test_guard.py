from __future__ import annotations

import pytest

from services.engine.vllm_plugin import loads, punica
from services.engine.vllm_plugin.guard import obstacle, vllm_version

HERE = {"services.engine.vllm_plugin.guard:obstacle": "(expected, found_version)"}


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0.post1", "0.32.0+cu129"])
def test_a_known_version_of_the_expected_shape_may_be_patched(version):
    assert obstacle(HERE, version) is None


@pytest.mark.parametrize("version", ["0.33.0", "0.3.2", "0.32", "0.32.0rc1", "10.32.0", ""])
def test_another_version_may_not(version):
    assert "was written for vLLM 0.32" in obstacle(HERE, version)


@pytest.mark.parametrize(
    ("symbol", "complaint"),
    [
        ("services.engine.vllm_plugin.guard:vllm_version", "and has "),
        ("services.engine.vllm_plugin.guard:Gone.method", "has none"),
        ("services.engine.vllm_plugin.gone:obstacle", "has none"),
    ],
)
def test_a_symbol_that_changed_or_went_is_named(symbol, complaint):
    reason = obstacle({symbol: "(expected, found_version)"}, "0.32.0")
    assert symbol in reason
    assert complaint in reason


def test_the_installed_vllm_is_the_one_the_patches_were_written_for():
    assert obstacle(loads.EXPECTED | punica.EXPECTED, vllm_version()) is None
