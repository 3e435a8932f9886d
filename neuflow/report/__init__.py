"""The report of a run: table, JSON and bars; energy by a table that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuflow import api, files
from neuflow.report.energy import table
from neuflow.report.tables import figures, text


def write(program: api.Program, x: Any, directory: Path) -> list[Path]:
    """Run ``program`` under rtl and write ``report.txt``, ``report.json`` and ``report.png``.

    ``x``: inputs as :meth:`neuflow.api.Program.rtl` takes them; None: one batch of random ones.
    """
    if x is None:
        tensors = [port.tensor for port in program.ir.inputs]
        x = api.random_inputs(tensors, program.ir.batch)
    return write_stats(program, program.rtl(x).stats, directory)


def write_stats(program: api.Program, stats: Any, directory: Path) -> list[Path]:
    """Write the report of a run whose statistics are there already."""
    from neuflow.report.bars import draw

    report = figures(program.grid, stats, table())
    names = [f"report.{suffix}" for suffix in ("txt", "json", "png")]
    with files.staged(directory) as place:
        files.write_text(place / names[0], text(report))
        files.write_text(place / names[1], json.dumps(report, indent=2) + "\n")
        files.write_atomic(place / names[2], lambda beside: draw(report, beside))
    return [directory / name for name in names]


__all__ = ["figures", "table", "text", "write", "write_stats"]
