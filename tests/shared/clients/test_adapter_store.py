"""The adapter store keeps what was published, shows it whole or not at all, and refuses what could not serve."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from services.shared.clients.adapters import STAGING, AdapterStore, check_fit
from services.shared.contracts.adapters import CARD_FILE, CONFIG_FILE, HISTORY, WEIGHTS_FILE, AdapterSet
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.errors import AdapterRefused, NotFound, Unavailable
from tests.adapters import card_of, write_adapter
from tests.descriptors import still_open

ROOT = Path(__file__).resolve().parents[3]


# Publishing


def test_a_published_adapter_is_its_three_files_and_nobody_writes_them_again(store, base, adapter):
    card = card_of(adapter, base)
    name = store.publish(adapter, card)

    assert name == card.name
    assert store.verify(name) == card
    folder = store.root / name
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
    assert hashlib.sha256((folder / CARD_FILE).read_bytes()).hexdigest()[:12] == name[-12:]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert folder.stat().st_mode & 0o777 == 0o555
    assert list((store.root / STAGING).iterdir()) == []


def test_publishing_twice_is_publishing_once(store, base, adapter):
    card = card_of(adapter, base)
    assert store.publish(adapter, card) == store.publish(adapter, card)
    assert [found.name for found in store.adapters()] == [card.name]


def test_publishing_again_does_not_repair_what_was_damaged(store, base, adapter):
    card = card_of(adapter, base)
    damage(store.root / store.publish(adapter, card) / WEIGHTS_FILE)
    with pytest.raises(AdapterRefused, match="its hash differs"):
        store.publish(adapter, card)


def test_everything_is_on_the_disk_before_it_has_a_name(store, base, adapter):
    card = card_of(adapter, base)
    synced = ["fsync", "rename", "replace"]
    assert steps_of(lambda: store.publish(adapter, card), synced) == ["fsync"] * 4 + ["rename"] + ["fsync"]
    promoted = steps_of(lambda: store.promote("filesystem", AdapterSet(selector=card.name)), synced)
    assert promoted == ["fsync", "replace", "fsync"]


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS_FILE, (folder / WEIGHTS_FILE).stat().st_size - 1)


def symlink_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS_FILE).symlink_to(folder.parent / "elsewhere")


def test_files_that_are_not_those_of_the_card_are_refused(store, base, adapter):
    card = card_of(adapter, base)
    damage(adapter / WEIGHTS_FILE)
    with pytest.raises(AdapterRefused, match="its hash differs from the one in card"):
        store.publish(adapter, card)


@pytest.mark.parametrize("files", [{"adapter_config.json": "0"}, {"../x": "0", "adapter_config.json": "0"}])
def test_a_card_of_other_files_is_refused(store, base, adapter, files):
    with pytest.raises(AdapterRefused, match="gives the hashes of"):
        store.publish(adapter, card_of(adapter, base, files=files))


def test_a_measure_that_is_not_a_number_is_kept_as_null(store, base, adapter):
    card = card_of(adapter, base, gate={"accuracy": float("nan")})
    assert store.verify(store.publish(adapter, card)).gate == {"accuracy": None}


def test_a_folder_that_is_not_there_is_refused(store, base, adapter, tmp_path):
    with pytest.raises(AdapterRefused, match="nowhere"):
        store.publish(tmp_path / "nowhere", card_of(adapter, base))


# Verifying


def damage(path: Path) -> None:
    """One bit of a file changes; its size, mode and times do not."""
    before = path.stat()
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.chmod(path, before.st_mode)
    # The status changes at a later tick of the kernel's clock (4 ms), as it does for whoever is not racing the publish.
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def forge_card(folder: Path) -> None:
    """Weights and card changed together, so that the card's hashes are right."""
    damage(folder / WEIGHTS_FILE)
    (folder / CARD_FILE).chmod(0o644)
    card = json.loads((folder / CARD_FILE).read_text())
    card["files"][WEIGHTS_FILE] = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps(card))


def reformat_card(folder: Path) -> None:
    (folder / CARD_FILE).chmod(0o644)
    (folder / CARD_FILE).write_text(json.dumps(json.loads((folder / CARD_FILE).read_text()), indent=1))


