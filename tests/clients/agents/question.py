"""What every agent in this folder is asked, the tools it has, and how it tells what happened.

Base URL and key come from the client's own variables, such as OPENAI_BASE_URL and OPENAI_API_KEY: nothing else is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

MODEL = "base"
QUESTION = "Please call get_weather, get_time and tell me."
STRUCTURED_QUESTION = "Describe the capital of France."


class City(BaseModel):
    """A city."""

    name: str
    population: int


def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Name of the city.
    """
    _executed.append(["get_weather", {"city": city}])
    return f"22 degrees in {city}"


def get_time(city: str, hours_ahead: int) -> str:
    """The time in a city.

    Args:
        city: Name of the city.
        hours_ahead: Hours to add.
    """
    _executed.append(["get_time", {"city": city, "hours_ahead": hours_ahead}])
    return f"noon and {hours_ahead} hours in {city}"


TOOLS = {"get_weather": get_weather, "get_time": get_time}

_executed: list[Any] = []


def run(rounds: Iterable[list[Any]], text: Any, *, tokens: int | None = None, pieces: int | None = None) -> dict[str, Any]:
    """What one run of an agent came to.

    `rounds` are the calls of each reply as (id, name, arguments as JSON); `pieces` is how many pieces a stream came in.
    """
    called = [[list(call) for call in calls] for calls in rounds if calls]
    executed, _executed[:] = list(_executed), []
    return {"rounds": called, "executed": executed, "text": text, "tokens": tokens, "pieces": pieces}


def tell(**runs: Any) -> None:
    """Prints the runs for the test, as the last line."""
    print(json.dumps(runs))
