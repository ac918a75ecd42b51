"""A teacher that fails in every way, on a real socket: what is tried again, what is remembered, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trainer.hostile_teacher import FAULTS, HostileTeacher
from trainer.teacher_client import Pace, Teacher, TeacherDown, TeacherSettings, retry_after

pytestmark = pytest.mark.anyio


def bodies(count: int) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": str(i)}]} for i in range(count)]


def content(message: dict[str, Any]) -> str:
    return str(message["content"])


@asynccontextmanager
async def teaching(server: HostileTeacher, cache: Path, slept: list[float], **settings: Any) -> AsyncIterator[Teacher]:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    given = TeacherSettings(base_url=server.url, model="m", **{"timeout_s": 1.0, "backoff_s": 1.0, "attempts": 10, **settings})
    async with Teacher(given, cache, sleep) as teacher:
        yield teacher


async def test_every_fault_is_survived_and_nothing_is_asked_again(tmp_path: Path) -> None:
    slept: list[float] = []
    async with HostileTeacher(faults=FAULTS).serving() as server:
        async with teaching(server, tmp_path / "c", slept) as teacher:
            told = await asyncio.gather(*(teacher.ask(body, content) for body in bodies(60)))
            assert None not in told
            assert all(server.seen[fault] for fault in FAULTS), server.seen
            failed = server.seen["500"] + server.seen["429"] + server.seen["hang"] + server.seen["close"]
            assert (teacher.usage.failed, teacher.usage.malformed) == (failed, server.seen["garbage"])
            assert set(server.answered.values()) == {1}
            assert teacher.usage.prompt_tokens == 7 * 60
        before = server.asked.total()
        async with teaching(server, tmp_path / "c", slept) as again:
            assert await asyncio.gather(*(again.ask(body, content) for body in bodies(60))) == told
            assert (again.usage.cached, again.usage.requests, server.asked.total()) == (60, 0, before)


async def test_waits_grow_up_to_their_bound_and_listen_to_retry_after(tmp_path: Path) -> None:
    slept: list[float] = []
    async with (
        HostileTeacher(faults={"500": 1.0}, retry_after="").serving() as server,
        teaching(server, tmp_path / "c", slept, attempts=5, max_backoff_s=3.0) as teacher,
    ):
        assert await teacher.ask(bodies(1)[0], content) is None
        assert teacher.usage.skipped == 1
    waits = [seconds for seconds in slept if seconds]
    for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 3), (3, 3)], strict=True):
        assert low <= wait <= high
    async with (
        HostileTeacher(faults={"429": 1.0}, retry_after="17").serving() as server,
        teaching(server, tmp_path / "d", slept, attempts=2) as teacher,
    ):
        await teacher.ask(bodies(1)[0], content)
    assert slept[-2] == 17.0


async def test_a_malformed_reply_is_asked_once_more_and_never_kept(tmp_path: Path) -> None:
    def unreadable(message: dict[str, Any]) -> str:
        raise ValueError("no")

    async with HostileTeacher().serving() as server, teaching(server, tmp_path / "c", []) as teacher:
        assert await teacher.ask(bodies(1)[0], unreadable) is None
        assert (teacher.usage.malformed, teacher.usage.skipped, server.asked.total()) == (2, 1, 2)
        assert await teacher.ask(bodies(1)[0], content) is not None


async def test_a_dead_teacher_stops_the_step(tmp_path: Path) -> None:
    async with (
        HostileTeacher(dies_after=2).serving() as server,
        teaching(server, tmp_path / "c", [], stop_after=7) as teacher,
    ):
        for body in bodies(2):
            await teacher.ask(body, content)
        with pytest.raises(TeacherDown, match="failed 7 times in a row"):
            await teacher.ask(bodies(3)[2], content)
    async with teaching(server, tmp_path / "c", [], stop_after=7) as offline:
        assert "Thanks!" in str(await offline.ask(bodies(1)[0], content))


async def test_a_wrong_key_is_not_tried_again(tmp_path: Path) -> None:
    async with HostileTeacher(faults={"401": 1.0}).serving() as server, teaching(server, tmp_path / "c", []) as teacher:
        with pytest.raises(TeacherDown, match="401"):
            await teacher.ask(bodies(1)[0], content)
        assert server.asked.total() == 1


async def test_the_key_of_the_file_is_sent_and_the_cost_is_counted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    prices = {"price_prompt": 1e6, "price_completion": 2e6}
    async with (
        HostileTeacher().serving() as server,
        teaching(server, tmp_path / "c", [], api_key_file=tmp_path / "key", **prices) as teacher,
    ):
        await teacher.ask(bodies(1)[0], content)
        assert server.headers["authorization"] == "bearer sesame"
        assert teacher.report()["all_runs"] == {"requests": 1, "prompt_tokens": 7, "completion_tokens": 3, "cost": 7 + 2 * 3}
    async with HostileTeacher().serving() as server, teaching(server, tmp_path / "c", [], **prices) as again:
        await again.ask(bodies(1)[0], content)
        await again.ask(bodies(2)[1], content)
        assert (again.usage.cached, again.usage.requests) == (1, 1)
        assert again.report()["all_runs"]["cost"] == 2 * (7 + 2 * 3)


async def test_a_teacher_that_refuses_everything_is_of_no_use(tmp_path: Path) -> None:
    async with (
        HostileTeacher(faults={"400": 1.0}).serving() as server,
        teaching(server, tmp_path / "c", [], stop_after=3) as teacher,
    ):
        assert [await teacher.ask(body, content) for body in bodies(2)] == [None, None]
        with pytest.raises(TeacherDown, match=r"failed 3 times in a row, last with status 400: .*choices"):
            await teacher.ask(bodies(3)[2], content)


def at_once(reply: httpx.Response, teacher: Teacher) -> None:
    teacher._client = httpx.AsyncClient(base_url="http://x/v1", transport=httpx.MockTransport(lambda _: reply))


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip")),
        httpx.Response(200, content=b'{"choices": [{"message": {"content": "half an emoji \\ud83d"}}]}'),
        httpx.Response(200, content=b"[" * 100_000),
    ],
)
async def test_a_reply_that_cannot_be_read_costs_one_request(tmp_path: Path, reply: httpx.Response) -> None:
    async with HostileTeacher().serving() as server, teaching(server, tmp_path / "c", [], attempts=1) as teacher:
        at_once(reply, teacher)
        assert await teacher.ask(bodies(1)[0], content) is None
        assert teacher.usage.skipped == 1


async def test_a_reply_without_end_is_given_up_by_its_size(tmp_path: Path) -> None:
    async with (
        HostileTeacher(faults={"endless": 1.0}).serving() as server,
        teaching(server, tmp_path / "c", [], attempts=2, stop_after=2, timeout_s=60.0) as teacher,
    ):
        with pytest.raises(TeacherDown, match=r"last with RemoteProtocolError its reply is larger than 16777216 bytes"):
            await teacher.ask(bodies(1)[0], content)
        assert server.asked.total() == 2


async def test_an_address_that_leads_elsewhere_is_a_setting_to_mend(tmp_path: Path) -> None:
    async with HostileTeacher().serving() as server, teaching(server, tmp_path / "c", []) as teacher:
        at_once(httpx.Response(301, headers={"location": "https://other/v1"}), teacher)
        with pytest.raises(TeacherDown, match=r"answers 301: https://other/v1; see the settings"):
            await teacher.ask(bodies(1)[0], content)
    with pytest.raises(TeacherDown, match="Invalid port"):
        Teacher(TeacherSettings(base_url="http://host:x/v1"), tmp_path / "c")


def test_starts_are_evenly_spread() -> None:
    pace = Pace(per_minute=60)
    assert [pace.delay(now) for now in (10, 10, 10.5, 20)] == [0, 1, 1.5, 0]
    assert [Pace(per_minute=0).delay(5) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("12", 12.0), ("0.5", 0.5), ("-3", 0.0), ("", 0.0), ("soon", 0.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0)],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, now=60.0) == seconds
