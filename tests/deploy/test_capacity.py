"""The load that sizing is read from: against the real gateway, selector and argument service."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from deploy.capacity import Step, main, measure, run
from tests.stack import running_stack
from tests.valkey import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_every_decision_counts_once_and_conversations_differ() -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=f"{stack.url}/v1") as http:
        step = await measure(http, "filesystem", clients=3, seconds=1.0, prompt_words=20)
        page = (await http.get(f"{stack.url}/metrics")).text
    assert step.failed == 0
    assert len(step.took_s) >= 3
    served = 'agentflux_request_duration_seconds_count{route="/v1/chat/completions",status="200"} '
    (counted,) = [line.removeprefix(served) for line in page.splitlines() if line.startswith(served)]
    assert float(counted) == len(step.took_s)
    assert step.per_second == len(step.took_s) / step.seconds


async def test_what_is_refused_is_failed_and_no_decision() -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=f"{stack.url}/v1") as http:
        step = await measure(http, "no-such-model", clients=2, seconds=0.2)
        with pytest.raises(SystemExit, match="404"):
            await run(f"{stack.url}/v1", "no-such-model", clients=[1], seconds=1, prompt_words=0)
    assert (step.took_s, step.failed) == ([], 2)
    assert step.row().split() == ["2", "0.00", "–", "–", "2"]


def test_the_table_has_median_and_95th_percentile() -> None:
    assert Step(4, [float(n) for n in range(1, 101)], 1, 50.0).row().split() == ["4", "2.00", "50.50", "95.05", "1"]


def test_nobody_there_and_a_wrong_list_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="nobody answers at"):
        asyncio.run(run(f"http://127.0.0.1:{free_port()}/v1", "m", clients=[1], seconds=1, prompt_words=0))
    with pytest.raises(SystemExit):
        main(["--clients", "1,two"])
    assert "--clients 1,two is no list of numbers" in capsys.readouterr().err
