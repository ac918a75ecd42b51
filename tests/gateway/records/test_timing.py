"""Where a turn's time went, with a clock that the test winds."""

from __future__ import annotations

from services.gateway.events import AnswerChunk, CallOpened, CallWritten, Event, Selected
from services.gateway.records.timing import Timing
from services.shared.contracts.arguments import GeneratedArguments
from services.shared.contracts.selection import Selection


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def selected(tool: str | None = "read_file") -> Selected:
    return Selected(
        Selection(tool=tool, probabilities={}, margin=0.5, valid_mass=1, strategy="exact", adapter="base"), toolset="files"
    )


WRITTEN = CallWritten(GeneratedArguments(arguments="{}", attempts=1, adapter="base"))


def told(*steps: tuple[float, Event]) -> str:
    """Of a turn that waited 2 ms, and whose events came after so many milliseconds each; its reader took 50 ms for every one."""
    clock = Clock()
    timing = Timing(clock)
    clock.now += 0.002
    timing.admitted()
    for took, event in steps:
        clock.now += took / 1000
        timing.note(event)
        clock.now += 0.05
        timing.go_on()
    return timing.header()


def test_each_part_has_its_time_and_readers_have_their_own() -> None:
    said = told((30, selected()), (0, CallOpened("call_1", "read_file")), (70, WRITTEN))
    assert said == "queue;dur=2.0, select;dur=30.0, arguments;dur=70.0"


def test_several_calls_add_up() -> None:
    said = told((30, selected()), (70, WRITTEN), (20, selected()), (10, WRITTEN), (5, selected(None)))
    assert said == "queue;dur=2.0, select;dur=55.0, arguments;dur=80.0"


def test_an_answer_is_the_engines_and_what_did_not_happen_is_not_told() -> None:
    assert told((8, AnswerChunk({})), (4, AnswerChunk({}))) == "queue;dur=2.0, engine;dur=12.0"
