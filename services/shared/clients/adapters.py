"""The adapter store: a folder on a volume that the trainer writes, and that the engine and the services read.

services/shared/contracts/adapters.py draws the folder. Writing goes through `.staging/` and a rename, so that nobody ever sees
half of anything, whenever a writer dies. All of it is blocking file I/O: call it from a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from services.shared.chassis.files import chunks_of, locked, opened_directory, sync_directory, write_durably
from services.shared.clients.adapter_files import WEIGHTS_AND_CONFIG, checked_card, stray_entry
from services.shared.clients.manifests import (
    manifest_name,
    read_manifest,
    read_training,
    release_before,
    toolset_of,
    with_release,
)
from services.shared.contracts.adapters import (
    ADAPTER_NAME,
    CARD_FILE,
    TRAINING_SUFFIX,
    AdapterCard,
    AdapterSet,
    Manifest,
    Release,
    Training,
    TrainingEvent,
)
from services.shared.contracts.errors import AdapterRefused, AgentFluxError, Unavailable
from services.shared.contracts.tools import canonical_json

STAGING = ".staging"
LOCK_FILE = ".lock"

_Signature = tuple[tuple[str | int, ...], ...]


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as a listing shows it.

    `size` is in bytes; `releases` are the numbers of the remembered ones that use it, newest first, and `serves` says that
    the newest of its toolset does. `card` is None where `problem` says why the adapter is refused.
    """

    name: str
    card: AdapterCard | None
    size: int
    releases: list[int]
    serves: bool
    problem: str | None


