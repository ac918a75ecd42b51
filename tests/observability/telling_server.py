"""An MCP server by hand whose one tool tells the `_meta` of its call. It runs inside the sandbox on the system's Python."""

import json
import sys

TOOL = {"name": "meta", "description": "Tells the call's _meta.", "inputSchema": {"type": "object", "properties": {}}}


def answer(method, params):
    if method == "initialize":
        info = {"name": "telling", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": json.dumps(params.get("_meta", {}))}]}
    return None


def main():
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("id") is None:
            continue
        result = answer(request["method"], request.get("params", {}))
        error = {"error": {"code": -32601, "message": "no such method"}}
        reply = {"jsonrpc": "2.0", "id": request["id"], **(error if result is None else {"result": result})}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
