"""The MCP server of one registered function. It runs inside the sandbox, with the system's Python and nothing else.

It shares its process with code that nobody trusts, so nothing here is a boundary: a function may take over the server, and gets
no further than its own answer. What it writes below /tmp/output comes back as embedded resources, collected here, inside.
"""

from __future__ import annotations

import base64
import contextlib
import inspect
import io
import json
import mimetypes
import os
import stat
import sys
import traceback
from typing import Any
from urllib.parse import quote

SOURCE = "/toolset/function.py"
TOOL = "/toolset/tool.json"
OUTPUT = "/tmp/output"
MAX_FILES = 16
MAX_BYTES = 1 << 20
MAX_PRINTED = 64 * 1024


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of one call, as MCP has it."""
    os.makedirs(OUTPUT, exist_ok=True)
    os.chdir(OUTPUT)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            result = run(name, arguments)
        said, structured, failed = texts(result), result if isinstance(result, dict) else None, False
    except BaseException as error:
        said, structured, failed = [explained(error)], None, True
    if printed.getvalue():
        said.append("printed:\n" + printed.getvalue()[:MAX_PRINTED])
    answer: dict[str, Any] = {"content": [{"type": "text", "text": text} for text in said], "isError": failed}
    answer["content"] += collected()
    return {**answer, "structuredContent": structured} if structured is not None else answer


def run(name: str, arguments: dict[str, Any]) -> Any:
    """What the function returns."""
    with open(SOURCE, encoding="utf-8") as file:
        source = file.read()
    module: dict[str, Any] = {"__name__": "function", "__file__": SOURCE}
    exec(compile(source, SOURCE, "exec"), module)
    result = module[name](**arguments)
    if inspect.iscoroutine(result):
        import asyncio

        result = asyncio.run(result)
    # Refused here, where the message helps, and not by whoever reads the answer.
    json.dumps(result, allow_nan=False).encode()
    return result


def texts(result: Any) -> list[str]:
    """What a model reads of it."""
    if result is None:
        return []
    return [result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)]


def explained(error: BaseException) -> str:
    """The traceback from the function's own first line on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == SOURCE]
    lines = [f"line {frame.lineno}, in {frame.name}" for frame in own[-8:]]
    return "\n".join([*lines, "".join(traceback.format_exception_only(type(error), error)).strip()])[:8192]


def collected() -> list[dict[str, Any]]:
    """The files in OUTPUT as content blocks: plain files only, not through links, as many and as large as is allowed."""
    blocks: list[dict[str, Any]] = []
    left_out: list[str] = []
    room = MAX_BYTES
    for path in sorted(walked(OUTPUT)):
        name = os.path.relpath(path, OUTPUT)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            left_out.append(f"{name} (no plain file)")
            continue
        with os.fdopen(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                left_out.append(f"{name} (no plain file)")
            elif status.st_size > room or len(blocks) == MAX_FILES:
                left_out.append(f"{name} ({status.st_size} bytes; {MAX_FILES} files of {MAX_BYTES} bytes together come back)")
            else:
                data = opened.read(room)
                room -= len(data)
                blocks.append(resource(name, data))
    if left_out:
        blocks.append({"type": "text", "text": "not returned: " + ", ".join(left_out[:MAX_FILES])})
    return blocks


def walked(folder: str) -> list[str]:
    """Paths below `folder`, at most a few more than may come back; directories are entered, links are not."""
    found: list[str] = []
    for parent, _, names in os.walk(folder, followlinks=False):
        found += [os.path.join(parent, name) for name in names]
        if len(found) > 4 * MAX_FILES:
            break
    return found[: 4 * MAX_FILES]


def resource(name: str, data: bytes) -> dict[str, Any]:
    """An embedded resource: text where it is text, else base64."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    uri = "file:///output/" + quote(os.fsencode(name))
    try:
        if not (kind.startswith("text/") or kind in ("application/json", "image/svg+xml")):
            raise ValueError
        return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": data.decode("utf-8")}}
    except ValueError:
        return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "blob": base64.b64encode(data).decode()}}


def main() -> None:
    """Answers requests, one line each, until the end of stdin."""
    # What a library prints to file descriptor 1 must not become a message.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    with open(TOOL, encoding="utf-8") as file:
        tool = json.load(file)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        method, params = request.get("method"), request.get("params") or {}
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if method == "initialize":
            info = {"name": "agentflux-function", "version": "1"}
            version = params.get("protocolVersion", "2025-11-25")
            answer["result"] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        elif method == "tools/list":
            answer["result"] = {"tools": [tool]}
        elif method == "tools/call" and params.get("name") == tool["name"]:
            answer["result"] = call(tool["name"], params.get("arguments") or {})
        else:
            answer["error"] = {"code": -32601, "message": f"no such method: {method}"}
        out.write(json.dumps(answer, ensure_ascii=True) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