class AdapterStore:
    """The store in the folder `root`, which must exist. Any number of processes may share it.

    Every method raises Unavailable where the volume cannot be read or written; what serves stays as it is then.
    """

    def __init__(self, root: Path, *, lock_wait_s: float = 30.0) -> None:
        self.root = root
        self._lock_wait_s = lock_wait_s
        self._verified: dict[str, tuple[_Signature, AdapterCard]] = {}

    def publish(self, files: Path, card: AdapterCard) -> str:
        """Adds the adapter whose two files are in the folder `files`, and gives its name; nothing uses it yet.

        `card.files` is what `hashes_of(files)` gives. Publishing the same adapter twice is publishing it once.

        Raises:
            AdapterRefused: the adapter is not one that could serve, or its files are not those of the card.
        """
        name = card.name
        if not os.path.lexists(self.root / name):
            self._add(files, card, name)
        self._settle(name)
        self.verify(name)
        return name

    def verify(self, name: str) -> AdapterCard:
        """The card of an adapter of which every byte was checked; at once, where nothing changed since the last time.

        Raises:
            AdapterRefused: it is not in the store, is not what its name promises, or cannot be served.
        """
        if not ADAPTER_NAME.fullmatch(name):
            raise AdapterRefused(
                f"{name!r:.300} is no adapter's name, which is <toolset>.<select, joint or tool>--<12 hex digits>"
            )
        try:
            signature = _signature(self.root / name)
            known = self._verified.get(name)
            if known is None or known[0] != signature:
                known = self._verified[name] = (signature, checked_card(self.root / name, name))
            return known[1]
        except AdapterRefused as error:
            self._verified.pop(name, None)
            raise AdapterRefused(f"adapter {name} in {self.root} is refused: {error.message}") from None
        except FileNotFoundError as error:
            if not self.root.is_dir():
                raise self._unreadable(error) from error
            self._verified.pop(name, None)
            raise AdapterRefused(f"adapter {name} is not in {self.root}; publish it first") from None
        except OSError as error:
            raise self._unreadable(error) from error

    def promote(self, toolset: str, adapters: AdapterSet, *, note: str = "") -> Release:
        """Makes these the adapters of the toolset, as its next release. An empty set leaves it to the base model.

        Raises:
            AdapterRefused: one of them is refused, or is not for what the set uses it for.
        """
        # Reading gigabytes takes a while. Under the lock it is done again, and costs nothing if nothing changed.
        self._verify_set(toolset, adapters)
        with self._writing(), self._lock():
            return self._release(toolset, adapters, note)

    def roll_back(self, toolset: str, *, note: str = "") -> Release:
        """A new release with the adapters that served before the present ones.

        Raises:
            NotFound: no other adapters are remembered.
            AdapterRefused: one of them is refused by now.
        """
        self._verify_set(toolset, self._earlier(toolset).adapters)
        with self._writing(), self._lock():
            earlier = self._earlier(toolset)
            return self._release(toolset, earlier.adapters, note or f"back to release {earlier.number}")

    def manifest(self, toolset: str) -> Manifest | None:
        """The releases of a toolset; None if it never had one.

        Raises:
            AdapterRefused: the file is broken; it says how.
        """
        try:
            return read_manifest(self.root, toolset)
        except OSError as error:
            raise self._unreadable(error) from error

    def manifests(self) -> dict[str, Manifest]:
        """Every toolset's manifest that can be read; `problems` tells of the others."""
        return self.look()[0]

    def problems(self) -> dict[str, str]:
        """Why the other toolsets' manifests cannot be read."""
        return self.look()[1]

    def look(self) -> tuple[dict[str, Manifest], dict[str, str]]:
        """Both, from one reading."""
        manifests, problems = dict[str, Manifest](), dict[str, str]()
        for toolset in filter(None, map(toolset_of, sorted(self._entries()))):
            try:
                if manifest := self.manifest(toolset):
                    manifests[toolset] = manifest
            except AgentFluxError as error:
                problems[toolset] = error.message
        return manifests, problems

    def trainings(self) -> dict[str, Training]:
        """How trainings went, of every toolset that had one."""
        toolsets = [name for entry in self._entries() if (name := toolset_of(entry, TRAINING_SUFFIX))]
        return {toolset: read_training(self.root, toolset) for toolset in sorted(toolsets)}

    def record_training(self, toolset: str, event: TrainingEvent) -> None:
        """Keeps that this happened now. The trainer ends with its training; whoever follows the store still tells of it.

        Raises:
            AdapterRefused: no toolset can be called so.
        """
        name = manifest_name(toolset, TRAINING_SUFFIX)
        with self._writing(), self._lock():
            training = read_training(self.root, toolset).model_copy(update={event: time.time()})
            self._replace(name, training.model_dump_json().encode())

    def adapters(self) -> list[StoredAdapter]:
        """Every adapter that is there, or that a release names; each is verified."""
        manifests = self.manifests()
        named = {name for manifest in manifests.values() for release in manifest.releases for name in release.adapters.names}
        return [self._stored(name, manifests) for name in sorted(named | self._present())]

    def prune(self, *, keep_s: float) -> list[str]:
        """Deletes adapters that no remembered release names, and what writers who died left; only what is older than `keep_s`.

        `keep_s` in seconds must be longer than a trainer takes from its first publish to its promote. Where a manifest is
        broken, nothing of its toolset is deleted. Gives the names of the adapters.
        """
        with self._writing(), self._lock():
            before = self._now() - keep_s
            gone = [name for name in self._unused() if _changed_before(self.root / name, before)]
            (self.root / STAGING).mkdir(exist_ok=True)
            for name in gone:
                # Out of sight whole, for deleting takes several steps; and nothing is created, for the disk may be full.
                out_of_sight = self.root / STAGING / uuid4().hex
                _let_change(self.root / name)
                (self.root / name).rename(out_of_sight)
                _remove(out_of_sight)
            for left in (self.root / STAGING).iterdir():
                if _changed_before(left, before):
                    _remove(left)
            sync_directory(self.root)
        return gone

    def _add(self, files: Path, card: AdapterCard, name: str) -> None:
        try:
            flaw = stray_entry(files, set(WEIGHTS_AND_CONFIG))
        except OSError as error:
            flaw = str(error)
        if flaw:
            raise AdapterRefused(f"{files} cannot be published as {name}: {flaw}")
        with self._writing(), self._staging() as staging:
            for file in WEIGHTS_AND_CONFIG:
                write_durably(staging / file, chunks_of(files / file))
            content = canonical_json(card.model_dump(mode="json")).encode("utf-8", "surrogatepass")
            write_durably(staging / CARD_FILE, [content])
            sync_directory(staging)
            try:
                checked_card(staging, name)
            except AdapterRefused as error:
                raise AdapterRefused(f"{files} cannot be published as {name}: {error.message}") from None
            try:
                staging.rename(self.root / name)
            except OSError as error:
                # Somebody else published the same adapter meanwhile.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def _settle(self, name: str) -> None:
        # A directory can be renamed only while it is writable, and some network file systems have no modes at all.
        # The time says when it was published last: `prune` goes by it.
        with contextlib.suppress(OSError), opened_directory(self.root / name) as directory:
            os.utime(directory)
            os.fchmod(directory, 0o555)
        with self._writing():
            sync_directory(self.root)

    def _verify_set(self, toolset: str, adapters: AdapterSet) -> None:
        manifest_name(toolset)
        uses = [("selector", None, adapters.selector)] if adapters.selector else []
        for role, tool, name in [*uses, *(("arguments", tool, name) for tool, name in adapters.arguments.items())]:
            card = self.verify(name)
            if card.toolset != toolset or (card.role, card.tool) not in {(role, tool), ("joint", None)}:
                wanted = f"the {role} of {tool!r}" if tool else f"the {role}"
                made = f"{card.role} of {card.tool!r}" if card.tool else card.role
                raise AdapterRefused(
                    f"adapter {name} is to be {wanted} in toolset {toolset!r}, but its card says: {card.toolset!r}, {made}"
                )

    def _release(self, toolset: str, adapters: AdapterSet, note: str) -> Release:
        self._verify_set(toolset, adapters)
        manifest = with_release(self.manifest(toolset), toolset, adapters, note)
        self._replace(manifest_name(toolset), manifest.model_dump_json(indent=1).encode())
        return manifest.current

    def _replace(self, name: str, content: bytes) -> None:
        with self._staging() as staging:
            fresh = staging / name
            write_durably(fresh, [content])
            fresh.replace(self.root / name)
            sync_directory(self.root)

    def _earlier(self, toolset: str) -> Release:
        return release_before(self.manifest(toolset), toolset)

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.root)
        except OSError as error:
            raise self._unreadable(error) from error

    def _present(self) -> set[str]:
        return {name for name in self._entries() if ADAPTER_NAME.fullmatch(name)}

    def _unused(self) -> list[str]:
        manifests, broken = self.look()
        used = {name for manifest in manifests.values() for release in manifest.releases for name in release.adapters.names}
        return sorted(name for name in self._present() - used if name.partition(".")[0] not in broken)

    def _stored(self, name: str, manifests: dict[str, Manifest]) -> StoredAdapter:
        manifest = manifests.get(name.partition(".")[0])
        releases = [release.number for release in manifest.releases if name in release.adapters.names] if manifest else []
        serves = manifest is not None and name in manifest.current.adapters.names
        card, problem = None, None
        try:
            card = self.verify(name)
        except AgentFluxError as error:
            problem = error.message
        return StoredAdapter(name, card, _size(self.root / name), releases, serves, problem)

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        staging = self.root / STAGING / uuid4().hex
        staging.parent.mkdir(exist_ok=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            _remove(staging)

    def _now(self) -> float:
        """The time by the clock that dates the entries: on a network file system its server's, and not this machine's."""
        os.utime(self.root / LOCK_FILE)
        return (self.root / LOCK_FILE).stat().st_mtime

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.root / LOCK_FILE, wait_s=self._lock_wait_s)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"the adapter store {self.root} cannot be written: {error}; nothing that serves was changed"
            ) from error

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(f"the adapter store {self.root} cannot be read: {error}")


