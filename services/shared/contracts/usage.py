"""What a stage cost, in tokens and seconds."""

from __future__ import annotations

from pydantic import BaseModel


class Usage(BaseModel):
    """Tokens of one stage. A prompt that is scored or sampled many times in one engine call counts once."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )
