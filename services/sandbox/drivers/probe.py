"""The self-probe: scripts that try the isolation from the inside, and how they are run. What they saw is judged in verdict.py."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.sandbox.drivers.driver import Process, SandboxSpec
from services.sandbox.drivers.verdict import Verdict, facts_from
from services.sandbox.errors import SandboxUnusable
from services.sandbox.limits import MIB, Limits

# Small, so that each limit is reached in milliseconds.
PROBE_LIMITS = Limits(memory_bytes=48 * MIB, processes=32, file_bytes=1 * MIB, tmp_bytes=8 * MIB)

# Prints one fact per line, as name=value. $CANARY is a file of the host that anybody could read, $WORKSPACE the workspace.
SCRIPT = r"""
echo "uid=$(id -u)"
while read -r key value rest; do
  case $key in CapEff:|CapPrm:|CapBnd:|NoNewPrivs:|Seccomp:) echo "${key%:}=$value";; esac
done < /proc/self/status
echo "kernel=$(cat /proc/version)"
if [ "$(cat /proc/2/comm 2>/dev/null)" = kthreadd ]; then echo processes_of_host=visible; fi
for marker in /.dockerenv /run/.containerenv /var/run/secrets/kubernetes.io; do
  if [ -e $marker ]; then echo "marker=$marker"; fi
done
for kind in pid net ipc uts mnt; do echo "ns_$kind=$(readlink /proc/self/ns/$kind)"; done
echo "interfaces=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n')"
if [ -e "$CANARY" ]; then echo canary=visible; else echo canary=hidden; fi
for place in usr etc dev ''; do if (: > "/$place/.probe") 2>/dev/null; then echo "writable=/$place"; fi; done
if (: > "$WORKSPACE/.agentflux-probe") 2>/dev/null; then rm -f "$WORKSPACE/.agentflux-probe"; echo workspace=writable; fi
if (: > /tmp/probe) 2>/dev/null; then echo tmp=writable; fi
echo "environ=$(cat /proc/1/environ 2>/dev/null | wc -c)"
echo "secret=$(cat /run/secrets/probe 2>/dev/null)"
if unshare --user true 2>/dev/null; then echo userns=possible; else echo userns=denied; fi
if prlimit --nproc=1 timeout 5 true 2>/dev/null; then echo processes=free; else echo processes=limited; fi
if (head -c 2000000 /dev/zero > /tmp/big) 2>/dev/null; then echo files=free; else echo files=limited; fi
echo done=1
"""


# $PYTHON is the service's own Python, $SERVICE its pid.
CONTAINER_SCRIPT = r"""
while read -r device where type options rest; do if [ "$where" = / ]; then root=$options; fi; done < /proc/mounts
echo "root=$root"
# gVisor has no such line in /proc/self/status; 39 is PR_GET_NO_NEW_PRIVS.
"$PYTHON" -I -S -c 'import ctypes; print("NoNewPrivs", ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), sep="=")'
may() { if "$PYTHON" -I -S -c "$2" 2>/dev/null; then echo "$1=possible"; else echo "$1=denied"; fi; }
if "$PYTHON" -I -S -c ''; then echo python=works; fi
may network '
import itertools, socket
for family, kind in itertools.product(set(range(64)) - {socket.AF_UNIX}, range(1, 6)):
    try: socket.socket(family, kind)
    except OSError: continue
    raise SystemExit(0)
raise SystemExit(1)'
may environ_of_service 'open("/proc/'$SERVICE'/environ").read()'
may signals 'import os; os.kill('$SERVICE', 0)'
may signals_to_all 'import os; os.kill(-1, 0)'
may signals_to_guard 'import os; os.kill('$PPID', 0)'
may priority_of_service 'import os; os.setpriority(0, '$SERVICE', os.getpriority(0, '$SERVICE'))'
"""

# On its own, because where one group holds the whole sandbox, as in gVisor, reaching its limit ends the sandbox.
MEMORY_SCRIPT = r"""
if head -c 200000000 /dev/zero 2>/dev/null | tail -n 1 >/dev/null 2>&1; then echo memory=free; else echo memory=limited; fi
half() { (head -c 40000000 /dev/zero; sleep 0.3) | tail -n 1 >/dev/null 2>&1; }
half & first=$!; half & second=$!
if wait $first && wait $second; then echo together=free; else echo together=limited; fi 2>/dev/null
echo memory_done=1
"""

PROBE_TIMEOUT_S = 20.0
RETRY_S = 1.0


@contextmanager
def canary() -> Iterator[str]:
    """The path of a file that anybody on the host can read, and nobody inside."""
    with tempfile.NamedTemporaryFile(prefix="agentflux-canary-") as file:
        os.chmod(file.name, 0o644)
        yield file.name


def spec(workspace: Path | None, canary: str, script: str) -> SandboxSpec:
    """The sandbox in which `script` runs."""
    return SandboxSpec(
        command=("/bin/sh", "-c", script),
        workspace=workspace,
        limits=PROBE_LIMITS,
        environment={"CANARY": canary, "WORKSPACE": "/workspace"},
        secrets={"probe": b"kept"},
    )


async def said(child: Process) -> tuple[dict[str, str], str]:
    """The facts that the script in `child` prints, and what it wrote to stderr.

    Raises:
        SandboxUnusable: it did not end.
    """
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            child.stdin.close()
            output, errors = await asyncio.gather(child.stdout.read(), child.stderr.read())
            await child.wait()
    except TimeoutError:
        raise SandboxUnusable(f"the sandbox's self-probe did not end within {PROBE_TIMEOUT_S:g} s") from None
    finally:
        child.kill()
    return facts_from(output.decode("utf-8", "replace")), errors.decode("utf-8", "replace").strip()


async def twice(attempt: Callable[[], Awaitable[Verdict]]) -> Verdict:
    """The verdict of `attempt`, tried again when it fails."""
    # A service that was paused for long (a suspended machine, a debugger) finds its probe timed out, and one that comes right
    # after a sandbox full of processes finds none free; once is no proof.
    try:
        return await attempt()
    except SandboxUnusable:
        await asyncio.sleep(RETRY_S)
        return await attempt()
