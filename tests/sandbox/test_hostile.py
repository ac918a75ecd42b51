"""The hostile suite: every case of hostile/table.py on a real runner, and after each one the same four promises.

All cases run on bubblewrap. On gVisor, where each start takes a second, some do, and all with AGENTFLUX_HOSTILE_ALL=1.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from services.sandbox.trajectory.store import files_in
from services.sandbox.trajectory.verify import verify
from tests.sandbox.drivers import NO_RUNSC
from tests.sandbox.hostile import clients
from tests.sandbox.hostile.ground import MIB, ROOT, Ground, ground, toolset_of
from tests.sandbox.hostile.table import CASES, ELSEWHERE, Case

pytestmark = [pytest.mark.anyio, pytest.mark.real]

On = Callable[[str], Awaitable[Ground]]

ALL = bool(os.environ.get("AGENTFLUX_HOSTILE_ALL"))
# Groups whose first case runs on gVisor in every run of the suite: what the driver itself has to hold.
DRIVERS_OWN = (1, 2, 3, 18, 20, 22, 24, 25, 26)


def chosen(driver: str) -> list[Case]:
    firsts = {case.group: case for case in reversed(CASES)}
    return CASES if driver == "bwrap" or ALL else [firsts[group] for group in DRIVERS_OWN]


EACH = [
    pytest.param(driver, case, id=f"{driver}-{case.group}-{case.name[:60]}")
    for driver in ("bwrap", *(() if NO_RUNSC else ("runsc",)))
    for case in chosen(driver)
]


@pytest.fixture(scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[On]:
    """A runner per driver, started when its first case comes; what it has seen is printed at the end."""
    grounds: dict[str, Ground] = {}
    async with AsyncExitStack() as stack:

        async def started(driver: str) -> Ground:
            if driver not in grounds:
                grounds[driver] = await stack.enter_async_context(ground(driver, tmp_path_factory.mktemp(driver)))
            return grounds[driver]

        yield started
    for found in grounds.values():
        report = verify(files_in(found.log))
        assert (report.problems, report.in_flight) == ([], {})
        most = sorted(found.rises_bytes.items(), key=lambda item: -item[1])[:3]
        print(
            f"\n{found.driver}: {len(found.rises_bytes)} cases, {report.calls} calls; memory rose most by "
            f"{', '.join(f'{rise / MIB:.0f} MiB ({name})' for name, rise in most)}; the bystander waited "
            f"{statistics.median(found.waits_s) * 1000:.1f} ms (median), {max(found.waits_s) * 1000:.0f} ms at most"
        )


@pytest.mark.parametrize(("driver", "case"), EACH)
async def test_it_ends_as_it_should_and_the_runner_goes_on(on: On, driver: str, case: Case) -> None:
    there = await on(driver)
    if case.needs and not any(case.needs in item for item in there.enforced):
        pytest.skip(f"NOT tested here: the driver declares that it does not enforce {case.needs!r}")
    on_runsc = driver == "runsc"
    expected = (on_runsc and case.on_runsc) or case.expect
    says = (on_runsc and case.says_on_runsc) or case.says
    before = there.watch()
    if case.client:
        what, said = await getattr(clients, case.client)(there, case.name)
    else:
        text = case.run.replace("PORT", str(there.listening)).replace("ABSTRACT", there.abstract)
        fields = {"arguments_json": case.arguments} if case.arguments else {}
        wall_s = there.brief_s if case.brief else 15
        what, said = await there.call(case.name, text, toolset=toolset_of(case), tool=case.tool, wall_s=wall_s, **fields)
    ends = await there.check(before, case.name)
    assert what in expected.split("|"), f"{what}: {said[:500]}"
    assert re.search(says, said, re.DOTALL), said[:500]
    assert not (case.never and re.search(case.never, said, re.DOTALL)), said[:500]
    # The log says what the caller heard; a caller who left first is cancelled there, and one whose own deadline ended first has
    # not heard our reason.
    logged = [" ".join(filter(None, (row["code"], row["reason"]))) for row in ends]
    if case.client:
        unheard = {"DEADLINE_EXCEEDED CALL_TIMED_OUT"} if what == "DEADLINE_EXCEEDED" else set()
        assert set(logged) <= {what if " " in what else "OK", "CANCELLED CANCELLED"} | unheard
    else:
        assert logged == [what if " " in what else "OK"]


def test_every_group_is_in_the_table_or_named_with_its_tests() -> None:
    groups = {case.group for case in CASES} | set(ELSEWHERE)
    assert groups == set(range(1, 39))
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


PROMISED = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "services/sandbox/SECURITY.md").read_text())
NAMED = {test for tests in ELSEWHERE.values() for test in tests} | {f"tests/sandbox/{file}::{name}" for file, name in PROMISED}


@pytest.mark.parametrize("test", sorted(NAMED))
def test_what_is_tested_elsewhere_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_the_threat_model_names_its_tests() -> None:
    assert len(PROMISED) >= 20
