"""Grounding in vLLM: a logits processor, for both of its model runners, which `--logits-processors` names.

A request has it that says `"vllm_xargs": {"agentflux_grounding": NATS}`; what it does is written in
services/shared/contracts/grounding.py. It comes after the grammar, so what it keeps is what the grammar allows. vLLM accepts no
such processor beside speculative decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SecondRunnersProcessor

from services.engine.vllm_plugin.events import log
from services.shared.contracts.grounding import GROUNDING_ARGUMENT, LIKELY, WINDOW, Grounds


class Grounding(AdapterLogitsProcessor, SecondRunnersProcessor):  # type: ignore[misc]
    """The first runner (CPUs) hands each request its tokens; of the second one's (GPUs) they are read back from the device."""

    def __init__(self, vllm_config: Any, *runners_own: Any) -> None:
        self.req_info: dict[int, Any] = {}
        # The second runner hands its buffers over, the first one the device and whether memory is pinned.
        self._states: Any = runners_own[0]
        self._slots: dict[int, _Grounded] = {}
        self._tokenizer = _tokenizer(Path(vllm_config.model_config.tokenizer, "tokenizer.json"))

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises ValueError, which the client gets as an error 400, for what is no number of nats."""
        _nats(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It may well change what is likeliest."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> _Grounded | None:
        """What a new request has done to its logits; None for nothing."""
        nats = _nats(params)
        return _Grounded(self._tokenizer, nats) if nats and self._tokenizer else None

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """The second runner's: takes a slot, whoever had it before."""
        grounded = self.new_req_logits_processor(sampling_params)
        self._slots.pop(req_idx, None)
        if grounded and self._states is not None:
            self._slots[req_idx] = grounded
        return req_idx in self._slots

    def apply(self, logits: Tensor, batch: Any = None) -> Tensor:
        """Lowers logits in place. Shape: (requests, vocabulary)."""
        if batch is None:
            grounded_here: Tensor = super().apply(logits)
            return grounded_here
        # What is read there waits for the device, so nobody reads it for batches in which nothing was ever grounded.
        if self._slots:
            try:
                self._apply_to_slots(logits, batch)
            except Exception as error:
                # An error here would end the engine, and with it every other request.
                log.warning("agentflux grounds nothing any more: %r", error)
                self._states = None
                self._slots.clear()
        return logits

    def _apply_to_slots(self, logits: Tensor, batch: Any) -> None:
        for row, (slot, last) in enumerate(zip(batch.expanded_idx_mapping.tolist(), batch.pos.tolist(), strict=True)):
            if grounded := self._slots.get(slot):
                tokens, end = self._states.all_token_ids.gpu[slot], last + 1
                begun = int(self._states.prompt_len.np[slot])
                # The prompt is read once, and as a whole: this may be the step of one of its chunks.
                prompt = tokens[:begun].tolist() if grounded.grounds is None else ()
                grounded(prompt, tokens[max(begun, end - WINDOW) : end].tolist(), logits[row])


@dataclass
class _Grounded:
    """One request."""

    tokenizer: Tokenizer
    nats: float
    grounds: Grounds | None = None

    def __call__(self, prompt: Sequence[int], written: Sequence[int], logits: Tensor) -> Tensor:
        if self.grounds is None:
            self.grounds = Grounds(self.tokenizer, prompt)
        kept = self.grounds.leading_on(written, lambda: logits.topk(LIKELY).indices.tolist())
        if kept:
            lowered = logits - self.nats
            lowered[kept] = logits[kept]
            logits.copy_(lowered)
        return logits


def _nats(params: SamplingParams) -> float:
    nats = (params.extra_args or {}).get(GROUNDING_ARGUMENT, 0.0)
    if isinstance(nats, bool) or not isinstance(nats, int | float) or not math.isfinite(nats) or nats < 0:
        raise ValueError(f"{GROUNDING_ARGUMENT} in vllm_xargs has to be a number of nats, not below 0; it is {nats!r}")
    return float(nats)


def _tokenizer(path: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises nothing more specific.
        log.warning("agentflux grounds nothing: %s: %s", path, error)
        return None
