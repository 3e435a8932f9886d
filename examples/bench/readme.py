"""What the README says was measured, from ``docs/bench.json``: ``python -m examples.bench.readme``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.bench.works import SILICON, SILICON_PUBLISHED
from neuflow.grid import PRESETS

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "work, batch 1 unless said", "cycles an image", "of peak MACs", "over layer roofline",
    "frames/s at the assumed clock", "judges",
)  # fmt: skip
JUDGES = {
    "rtl": "the Verilog under Verilator on one thread",
    "cycle": "the cycle judge with values",
    "times": "its times alone",
}


Record = dict[str, Any]
"""What ``docs/bench.json`` holds."""


def short_table(record: Record) -> str:
    """Return one line a work: what the grid's judges gave; they agree in every cycle."""
    judges: dict[str, list[dict[str, Any]]] = {}
    for row in record["rows"]:
        if row["judge"] in ("rtl", "cycle"):
            judges.setdefault(row["title"], []).append(row)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for title, found in judges.items():
        row = found[0]
        cells = (
            title,
            f"{row['cycles_per_image']:,.0f}",
            f"{row['mac_utilisation']:.3f}",
            f"{row['cycles'] / row['layer_roofline_cycles']:.3f}",
            f"{row['clock_hz'] / row['cycles_per_image']:,.1f}",
            " == ".join(entry["judge"] for entry in found),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speeds(record: Record) -> str:
    """Return the slowest and the fastest work of each judge, in thousands of cycles a second."""
    ranges = []
    for judge, name in JUDGES.items():
        found = sorted(
            (row["cycles"] / row["seconds"] / 1000, row["title"])
            for row in record["rows"]
            if row["judge"] == judge
        )
        (least, slowest), (most, fastest) = found[0], found[-1]
        ranges.append(f"{name} {least:,.0f} ({slowest}) to {most:,.0f} ({fastest})")
    return (
        f"Thousands of cycles a second, start of the run included: {'; '.join(ranges)}.\n"
        f"{_second_core(record)}"
    )


def pair_ratio(row: dict[str, Any]) -> float:
    """Return how many times the cycles a second of one run two at a time give together."""
    return sum(row["seconds_alone"] / seconds for seconds in row["seconds"])


def _second_core(record: Record) -> str:
    """Return what two runs of the Verilog at a time bring; empty: not measured."""
    ratios = [pair_ratio(row) for row in record["pairs"]]
    if not ratios:
        return ""
    return (
        "Two runs of the Verilog at a time, as the tests make them, give "
        f"{min(ratios):.2f} to {max(ratios):.2f} times the cycles a second of one.\n"
    )


def silicon(record: Record) -> str:
    """Return the speeds that others published for the grid of silicon, and ours; empty: none."""
    rows = {row["work"]: row for row in record["silicon"]}
    texts = [
        f"the {rows[name]['title']} runs there at {row_gops(rows[name]):.1f} GOPS "
        f"(published: {published})"
        for name, published in SILICON_PUBLISHED.items()
        if name in rows
    ]
    if not texts:
        return ""
    grid = PRESETS[SILICON]
    return (
        f"`{SILICON}` has the same MACs at an assumed {grid.clock_hz / 1e6:.0f} MHz and "
        f"{grid.bus_words_per_cycle:g} words a cycle each way: "
        f"{'; '.join(texts)}.\nAll works on it: `docs/bench.md`.\n"
    )


def row_gops(row: dict[str, Any]) -> float:
    """Return useful operations a second, two a MAC, at the assumed clock, in units of 1e9."""
    return 2 * row["macs"] / row["cycles"] * row["clock_hz"] / 1e9


PARTS = {"bench": short_table, "speeds": speeds, "silicon": silicon}
"""Name of the marks around a part of the README -> what makes it."""


def with_measured(readme: str, record: Record) -> str:
    """Return the README with all that stands between marks made anew."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        head, _, rest = readme.partition(begin)
        _, _, tail = rest.partition(end)
        readme = f"{head}{begin}{make(record)}{end}{tail}"
    return readme


def main() -> None:
    """Bring README.md up to date."""
    record = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))
    path = ROOT / "README.md"
    path.write_text(with_measured(path.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main()
