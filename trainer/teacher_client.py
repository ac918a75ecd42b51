"""One OpenAI-compatible endpoint as a teacher: paced, tried again, remembered.

Every well-formed reply is kept in SQLite under the SHA-256 of the request, so that a step that is run again asks nothing twice;
and beside them what all runs have spent.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.shared.contracts.tools import JsonObject, canonical_json, sha256_of

_Read = TypeVar("_Read")
# What no later attempt can mend: a wrong key, a wrong address, a model that is not there.
_FOR_GOOD = (401, 403, 404)
_AGAIN = (408, 409, 425, 429)
_MAX_REPLY_BYTES = 16 * 1024 * 1024


class TeacherSettings(BaseSettings):
    """Read from the environment with the prefix `AGENTFLUX_TRAINER_TEACHER_`."""

    model_config = SettingsConfigDict(
        env_prefix="AGENTFLUX_TRAINER_TEACHER_", extra="ignore", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    base_url: str = "http://127.0.0.1:8010/v1"
    """Where `/chat/completions` is, such as http://host:8000/v1."""

    model: str = ""
    """The model's name there."""

    api_key: SecretStr | None = None
    """Sent as a bearer token; None sends none."""

    api_key_file: Path | None = None
    """A file whose text is the key; it wins over `api_key`."""

    temperature: float = Field(default=0.7, ge=0)
    """Of queries and of conversations alike."""

    concurrency: int = Field(default=8, ge=1)
    """Most requests in flight."""

    conversations: int = Field(default=4, ge=1)
    """Most conversations at once; each has a sandbox of its own."""

    requests_per_minute: float = Field(default=0.0, ge=0)
    """Most requests that are started in a minute, evenly spread; 0 does not limit them."""

    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one whole request and its reply."""

    attempts: int = Field(default=6, ge=1)
    """How often one request is tried before its item is skipped."""

    backoff_s: float = Field(default=1.0, gt=0)
    """Seconds before the second attempt, doubled before each further one; Retry-After wins when it is longer."""

    max_backoff_s: float = Field(default=60.0, gt=0)
    """Most seconds between two attempts."""

    stop_after: int = Field(default=40, ge=1)
    """So many failed or refused requests in a row mean that the teacher is of no use: the step stops."""

    price_prompt: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens, in whatever currency the report is to have."""

    price_completion: float = Field(default=0.0, ge=0)
    """Price of a million completion tokens."""

    def key(self) -> str | None:
        """The key, if there is one.

        Raises:
            OSError: `api_key_file` cannot be read.
        """
        if self.api_key_file is not None:
            return self.api_key_file.read_text().strip()
        return self.api_key.get_secret_value() if self.api_key else None


class TeacherDown(RuntimeError):
    """The teacher cannot be used any more; what it said so far is kept."""


@dataclass
class Usage:
    """What was asked: `requests` went out, `cached` did not need to. `failed` attempts were tried again until `skipped`."""

    requests: int = 0
    cached: int = 0
    failed: int = 0
    malformed: int = 0
    skipped: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, settings: TeacherSettings) -> float:
        """What the tokens cost by the prices of `settings`."""
        cost = self.prompt_tokens * settings.price_prompt + self.completion_tokens * settings.price_completion
        return round(cost / 1e6, 6)


