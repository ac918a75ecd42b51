"""For how many adapters the engine has room."""

from __future__ import annotations

from services.engine.capacity import LoraRoom, room_for
from services.shared.contracts.adapters import AdapterSet, Manifest, Release
from tests.fakes import served_release

CARD = next(iter(served_release().cards.values()))


def manifest(toolset: str, adapters: int) -> Manifest:
    names = {f"tool{i}": f"{toolset}.tool{i}--{i:012x}" for i in range(adapters)}
    return Manifest(toolset=toolset, releases=[Release(number=1, adapters=AdapterSet(arguments=names), promoted_at="")])


def cards(*manifests: Manifest, rank: int) -> dict:
    return {name: CARD.model_copy(update={"rank": rank}) for m in manifests for name in m.current.adapters.names}


def test_before_anything_is_published_there_is_room_for_a_usual_toolset():
    assert room_for([], {}) == LoraRoom(slots=8, copies=16, rank=32)


def test_a_batch_holds_the_busiest_toolset_and_memory_two_releases_of_all():
    big, small = manifest("big", 15), manifest("small", 3)
    assert room_for([small, big], cards(big, small, rank=16)) == LoraRoom(slots=17, copies=36, rank=16)


def test_the_rank_is_the_highest_that_is_published_rounded_up_to_what_vllm_knows():
    small = manifest("small", 3)
    assert room_for([small], cards(small, rank=4)).rank == 8
    assert room_for([small], cards(small, rank=33)).rank == 64
    assert room_for([small], {}).rank == 32
    assert room_for([small], cards(small, rank=4000)).rank == 512


def test_settings_overrule_what_is_derived():
    big = manifest("big", 15)
    assert room_for([big], cards(big, rank=16), slots=4, rank=64) == LoraRoom(slots=4, copies=30, rank=64)
