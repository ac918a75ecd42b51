"""A tool call through the gateway, as `helm test` makes it. Only the standard library; ends with 1 and says why if it failed."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

# A first request may meet engines that still read the adapters.
PATIENCE_S = 300.0

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def ask(path: str, body: object = None) -> dict[str, Any]:
    """The reply to one request; tries again while the gateway says that it may be tried again."""
    with open(os.environ["API_KEY_FILE"], encoding="utf-8") as file:
        key = file.readline().strip()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            request = urllib.request.Request(os.environ["GATEWAY_URL"] + path, data, headers)
            with urllib.request.urlopen(request, timeout=120) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except urllib.error.HTTPError as error:
            said = f"{path}: {error.code}: {error.read(2000).decode(errors='replace')}"
            if error.code not in (429, 502, 503, 504) or time.monotonic() > deadline:
                sys.exit(said)
        except OSError as error:
            said = f"{path}: {error}"
            if time.monotonic() > deadline:
                sys.exit(said)
        print(f"again in 5 s: {said}", flush=True)
        time.sleep(5)


def main() -> None:
    """Lists the models, then has the first one call a tool."""
    model = ask("/v1/models")["data"][0]["id"]
    reply = ask(
        "/v1/chat/completions",
        {
            "model": model,
            "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
            "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}],
            "tool_choice": "required",
        },
    )
    choice = reply["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    if choice["finish_reason"] != "tool_calls" or len(calls) != 1:
        sys.exit(f"{model} did not call the tool: {json.dumps(choice)[:2000]}")
    call = calls[0]["function"]
    arguments = json.loads(call["arguments"])
    if call["name"] != "get_weather" or not isinstance(arguments.get("city"), str):
        sys.exit(f"{model} called the tool wrongly: {json.dumps(call)[:2000]}")
    print(f"{model} called {call['name']} with {json.dumps(arguments)}")


main()
