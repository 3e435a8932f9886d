"""Run a command and say what it took."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """``seconds`` of wall clock, ``cpu_seconds``, ``peak_mb`` of one process, its ``output``."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def timed(command: Sequence[str], work: Path | None = None) -> Cost:
    """Run ``command`` in ``work``; raise ``RuntimeError`` with its last line when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=work, stdout=out, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, log):
            file.seek(0)
        if process.returncode:
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{command[0]} failed: {lines[-1] if lines else process.returncode}")
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(seconds, cpu, usage.ru_maxrss / 1024, out.read().decode())
