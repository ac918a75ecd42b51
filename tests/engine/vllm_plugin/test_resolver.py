"""The resolver with the real store and small adapters; vLLM's own part of it is in test_real.py."""

from __future__ import annotations

import threading

import anyio
import pytest
from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMNotFoundError

from services.engine.vllm_plugin.resolver import StoreResolver
from services.shared.clients.adapters import AdapterStore
from tests.adapters import publish_random, tiny_base

pytestmark = pytest.mark.anyio
ABSENT = "files.select--0123456789ab"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def publish(store, tmp_path):
    base = tiny_base(tmp_path / "base")
    return lambda **fields: publish_random(store, base, tmp_path / "scratch", **fields)


async def resolve(store, name, *, max_rank=None, activated=False):
    return await StoreResolver(store.root, max_rank=max_rank, activated=activated).resolve_lora("/models/base", name)


async def test_a_published_adapter_is_found_whatever_the_path_of_the_base_model(store, publish):
    name = publish()
    found = await resolve(store, name)
    assert (found.lora_name, found.lora_path, found.load_inplace) == (name, str(store.root / name), False)


@pytest.mark.parametrize("name", ["gpt-4", "", "/etc", f"../store/{ABSENT}", f"./{ABSENT}", f"{ABSENT}/", f"{ABSENT}\n", ABSENT])
async def test_what_is_not_published_does_not_exist(store, told, name):
    with pytest.raises(VLLMNotFoundError, match="neither the base model nor a published adapter"):
        await resolve(store, name)
    assert [(event["event"], event["adapter"]) for event in told()] == [("adapter_refused", name)]


async def test_a_name_of_any_length_is_told_in_short(store, told):
    with pytest.raises(VLLMNotFoundError) as caught:
        await resolve(store, "x" * 100_000)
    assert len(str(caught.value)) < 500
    assert len(told()[0]["adapter"]) == 500


async def test_a_traversal_is_not_followed_even_where_an_adapter_lies(store, publish):
    (store.root / "inner").mkdir()
    name = publish()
    with pytest.raises(VLLMNotFoundError):
        await StoreResolver(store.root / "inner", max_rank=None, activated=False).resolve_lora("base", f"../{name}")


async def test_a_rank_above_the_engines_is_refused_and_the_reason_is_given(store, publish, told):
    name = publish()
    assert (await resolve(store, name, max_rank=8)).lora_name == name
    with pytest.raises(VLLMClientError, match="has rank 8, this engine takes up to 4"):
        await resolve(store, name, max_rank=4)
    assert [event["adapter"] for event in told()] == [name]


async def test_changed_weights_are_refused_and_the_reason_is_given(store, publish, told):
    name = publish()
    weights = store.root / name / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(VLLMClientError, match="its hash differs") as caught:
        await resolve(store, name)
    assert not isinstance(caught.value, VLLMNotFoundError)
    assert told() == [{"event": "adapter_refused", "adapter": name, "reason": str(caught.value)}]


async def test_a_pickle_beside_the_weights_is_refused(store, publish):
    name = publish()
    (store.root / name).chmod(0o755)
    (store.root / name / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(VLLMClientError, match="pickle"):
        await resolve(store, name)


async def test_a_link_out_of_the_store_is_refused(store, publish, tmp_path):
    name = publish()
    (store.root / name).rename(tmp_path / name)
    (store.root / name).symlink_to(tmp_path / name)
    with pytest.raises(VLLMClientError, match="link that leads out of the store"):
        await resolve(store, name)


async def test_an_activated_adapter_is_served_only_where_activation_is_on(store, publish):
    name = publish(activation_tokens=[1, 2])
    assert (await resolve(store, name, activated=True)).lora_name == name
    with pytest.raises(VLLMClientError, match="act on the whole prompt"):
        await resolve(store, name)


async def test_a_store_that_is_not_there_is_the_engines_trouble_and_not_the_callers(tmp_path, told):
    with pytest.raises(GracefulHTTPError) as caught:
        await StoreResolver(tmp_path / "unmounted", max_rank=None, activated=False).resolve_lora("base", ABSENT)
    assert caught.value.http_status == 503
    assert told() == []


async def test_others_are_served_while_an_adapter_is_checked(store, publish, monkeypatch):
    name, verify = publish(), AdapterStore.verify
    checking, go_on = threading.Event(), threading.Event()

    def slow(store, name):
        checking.set()
        assert go_on.wait(5), "nothing else could run"
        return verify(store, name)

    monkeypatch.setattr(AdapterStore, "verify", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolve, store, name)
        assert await anyio.to_thread.run_sync(checking.wait, 5)
        go_on.set()
