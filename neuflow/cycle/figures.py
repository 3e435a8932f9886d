"""What the harness notes over time (``Figures`` in sim/harness.cpp)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, MAX_COLUMNS
from neuflow.layout import ACTIVITY_BITS

FIGURES = np.dtype(
    [
        ("width", INT),  # cycles of a window
        ("filled", INT),  # of them in the present window
        ("windows", INT),  # windows before it
        ("counts", INT, (MAX_COLUMNS, ACTIVITY_BITS)),  # of the present window
        ("writes", INT, (MAX_COLUMNS,)),  # descriptors done
    ]
)
WINDOWS = 512


@part
def figures_edge(m):
    """Count the activity of a cycle; return whether the window is full."""
    f = m.figures
    for c in range(m.grid.columns):
        bits = m.wires[c].activity
        b = 0
        while bits:
            f.counts[c, b] += bits & 1
            bits >>= 1
            b += 1
    f.filled += 1
    return f.filled == f.width


@part
def store_window(m, timeline):
    """Put the present window into ``timeline[w, c, b]``."""
    f = m.figures
    for c in range(m.grid.columns):
        for b in range(ACTIVITY_BITS):
            timeline[f.windows, c, b] = f.counts[c, b]
            f.counts[c, b] = 0
    f.filled = 0
    f.windows += 1


@part
def next_window(m, timeline):
    """Go on to the next window; with all windows full, pairs are merged."""
    store_window(m, timeline)
    f = m.figures
    half = len(timeline) // 2
    if f.windows == 2 * half:
        for i in range(half):
            timeline[i] = timeline[2 * i] + timeline[2 * i + 1]
        timeline[half:] = 0
        f.width *= 2
        f.windows = half
