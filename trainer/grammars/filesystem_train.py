"""The training grammar of the filesystem toolset: how often which kind of conversation is written.

Two in three are one request, among them eight in a hundred that are small talk or what no tool can do. The others go on for
several calls or several turns. A quarter of all are goals: where only the first call is learned (`followed` of the profile), one
costs no more than a single request. The weights are parts of a hundred.
"""

from __future__ import annotations

from dataclasses import replace

from trainer.grammars import filesystem_train_failures as failures
from trainer.grammars import filesystem_train_goals as goals
from trainer.grammars import filesystem_train_single as one
from trainer.grammars import filesystem_train_turns as turns
from trainer.grammars.filesystem_train_documents import with_documents
from trainer.grammars.filesystem_train_said import finish
from trainer.grammars.filesystem_train_words import WORDS
from trainer.grammars.mechanics import Grammar, Scene

SINGLE = (
    Scene("read", 5, one.single(one.read)),
    Scene("read_part", 2.2, one.single(one.read_part)),
    Scene("read_file", 0.4, one.single(one.read_deprecated), names_tool=True),
    Scene("media", 4.2, one.single(one.media)),
    Scene("read_several", 4.6, one.single(one.read_several)),
    Scene("write", 4.4, one.single(one.write)),
    Scene("edit", 4.2, one.single(one.edit)),
    Scene("mkdir", 3.2, one.single(one.mkdir)),
    Scene("list", 4.8, one.single(one.list_folder)),
    Scene("sizes", 3.8, one.single(one.sizes)),
    Scene("tree", 3.4, one.single(one.tree)),
    Scene("move", 3, one.single(one.move)),
    Scene("rename", 2.8, one.single(one.rename)),
    Scene("find", 4.6, one.single(one.find)),
    Scene("info", 3.8, one.single(one.info)),
    Scene("allowed", 3.2, one.single(one.allowed)),
    Scene("chat", 4.2, one.chat),
    Scene("outside", 4.2, one.outside),
)
GOALS = (
    Scene("joined_wishes", 3.2, goals.joined_wishes),
    Scene("find_then_read", 2.2, goals.find_then_read),
    Scene("find_then_media", 0.9, goals.find_then_media),
    Scene("find_then_info", 0.9, goals.find_then_info),
    Scene("find_then_edit", 0.9, goals.find_then_edit),
    Scene("find_then_move_one", 0.9, goals.find_then_move_one),
    Scene("find_then_all", 0.9, goals.find_then_all),
    Scene("find_then_move", 0.9, goals.find_then_move),
    Scene("list_then_read", 1.2, goals.list_then_read),
    Scene("list_then_all", 1.0, goals.list_then_all),
    Scene("copy", 2.9, goals.copy),
    Scene("new_folder_then_move", 0.8, goals.new_folder_then_move),
    Scene("new_folder_then_write", 0.8, goals.new_folder_then_write),
    Scene("new_folders", 0.4, goals.new_folders),
    Scene("read_then_edit", 1.6, goals.read_then_edit),
    Scene("write_then", 1.0, goals.write_then),
    Scene("compare_two", 0.8, goals.compare_two),
    Scene("each_of", 0.8, goals.each_of),
    Scene("sizes_then", 1.0, goals.sizes_then),
    Scene("tree_then", 0.6, goals.tree_then),
    Scene("roots_then_list", 0.5, goals.roots_then_list),
    Scene("if_there", 0.7, goals.if_there),
)
FAILURES = (
    Scene("missing_then_listed", 0.7, failures.missing_then_listed),
    Scene("missing_then_found", 0.6, failures.missing_then_found),
    Scene("missing_for_good", 0.4, failures.missing_for_good),
    Scene("nothing_found", 0.4, failures.nothing_found),
    Scene("folder_missing", 0.4, failures.folder_missing),
    Scene("edit_not_matching", 0.4, failures.edit_not_matching),
    Scene("goal_missing", 0.3, failures.goal_missing),
    Scene("source_missing", 0.4, failures.source_missing),
    Scene("refused", 0.4, failures.refused),
)
TURNS = (
    Scene("follow_ups", 2.6, turns.follow_ups),
    Scene("put_right", 0.8, turns.put_right),
    Scene("second_wish", 0.7, turns.second_wish),
    Scene("chat_then_call", 0.5, turns.chat_then_call),
    Scene("call_then_chat", 0.5, turns.call_then_chat),
)

GRAMMAR = Grammar(
    name="filesystem_train",
    words=replace(WORDS, kinds=with_documents(WORDS.kinds)),
    systems=(
        "You are a helpful assistant.",
        "You help people with their files.",
        "You are a file manager. Answer briefly.",
        "Use the tools when they help. Today is Monday.",
        "You are the assistant of a small office. Be polite and precise, and never make things up.",
    ),
    finish=finish,
    scenes=(*SINGLE, *GOALS, *FAILURES, *TURNS),
)
