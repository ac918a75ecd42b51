"""What counts in a row, and that rows are what the services write."""

from __future__ import annotations

from tokenizers import Tokenizer

from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool
from tests.trainer.conftest import selection_rows, talks
from tests.trainer.rows_of import TOOLS, call, conversation, result, turn
from trainer.rows import Decision, arguments_row, arguments_text, balanced, decisions, merged, selection_row, thinned


def found(row_id: str, name: str = "") -> list[Decision]:
    row = next(row for row in talks() if row.id == row_id)
    return decisions(name or row.id, row.kind, row.messages, TOOLS, row.failed)


def test_a_selection_counts_the_name_up_to_its_closing_quote(renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    for label_of in ("a", "chat", "roots"):
        decision = found(label_of)[0]
        row = selection_row(renderer, decision, TOOLS, "compact")
        counted = tokenizer.decode([row.ids[i] for i in row.targets], skip_special_tokens=False)
        assert counted.rstrip(",") == decision.label + '"'
        assert row.targets[-1] == len(row.ids) - 1


def test_a_selection_is_token_for_token_what_the_selector_scores(renderer: PromptRenderer) -> None:
    decision = found("again")[0]
    row = selection_row(renderer, decision, TOOLS, "compact")
    prefix = renderer.prefix(decision.messages, TOOLS, "compact")
    [spelled] = renderer.label_tokens(prefix, [decision.label])
    assert list(row.ids) == [*prefix.head, *spelled.ids]


def test_arguments_are_the_prompt_of_the_service_and_the_whole_object(renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    decision = found("a")[0]
    row = arguments_row(renderer, tokenizer, decision, TOOLS, "compact")
    assert row is not None
    prompt = renderer.arguments_prompt(renderer.prefix(decision.messages, TOOLS, "compact"), "read_file")
    assert list(row.ids[: row.targets[0]]) == prompt
    assert tokenizer.decode(list(row.ids[row.targets[0] :])) == '{"path": "a.txt"}'


def test_a_tool_without_parameters_and_an_answer_have_no_arguments(renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    for decision in (*found("roots"), *found("chat")):
        assert arguments_row(renderer, tokenizer, decision, TOOLS, "compact") is None


def test_a_failed_call_is_history_and_never_a_target() -> None:
    again = found("again")
    assert [(decision.label, decision.arguments) for decision in again] == [("read_file", {"path": "a.txt"}), ("summarize", None)]
    assert "ENOENT" in str(again[0].messages)
    assert [decision.turn for decision in again] == [1, 2], "what follows a failure is no first turn"


def test_the_first_of_several_calls_is_the_decision() -> None:
    both = turn(call("read_file", path="a.txt"), call("read_file", "call_2", path="b.txt"))
    row = conversation(both, result("x"), result("y", "call_2"))
    assert [decision.label for decision in decisions("t", "k", row.messages, TOOLS, [])] == ["read_file", "summarize"]


def test_keys_stand_in_the_order_of_the_schema() -> None:
    text = arguments_text({"head": 2, "path": "ä.txt"}, TOOLS[0])
    assert text == '{"path": "ä.txt", "head": 2}'


def test_a_tool_named_like_the_answer_label_keeps_its_name(renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    tools = [*TOOLS, Tool(name="summarize")]
    row = talks()[3]
    decision = decisions(row.id, row.kind, row.messages, tools, [])[0]
    assert decision.label == "summarize_"


def test_merged_rows_count_what_they_counted_apart(renderer: PromptRenderer) -> None:
    apart = selection_rows(renderer)
    together = merged(apart)
    assert len(together) < len(apart)
    wanted = {(row.ids[: target + 1]) for row in apart for target in row.targets}
    assert {row.ids[: target + 1] for row in together for target in row.targets} == wanted


def test_every_row_has_a_target_and_none_in_the_prompt_of_the_user(renderer: PromptRenderer, tokenizer: Tokenizer) -> None:
    for row in selection_rows(renderer):
        assert row.targets
        assert "user" not in tokenizer.decode([row.ids[i] for i in row.targets])


def test_every_first_decision_teaches_and_the_later_ones_of_one_conversation_in_four() -> None:
    talked = [one for number in range(400) for one in found("a", f"t{number}")]
    kept = thinned(talked, 4)
    assert sum(one.turn == 0 for one in kept) == 400
    assert 70 <= sum(one.turn > 0 for one in kept) <= 130
    assert thinned(talked, 1) == talked


def test_conversations_of_more_than_two_turns_are_learned_whole() -> None:
    again = [one for number in range(20) for one in found("again", f"t{number}")]
    assert thinned(again, 4) == again
    assert balanced(again) == again


def test_answers_after_a_single_call_do_not_outnumber_calls() -> None:
    single = [decision for number in range(300) for decision in decisions(f"t{number}", "read", talks()[0].messages, TOOLS, [])]
    kept = balanced(single)
    answers = [decision for decision in kept if decision.arguments is None]
    assert len(kept) - len(answers) == 300
    assert 70 <= len(answers) <= 130
    chat = decisions("chat", "chat", talks()[3].messages, TOOLS, [])
    assert balanced(chat) == chat
