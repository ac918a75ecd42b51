"""An MCP server by hand which misbehaves on request. It runs inside the sandbox, with the system's Python and nothing else.

The first argument says how it starts: `well`, `exit`, `hang`, `hang-at-list`, `chatter` (stray lines on stdout), `garbage`
(nothing but stray lines), `drift` (lists a tool that nobody pinned). A second argument is Python that runs before that, and may
replace any function here; its tool `run` runs Python too, which answers with `say(text)` or by assigning `answer`.
"""

import json
import os
import socket
import subprocess
import sys
import time

TOOLS = [
    "echo", "python", "hang", "exit", "kill_itself", "not_json", "not_utf8", "nan", "lone_surrogate", "deep", "huge_result",
    "endless_line", "long_text", "daemons", "fork_bomb", "eat_memory", "refuse", "deaf", "image", "wrong_structure", "notify",
    "wait", "run",
]  # fmt: skip


WAITING = []


def listed():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
    return [{"name": name, "description": f"Does: {name}.", "inputSchema": schema} for name in TOOLS]


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def send_raw(data):
    while data:
        data = data[os.write(1, data) :]


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def attempt(action):
    """What `action` gives, or how it fails."""
    try:
        return str(action())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def run(source, request_id):
    scope = {**globals(), "request_id": request_id, "answer": text("nothing")}
    scope["say"] = lambda value: scope.update(answer=text(str(value)))
    try:
        exec(source, scope)
    except BaseException as error:
        return {**text(f"{type(error).__name__}: {error}"), "isError": True}
    return scope["answer"]


def discovered():
    """For the era without a handshake; None is a server that has never heard of it."""
    return None


def greeting(version):
    return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "hostile", "version": "1"}}


def page(mode):
    extra = {"name": "surprise", "description": "New here.", "inputSchema": {"type": "object"}}
    return {"tools": [*listed(), extra] if mode == "drift" else listed()}


def call(name, argument, request_id):
    tail = b',"jsonrpc":"2.0","id":%d}\n' % request_id
    if name == "echo":
        return text(argument)
    if name == "python":
        names = {"os": os, "socket": socket, "subprocess": subprocess, "sys": sys, "time": time}
        try:
            return text(str(eval(argument, names)))
        except BaseException as error:
            return {**text(f"{type(error).__name__}: {error}"), "isError": True}
    if name == "run":
        return run(argument, request_id)
    if name == "hang":
        time.sleep(3600)
    if name == "deaf":
        # Daemons and a hung leader that no longer reads.
        daemons()
        time.sleep(3600)
    if name == "exit":
        sys.stderr.write("the disk is on fire\n")
        sys.stderr.flush()
        os._exit(7)
    if name == "kill_itself":
        os.kill(os.getpid(), 9)
    if name == "not_json":
        return send_raw(b'{"result": {"content": [' + tail)
    if name == "not_utf8":
        return send_raw(b'{"result": {"content": [{"type": "text", "text": "\xff\xfe"}]}' + tail)
    if name == "nan":
        return send_raw(b'{"result": {"content": [], "structuredContent": {"x": NaN}}' + tail)
    if name == "lone_surrogate":
        return send_raw(b'{"result": {"content": [{"type": "text", "text": "\\ud800"}]}' + tail)
    if name == "deep":
        return send_raw(b'{"result": {"content": [], "structuredContent": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}" + tail)
    if name == "huge_result":
        return text("x" * (16 * 1024 * 1024))
    if name == "endless_line":
        while True:
            send_raw(b"x" * 65536)
    if name == "long_text":
        return text("ä" * 30000)
    if name == "image":
        return {"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}], "structuredContent": {"a": 2**53 + 1}}
    if name == "daemons":
        daemons()
        return text("started")
    if name == "fork_bomb":
        children = 0
        try:
            while children < 10000:
                if os.fork() == 0:
                    time.sleep(3600)
                children += 1
        except OSError as error:
            return text(f"{children} children, then {error.strerror}")
    if name == "eat_memory":
        hoard = []
        while True:
            hoard.append(bytearray(16 * 1024 * 1024))
    if name == "notify":
        while True:
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "still here"}})
    if name == "wait":
        # Until another call is cancelled.
        WAITING.append(request_id)
        return None
    if name == "wrong_structure":
        return {"content": "no list"}
    return text("nothing")


def daemons():
    """A process that left its session, and one whose parents are gone."""
    subprocess.Popen(["sleep", "3597"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "3598"])
        os._exit(0)


def main(mode, source=""):
    exec(source, globals())
    if mode == "exit":
        sys.stderr.write("no licence file found\n")
        sys.exit(3)
    if mode == "hang":
        time.sleep(3600)
    if mode == "chatter":
        sys.stdout.write("welcome to the server\n\n{}\n")
    if mode == "garbage":
        while True:
            sys.stdout.write("this is no message\n")
    for line in sys.stdin:
        request = json.loads(line)
        method, request_id = request.get("method"), request.get("id")
        if method == "notifications/cancelled" and request["params"]["requestId"] in WAITING:
            WAITING.remove(request["params"]["requestId"])
            for left in WAITING:
                send({"jsonrpc": "2.0", "id": left, "result": text("another call was cancelled")})
        if request_id is None:
            continue
        if method == "server/discover" and (found := discovered()):
            result = found
        elif method == "initialize":
            result = greeting(request["params"]["protocolVersion"])
        elif method == "tools/list":
            if mode == "hang-at-list":
                time.sleep(3600)
            result = page(mode)
        elif method == "tools/call":
            params = request["params"]
            if params["name"] == "refuse":
                send({"jsonrpc": "2.0", "id": request_id, "error": {"code": -32602, "message": "not today"}})
                continue
            result = call(params["name"], params.get("arguments", {}).get("text", ""), request_id)
            if result is None:
                continue
        else:
            send({"jsonrpc": "2.0", "id": request_id, "error": {"code": -32601, "message": "no such method"}})
            continue
        send({"jsonrpc": "2.0", "id": request_id, "result": result})


if __name__ == "__main__":
    main(*sys.argv[1:])
