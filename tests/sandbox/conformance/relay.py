"""What the suite starts as a client: hands the scenario to the test at a socket, where everything is loaded already."""

import json
import os
import socket
import sys

asked = {"url": sys.argv[2], **{key: os.environ.get(f"MCP_CONFORMANCE_{key.upper()}", "") for key in ("scenario", "context")}}
with socket.socket(socket.AF_UNIX) as waiting:
    waiting.connect(sys.argv[1])
    waiting.sendall(json.dumps(asked).encode() + b"\n")
    problem = waiting.makefile().read()
sys.exit(problem or 0)
