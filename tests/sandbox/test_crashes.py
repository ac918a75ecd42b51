"""Whether a toolset whose servers keep dying may have another one."""

from __future__ import annotations

from services.sandbox.crashes import CrashLoops

FILES = ("files",)


def dead(times: int, *, limit: int = 3, max_rest_s: float = 8) -> CrashLoops:
    crashes = CrashLoops(limit=limit, max_rest_s=max_rest_s)
    for _ in range(times):
        crashes.died(FILES, "it broke", 0)
    return crashes


def test_it_opens_at_the_limit_and_says_so_once() -> None:
    crashes = dead(2)
    assert crashes.rest_s(FILES, 0) is None
    assert crashes.died(FILES, "out of memory", 0)
    assert crashes.rest_s(FILES, 0) == 1
    assert crashes.why(FILES) == (3, "out of memory")
    assert not crashes.died(FILES, "one that was started before", 0)


def test_a_success_in_between_starts_the_row_anew() -> None:
    crashes = dead(2)
    crashes.lived(FILES)
    assert not crashes.died(FILES, "", 0)
    assert crashes.rest_s(FILES, 0) is None


def test_one_is_tried_after_the_rest_and_others_wait_for_it() -> None:
    crashes = dead(3)
    assert crashes.rest_s(FILES, 1) is None
    crashes.begin(FILES)
    assert crashes.rest_s(FILES, 1) == 0.1
    crashes.lived(FILES)
    assert crashes.rest_s(FILES, 1) is None


def test_the_rest_doubles_with_each_failed_trial_up_to_a_limit() -> None:
    crashes, now, rests = dead(3), 1.0, []
    for _ in range(5):
        crashes.begin(FILES)
        assert crashes.died(FILES, "", now)
        rests.append(crashes.rest_s(FILES, now))
        now += rests[-1] or 0
    assert rests == [2, 4, 8, 8, 8]


def test_a_trial_that_nobody_saw_the_end_of_is_made_again() -> None:
    crashes = dead(3)
    crashes.begin(FILES)
    crashes.let_go(FILES)
    assert crashes.rest_s(FILES, 1) is None


def test_deaths_count_for_their_own_key_only() -> None:
    crashes = dead(3)
    assert crashes.rest_s(("files", "ada"), 0) is None
    crashes.begin(("files", "ada"))
    crashes.lived(("files", "ada"))
    crashes.let_go(("files", "ada"))
    assert crashes.rest_s(FILES, 0) == 1


def test_what_is_long_ago_is_forgotten() -> None:
    crashes = dead(2)
    crashes.forget(16)
    assert crashes.died(FILES, "", 16)
    crashes.forget(33)
    assert not crashes.died(FILES, "", 33)
