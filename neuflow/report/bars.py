"""The report's bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("cycles", "cycles"),
    ("mac_utilisation", "MAC utilisation"),
    ("gops", "GOPS"),
    ("energy_per_image", "mJ/image"),
)


COLOURS = {
    "useful": "#0072b2", "edge_lanes": "#56b4e9", "map_remainder": "#a6d8f5",
    "fill": "#f0e442", "wait_input": "#009e73", "weight_load": "#e69f00",
    "wait_output": "#882255", "output_drain": "#cc79a7", "dependency": "#d55e00",
    "configuration": "#999999", "idle_tile": "#dddddd",
}  # fmt: skip
"""Colours of Okabe and Ito, and shades of them."""


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw cycles, utilisation, GOPS and energy of each layer as bars into a PNG file.

    Beside them one stacked bar a layer, and one for all: what its MAC-cycles went to.
    """
    from matplotlib.figure import Figure

    rows = report["layers"]
    names = [row["name"] for row in rows]
    height = 1.2 + 0.28 * max(3, len(rows))
    figure = Figure(figsize=(18, height + 0.6), layout="constrained")
    clock = f"{report['clock_hz'] / 1e6:g} MHz ({report['clock_source']})"
    table = report["energy_table"]["name"]
    figure.suptitle(
        f"{report['program']} on {report['grid']} at {clock}; energy: estimate by {table}"
    )
    *axes, causes = figure.subplots(1, 5, sharey=True, width_ratios=(1, 1, 1, 1, 1.6))
    for axis, (key, label) in zip(axes, PANELS, strict=True):
        axis.barh(range(len(rows)), [row[key] or 0 for row in rows])
        axis.set_xlabel(label)
        axis.locator_params(axis="x", nbins=4)  # more would run into one another
    _stack(causes, [*rows, report["total"]])
    causes.set_yticks(range(len(rows) + 1), [*names, "total"])
    causes.set_ylim(len(rows) + 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False, fontsize=8)
    # No software version in the file: the same figures give the same bytes.
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})


def _stack(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw for each row what share of its MAC-cycles went to each cause."""
    wholes = [sum(row["mac_cycles"].values()) or 1 for row in rows]
    left = [0.0] * len(rows)
    for key, colour in COLOURS.items():
        shares = [row["mac_cycles"][key] / whole for row, whole in zip(rows, wholes, strict=True)]
        label = key.replace("_", " ")
        axis.barh(range(len(rows)), shares, left=left, color=colour, label=label)
        left = [sum(pair) for pair in zip(left, shares, strict=True)]
    axis.set_xlabel("share of MAC-cycles")
    axis.set_xlim(0, 1)