def replace_by_symlink(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


@pytest.mark.parametrize(("change", "words"), [
    pytest.param(lambda folder: damage(folder / WEIGHTS_FILE), "safetensors is not the published one", id="tampered byte"),
    pytest.param(lambda folder: damage(folder / CONFIG_FILE), "adapter_config.json is not the", id="tampered config"),
    pytest.param(lambda folder: damage(folder / CARD_FILE), "card.json", id="tampered card"),
    pytest.param(forge_card, "was changed after it was published", id="forged card"),
    pytest.param(reformat_card, "was changed after it was published", id="card with the same content in other bytes"),
    pytest.param(lambda folder: (folder / CARD_FILE).unlink(), "card.json is missing", id="half-copied, no card"),
    pytest.param(lambda folder: (folder / WEIGHTS_FILE).unlink(), "is missing: the directory is incomplete", id="half-copied"),
    pytest.param(truncate, "not the published one", id="truncated"),
    pytest.param(lambda folder: (folder / "adapter_model.pt").touch(), "adapter_model.pt is a pickle", id="pickle"),
    pytest.param(lambda folder: (folder / ".hidden").touch(), ".hidden does not belong there", id="another file"),
    pytest.param(symlink_weights, "is a symlink", id="symlinked weights"),
    pytest.param(replace_by_symlink, "it is a symlink or a file", id="symlink escape"),
    pytest.param(shutil.rmtree, "is not in .*; publish it first", id="gone"),
])  # fmt: skip
def test_what_was_changed_in_the_store_is_refused_also_by_who_knew_it_before(store, publish, change, words):
    name = publish()
    os.chmod(store.root / name, 0o755)
    change(store.root / name)
    for reader in (store, AdapterStore(store.root)):
        with pytest.raises(AdapterRefused, match=words) as refused:
            reader.verify(name)
        assert name in refused.value.message
    assert [adapter.problem is None for adapter in store.adapters()] in ([], [False])


@pytest.mark.parametrize("rename", [
    lambda name: name[:-1] + ("0" if name[-1] != "0" else "1"),
    lambda name: name.replace(".select--", ".joint--"),
], ids=["version", "alias"])  # fmt: skip
def test_an_adapter_under_another_name_is_refused(store, publish, rename):
    name = publish()
    other = rename(name)
    (store.root / name).chmod(0o755)
    (store.root / name).rename(store.root / other)
    with pytest.raises(AdapterRefused, match=f"card.json is of {name}, not of {other}"):
        store.verify(other)


@pytest.mark.parametrize("name", [
    "", ".", "..", "../store/x.select--000000000000", "/etc", "filesystem.select", "filesystem.select--00000000000g",
    "filesystem.select--000000000000/", "filesystem.select--000000000000\n", "Filesystem.select--000000000000", "x" * 10**6,
])  # fmt: skip
def test_a_name_that_is_no_name_is_refused_before_the_disk_is_touched(tmp_path, name):
    with pytest.raises(AdapterRefused, match="no adapter's name"):
        AdapterStore(tmp_path / "nowhere").verify(name)


def test_asking_again_reads_nothing(store, publish):
    name = publish()
    assert "checked_card" not in steps_of(lambda: store.verify(name), ["checked_card"])
    assert steps_of(lambda: AdapterStore(store.root).verify(name), ["checked_card"]) == ["checked_card"]


@pytest.mark.parametrize(("served", "words"), [
    ({"base_fingerprint": "0" * 64}, "was trained on the base model 'base' .* served is one with fingerprint 000000000000"),
    ({"template_hash": "0" * 64}, "was trained on prompts of template bbbbbbbbbbbb, served is 000000000000"),
])  # fmt: skip
def test_an_adapter_for_something_else_does_not_fit(store, base, publish, served, words):
    card = store.verify(publish())
    fitting: dict[str, Any] = {"base_fingerprint": base_fingerprint(base), "template_hash": "b" * 64}
    check_fit(card, **fitting)
    with pytest.raises(AdapterRefused, match=words):
        check_fit(card, **fitting | served)


# Releases


def test_a_promoted_set_serves_and_the_one_before_is_remembered(store, publish):
    first, second = publish(), publish()
    assert store.manifest("filesystem") is None
    store.promote("filesystem", AdapterSet(selector=first), note="the first")
    release = store.promote("filesystem", AdapterSet(selector=second))

    manifest = store.manifest("filesystem")
    assert manifest == store.manifests()["filesystem"]
    assert manifest.current == release
    assert [(release.number, release.adapters.selector, release.note) for release in manifest.releases] == [
        (2, second, ""), (1, first, "the first"),
    ]  # fmt: skip


def test_rolling_back_skips_releases_of_the_same_adapters_and_can_be_undone(store, publish):
    first, second = publish(), publish()
    for name in (first, second, second):
        store.promote("filesystem", AdapterSet(selector=name))
    back = store.roll_back("filesystem")
    assert (back.number, back.adapters.selector, back.note) == (4, first, "back to release 1")
    forth = store.roll_back("filesystem", note="a mistake")
    assert (forth.number, forth.adapters.selector, forth.note) == (5, second, "a mistake")


def test_there_may_be_nothing_to_roll_back_to(store, publish):
    with pytest.raises(NotFound, match="'filesystem' has no release"):
        store.roll_back("filesystem")
    name = publish()
    for _ in range(2):
        store.promote("filesystem", AdapterSet(selector=name))
    with pytest.raises(NotFound, match="no release with other adapters than release 2"):
        store.roll_back("filesystem")


def test_a_roll_back_to_an_adapter_that_was_tampered_with_is_refused(store, publish):
    first, second = publish(), publish()
    store.promote("filesystem", AdapterSet(selector=first))
    store.promote("filesystem", AdapterSet(selector=second))
    damage(store.root / first / WEIGHTS_FILE)
    with pytest.raises(AdapterRefused, match="its hash differs"):
        store.roll_back("filesystem")
    assert store.manifest("filesystem").current.number == 2


def test_an_empty_set_gives_the_toolset_back_to_the_base_model(store, publish):
    store.promote("filesystem", AdapterSet(selector=publish()))
    assert store.promote("filesystem", AdapterSet()).adapters.names == []


def test_the_oldest_releases_are_forgotten(store, publish):
    names = [publish(), publish()]
    for number in range(HISTORY + 3):
        store.promote("filesystem", AdapterSet(selector=names[number % 2]))
    numbers = [release.number for release in store.manifest("filesystem").releases]
    assert numbers == list(range(HISTORY + 3, 3, -1))


ARGUMENTS = {"role": "arguments", "tool": "read_file"}


def test_an_adapter_serves_only_what_its_card_says(store, publish):
    selector, writer, joint = publish(), publish(**ARGUMENTS), publish(role="joint")
    good = [
        AdapterSet(selector=selector, arguments={"read_file": writer, "list_directory": joint}),
        AdapterSet(selector=joint, arguments={"read_file": joint}),
    ]
    bad = [
        AdapterSet(selector=writer),
        AdapterSet(arguments={"read_file": selector}),
        AdapterSet(arguments={"write_file": writer}),
        AdapterSet(selector=publish(toolset="other")),
    ]
    for adapters in good:
        store.promote("filesystem", adapters)
    for adapters in bad:
        with pytest.raises(AdapterRefused, match="but its card says"):
            store.promote("filesystem", adapters)
    assert store.manifest("filesystem").current.adapters == good[-1]


def test_a_release_of_a_missing_adapter_is_refused(store):
    with pytest.raises(AdapterRefused, match="is not in"):
        store.promote("filesystem", AdapterSet(selector="filesystem.select--000000000000"))
    assert store.manifests() == {}


@pytest.mark.parametrize("toolset", ["", "..", "../x", "a/b", "Files", "x" * 65])
def test_a_toolset_that_cannot_be_one_is_refused(store, toolset):
    for action in (store.manifest, store.roll_back, lambda toolset: store.promote(toolset, AdapterSet())):
        with pytest.raises(AdapterRefused, match="no toolset's name"):
            action(toolset)


def release(number: int = 1, selector: str = "broken.select--000000000000") -> dict[str, Any]:
    return {"number": number, "adapters": {"selector": selector}, "promoted_at": "2026"}


def written(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def manifest(*releases: dict[str, Any], toolset: str = "broken") -> Callable[[Path], object]:
    return written(json.dumps({"toolset": toolset, "releases": releases}))


@pytest.mark.parametrize(("write", "words"), [
    (written('{"toolset"'), "Invalid JSON"),
    (written(""), "Invalid JSON"),
    (manifest(), "at least 1 item"),
    (manifest(release(), toolset="other"), "of toolset 'other'"),
    (manifest(release(selector="../../etc/passwd")), "'../../etc/passwd' is no name"),
    (manifest(release(selector="other.select--000000000000")), "is no name of an"),
    (manifest(release(1), release(2)), r"not in order, newest first: \[1, 2\]"),
    (written(" " * (17 << 20)), "is longer than"),
    (lambda path: path.symlink_to("/etc/passwd"), "is a symlink"),
    (lambda path: path.mkdir(), "is a symlink or a directory"),
    (os.mkfifo, "Invalid JSON"),
])  # fmt: skip
def test_a_broken_manifest_says_why_and_hides_no_other(store, publish, write, words):
    store.promote("filesystem", AdapterSet(selector=publish()))
    path = store.root / "broken.manifest.json"
    write(path)
    with pytest.raises(AdapterRefused, match=words) as refused:
        store.manifest("broken")
    assert str(path) in refused.value.message
    assert list(store.manifests()) == ["filesystem"]
    assert store.problems() == {"broken": refused.value.message}
    with pytest.raises(AdapterRefused, match=words):
        store.promote("broken", AdapterSet())
    assert str(path) not in still_open()


def test_a_manifest_that_names_a_missing_version_is_listed_with_the_problem(store, publish):
    name = publish()
    store.promote("filesystem", AdapterSet(selector=name))
    shutil.rmtree(store.root / name)
    (listed,) = AdapterStore(store.root).adapters()
    assert (listed.name, listed.releases, listed.serves, listed.size) == (name, [1], True, 0)
    assert "is not in" in str(listed.problem)


def test_the_listing_says_what_is_used(store, publish):
    old, new, unused = publish(), publish(), publish(**ARGUMENTS)
    for name in (old, new):
        store.promote("filesystem", AdapterSet(selector=name))
    listed = {adapter.name: adapter for adapter in store.adapters()}
    assert {name: (found.releases, found.serves) for name, found in listed.items()} == {
        old: ([1], False), new: ([2], True), unused: ([], False),
    }  # fmt: skip
    assert listed[unused].size == sum(path.stat().st_size for path in (store.root / unused).iterdir())
    assert listed[unused].card.tool == "read_file"
    assert not any(adapter.problem for adapter in listed.values())


# Pruning


def age(path: Path, seconds: float) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def test_pruning_takes_what_is_old_and_used_by_no_release(store, publish):
    used, present, unused, young = publish(), publish(), publish(), publish()
    for name in (used, present):
        store.promote("filesystem", AdapterSet(selector=name))
    for name in (used, present, unused):
        age(store.root / name, 1000)
    for name, seconds in (("dead", 1000), ("alive", 0)):
        (store.root / STAGING / name).mkdir()
        age(store.root / STAGING / name, seconds)
    (store.root / "notes").mkdir()
    age(store.root / "notes", 1000)

    assert store.prune(keep_s=500) == [unused]
    assert {adapter.name for adapter in store.adapters()} == {used, present, young}
    assert os.listdir(store.root / STAGING) == ["alive"]
    assert (store.root / "notes").is_dir()


def test_publishing_again_keeps_an_old_adapter_from_being_pruned(store, base, adapter):
    card = card_of(adapter, base)
    name = store.publish(adapter, card)
    age(store.root / name, 1000)
    store.publish(adapter, card)
    assert store.prune(keep_s=500) == []


def test_pruning_leaves_a_toolset_alone_whose_manifest_is_broken(store, publish):
    mine, other = publish(), publish(toolset="other")
    (store.root / "filesystem.manifest.json").write_text("{")
    assert store.prune(keep_s=0) == [other]
    assert store.verify(mine)


def test_pruning_follows_no_symlink(store, publish, tmp_path):
    name = publish()
    os.chmod(store.root / name, 0o755)
    replace_by_symlink(store.root / name)
    assert store.prune(keep_s=-10) == []
    assert (tmp_path / "elsewhere" / WEIGHTS_FILE).exists()


def test_what_is_being_promoted_is_never_pruned(store, base, tmp_path):
    folders = [write_adapter(tmp_path / f"files{seed}", base, seed=seed) for seed in range(10)]
    cards = [card_of(folder, base) for folder in folders]
    done = threading.Event()
    pruned: list[str] = []

    def prune() -> None:
        while not done.wait(0.01):
            pruned.extend(AdapterStore(store.root).prune(keep_s=0))

    thread = threading.Thread(target=prune)
    thread.start()
    promoted: set[str] = set()
    try:
        for turn in range(500):
            # Pruned before it is promoted, even while it is written, it is refused; once promoted, it stays. The first never is.
            with suppress(AdapterRefused, Unavailable):
                store.publish(folders[0], cards[0])
            with suppress(AdapterRefused, Unavailable):
                name = store.publish(folders[turn % 9 + 1], cards[turn % 9 + 1])
                store.promote("filesystem", AdapterSet(selector=name))
                promoted.add(name)
            assert all(AdapterStore(store.root).verify(name) for name in remembered(store))
            if len(pruned) > 5 and len(promoted) == 9:
                break
    finally:
        done.set()
        thread.join()
    assert len(pruned) > 5
    assert len(promoted) == 9


def remembered(store: AdapterStore) -> set[str]:
    manifest = store.manifest("filesystem")
    return {name for release in manifest.releases for name in release.adapters.names} if manifest else set()


def steps_of(action: Callable[[], object], names: list[str]) -> list[str]:
    """Which of the functions of these names are called, in order."""
    seen: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        name = argument.__name__ if event == "c_call" else frame.f_code.co_name if event == "call" else ""
        # pathlib's rename and replace call those of os.
        if name in names and (event == "c_call" or "pathlib" not in frame.f_code.co_filename):
            seen.append(name)

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return seen
