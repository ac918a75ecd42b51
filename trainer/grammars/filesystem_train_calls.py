"""The calls of the training grammar's plans, each with the arguments that matter, and the last word."""

from __future__ import annotations

from trainer.episodes import Call, Say
from trainer.grammars.mechanics import Dice


def answer(dice: Dice) -> Say:
    """What is said when all is done."""
    return Say(text=dice.choice(("Done.", "Here is what I found.", "That is it.", "It is done.", "Here you are.", "All done.")))


def found(path: str) -> str:
    """A path as a search shows it."""
    return f"/workspace/{path}"


def reading(path: str, *, fails: bool = False) -> Call:
    """The call that reads a text."""
    return Call(tool="read_text_file", arguments={"path": path}, fails=fails)


def searching(pattern: str, path: str = ".") -> Call:
    """The call that searches."""
    return Call(tool="search_files", arguments={"path": path, "pattern": pattern})


def listing(path: str, *, fails: bool = False) -> Call:
    """The call that lists one level."""
    return Call(tool="list_directory", arguments={"path": path}, fails=fails)


def moving(source: str, destination: str, *, fails: bool = False) -> Call:
    """The call that moves or renames."""
    return Call(tool="move_file", arguments={"source": source, "destination": destination}, fails=fails)


def writing(path: str, text: str) -> Call:
    """The call that writes a whole file."""
    return Call(tool="write_file", arguments={"path": path, "content": text})


def making(path: str) -> Call:
    """The call that creates a folder."""
    return Call(tool="create_directory", arguments={"path": path})


def asking_about(path: str, *, fails: bool = False) -> Call:
    """The call for metadata."""
    return Call(tool="get_file_info", arguments={"path": path}, fails=fails)


def editing(path: str, old: str, new: str, *, fails: bool = False) -> Call:
    """The call that replaces one piece of text."""
    return Call(tool="edit_file", arguments={"path": path, "edits": [{"oldText": old, "newText": new}]}, fails=fails)
