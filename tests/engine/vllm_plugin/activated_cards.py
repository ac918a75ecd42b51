"""Cards of adapters of which only the activation tokens matter."""

from __future__ import annotations

from services.shared.contracts.adapters import WEIGHTS_FILE, AdapterCard

_ANY = "0" * 64


def card(tool: str, activation: list[int] | None, *, rank: int = 8, seed: int = 0) -> AdapterCard:
    """The card of an argument adapter for `tool`."""
    return AdapterCard(
        toolset="toolset",
        role="arguments",
        tool=tool,
        base_model="smollm2-135m-instruct",
        base_fingerprint=_ANY,
        template_hash=_ANY,
        prompt_profile="compact",
        tools_digest=_ANY,
        rank=rank,
        activation_tokens=activation,
        data_sha256=_ANY,
        seed=seed,
        created_at="2026-01-01T00:00:00Z",
        files={WEIGHTS_FILE: _ANY},
    )
