"""Measure everything side by side: ``make bench``.

Tables in Markdown and JSON; every figure in them was measured in this run, but for the column of
published ones. Each measurement is a process of its own, so that its peak memory is known.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from examples.bench import readme, scale_sim, tables
from examples.bench.layers import is_grouped, layers
from examples.bench.measure import PROGRAMS
from examples.bench.timed import timed
from examples.bench.works import (
    GROWTH,
    GROWTH_GRIDS,
    PAIRED,
    SILICON,
    SILICON_RTL,
    SILICON_WORKS,
    WORKS,
)
from neuflow.run import compilers

ARRAY_SIDE = 20
"""SCALE-Sim's array, 400 MACs as ``virtex6`` has."""

SIMULATED = 100_000_000
"""MACs up to which SCALE-Sim itself is run; beyond, its closed form."""

Row = dict[str, Any]


def measure(name: str, grid: str, judge: str) -> Row:
    """Measure one work in a process of its own."""
    print(f"{name} on {grid}: {judge}", file=sys.stderr, flush=True)
    cost = timed([sys.executable, "-m", "examples.bench.measure", name, grid, judge])
    found = json.loads(cost.output.splitlines()[-1])
    title = WORKS[name].title
    return {
        "work": name, "title": title, "grid": grid, "judge": judge, **found
    }  # fmt: skip


def has_peer(name: str) -> bool:
    """Whether SCALE-Sim is asked: it knows no groups; AlexNet is given to it ungrouped."""
    work = WORKS[name]
    return not work.again and (work.scale_sim or not is_grouped(work.model()))


def peer(name: str, work: Path) -> Row:
    """Measure SCALE-Sim in its best dataflow on the layers of a work."""
    found = layers(WORKS[name].model())
    dataflow = scale_sim.best_dataflow(found, ARRAY_SIDE)
    macs = sum(layer.macs for layer in found)
    cycles = scale_sim.closed_form(found, ARRAY_SIDE, dataflow)
    row: Row = {
        "work": name, "title": WORKS[name].title, "judge": f"SCALE-Sim {dataflow}", "macs": macs,
        "cycles": cycles,
    }  # fmt: skip
    if WORKS[name].scale_sim and macs <= SIMULATED:
        print(f"{name}: SCALE-Sim", file=sys.stderr, flush=True)
        ran = scale_sim.run(found, ARRAY_SIDE, dataflow, work)
        if ran["cycles"] != cycles:
            raise RuntimeError(f"SCALE-Sim {ran['cycles']} cycles, closed form {cycles}")
        row |= ran
    return row | {"mac_utilisation": macs / (cycles * ARRAY_SIDE**2)}


def on_silicon(names: list[str], everything: bool) -> list[Row]:
    """Measure works on the grid of silicon: times of all, and the Verilog where it is not long."""
    rows = []
    for name in names:
        row = measure(name, SILICON, "times")
        rows.append(row)
        if everything or row["cycles"] <= SILICON_RTL:
            rows.append(measure(name, SILICON, "rtl"))
            _check_agreement(name, rows)
    return rows


def pair(alone: Row) -> Row:
    """Measure a work in the Verilog twice at the same time, on a core each; ``alone``: once."""
    name, grid = alone["work"], alone["grid"]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: measure(name, grid, "rtl"), range(2)))
    return {
        "work": name, "title": alone["title"], "cycles": alone["cycles"],
        "seconds_alone": alone["seconds"], "seconds": [row["seconds"] for row in found],
    }  # fmt: skip


def compiler() -> str:
    """Return the name and version of the C++ compiler that the Verilog is compiled by."""
    path = compilers.tools(fastest=True)["C++ compiler"]
    return compilers.compiler_version(path).partition("\n")[0]


def _check_agreement(name: str, rows: list[Row]) -> None:
    """Raise RuntimeError where judges gave a work different cycles."""
    cycles = {row["cycles"] for row in rows if row["work"] == name}
    if len(cycles) != 1:
        raise RuntimeError(f"{name}: the judges differ: {sorted(cycles)} cycles")


def main() -> int:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, default=Path("build/bench"), help="results")
    parser.add_argument("--publish", action="store_true", help="also to docs/ and README.md")
    parser.add_argument("--only", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--all", action="store_true", help="run every work on RTL")
    parser.add_argument("--no-peers", action="store_true", help="without SCALE-Sim")
    parser.add_argument("--no-silicon", action="store_true", help=f"without `{SILICON}`")
    parser.add_argument("--no-growth", action="store_true", help="without 100 and 1600 MACs")
    parser.add_argument("--keep", action="store_true", help="programs that an earlier run compiled")
    chosen = parser.parse_args()
    chosen.o.mkdir(parents=True, exist_ok=True)
    if not chosen.keep:
        shutil.rmtree(PROGRAMS, ignore_errors=True)
    rows: list[Row] = []
    for name in chosen.only:
        judges = ["rtl"] if WORKS[name].rtl or chosen.all else []
        grid = WORKS[name].grid
        rows += [measure(name, grid, judge) for judge in (*judges, "cycle", "times")]
        _check_agreement(name, rows)
        rows.append(measure(name, grid, "onnxruntime"))
        if not chosen.no_peers and has_peer(name):
            rows.append(peer(name, chosen.o))
    pairs = [pair(row) for row in rows if row["judge"] == "rtl" and row["work"] in PAIRED]
    other = []
    if not chosen.no_silicon:
        other = on_silicon([name for name in chosen.only if name in SILICON_WORKS], chosen.all)
    grown = []
    if not chosen.no_growth:
        grown = [measure(name, grid, "times") for name in GROWTH for grid in GROWTH_GRIDS]
    record = {
        "machine": platform.processor() or platform.machine(), "compiler": compiler(),
        "rows": rows, "pairs": pairs, "silicon": other, "growth": grown,
    }  # fmt: skip
    text = tables.document(record)
    (chosen.o / "bench.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (chosen.o / "bench.md").write_text(text, encoding="utf-8")
    if chosen.publish:
        for file in ("bench.json", "bench.md"):
            shutil.copyfile(chosen.o / file, readme.ROOT / "docs" / file)
        readme.main()
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
