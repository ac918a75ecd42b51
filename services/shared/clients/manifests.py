"""Manifests and training records as files: their names, reading them with suspicion, and what the next manifest is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from services.shared.clients.adapter_files import first_fault, read_short
from services.shared.contracts.adapters import (
    ADAPTER_NAME,
    HISTORY,
    MANIFEST_SUFFIX,
    TOOLSET_NAME,
    TRAINING_SUFFIX,
    AdapterSet,
    Manifest,
    Release,
    Training,
)
from services.shared.contracts.errors import AdapterRefused, NotFound


def manifest_name(toolset: str, suffix: str = MANIFEST_SUFFIX) -> str:
    """The name of a toolset's manifest, or of its other file with that `suffix`.

    Raises:
        AdapterRefused: no toolset can be called so.
    """
    if not TOOLSET_NAME.fullmatch(toolset):
        raise AdapterRefused(f"{toolset!r:.100} is no toolset's name: lower-case letters, digits, '-' and '_', at most 64")
    return toolset + suffix


def toolset_of(name: str, suffix: str = MANIFEST_SUFFIX) -> str | None:
    """The toolset whose manifest (or other file with that `suffix`) is called so; None for any other file."""
    toolset = name.removesuffix(suffix)
    return toolset if toolset != name and TOOLSET_NAME.fullmatch(toolset) else None


def read_training(root: Path, toolset: str) -> Training:
    """How trainings of a toolset went. A file that cannot be read tells nothing, and stops nobody: no request is served by it."""
    try:
        return Training.model_validate_json(read_short(root / manifest_name(toolset, TRAINING_SUFFIX)))
    except (OSError, ValidationError, AdapterRefused):
        return Training()


def read_manifest(root: Path, toolset: str) -> Manifest | None:
    """The manifest of a toolset in the store `root`; None if there is none.

    Raises:
        AdapterRefused: it is broken; the message says how.
        OSError: it cannot be read.
    """
    path = root / manifest_name(toolset)
    try:
        manifest = Manifest.model_validate_json(read_short(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        flaw: str | None = first_fault(error)
    except AdapterRefused as error:
        flaw = error.message
    else:
        flaw = _flaw(manifest, toolset)
        if flaw is None:
            return manifest
    raise AdapterRefused(f"{path} is broken ({flaw}); put a copy of it back, or remove it and promote again")


def _flaw(manifest: Manifest, toolset: str) -> str | None:
    if manifest.toolset != toolset:
        return f"it is of toolset {manifest.toolset!r}"
    numbers = [release.number for release in manifest.releases]
    if numbers != sorted(set(numbers), reverse=True):
        return f"its releases are not in order, newest first: {numbers}"
    for name in (name for release in manifest.releases for name in release.adapters.names):
        match = ADAPTER_NAME.fullmatch(name)
        if match is None or match["toolset"] != toolset:
            return f"{name!r:.300} is no name of an adapter of toolset {toolset!r}"
    return None


def with_release(manifest: Manifest | None, toolset: str, adapters: AdapterSet, note: str) -> Manifest:
    """The manifest after one more release."""
    before = manifest.releases if manifest else []
    number = before[0].number + 1 if before else 1
    now = datetime.now(UTC).isoformat(timespec="seconds")
    release = Release(number=number, adapters=adapters, promoted_at=now, note=note)
    return Manifest(toolset=toolset, releases=[release, *before][:HISTORY])


def release_before(manifest: Manifest | None, toolset: str) -> Release:
    """The latest release with other adapters than those that serve.

    Raises:
        NotFound: none is remembered.
    """
    if manifest is None:
        raise NotFound(f"toolset {toolset!r} has no release")
    for release in manifest.releases:
        if release.adapters != manifest.current.adapters:
            return release
    raise NotFound(f"toolset {toolset!r} remembers no release with other adapters than release {manifest.current.number}")
