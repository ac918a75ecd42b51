"""Is the service of this container ready? The images' HEALTHCHECK: exit status 0 or 1, and one line that says why not.

It asks whatever process 1 runs (`python -m services.<name>`), on the port that its own environment variable sets. No certificate
is needed for that: where the sandbox's gRPC has TLS, its readiness stays on plain HTTP, beside its metrics.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

# The setting that says where /readyz is, and what it is in the images when nothing sets it.
PORTS = {
    "gateway": ("AGENTFLUX_GATEWAY_PORT", 8030),
    "selector": ("AGENTFLUX_SELECTOR_PORT", 8031),
    "arguments": ("AGENTFLUX_ARGUMENTS_PORT", 8032),
    "callcache": ("AGENTFLUX_CALLCACHE_PORT", 8033),
    "sandbox": ("AGENTFLUX_SANDBOX_METRICS_PORT", 9034),
    "engine": ("AGENTFLUX_ENGINE_PORT", 8010),
}
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
    """Where the service answers."""
    name, usual = PORTS[service]
    return int(environment.get(name) or usual)


def complaint(port: int) -> str | None:
    """None when the service says that it can serve, else why not."""
    # No proxy: the address is our own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"/readyz says {error.code}: {error.read(_LONGEST_ANSWER).decode(errors='replace')}"
    except OSError as error:
        return f"nobody answers on port {port}: {error}"


def main() -> int:
    """Asks once."""
    service = service_of(Path("/proc/1/cmdline").read_bytes())
    if reason := complaint(port_of(service, os.environ)):
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
