"""The report's bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PANELS = (
    ("cycles", "cycles"),
    ("mac_utilisation", "MAC utilisation"),
    ("gops", "GOPS"),
    ("energy_per_image", "mJ/image"),
)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw cycles, utilisation, GOPS and energy of each layer as bars into a PNG file."""
    from matplotlib.figure import Figure

    rows = report["layers"]
    names = [row["name"] for row in rows]
    height = 1.2 + 0.28 * max(3, len(rows))
    figure = Figure(figsize=(14, height), layout="constrained")
    clock = f"{report['clock_hz'] / 1e6:g} MHz ({report['clock_source']})"
    table = report["energy_table"]["name"]
    figure.suptitle(
        f"{report['program']} on {report['grid']} at {clock}; energy: estimate by {table}"
    )
    for axis, (key, label) in zip(figure.subplots(1, 4, sharey=True), PANELS, strict=True):
        axis.barh(range(len(rows)), [row[key] or 0 for row in rows])
        axis.set_xlabel(label)
        axis.locator_params(axis="x", nbins=4)  # more would run into one another
        axis.set_yticks(range(len(rows)), names)
        axis.set_ylim(len(rows) - 0.5, -0.5)
    # No software version in the file: the same figures give the same bytes.
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
