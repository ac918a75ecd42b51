"""Runs vLLM's API server so that no process of it outlives the process that started it, not even after a kill -9.

Run as a program: `python -m services.engine.tether PARENT_PID VLLM_FLAGS…`. vLLM starts its engine core and its workers by
`spawn`, and each such child imports its parent's main module, this one, before anything else: so every one of them is tied
to its parent here, in its first milliseconds. It needs nothing but the standard library and vLLM, because the interpreter
may be another one than ours.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _exit_if(orphaned: bool) -> None:
    # The parent may have died before we were tied to it; then no signal would come any more.
    if orphaned:
        os._exit(1)


if __name__ == "__mp_main__":
    _die_with_parent()
    # All of vLLM is one session; whoever inherits an orphan is not in it.
    _exit_if(os.getsid(os.getppid()) != os.getsid(0))

if __name__ == "__main__":
    _die_with_parent()
    _exit_if(os.getppid() != int(sys.argv.pop(1)))
    # The console script wants a distribution called `vllm`, which the CPU build is not; this module exists in both.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
