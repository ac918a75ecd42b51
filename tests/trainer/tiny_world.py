"""A toolset that the tiny model can learn in a second, its conversations, and what stands between adapters and serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.shared.contracts.adapters import Role
from services.shared.contracts.tools import JsonObject
from tests.fakes import CHATML, toy_renderer
from tests.trainer.conftest import tiny_base
from tests.trainer.rows_of import TOOLS, call, conversation, result, turn
from trainer.evaluate import Prompts, select_all, write_all
from trainer.figures import Outcome, figures
from trainer.profiles import PROFILES, Profile
from trainer.publish import Origin, Trained
from trainer.rows import Decision, TrainRow, arguments_row, decisions, merged, selection_row
from trainer.training import Job, train, wearing
from trainer.trajectories import Trajectory

PROFILE = replace(
    PROFILES["small"], rank=8, alpha=16, epochs=12, batch_rows=8, checkpoint_steps=1000, learning_rate=3e-2, warmup_steps=5
)


def talks() -> list[Trajectory]:
    """33 conversations with 60 decisions; a tool's arguments are always the same."""
    reads = [conversation(turn(call("read_file", path="a")), result("x"), asked=f"Show {n}", id=n) for n in "abcdefghijkl"]
    tags = [conversation(turn(call("tag", labels=[{"n": 1}])), result("x"), asked=f"Tag {n}", id=f"tag{n}") for n in range(9)]
    words = ("where", "roots?", "top", "base", "home", "dirs")
    roots = [conversation(turn(call("roots")), result("/"), asked=word, id=word) for word in words]
    chats = [conversation(asked=word, id=word, kind="chat") for word in ("Hi", "Hello", "Thanks", "Bye", "Good", "Yes")]
    return [*reads, *tags, *roots, *chats]


@dataclass
class World:
    """The tiny base model on disk and in memory, and everything that is decided in the conversations."""

    base: Any
    prompts: Prompts
    decisions: list[Decision]
    before: list[Outcome]
    origin: Origin

    def rows(self, role: Role, found: Sequence[Decision] | None = None) -> list[TrainRow]:
        """The rows of `found`, or of everything: selections for the selector, else arguments."""
        how, some = self.prompts, self.decisions if found is None else found
        if role == "selector":
            return merged(selection_row(how.renderer, one, how.tools, how.profile) for one in some)
        written = [arguments_row(how.renderer, how.tokenizer, one, how.tools, how.profile) for one in some]
        return merged(row for row in written if row)

    def train(self, role: Role, rows: Sequence[TrainRow], out: Path, profile: Profile = PROFILE) -> Trained:
        """An adapter of these rows."""
        job = Job("select" if role == "selector" else "joint", role, None, rows)
        return Trained(train(self.base, job, profile, out, seed=0), role, None, profile.rank, job.data_sha256)

    def outcomes(self, trained: Sequence[Trained]) -> list[Outcome]:
        """What the model decides with the first adapter as its selector, and writes with the second one."""
        selector, writer = trained
        selected = select_all(wearing(self.base, selector.folder), self.prompts, self.decisions)
        return write_all(wearing(self.base, writer.folder), self.prompts, selected, self.decisions)

    def numbers(self, trained: Sequence[Trained], published: Sequence[Outcome] | None = None) -> JsonObject:
        """The figures of these adapters."""
        return figures(self.outcomes(trained), self.before, "summarize", published=published)


def make_world(folder: Path) -> World:
    """Saves the model in `folder`, and asks it about everything."""
    base, renderer = tiny_base(), toy_renderer()
    base.save_pretrained(folder)
    renderer._tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text(CHATML)
    prompts = Prompts.load(folder, TOOLS, "compact")
    found = [one for row in talks() for one in decisions(row.id, row.kind, row.messages, TOOLS, row.failed)]
    before = write_all(base, prompts, select_all(base, prompts, found), found)
    return World(base, prompts, found, before, Origin("files", TOOLS, folder, "compact", seed=0))
