"""What the harness notes over time (``Figures`` in sim/harness.cpp)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.array import fewer_cycles, with_fewer
from neuflow.cycle.compiled import called, lowest, part
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
        ("activity", INT, (MAX_COLUMNS,)),  # of the last cycles, which are yet to be counted ...
        ("since", INT, (MAX_COLUMNS,)),  # ... but for those before this one of the window
    ]
)
WINDOWS = 512
LATE = 4
"""Cycles that the harness observes before the grid is busy."""
_MAC_BIT = 1 << Activity.MAC
_FLAGS, _LANES = (1 << FLAG_BITS) - 1, (1 << LANE_BITS) - 1
_USEFUL, _EDGE_LANES, _MAP_REMAINDER = (int(cause) for cause in MAC_CAUSES)


@part
def _add(f, c, cause, macs):
    f.counts[c, FLAG_BITS + cause] += macs
    f.causes[cause] += macs


@part
def _split(f, grid, c, activity, cycles):
    """Give the MACs of a column's cycles to their causes."""
    if activity & _MAC_BIT:
        lanes = activity >> (FLAG_BITS + 4) & _LANES
        maps = activity >> (FLAG_BITS + 4 + LANE_BITS) & _LANES
        _add(f, c, _USEFUL, lanes * maps * cycles)
        _add(f, c, _EDGE_LANES, (grid.pixels - lanes) * grid.maps * cycles)
        _add(f, c, _MAP_REMAINDER, lanes * (grid.maps - maps) * cycles)
    else:
        _add(f, c, activity >> FLAG_BITS & 15, grid.pixels * grid.maps * cycles)


@called
def _count(f, grid, c):
    """Count the last cycles of a column, which had one activity."""
    cycles, activity = f.filled - f.since[c], f.activity[c]
    if cycles == 0:
        return
    begin = f.windows * f.width + f.since[c] - LATE
    fewer = fewer_cycles(activity, begin, begin + cycles)
    f.since[c] = f.filled
    _split(f, grid, c, activity, cycles - fewer)
    if fewer:
        _split(f, grid, c, with_fewer(activity), fewer)
    bits = activity & _FLAGS
    while bits:
        f.counts[c, lowest(bits)] += cycles
        bits &= bits - 1


@called
def count_all(m):
    """Count what has not been counted yet: all cycles before this one."""
    for c in range(m.grid.columns):
        _count(m.figures, m.grid, c)


@part
def figures_edge(m):
    """Take note of the activity of a cycle; return whether the window is full."""
    f = m.figures
    for c in range(m.grid.columns):
        if m.wires[c].activity != f.activity[c]:
            _count(f, m.grid, c)
            f.activity[c] = m.wires[c].activity
    f.filled += 1
    return f.filled == f.width


@called
def store_window(m, timeline):
    """Put the present window into ``timeline[w, c, k]``."""
    f = m.figures
    count_all(m)
    for c in range(m.grid.columns):
        f.since[c] = 0
        for b in range(COUNTS):
            timeline[f.windows, c, b] = f.counts[c, b]
            f.counts[c, b] = 0
    f.filled = 0
    f.windows += 1


@called
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
