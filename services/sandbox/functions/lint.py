"""What an agent is told about a function that it wants to register: what will not work in the sandbox, before it is called.

It is advice. Every call runs in a fresh sandbox whatever this finds; code that fools it gains nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from services.shared.contracts.tools import JsonObject

MAX_MESSAGES = 20

_NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "requests", "httpx", "aiohttp"}
_PROCESSES = {"subprocess", "multiprocessing", "pty"}
_INTERNALS = {"ctypes", "gc", "importlib", "marshal", "pickle"}
_RUN_TEXT = {"eval", "exec", "compile", "__import__"}


def parsed(source: str) -> ast.Module:
    """The source as a tree.

    Raises:
        ValueError: it is no Python; says where.
    """
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deep to be read") from None


def function_in(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The function that is called.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if name not in found:
        names = ", ".join(sorted(found)) or "no function"
        raise ValueError(f"it does not define `def {name}(…)` at the top; it has {names}")
    return found[name]


def advice(tree: ast.Module, name: str, parameters: JsonObject) -> list[str]:
    """Sentences for the agent, by line; none when nothing stands out."""
    function = function_in(tree, name)
    found = [*_parameters(function, parameters), *_body(function)]
    for node in ast.walk(tree):
        found += _node(node)
    return list(dict.fromkeys(found))[:MAX_MESSAGES]


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, parameters: JsonObject) -> Iterator[str]:
    arguments = function.args
    taken = {each.arg for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    listed = parameters.get("properties")
    properties = set(listed) if isinstance(listed, dict) else set()
    if arguments.posonlyargs:
        yield f"line {function.lineno}: arguments are passed by name, so parameters before `/` cannot be filled"
    if not arguments.kwarg:
        for extra in sorted(properties - taken):
            yield f"line {function.lineno}: the schema has the property {extra!r}, which {function.name} does not take"
    for missing in sorted(taken - properties):
        yield f"line {function.lineno}: {function.name} takes {missing!r}, which the schema does not describe"
    defaults = len(arguments.defaults)
    needed = {each.arg for each in arguments.args[: len(arguments.args) - defaults]}
    for optional in sorted((needed & properties) - set(parameters.get("required") or [])):
        yield f"line {function.lineno}: {optional!r} has no default, so list it under `required` in the schema"


def _body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    if not ast.get_docstring(function):
        yield f"line {function.lineno}: a docstring would tell whoever approves it what {function.name} is for"
    if not any(isinstance(node, ast.Return | ast.Yield) for node in ast.walk(function)):
        yield f"line {function.lineno}: nothing is returned; what it returns, prints or writes to /tmp/output is its result"


def _node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _imported(alias.name, node.lineno)
    elif isinstance(node, ast.ImportFrom):
        yield from _imported(node.module or "", node.lineno)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _RUN_TEXT:
            yield f"line {node.lineno}: {node.func.id}() runs text as code, which whoever approves this cannot read"
        elif node.func.id == "open" and node.args:
            yield from _opened(node.args[0], node.lineno)
        elif node.func.id == "input":
            yield f"line {node.lineno}: nobody answers input(); make it a parameter"
    elif isinstance(node, ast.Attribute) and node.attr in ("__subclasses__", "__globals__", "__builtins__"):
        yield f"line {node.lineno}: {node.attr} is reached into, which whoever approves this will ask about"
    elif isinstance(node, ast.Global):
        yield f"line {node.lineno}: each call starts anew, so {', '.join(node.names)} is not remembered"
    elif isinstance(node, ast.While) and _is_endless(node):
        yield f"line {node.lineno}: this loop has no break or return, so the call ends at its deadline"
    elif isinstance(node, ast.ExceptHandler) and node.type is None:
        yield f"line {node.lineno}: a bare `except:` hides from you why a call failed"


def _imported(module: str, line: int) -> Iterator[str]:
    top = module.partition(".")[0]
    if top in _NETWORK:
        yield f"line {line}: {top}: there is no network in the sandbox"
    elif top in _PROCESSES:
        yield f"line {line}: {top}: few processes are possible, and only programs of the system are there"
    elif top in _INTERNALS:
        yield f"line {line}: {top}: whoever approves this will ask what it is needed for"
    elif top and top not in sys.stdlib_module_names:
        yield f"line {line}: {top} is not part of Python; it is there only if the system's Python has it"


def _opened(path: ast.expr, line: int) -> Iterator[str]:
    name = path.value if isinstance(path, ast.Constant) and isinstance(path.value, str) else ""
    if name.startswith("/") and not name.startswith(("/tmp", "/usr")):
        yield f"line {line}: {name} is not there: a function sees /usr, and writes below /tmp only"


def _is_endless(loop: ast.While) -> bool:
    is_true = isinstance(loop.test, ast.Constant) and bool(loop.test.value)
    return is_true and not any(isinstance(node, ast.Break | ast.Return | ast.Raise) for node in ast.walk(loop))
