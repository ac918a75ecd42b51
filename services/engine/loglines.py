"""Reads vLLM's log lines, so that they can be written again as records of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]

# "(EngineCore pid=12) WARNING 11-21 04:47:38 [vllm.py:725] Model Runner V2 requires Triton"
_LINE = re.compile(
    r"^(?:\((?P<process>[^)]*?) pid=(?P<pid>\d+)\) )?"
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):? +(?:[\d-]+ [\d:]+ )?(?:\[(?P<where>[^\]]+)\] ?)?(?P<message>.*)$"
)
_LEVELS: dict[str, Level] = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


@dataclass(frozen=True)
class LogLine:
    """One line: who of vLLM's processes wrote it, how severe it is, and what it says."""

    level: Level
    message: str
    process: str = ""
    where: str = ""


def parse_log_line(line: str) -> LogLine:
    """The parts of `line`; one that is not in vLLM's format is a message of level info."""
    line = line.rstrip()
    match = _LINE.match(line)
    if match is None:
        return LogLine("info", line)
    return LogLine(_LEVELS[match["level"]], match["message"], match["process"] or "", match["where"] or "")
