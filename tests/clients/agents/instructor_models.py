"""instructor: structured output in three of its modes, whole and streamed; it runs no tools."""

from __future__ import annotations

import instructor
from openai import OpenAI
from question import MODEL, STRUCTURED_QUESTION, City, tell

messages = [{"role": "user", "content": STRUCTURED_QUESTION}]


def describe(mode: instructor.Mode, *, stream: bool):
    completions = instructor.from_openai(OpenAI(), mode=mode).chat.completions
    if not stream:
        return completions.create(model=MODEL, messages=messages, response_model=City).model_dump()
    *_, last = completions.create_partial(model=MODEL, messages=messages, response_model=City)
    return last.model_dump()


MODES = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA)
described = [describe(mode, stream=stream) for mode in MODES for stream in (False, True)]
assert all(each == described[0] for each in described), described
tell(structured=described[0])
