"""The rules that keep the folders honest: who may import whom, who touches the world, who reads the environment.

Each rule takes a tree of sources and gives back its violations, each with file, line, rule and what to do.
tests/test_architecture.py applies them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Sources = dict[str, ast.Module]
Rule = Callable[[Sources], Iterator[str]]

ROLES = {"app.py", "settings.py", "api.py", "__main__.py", "process.py", "store.py", "transport.py"}
WORLDLY_FOLDERS = {"api", "drivers", "vllm_plugin"}
IO_MODULES = {
    "aiohttp", "fastapi", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "http.client", "http.server", "httpx",
    "httpx2", "mcp", "multiprocessing", "redis", "requests", "socket", "ssl", "starlette", "subprocess", "urllib.request",
    "urllib3", "uvicorn", "services.shared.chassis.http", "services.shared.chassis.grpc", "services.shared.clients",
}  # fmt: skip
IO_CALLS = {
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "asyncio.open_connection", "asyncio.start_server",
    "asyncio.open_unix_connection", "asyncio.start_unix_server", "anyio.open_process", "anyio.run_process", "anyio.connect_tcp",
    "os.system", "os.popen", "os.fork", "os.execv", "os.execvp", "os.execve", "os.execvpe", "os.posix_spawn",
}  # fmt: skip
# Programs of their own, which a person runs.
PROGRAMS = {"services/sandbox/pin.py", "services/engine/adapters.py"}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv"}


def read_sources() -> Sources:
    """Every module under services/, except generated ones."""
    paths = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "services").rglob("*.py"))
    return {path: ast.parse((ROOT / path).read_text("utf-8")) for path in paths if not path.startswith("services/shared/pb/")}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def service_of(path: str) -> str | None:
    """The service that a file belongs to; None for services/shared and services/__init__.py."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "services" and parts[1] != "shared" else None


def is_idea(path: str) -> bool:
    parts = path.split("/")
    return (
        service_of(path) is not None
        and path not in PROGRAMS
        and parts[-1] not in ROLES
        and not WORLDLY_FOLDERS & set(parts[2:-1])
    )


def imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever in the file, except for type checkers only."""
    for node in _walk_without_type_checking(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.removesuffix("/__init__.py").split("/")[: None if path.endswith("__init__.py") else -1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def _walk_without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _walk_without_type_checking(child)


def attributes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every dotted name such as `os.environ`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def touched_world(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each import or call that reaches beyond the process."""
    for line, name in imports(path, tree):
        if name in IO_CALLS or any(within(name, module) for module in IO_MODULES):
            yield line, name
    yield from ((line, name) for line, name in attributes(tree) if name in IO_CALLS)


def services_do_not_import_each_other(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        for line, name in imports(path, tree):
            target = service_of(name.replace(".", "/") + "/")
            if service_of(path) and target and target != service_of(path):
                yield (
                    f"{path}:{line} imports {name}: a service never imports another. "
                    "Put what both agree on into services/shared/contracts, and reach the other through its client."
                )


def shared_imports_no_service(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        for line, name in imports(path, tree):
            if path.startswith("services/shared/") and service_of(name.replace(".", "/") + "/"):
                yield f"{path}:{line} imports {name}: services/shared knows no service. Move the decision into the service."


def contracts_touch_nothing(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        if not path.startswith("services/shared/contracts/"):
            continue
        for line, name in touched_world(path, tree):
            yield f"{path}:{line} uses {name}: contracts do no I/O. Move it to services/shared/clients or chassis."
        for line, name in imports(path, tree):
            if within(name, "services") and not within(name, "services.shared.contracts"):
                yield f"{path}:{line} imports {name}: contracts import only contracts. Turn the import around."


def ideas_have_no_wires(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        if is_idea(path):
            for line, name in touched_world(path, tree):
                yield (
                    f"{path}:{line} uses {name}: an idea does no I/O. Take a Protocol as an argument, "
                    "or move the line to process.py, store.py, transport.py, api.py or app.py."
                )


# Inside vLLM's processes there is no app of ours; the launcher hands values in by the environment. And what makes settings of it.
READERS = ("services/engine/vllm_plugin/switches.py", "services/shared/chassis/settings.py")


def only_app_reads_the_environment(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        if path.split("/")[-1] in ("app.py", "__main__.py") or path in READERS:
            continue
        found = [*attributes(tree), *imports(path, tree)]
        for line, name in sorted({(line, name) for line, name in found if name in ENVIRONMENT}):
            yield f"{path}:{line} reads {name}: configuration comes from settings. Add a field; app.py hands its value in."


def only_app_constructs_settings(sources: Sources) -> Iterator[str]:
    names = {node.name for _, node in _settings_classes(sources)}
    for path, tree in sources.items():
        if path.split("/")[-1] in ("app.py", "__main__.py") or path in PROGRAMS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names:
                yield f"{path}:{node.lineno} constructs settings: only app.py does. Take the values you need as arguments."


def settings_explain_themselves(sources: Sources) -> Iterator[str]:
    for path, node in _settings_classes(sources):
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
                continue
            said = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
            if not (isinstance(said, str) and said.rstrip().endswith((".", "?", "!"))):
                name = ast.unparse(field.target)
                yield (
                    f"{path}:{field.lineno} field {name} has no sentence under it. "
                    'Write """What it does, its unit, what zero or None means.""" on the next line.'
                )


def _settings_classes(sources: Sources) -> Iterator[tuple[str, ast.ClassDef]]:
    for path, tree in sources.items():
        for node in ast.walk(tree):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if (
                isinstance(node, ast.ClassDef)
                and path.endswith("settings.py")
                and any(base.endswith("Settings") for base in bases)
            ):
                yield path, node


def no_two_modules_import_each_other(sources: Sources) -> Iterator[str]:
    modules = {module_name(path): path for path in sources}
    graph: dict[str, dict[str, int]] = {}
    for module, path in modules.items():
        edges = graph.setdefault(module, {})
        for line, name in imports(path, sources[path]):
            # `from package import name` means the submodule where there is one, else the package itself.
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                edges.setdefault(target, line)
    done: set[str] = set()
    for start in graph:
        yield from _cycles(graph, start, [], done, modules)


def _cycles(
    graph: dict[str, dict[str, int]], module: str, trail: list[str], done: set[str], modules: dict[str, str]
) -> Iterator[str]:
    if module in trail:
        circle = [*trail[trail.index(module) :], module]
        where = f"{modules[circle[0]]}:{graph[circle[0]][circle[1]]}"
        yield f"{where} closes a circle of imports: {' -> '.join(circle)}. Move what they share to a third file."
    elif module not in done:
        for target in graph[module]:
            yield from _cycles(graph, target, [*trail, module], done, modules)
        done.add(module)


def every_service_has_its_roles(sources: Sources) -> Iterator[str]:
    for service in sorted({service for path in sources if (service := service_of(path))}):
        for role in ("app", "settings", "api", "__main__"):
            if not {f"services/{service}/{role}.py", f"services/{service}/{role}/__init__.py"} & sources.keys():
                yield f"services/{service}: {role}.py is missing: every service has app, settings, api and __main__. Add it."
