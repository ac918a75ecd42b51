"""The processor in either runner of vLLM's, by the hooks that they call."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate

from services.engine.vllm_plugin.grounding import Grounding
from services.shared.contracts.grounding import GROUNDING_ARGUMENT, LIKELY
from tests.fakes import toy_renderer

TOKENIZER = toy_renderer()._tokenizer
VOCABULARY = TOKENIZER.get_vocab_size()


def tokens(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


SLASH, A, N = tokens("/an")
PROMPT, WRITTEN = tokens("in clinic/a.md"), tokens("clinic")


def params(nats: object) -> SamplingParams:
    return SamplingParams(extra_args={GROUNDING_ARGUMENT: nats})


@pytest.fixture
def config(tmp_path):
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    return SimpleNamespace(model_config=SimpleNamespace(tokenizer=str(tmp_path)))


def likely(rows: int) -> torch.Tensor:
    """Logits of which those of a slash, an a and an n are the highest."""
    logits = torch.zeros(rows, VOCABULARY)
    logits[:, [SLASH, A, N]] = 9
    return logits


def test_the_first_runner_has_it_applied_to_those_who_asked_wherever_they_move(config):
    processor = Grounding(config, torch.device("cpu"), False)
    asking, not_asking = (0, params(5.0), PROMPT, WRITTEN), (1, SamplingParams(), PROMPT, WRITTEN)
    processor.update_state(BatchUpdate(batch_size=2, removed=[], added=[asking, not_asking], moved=[]))
    assert processor.apply(likely(2))[:, [SLASH, A]].tolist() == [[9, 4], [9, 9]]
    processor.update_state(BatchUpdate(batch_size=1, removed=[1], added=[], moved=[]))
    assert processor.apply(likely(1))[:, [SLASH, A]].tolist() == [[9, 4]]
    processor.update_state(BatchUpdate(batch_size=0, removed=[0], added=[], moved=[]))
    assert processor.apply(likely(1)).equal(likely(1))


def test_it_follows_what_is_written(config):
    written = tokens("cli")
    processor = Grounding(config, torch.device("cpu"), False)
    processor.update_state(BatchUpdate(batch_size=1, removed=[], added=[(0, params(5.0), PROMPT, written)], moved=[]))
    assert processor.apply(likely(1))[0, SLASH] == 4
    written += tokens("nic")
    assert processor.apply(likely(1))[0, SLASH] == 9


def test_the_second_runner_has_it_read_the_tokens_of_its_slots(config):
    held = torch.zeros(4, 64, dtype=torch.int32)
    held[2, : len(PROMPT + WRITTEN)] = torch.tensor(PROMPT + WRITTEN)
    buffers = SimpleNamespace(
        prompt_len=SimpleNamespace(np=np.array([0, 0, len(PROMPT), 0])), all_token_ids=SimpleNamespace(gpu=held)
    )
    processor = Grounding(config, buffers)
    assert processor.add_request(2, params(5.0))
    assert not processor.add_request(0, SamplingParams())
    last = len(PROMPT + WRITTEN) - 1
    batch = SimpleNamespace(expanded_idx_mapping=torch.tensor([0, 2]), pos=torch.tensor([9, last]))
    assert processor.apply(likely(2), batch)[:, [SLASH, A]].tolist() == [[9, 9], [9, 4]]
    # A prompt is known as a whole while it is read in chunks.
    assert processor.add_request(2, params(5.0))
    chunk = SimpleNamespace(expanded_idx_mapping=torch.tensor([0, 2]), pos=torch.tensor([9, 3]))
    assert processor.apply(likely(2), chunk).equal(likely(2))
    assert processor.apply(likely(2), batch)[:, [SLASH, A]].tolist() == [[9, 9], [9, 4]]
    # Somebody else has the slot now.
    processor.add_request(2, SamplingParams())
    assert processor.apply(likely(2), batch).equal(likely(2))


def test_buffers_that_are_not_as_expected_end_grounding_and_not_the_engine(config, caplog):
    processor = Grounding(config, SimpleNamespace())
    assert processor.add_request(0, params(5.0))
    batch = SimpleNamespace(expanded_idx_mapping=torch.tensor([0]), pos=torch.tensor([len(PROMPT + WRITTEN) - 1]))
    assert processor.apply(likely(1), batch).equal(likely(1))
    assert "agentflux grounds nothing any more: AttributeError" in caplog.text
    assert not processor.add_request(0, params(5.0))


def test_a_model_without_a_tokenizer_file_is_served_ungrounded(tmp_path, caplog):
    nowhere = SimpleNamespace(model_config=SimpleNamespace(tokenizer=str(tmp_path)))
    processor = Grounding(nowhere, torch.device("cpu"), False)
    assert f"agentflux grounds nothing: {tmp_path}" in caplog.text
    processor.update_state(BatchUpdate(batch_size=1, removed=[], added=[(0, params(5.0), PROMPT, WRITTEN)], moved=[]))
    assert processor.apply(likely(1)).equal(likely(1))


@pytest.mark.parametrize("nats", [-1, True, "4", float("nan"), float("inf"), [4.0]])
def test_what_is_no_number_of_nats_is_refused(nats):
    with pytest.raises(ValueError, match=r"agentflux_grounding in vllm_xargs has to be a number of nats"):
        Grounding.validate_params(params(nats))


def test_what_is_not_among_the_likeliest_is_lowered_with_the_rest(config):
    processor = Grounding(config, torch.device("cpu"), False)
    processor.update_state(BatchUpdate(batch_size=1, removed=[], added=[(0, params(5.0), PROMPT, WRITTEN)], moved=[]))
    lowered = likely(1) - processor.apply(likely(1))
    assert lowered[0, SLASH] == 0
    assert (lowered == 5).sum() >= VOCABULARY - LIKELY


def test_where_all_lead_away_nothing_changes(config):
    processor = Grounding(config, torch.device("cpu"), False)
    processor.update_state(BatchUpdate(batch_size=1, removed=[], added=[(0, params(5.0), PROMPT, tokens("clin"))], moved=[]))
    away = torch.zeros(1, VOCABULARY)
    away[0, tokens("i")] = -9
    assert processor.apply(away.clone()).equal(away)
