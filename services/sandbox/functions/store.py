"""The functions that tenants registered, on disk: what each is, whose it is, who may call it.

`records/<toolset>.json` is the truth, written whole or not at all. `toolsets/<toolset>/` is made from it: an ordinary toolset
with a lock, made again at each start, so that a new version of the server comes to old functions, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.sandbox.errors import SandboxError, ToolsetNotReady, TooManyFunctions, UnknownToolset
from services.sandbox.functions import server
from services.sandbox.functions.function import Function, vars_of
from services.sandbox.limits import Limits
from services.sandbox.pinning import LOCK_FILE, TOOLS_FILE, PinnedTool, lock_of
from services.sandbox.toolset_file import TOOLSET_FILE
from services.sandbox.toolsets import Toolset, read_toolset
from services.shared.contracts.adapters import TOOLSET_NAME
from services.shared.contracts.errors import Unavailable
from services.shared.contracts.tools import JsonObject

# Below /usr, which is what every sandbox sees; never a virtual environment of the service.
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
# Of all tenants together: registering and listing read them all.
MAX_FUNCTIONS = 1000


@dataclass(frozen=True)
class Registered:
    """A function, its version for each tenant that registered it, and when and by whom it was approved for all others."""

    function: Function
    versions: dict[str, int] = field(default_factory=dict)
    registered: str = ""
    approved: str = ""
    approved_by: str = ""

    def visible_to(self, tenant: str, *, own_at_once: bool) -> bool:
        """Whether `tenant` may call it."""
        return bool(self.approved) or (own_at_once and tenant in self.versions)


class FunctionStore:
    """The functions below `directory`. With `own_at_once` a tenant calls its own before anybody approved them."""

    def __init__(self, directory: Path, *, ceiling: Limits, per_tenant: int, own_at_once: bool) -> None:
        self._directory = directory
        self._per_tenant = per_tenant
        self.own_at_once = own_at_once
        self._seen: dict[str, tuple[tuple[int, int], Registered]] = {}
        self._ceiling = ceiling
        # What is registered never changes.
        self._toolsets: dict[str, Toolset] = {}

    def open(self) -> int:
        """Makes the directories, and the toolset of each record anew; returns how many functions there are.

        Raises:
            OSError: they cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "records").mkdir(exist_ok=True, mode=0o700)
        (self._directory / "toolsets").mkdir(exist_ok=True, mode=0o755)
        with self._locked():
            found = list(self._all())
            for registered in found:
                self._lay_out(registered.function)
        return len(found)

    def register(self, function: Function, tenant: str) -> Registered:
        """Keeps `function` for `tenant`; what is there already stays as it is.

        Raises:
            TooManyFunctions: the tenant, or all tenants together, have as many as is possible.
            Unavailable: the disk does not take it.
        """
        try:
            return self._register(function, tenant)
        except OSError as error:
            raise Unavailable(f"the function cannot be kept in {self._directory}: {error.strerror}; make room there") from None

    def _register(self, function: Function, tenant: str) -> Registered:
        with self._locked():
            before = self._read(function.toolset)
            if before is not None and before.function.digest != function.digest:
                raise TooManyFunctions(f"another function is called {function.toolset}: change a character of the source")
            if before is not None and tenant in before.versions:
                return before
            everyone = list(self._all())
            own = [each for each in everyone if tenant in each.versions]
            if len(own) >= self._per_tenant or len(everyone) >= MAX_FUNCTIONS:
                raise TooManyFunctions(
                    f"tenant {tenant!r} has {len(own)} functions and all tenants {len(everyone)}; {self._per_tenant} and "
                    f"{MAX_FUNCTIONS} are possible: have some removed, or raise AGENTFLUX_SANDBOX_FUNCTIONS_PER_TENANT"
                )
            last = max((each.versions[tenant] for each in own if each.function.name == function.name), default=0)
            made = before or Registered(function, registered=_now())
            made = replace(made, versions={**made.versions, tenant: last + 1})
            if before is None:
                self._lay_out(function)
            self._write(made)
            return made

    def approve(self, toolset: str, by: str) -> Registered:
        """Lets every tenant call it; an empty `by` takes that back.

        Raises:
            UnknownToolset: there is no such function.
        """
        with self._locked():
            before = self._read(toolset)
            if before is None:
                raise UnknownToolset(f"there is no function {toolset[:130]!r}; there are: {self._names()}")
            made = replace(before, approved=_now() if by else "", approved_by=by)
            self._write(made)
            return made

    def get(self, toolset: str, tenant: str) -> Registered:
        """What `tenant` may see of it: its own, approved or not, and what was approved.

        Raises:
            UnknownToolset: there is none, or it is another tenant's and not approved.
        """
        found = self._read(toolset)
        if found is None or not found.visible_to(tenant, own_at_once=True):
            raise UnknownToolset(
                f"tenant {tenant!r} has no function {toolset[:130]!r}: it was not registered, or not approved for other tenants"
            )
        return found

    def toolset(self, name: str, tenant: str) -> Toolset:
        """The toolset through which `tenant` calls a function.

        Raises:
            UnknownToolset, ToolsetNotReady: it may not, or not yet.
        """
        found = self.get(name, tenant)
        if not found.visible_to(tenant, own_at_once=self.own_at_once):
            raise ToolsetNotReady(
                f"the function {name!r} waits for approval: an operator runs python -m services.sandbox.functions approve {name}"
            )
        if name not in self._toolsets:
            self._toolsets[name] = read_toolset(self._directory / "toolsets" / name, self._ceiling)
        return self._toolsets[name]

    def seen_by(self, tenant: str) -> list[Registered]:
        """What `tenant` may see, by name and age."""
        found = [each for each in self._all() if each.visible_to(tenant, own_at_once=True)]
        return sorted(found, key=lambda each: (each.function.name, each.registered))

    def all(self) -> list[Registered]:
        """Everything, for the operator."""
        return sorted(self._all(), key=lambda each: each.registered)

    def _all(self) -> Iterator[Registered]:
        for path in (self._directory / "records").glob("*.json"):
            with contextlib.suppress(SandboxError):
                if (found := self._read(path.stem)) is not None:
                    yield found

    def _names(self) -> str:
        return ", ".join(sorted(each.function.toolset for each in self._all())[:20]) or "none"

    def _read(self, toolset: str) -> Registered | None:
        # The name came over the wire: what leads elsewhere is no name.
        if not TOOLSET_NAME.fullmatch(toolset):
            return None
        path = self._directory / "records" / f"{toolset}.json"
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_ino
            if toolset in self._seen and self._seen[toolset][0] == stamp:
                return self._seen[toolset][1]
            row = json.loads(path.read_text("utf-8"))
            found = Registered(**{**row, "function": Function(**row["function"])})
        except FileNotFoundError:
            self._seen.pop(toolset, None)
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ToolsetNotReady(f"{path} cannot be used: {error}") from None
        if found.function.toolset != toolset:
            raise ToolsetNotReady(f"{path} is not what was registered: its contents are {found.function.toolset}")
        self._seen[toolset] = stamp, found
        return found

    def _write(self, registered: Registered) -> None:
        row = {**vars(registered), "function": vars_of(registered.function)}
        _replace(self._directory / "records" / f"{registered.function.toolset}.json", row, 0o600)

    def _lay_out(self, function: Function) -> None:
        target = self._directory / "toolsets" / function.toolset
        target.mkdir(exist_ok=True)
        # Tools run as another user where root runs the service.
        target.chmod(0o755)
        listed = {"name": function.name, "description": function.description, "inputSchema": function.parameters}
        (target / "function.py").write_text(function.source, "utf-8")
        shutil.copyfile(Path(server.__file__), target / "server.py")
        _replace(target / "tool.json", listed, 0o644)
        _replace(target / TOOLS_FILE, [function.tool.openai()], 0o644)
        _replace(target / LOCK_FILE, lock_of([PinnedTool(function.tool)], None), 0o644)
        # Last, for only then it is a toolset. JSON is YAML.
        _replace(target / TOOLSET_FILE, _toolset_file(function), 0o644)
        for path in (target / "function.py", target / "server.py"):
            path.chmod(0o644)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Against an operator who approves at the same moment."""
        number = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)


def _toolset_file(function: Function) -> JsonObject:
    return {
        "command": [next(filter(os.path.exists, PYTHONS), PYTHONS[0]), "-I", "/toolset/server.py"],
        "description": function.description,
        "environment": {"MPLCONFIGDIR": "/tmp/matplotlib", "MPLBACKEND": "agg"},
        "limits": {"memory_bytes": 512 * 1024 * 1024, "processes": 32, "output_bytes": 2 * 1024 * 1024},
        "scope": "call",
        "workspace": False,
    }


def _replace(path: Path, value: Any, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(mode)
    fresh.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
