"""What the bench measured, as Markdown: ``docs/bench.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from examples.bench.readme import pair_ratio, row_gops
from examples.bench.works import GROWTH, GROWTH_GRIDS, SILICON, SILICON_PUBLISHED, WORKS

Row = dict[str, Any]

COLUMNS = (
    "work", "judge", "cycles an image", "of peak MACs", "over layer roofline",
    "frames/s at the assumed clock", "seconds", "peak MB", "MMAC/s simulated", "published by others",
)  # fmt: skip

SPEED_COLUMNS = (
    "work", "rtl, kcycles/s", "cycle, times as fast as rtl", "times, times as fast as rtl",
)  # fmt: skip

PAIR_COLUMNS = ("work", "one run alone, kcycles/s", "two at a time, kcycles/s together", "ratio")

SILICON_COLUMNS = (
    "work", "cycles an image", "of peak MACs", "over layer roofline", "GOPS at the assumed clock",
    "frames/s at the assumed clock", "judges", "published by others",
)  # fmt: skip


def document(record: Row) -> str:
    """Return all tables of a run of the bench, each under a heading; those without rows are left out.

    ``record``: what ``docs/bench.json`` holds.
    """
    judges = "How fast the judges run"
    if "compiler" in record:
        judges += f" (Verilog compiled by {record['compiler']})"
    sections = [
        ("All judges, side by side", _works, record["rows"]),
        (judges, _speeds, record["rows"]),
        ("A second core: two runs of the Verilog at a time", _pairs, record["pairs"]),
        (f"The same works on `{SILICON}`", silicon, record["silicon"]),
        ("Cycles and efficiency over the number of MACs", _growth, record["growth"]),
    ]
    return "\n".join(f"## {title}\n\n{make(rows)}" for title, make, rows in sections if rows)


def _works(rows: list[Row]) -> str:
    return _table(COLUMNS, map(_work_cells, rows))


def _work_cells(row: Row) -> list[str]:
    work = WORKS[row["work"]]
    cycles, images = row.get("cycles"), row.get("images", 1)
    speed = row["macs"] / row["seconds"] / 1e6 if "macs" in row and "seconds" in row else None
    clock, roof = row.get("clock_hz"), row.get("layer_roofline_cycles")
    frames = clock * images / cycles if clock and cycles else None
    if row["judge"] == "onnxruntime":
        frames = images / row["seconds"]
    return [
        work.title, row["judge"], _number(cycles and cycles / images, ",.0f"),
        _number(row.get("mac_utilisation"), ".3f"),
        _number(cycles / roof if cycles and roof else None, ".3f"),
        _number(frames, ",.1f"), _number(row.get("seconds"), ".3g"),
        _number(row.get("peak_mb"), ",.0f"), _number(speed, ",.0f"), work.published or "-",
    ]  # fmt: skip


def _speeds(rows: list[Row]) -> str:
    lines = []
    for found in _by_work(rows):
        seconds = {row["judge"]: row["seconds"] for row in found if "seconds" in row}
        if "rtl" in seconds:
            rtl = seconds["rtl"]
            lines.append([
                found[0]["title"], _number(found[0]["cycles"] / rtl / 1000, ",.0f"),
                _number(rtl / seconds["cycle"], ".1f"), _number(rtl / seconds["times"], ".1f"),
            ])  # fmt: skip
    return _table(SPEED_COLUMNS, lines)


def _pairs(rows: list[Row]) -> str:
    return _table(PAIR_COLUMNS, map(_pair_cells, rows))


def _pair_cells(row: Row) -> list[str]:
    alone, ratio = row["cycles"] / row["seconds_alone"] / 1000, pair_ratio(row)
    return [
        row["title"], _number(alone, ",.0f"), _number(alone * ratio, ",.0f"), _number(ratio, ".2f"),
    ]  # fmt: skip


def silicon(rows: list[Row]) -> str:
    """Return what was measured on the grid of silicon, a line a work."""
    return _table(SILICON_COLUMNS, map(_silicon_cells, _by_work(rows)))


def _silicon_cells(found: list[Row]) -> list[str]:
    row = found[0]
    cycles = row["cycles_per_image"]
    return [
        row["title"], _number(cycles, ",.0f"), _number(row["mac_utilisation"], ".3f"),
        _number(row["cycles"] / row["layer_roofline_cycles"], ".3f"), _number(row_gops(row), ".1f"),
        _number(row["clock_hz"] / cycles, ",.1f"), " == ".join(one["judge"] for one in found),
        SILICON_PUBLISHED.get(row["work"], "-"),
    ]  # fmt: skip


def _growth(rows: list[Row]) -> str:
    lines = []
    for name in GROWTH:
        of = {row["grid"]: row for row in rows if row["work"] == name}
        cells = (
            f"{of[grid]['cycles']:,} ({of[grid]['mac_utilisation']:.3f})" for grid in GROWTH_GRIDS
        )
        lines.append([WORKS[name].title, *cells])
    return _table(("work", *GROWTH_GRIDS), lines)


def _by_work(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each work, in the order of the works' first rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["work"], []).append(row)
    return list(found.values())


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
