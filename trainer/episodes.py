"""Episodes: a file tree, what the user says, and the gold plan of calls and answers. What step 1 writes and step 2 executes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.shared.contracts.tools import JsonObject, sha256_of

_Row = TypeVar("_Row", bound=BaseModel)


class Call(BaseModel):
    """The assistant calls `tool`; `fails` when the plan expects the tool to report an error.

    With None the plan cannot know: the user wanted this very call, and where it fails, that is what the answer says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    do: Literal["call"] = "call"
    tool: str
    arguments: JsonObject
    fails: bool | None = False


class Say(BaseModel):
    """The assistant answers in text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do: Literal["say"] = "say"
    text: str


class Ask(BaseModel):
    """The user says something."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do: Literal["ask"] = "ask"
    text: str


Step = Annotated[Call | Say | Ask, Field(discriminator="do")]


class Episode(BaseModel):
    """One conversation to be had in a workspace that holds `files` (text by path) and the empty `folders`.

    `kind` is the scene of the grammar that wrote it, such as `read`: the stratum of every split and report.
    `names_tool` says that the user names the tool on purpose, which the leakage gate otherwise drops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    kind: str
    system: str | None = None
    files: dict[str, str] = Field(default_factory=dict)
    folders: list[str] = Field(default_factory=list)
    steps: list[Step] = Field(min_length=2)
    names_tool: bool = False

    @property
    def id(self) -> str:
        """16 hex digits that commit to the whole episode."""
        return sha256_of(self.model_dump(mode="json"))[:16]


def write_rows(path: Path, rows: Iterable[BaseModel]) -> None:
    """JSONL, whole or not at all: a reader never sees half a file, and a step that was killed is simply run again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".staging")
    with staging.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json() + "\n")
    staging.replace(path)


def read_rows(path: Path, kind: type[_Row]) -> Iterator[_Row]:
    """The rows of a JSONL file; blank lines are skipped.

    Raises:
        ValueError: a line is not a `kind`; names file and line.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield kind.model_validate_json(line)
                except ValueError as error:
                    raise ValueError(f"{path}:{number} is not a {kind.__name__}: {error}") from error
