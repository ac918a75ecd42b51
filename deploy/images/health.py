"""Is the service of this container ready? The images' HEALTHCHECK: exit status 0 or 1, and one line that says why not.

It asks whatever process 1 runs (`python -m services.<name>`), on the port that its own environment variable sets.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

PORTS = {"gateway": 8030, "selector": 8031, "arguments": 8032, "callcache": 8033, "sandbox": 8034, "engine": 8010}
TIMEOUT_S = 4.0
_LONGEST_ANSWER = 4096


def service_of(command_line: bytes) -> str:
    """The name in `python -m services.<name>`, from a command line as /proc gives it.

    Raises:
        ValueError: it runs none of our services.
    """
    found = re.search(rb"\bservices\.(\w+)", command_line)
    if found is None or (name := found[1].decode()) not in PORTS:
        shown = command_line.replace(b"\0", b" ").decode(errors="replace")
        raise ValueError(f"process 1 is no service of ours: {shown!r}")
    return name


def port_of(service: str, environment: Mapping[str, str]) -> int:
    """Where the service listens."""
    return int(environment.get(f"AGENTFLUX_{service.upper()}_PORT") or PORTS[service])


def complaint(service: str, port: int) -> str | None:
    """None when the service says that it can serve, else why not."""
    return _grpc_complaint(port) if service == "sandbox" else _http_complaint(port)


def _http_complaint(port: int) -> str | None:
    # No proxy: the address is our own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"/readyz says {error.code}: {error.read(_LONGEST_ANSWER).decode(errors='replace')}"
    except OSError as error:
        return f"nobody answers on port {port}: {error}"


def _grpc_complaint(port: int) -> str | None:
    # Only the sandbox's image has it.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"nobody answers on port {port}: {error.code()}"
    serving: int = health_pb2.HealthCheckResponse.SERVING
    return None if reply.status == serving else "the sandbox says that it is not serving; its log says why"


def main() -> int:
    """Asks once."""
    service = service_of(Path("/proc/1/cmdline").read_bytes())
    if reason := complaint(service, port_of(service, os.environ)):
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
