"""Where the DMA's words lie (blocks.dma_address): descriptors to runs to bursts."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.axi import ADDRESS_BITS
from neuflow.cycle.compiled import called, part
from neuflow.cycle.state import INT, record

WALKER = np.dtype(
    [
        *[(name, INT) for name in ("active", "run", "row", "plane")],
        ("left", INT, (3,)),
        ("ends", INT, (3,)),
    ]
)
"""dma_address.Walker. Its output is valid while ``active``; ``run`` is the run's first word."""

SPLITTER = record(
    "there", "address", "end", "coming_last", "coming_dest",  # the run that comes
    "active", "beat", "more", "ends", "length", "first", "final", "final_low", "last", "dest",
    "fits",
)  # fmt: skip
"""dma_address.Splitter."""

ADDRESS_MASK = (1 << 32) - 1
"""Word addresses are taken modulo 2**32; the top bit says scratchpad, and memory does not see it."""


@part
def is_near(grid, beat):
    """Whether a beat address lies in the scratchpad: its top bit, where the grid has one."""
    return grid.scratchpad_words != 0 and beat * grid.bus_words * 2 >> ADDRESS_BITS & 1 != 0


@part
def may_follow(grid, beat, near, under_way):
    """``dma_address.may_follow``: those under way lie in the same memory as the burst at hand."""
    return under_way == 0 or is_near(grid, beat) == (near != 0)


@part
def walker_last(w):
    """``o.payload.last``."""
    return w.ends[0] & w.ends[1] & w.ends[2]


@called
def walker_edge(w, receiver, o_ready):
    """blocks.dma_address.Walker; sets ``i.ready``: a descriptor is taken with its last run."""
    last = walker_last(w)
    receiver.ready = w.active != 0 and o_ready and last != 0
    active = w.active
    if active == 0:
        w.active = receiver.valid
    elif o_ready and last:
        w.active = 0
    if active and not o_ready:
        return
    d = receiver.o.read
    base = receiver.base
    new_row = active == 0 or w.ends[0] != 0
    new_plane = active == 0 or (w.ends[0] != 0 and w.ends[1] != 0)
    origin = base
    if active:
        origin = w.plane if w.ends[1] else w.row
    w.run = (origin if new_row else w.run + d.step0) & ADDRESS_MASK
    if new_row:
        w.row = (origin + d.step1) & ADDRESS_MASK
    if new_plane:
        w.plane = ((w.plane if active else base) + d.step2) & ADDRESS_MASK
    _count(w, 0, d.count0, new_row, True)
    _count(w, 1, d.count1, new_plane, new_row)
    _count(w, 2, d.count2, active == 0, new_plane)


@part
def _count(w, k, limit, renews, moves):
    """Counter ``k`` of a Walker."""
    if renews:
        w.left[k] = limit
        w.ends[k] = limit == 1
    elif moves:
        w.ends[k] = w.left[k] == 2
        w.left[k] -= 1


@part
def splitter_piece(grid, s):
    """Return what is remembered of the burst at hand: first, final, length, last, dest."""
    final = s.final if s.ends else grid.bus_words - 1
    last = s.last if s.ends else 0
    return s.first | final << 8 | s.length << 16 | last << 32 | s.dest << 33


@part
def run_tail(w, dest, words):
    """Return what goes with a run's first word: words, last of its descriptor, dest."""
    return words << 9 | walker_last(w) << 8 | dest


@part
def splitter_edge(grid, s, runs, moves):
    """blocks.dma_address.Splitter; ``moves``: the burst at hand is asked for.

    ``runs``: slice of runs, first word and ``run_tail``; call it before that slice's edge. Return
    whether the splitter took its run (``i.ready``).
    """
    burst = grid.burst_beats
    taken = s.active == 0 or (moves and s.ends != 0)
    if taken:
        s.active = s.there
        if s.there:
            lanes = grid.bus_words
            s.beat = s.address // lanes
            s.first = s.address & (lanes - 1)
            s.final = s.end & (lanes - 1)
            s.final_low = s.end // lanes & (burst - 1)
            s.more = s.end // lanes // burst
            s.ends = s.more == 0
            low = s.beat & (burst - 1)
            s.length = (s.final_low if s.ends else burst - 1) - low
            s.last = s.coming_last
            s.dest = s.coming_dest
    elif moves:
        s.beat += s.length + 1
        s.ends = s.more == 1
        s.more -= 1
        s.length = s.final_low if s.ends else burst - 1
        s.first = 0
    ready = s.there == 0 or taken
    if ready:
        s.there = runs.valid
        if runs.valid:
            s.address = runs.a
            s.end = (runs.b >> 9) + (runs.a & (grid.bus_words * burst - 1)) - 1
            s.coming_last = runs.b >> 8 & 1
            s.coming_dest = runs.b & 0xFF
    return ready
