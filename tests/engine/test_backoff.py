"""How long the engine waits before it starts vLLM again."""

from services.engine.backoff import pause_s


def test_the_pause_doubles_with_each_failure_up_to_half_a_minute():
    assert [pause_s(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_without_a_failure_there_is_no_pause():
    assert pause_s(0) == 0
