"""Where arguments end, and that their words are those of the conversation."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer

from services.shared.contracts.grounding import GROUNDING, Grounds
from trainer.writing import _Grounded, _WholeObject, object_end


def test_an_object_ends_where_it_is_whole() -> None:
    assert object_end('{"a": "}"} and more') == len('{"a": "}"}')
    assert object_end('{"a": [1, {"b": 2}') is None
    assert object_end("[1]") is None


@pytest.mark.parametrize(("text", "stops"), [('{"a": 1}', True), ('{"a": 1', False), ("{", False), ("", False), ('[{"a"', True)])
def test_writing_stops_at_a_whole_object_and_where_there_will_be_none(tokenizer: Tokenizer, text: str, stops: bool) -> None:
    written = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids], dtype=torch.long)
    assert bool(_WholeObject(tokenizer, start=0)(written, torch.empty(0))) == stops


def test_each_row_of_a_batch_keeps_to_its_own_prompt(tokenizer: Tokenizer) -> None:
    def tokens(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    grounds = [Grounds(tokenizer, tokens(prompt)) for prompt in ("in clinic/a.md", "the clinical notes")]
    [slash], [a] = tokens("/"), tokens("a")
    scores = torch.zeros(2, tokenizer.get_vocab_size())
    scores[:, slash], scores[:, a] = 9.0, 10.0
    lowered = _Grounded(grounds, start=1)(torch.tensor([[0, *tokens("clinic")]] * 2), scores)
    assert lowered[:, slash].tolist() == [9.0, 9.0 - GROUNDING]
    assert lowered[:, a].tolist() == [10.0 - GROUNDING, 10.0]