class Replies:
    """The replies by request, in one SQLite file; each is there or not, whenever the process ends. So is what they cost."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS spent (prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL)"
        )

    def get(self, request: str) -> JsonObject | None:
        """The reply to the request with this SHA-256."""
        found = self._database.execute("SELECT reply FROM replies WHERE request = ?", (request,)).fetchone()
        reply: JsonObject | None = json.loads(found[0]) if found else None
        return reply

    def put(self, request: str, reply: JsonObject) -> None:
        """Keeps a reply."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (request, canonical_json(reply)))

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Keeps what one request took."""
        with self._database:
            self._database.execute("INSERT INTO spent VALUES (?, ?)", (prompt_tokens, completion_tokens))

    def spent(self) -> Usage:
        """What all runs have taken: answered requests, and tokens."""
        columns = "COUNT(*), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
        requests, prompt, completion = self._database.execute(f"SELECT {columns} FROM spent").fetchone()
        return Usage(requests=requests, prompt_tokens=prompt, completion_tokens=completion)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


@dataclass
class Pace:
    """Evenly spread starts: `delay` says how long the next one has to wait."""

    per_minute: float
    _next: float = 0.0

    def delay(self, now: float) -> float:
        """Seconds from `now` until this start is due; takes its place."""
        start = max(now, self._next)
        self._next = start + 60 / self.per_minute if self.per_minute else 0.0
        return start - now


class Teacher:
    """Asks the endpoint. Use it as an async context."""

    def __init__(self, settings: TeacherSettings, cache: Path, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.settings = settings
        self.usage = Usage()
        key = settings.key()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # The whole request has its own deadline; httpx's are for single reads.
        try:
            self._client = httpx.AsyncClient(base_url=settings.base_url.rstrip("/"), headers=headers, timeout=None)
        except httpx.InvalidURL as error:
            raise TeacherDown(f"{self._where}: {error}") from error
        self._replies = Replies(cache)
        self._pace = Pace(settings.requests_per_minute)
        self._places = asyncio.Semaphore(settings.concurrency)
        self._sleep = sleep
        self._failures = 0
        self._problem = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.aclose()
        self._replies.close()

    def report(self) -> JsonObject:
        """What this run asked, and the tokens and the cost of all runs that share its cache."""
        spent = self._replies.spent()
        total = {"requests": spent.requests, "prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.completion_tokens}
        return {**asdict(self.usage), "all_runs": {**total, "cost": spent.cost(self.settings)}}

    def useless(self, what: str) -> TeacherDown:
        """The error that nothing came of `what`, with what it said last."""
        return TeacherDown(f"{self._where} gave no {what} that can be used{self._problem and f', last {self._problem}'}")

    async def ask(self, body: JsonObject, read: Callable[[JsonObject], _Read]) -> _Read | None:
        """What `read` makes of the assistant's message; None when it was given up, which is counted.

        `read` raises ValueError, KeyError or TypeError for a message that cannot be used: that is asked once more.

        Raises:
            TeacherDown: nothing can be expected from it any more.
        """
        body = {"model": self.settings.model, "temperature": self.settings.temperature, **body}
        key = sha256_of(body)
        if (known := self._replies.get(key)) is not None:
            self.usage.cached += 1
            return read(known)
        async with self._places:
            for _ in range(2):
                reply = await self._request(body)
                if reply is None:
                    break
                try:
                    message = reply["choices"][0]["message"]
                    found = read(message)
                    self._replies.put(key, message)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
                    self.usage.malformed += 1
                    self._problem = f"a reply that is none: {type(error).__name__}: {error!s:.200}"
                    continue
                return found
        self.usage.skipped += 1
        return None

    async def _request(self, body: JsonObject) -> JsonObject | None:
        """The reply, after as many attempts as it takes; None when none of them worked."""
        for attempt in range(self.settings.attempts):
            await self._sleep(self._pace.delay(time.monotonic()))
            self.usage.requests += 1
            try:
                response, text = await self._post(body)
            except (httpx.RequestError, TimeoutError) as error:
                await self._after_failure(attempt, f"{type(error).__name__} {error}".strip(), 0.0)
                continue
            if response.status_code in _FOR_GOOD or response.has_redirect_location:
                said = response.headers.get("location") or text.decode(errors="replace")
                raise TeacherDown(f"{self._where} answers {response.status_code}: {said:.200}; see the settings of the teacher")
            if response.status_code >= 500 or response.status_code in _AGAIN:
                wait = retry_after(response.headers.get("retry-after", ""), time.time())
                await self._after_failure(attempt, f"status {response.status_code}", wait)
                continue
            if response.is_error:
                # This request is wrong, such as one that is too long; the next one may not be.
                self._failed(f"status {response.status_code}: {text.decode(errors='replace'):.200}")
                return None
            self._failures = 0
            return self._counted(text)
        return None

    async def _post(self, body: JsonObject) -> tuple[httpx.Response, bytes]:
        """What came back, and its text, read within the deadline and the bound on its size."""
        text = bytearray()
        async with (
            asyncio.timeout(self.settings.timeout_s),
            self._client.stream("POST", "/chat/completions", json=body) as response,
        ):
            async for part in response.aiter_bytes():
                text += part
                if len(text) > _MAX_REPLY_BYTES:
                    raise httpx.RemoteProtocolError(f"its reply is larger than {_MAX_REPLY_BYTES} bytes")
        return response, bytes(text)

    def _counted(self, text: bytes) -> JsonObject:
        try:
            reply = json.loads(text)
            usage = reply.get("usage") or {}
            prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion
            self._replies.spend(prompt, completion)
        except (ValueError, AttributeError, TypeError, RecursionError):
            return {}
        return reply if isinstance(reply, dict) else {}

    def _failed(self, reason: str) -> None:
        self.usage.failed += 1
        self._failures += 1
        self._problem = reason
        if self._failures >= self.settings.stop_after:
            raise TeacherDown(
                f"{self._where} failed {self._failures} times in a row, last with {reason}; run the step again later"
            )

    async def _after_failure(self, attempt: int, reason: str, wait: float) -> None:
        self._failed(reason)
        if attempt + 1 < self.settings.attempts:
            # Spread, so that those who failed together do not come back together.
            grown = self.settings.backoff_s * 2**attempt * random.uniform(0.5, 1)
            await self._sleep(min(max(grown, wait), self.settings.max_backoff_s))

    @property
    def _where(self) -> str:
        return f"the teacher {self.settings.model!r} at {self.settings.base_url}"


def retry_after(value: str, now: float) -> float:
    """Seconds that a Retry-After header asks for, given as such or as a date; 0 for none. `now` is Unix time."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0
