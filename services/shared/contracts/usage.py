"""What a stage cost, in tokens and seconds."""

from __future__ import annotations

from pydantic import BaseModel

from services.shared.contracts.tools import JsonObject


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

    @classmethod
    def of_reply(cls, reply: JsonObject) -> Usage:
        """What a reply of OpenAI's shape, or a chunk of one, says that it cost; nothing where it does not say."""
        usage = reply.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return cls(
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
        )
