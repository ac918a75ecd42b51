"""The tools that the conformance suite expects of a server, by hand, over stdio. It runs inside the sandbox."""

import json
import sys
import time

# One red pixel, and an empty WAV file.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
RESOURCE = {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content."}
MIXED = {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": '{"test":"data","value":123}'}


def text(said):
    return {"type": "text", "text": said}


RESULTS = {
    "test_simple_text": {"content": [text("This is a simple text response for testing.")]},
    "test_image_content": {"content": [IMAGE]},
    "test_audio_content": {"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]},
    "test_embedded_resource": {"content": [{"type": "resource", "resource": RESOURCE}]},
    "test_multiple_content_types": {
        "content": [text("Multiple content types test:"), IMAGE, {"type": "resource", "resource": MIXED}]
    },
    "test_error_handling": {"content": [text("This tool intentionally returns an error for testing")], "isError": True},
    "test_tool_with_progress": {"content": [text("done")]},
    "test_logging_tool": {"content": [text("nothing was logged")]},
    "json_schema_2020_12_tool": {"content": [text("ok")]},
}
ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
SCHEMAS = {
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": ADDRESS},
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "additionalProperties": False,
    }
}
TOOLS = [{"name": name, "description": f"For {name}.", "inputSchema": SCHEMAS.get(name, {"type": "object"})} for name in RESULTS]


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(params):
    token = params.get("_meta", {}).get("progressToken")
    if params["name"] == "test_tool_with_progress" and token is not None:
        for progress in (0, 50, 100):
            send(method="notifications/progress", params={"progressToken": token, "progress": progress, "total": 100})
            time.sleep(0.05)
    return RESULTS[params["name"]]


def serve():
    for line in sys.stdin:
        message = json.loads(line)
        request_id, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if request_id is None:
            continue
        if method == "initialize":
            server = {"name": "conformance", "version": "1"}
            send(id=request_id, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server})
        elif method == "tools/list":
            send(id=request_id, result={"tools": TOOLS})
        elif method == "tools/call":
            send(id=request_id, result=call(params))
        else:
            send(id=request_id, error={"code": -32601, "message": f"no {method} here"})


if __name__ == "__main__":
    serve()
