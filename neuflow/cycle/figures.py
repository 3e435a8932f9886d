"""What the harness notes over time (``Figures`` in sim/harness.cpp)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, MAX_COLUMNS
from neuflow.layout import FLAG_BITS, LANE_BITS, MAC_CAUSES, Activity, Cause

COUNTS = FLAG_BITS + len(Cause)
"""Of a column: cycles of each flag, then MACs of each cause."""
FIGURES = np.dtype(
    [
        ("width", INT),  # cycles of a window
        ("filled", INT),  # of them in the present window
        ("windows", INT),  # windows before it
        ("counts", INT, (MAX_COLUMNS, COUNTS)),  # of the present window
        ("causes", INT, (len(Cause),)),  # MACs of all columns since the beginning
        ("writes", INT, (MAX_COLUMNS,)),  # descriptors done
    ]
)
WINDOWS = 512
_MAC_BIT = 1 << Activity.MAC
_FLAGS, _LANES = (1 << FLAG_BITS) - 1, (1 << LANE_BITS) - 1
_USEFUL, _EDGE_LANES, _MAP_REMAINDER = (int(cause) for cause in MAC_CAUSES)


@part
def _add(f, c, cause, macs):
    f.counts[c, FLAG_BITS + cause] += macs
    f.causes[cause] += macs


@part
def _split(f, grid, c, activity):
    """Give the MACs of a column's cycle to their causes."""
    if activity & _MAC_BIT:
        lanes, maps = activity >> (FLAG_BITS + 4) & _LANES, activity >> (FLAG_BITS + 4 + LANE_BITS)
        _add(f, c, _USEFUL, lanes * maps)
        _add(f, c, _EDGE_LANES, (grid.pixels - lanes) * grid.maps)
        _add(f, c, _MAP_REMAINDER, lanes * (grid.maps - maps))
    else:
        _add(f, c, activity >> FLAG_BITS & 15, grid.pixels * grid.maps)


@part
def figures_edge(m):
    """Count the activity of a cycle; return whether the window is full."""
    f = m.figures
    for c in range(m.grid.columns):
        _split(f, m.grid, c, m.wires[c].activity)
        bits = m.wires[c].activity & _FLAGS
        b = 0
        while bits:
            f.counts[c, b] += bits & 1
            bits >>= 1
            b += 1
    f.filled += 1
    return f.filled == f.width


@part
def store_window(m, timeline):
    """Put the present window into ``timeline[w, c, k]``."""
    f = m.figures
    for c in range(m.grid.columns):
        for b in range(COUNTS):
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