def check_fit(card: AdapterCard, *, base_fingerprint: str, template_hash: str) -> None:
    """Whether the adapter belongs to the base model and the prompts that are served.

    Raises:
        AdapterRefused: it does not; the message says what differs.
    """
    if card.base_fingerprint != base_fingerprint:
        raise AdapterRefused(
            f"adapter {card.name} was trained on the base model {card.base_model!r} (fingerprint {card.base_fingerprint[:12]}), "
            f"served is one with fingerprint {base_fingerprint[:12]}; serve that model, or train for this one"
        )
    if card.template_hash != template_hash:
        raise AdapterRefused(
            f"adapter {card.name} was trained on prompts of template {card.template_hash[:12]}, served is {template_hash[:12]}; "
            "serve that version, or train again"
        )


def _signature(directory: Path) -> _Signature:
    """Changes whenever anything in the directory does; the time of the last status change cannot be set back."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise AdapterRefused("it is a symlink or a file, not a directory of the store")
    signature: list[tuple[str | int, ...]] = [(status.st_ino,)]
    for name in sorted(os.listdir(directory)):
        status = (directory / name).lstat()
        signature.append((name, status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(signature)


def _changed_before(path: Path, moment: float) -> bool:
    """Whether the directory is one, and its entries have been as they are since before `moment`."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    # The clock of a file system ticks a few hundred times a second, so what was written just now may have the same time.
    return stat.S_ISDIR(status.st_mode) and status.st_mtime <= moment


def _size(directory: Path) -> int:
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(directory))
    except OSError:
        return 0


def _let_change(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.chmod(0o755)


def _remove(folder: Path) -> None:
    # What cannot be deleted is in staging, where the next prune finds it.
    shutil.rmtree(folder, ignore_errors=True)
