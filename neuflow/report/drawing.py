"""What all pictures share: colours, a figure without window system, and writing it.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuflow import files

BLACK, GREY, LIGHT, PALE = "#000000", "#767676", "#D9D9D9", "#F2F2F2"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

DPI = 120


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` as PNG, all or nothing; without time and version inside."""
    with matplotlib_defaults():
        files.write_atomic(
            path, lambda beside: figure.savefig(beside, dpi=DPI, metadata={"Software": None})
        )


@contextlib.contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Draw by Matplotlib's own defaults, whatever a user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure without pyplot, so that no window system and no global state is met."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure
