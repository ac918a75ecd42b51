"""An MCP server by hand that keeps notes in a file, and refuses to add a line to a note that is not there."""

import json
import sys
from pathlib import Path

NOTES = Path("/workspace/notes.json")
TEXT = {"type": "string"}
LINE = {
    "type": "object",
    "properties": {"noteTitle": {**TEXT, "description": "The title of the note"}, "text": TEXT},
    "required": ["noteTitle", "text"],
}
RANGE = {"type": "object", "properties": {"start": {"type": "integer"}}, "required": ["start"]}
TOOLS = [
    {
        "name": "create_note",
        "description": "Creates a new note.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "title": TEXT,
                "priority": {"type": "integer", "minimum": 1, "maximum": 5},
                "state": {"enum": ["open", "in_progress", "done"], "default": "open"},
                "due": {"type": ["string", "null"], "format": "date"},
                "pinned": {"type": "boolean", "default": False},
            },
            "required": ["title", "priority"],
            "additionalProperties": False,
        },
    },
    {
        "name": "append_lines",
        "description": "Append lines to existing notes",
        "inputSchema": {
            "type": "object",
            "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1}},
            "required": ["lines"],
            "$defs": {"line": LINE},
        },
    },
    {
        "name": "find_notes",
        "description": "Search notes.",
        "inputSchema": {
            "type": "object",
            "properties": {"query": {"anyOf": [TEXT, {"type": "null"}]}, "range": RANGE},
            "required": ["query"],
        },
    },
    {"name": "list_notes", "description": "Lists all notes", "inputSchema": {"type": "object", "properties": {}}},
]


def run(name, arguments):
    notes = json.loads(NOTES.read_text()) if NOTES.exists() else {}
    if name == "create_note":
        notes[arguments["title"]] = []
    for line in arguments.get("lines", []):
        if line["noteTitle"] not in notes:
            return {"content": [{"type": "text", "text": f"no note {line['noteTitle']}"}], "isError": True}
        notes[line["noteTitle"]].append(line["text"])
    NOTES.write_text(json.dumps(notes))
    return {"content": [{"type": "text", "text": json.dumps(notes)}]}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        method, params = request.get("method"), request.get("params")
        if "id" not in request:
            continue
        if method == "initialize":
            server = {"name": "notes", "version": "1"}
            result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
        elif method == "tools/list":
            result = {"tools": TOOLS}
        elif method == "tools/call":
            result = run(params["name"], params.get("arguments", {}))
        else:
            result = None
        reply = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
