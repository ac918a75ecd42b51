from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.engine.vllm_plugin.activated import NEVER, acting, activation_start, activation_tokens, block_keys
from services.shared.contracts.adapters import CARD_FILE
from tests.engine.vllm_plugin.activated_cards import card

LORA = ("lora", "name", "/path")
SALT = ("cache_salt", "salt")


def test_an_adapter_without_activation_tokens_acts_from_the_first_token_on():
    assert activation_start([5, 6, 7], []) == 0


def test_an_adapter_acts_from_the_first_token_of_the_last_occurrence_on():
    assert activation_start([1, 2, 9, 1, 2, 8, 8], [1, 2]) == 3
    assert activation_start([1, 2], [1, 2]) == 0
    assert activation_start([9, 1, 1, 1], [1, 1]) == 2


@pytest.mark.parametrize("prompt", [[], [2], [1], [2, 1], [1, 3, 2]])
def test_an_adapter_whose_activation_tokens_are_not_in_the_prompt_never_acts(prompt):
    assert activation_start(prompt, [1, 2]) == NEVER


@pytest.mark.real
def test_the_activation_point_is_where_peft_has_it():
    # Imported here, because it takes seconds.
    import torch
    from peft import LoraConfig
    from peft.tuners.lora.variants import calculate_alora_offsets

    @given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def holds(prompt, tokens):
        config = {"a": LoraConfig(task_type="CAUSAL_LM", alora_invocation_tokens=tokens)}
        [to_the_end] = calculate_alora_offsets(config, "a", torch.tensor([prompt], dtype=torch.long))
        assert activation_start(prompt, tokens) == (NEVER if to_the_end is None else len(prompt) - to_the_end)

    holds()


def test_a_block_that_ends_where_the_adapter_begins_is_the_base_models():
    assert block_keys((LORA,), 64, start=64) is None
    assert block_keys((LORA,), 64, start=65) is None
    assert block_keys((LORA,), 64, start=63) == (LORA,)
    assert block_keys((LORA,), 32, start=0) == (LORA,)
    assert block_keys((LORA,), 32, start=NEVER) is None


def test_a_shared_block_keeps_what_else_tells_it_apart():
    assert block_keys((LORA, SALT), 32, start=32) == (SALT,)
    assert block_keys((LORA, SALT), 32, start=31) == (LORA, SALT)
    assert block_keys(None, 32, start=32) is None


def test_a_step_of_several_requests_tells_for_each_token_whether_its_adapter_acts():
    # Plain, activated in the middle of this chunk, activated later, activated before, absent.
    starts = [0, 12, 50, 3, NEVER]
    acts = acting(starts, computed=np.array([0, 10, 10, 7, 40]), scheduled=np.array([2, 4, 2, 1, 3]))
    assert acts.astype(int).tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0]


@given(st.integers(0, 40), st.lists(st.integers(1, 7), min_size=1, max_size=10))
def test_it_does_not_matter_how_a_prompt_is_cut_into_steps(start, chunks):
    computed = np.cumsum([0, *chunks[:-1]])
    steps = [acting([start], np.array([done]), np.array([n])) for done, n in zip(computed, chunks, strict=True)]
    whole = acting([start], np.array([0]), np.array([sum(chunks)]))
    assert np.concatenate(steps).tolist() == whole.tolist()
    assert whole.sum() == max(0, sum(chunks) - start)


def test_activation_tokens_are_read_from_the_card_once(tmp_path):
    (tmp_path / CARD_FILE).write_text(card("tool", [1, 2]).model_dump_json())
    assert activation_tokens(str(tmp_path)) == [1, 2]
    (tmp_path / CARD_FILE).unlink()
    assert activation_tokens(str(tmp_path)) == [1, 2]


def test_an_adapter_whose_card_has_no_activation_tokens_is_plain(tmp_path):
    (tmp_path / CARD_FILE).write_text(card("tool", None).model_dump_json())
    assert activation_tokens(str(tmp_path)) == []


def test_an_adapter_without_a_card_is_plain_until_it_has_one(tmp_path):
    assert activation_tokens(str(tmp_path / "later")) == []
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / CARD_FILE).write_text(card("tool", [1, 2]).model_dump_json())
    assert activation_tokens(str(tmp_path / "later")) == [1, 2]


def test_a_damaged_card_is_refused(tmp_path):
    (tmp_path / CARD_FILE).write_text('{"activation_tokens": [1, 2]')
    with pytest.raises(ValueError, match="JSON"):
        activation_tokens(str(tmp_path))
