"""Whose turn it is when every server is at work."""

from __future__ import annotations

from collections.abc import Callable

from services.sandbox.queue import TURN, FairQueue, Fit


class Call:
    """A waiting call, which needs a place, unless its session has a server: that is `free` or `occupied`."""

    def __init__(self, name: str, own: str = "") -> None:
        self.name = name
        self.own = own


def queue(*names: str, size: int = 100, share: int = 100) -> FairQueue[Call]:
    """`a1` is the first call of tenant `a`."""
    waiting: FairQueue[Call] = FairQueue(size=size, share=share)
    for name in names:
        assert waiting.join(name[0], Call(name)) is None
    return waiting


def places(count: int, served: list[str]) -> Callable[[Call, bool], Fit]:
    """Serves `count` calls, if they may have what they need."""

    def offer(call: Call, may_take_place: bool) -> Fit:
        if call.own == "occupied" or (not call.own and not may_take_place):
            return Fit.NOT_YET
        if len(served) == count:
            return Fit.NO_ROOM
        served.append(call.name)
        return Fit.PLACED

    return offer


def test_tenants_take_turns_and_each_is_served_in_order() -> None:
    waiting, served = queue("a1", "a2", "a3", "b1", "c1", "b2"), list[str]()
    waiting.serve(places(99, served))
    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(waiting) == 0


def test_turns_go_on_where_they_stopped() -> None:
    waiting, served = queue("a1", "a2", "a3", "b1", "b2"), list[str]()
    for places_ in range(1, 6):
        waiting.serve(places(places_, served))
    assert served == ["a1", "b1", "a2", "b2", "a3"]


def test_nobody_overtakes_a_call_that_needs_a_place() -> None:
    waiting: FairQueue[Call] = FairQueue(size=9, share=9)
    waiting.join("a", Call("a1"))
    waiting.join("b", Call("b1"))
    offered: list[str] = []

    def offer(call: Call, may_take_place: bool) -> Fit:
        offered.append(call.name)
        return Fit.NO_ROOM

    waiting.serve(offer)
    assert offered == ["a1"]


def test_a_call_whose_own_server_is_occupied_holds_up_nobody() -> None:
    waiting: FairQueue[Call] = FairQueue(size=9, share=9)
    for tenant, call in (("a", Call("a1", "occupied")), ("a", Call("a2")), ("b", Call("b1", "occupied"))):
        waiting.join(tenant, call)
    served: list[str] = []
    waiting.serve(places(9, served))
    assert served == ["a2"]
    assert len(waiting) == 2


def test_a_turn_is_one_place_and_some_calls_for_servers_that_are_there_already() -> None:
    waiting: FairQueue[Call] = FairQueue(size=99, share=99)
    for number in range(TURN + 2):
        waiting.join("a", Call(f"a{number}", "free" if number else ""))
    waiting.join("b", Call("b"))
    served: list[str] = []
    waiting.serve(places(99, served))
    assert served == [*(f"a{number}" for number in range(TURN)), "b", f"a{TURN}", f"a{TURN + 1}"]


def test_both_limits_refuse_and_say_which_setting_it_was() -> None:
    waiting = queue("a1", "a2", "b1", size=4, share=2)
    assert "2 calls of tenant 'a' are waiting already (AGENTFLUX_SANDBOX_QUEUE_SHARE)" in str(waiting.join("a", Call("a3")))
    assert waiting.join("b", Call("b2")) is None
    assert waiting.join("c", Call("c1")) == "4 calls are waiting already (AGENTFLUX_SANDBOX_QUEUE_SIZE)"
    assert len(waiting) == 4


def test_whoever_leaves_is_not_served() -> None:
    waiting: FairQueue[Call] = FairQueue(size=9, share=9)
    gone, stays = Call("a1"), Call("a2")
    waiting.join("a", gone)
    waiting.join("a", stays)
    waiting.leave("a", gone)
    waiting.leave("a", gone)
    waiting.leave("nobody", gone)
    served: list[str] = []
    waiting.serve(places(9, served))
    assert served == ["a2"]


def test_a_tenant_with_many_calls_delays_another_by_one_of_them_at_most() -> None:
    waiting = queue(*(f"a{number}" for number in range(50)), "b0")
    served: list[str] = []
    waiting.serve(places(2, served))
    assert served == ["a0", "b0"]
