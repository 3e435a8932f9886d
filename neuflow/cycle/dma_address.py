"""Where the DMA's words lie (blocks.dma_address): descriptors to runs to bursts."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, record

WALKER = np.dtype(
    [
        ("started", INT),
        ("saved", INT, (3,)),
        ("count", INT, (3,)),
        *[(name, INT) for name in ("valid", "address", "words", "last", "tag")],  # its output
    ]
)
"""dma_address.Walker; ``address`` is a run's first word."""

SPLITTER = record("beat", "more", "first", "final", "last", "dest", "active")
"""dma_address.Splitter."""

ADDRESS_MASK = (1 << 31) - 1
"""Word addresses are taken modulo 2**31."""
BEAT_MASK = (1 << 24) - 1
"""Beats of a run: as wide as READ.run."""


@part
def walker_wires(w, receiver, o_ready):
    """Set ``i.ready``: a descriptor is taken together with its last run."""
    d = receiver.o.read
    last = (
        w.count[0] + 1 == d.count0 and w.count[1] + 1 == d.count1 and w.count[2] + 1 == d.count2
    )
    receiver.ready = last and (w.valid == 0 or o_ready)


@part
def walker_edge(w, receiver, tag, o_ready):
    """blocks.dma_address.Walker; ``tag``: the descriptor's dest or source."""
    if w.valid and not o_ready:
        return
    w.valid = receiver.valid
    if receiver.valid == 0:
        return
    d = receiver.o.read
    start0, start1, start2 = w.saved[0], w.saved[1], w.saved[2]
    if w.started == 0:
        start0 = start1 = start2 = receiver.base & ADDRESS_MASK
    end0 = w.count[0] + 1 == d.count0
    end1 = w.count[1] + 1 == d.count1
    end2 = w.count[2] + 1 == d.count2
    if not end0:
        following = start0 + d.step0
    elif not end1:
        following = start1 + d.step1
    else:
        following = start2 + d.step2
    following &= ADDRESS_MASK

    w.address = start0
    w.words = d.run
    w.last = end0 and end1 and end2
    w.tag = tag
    w.started = not w.last
    w.saved[0] = following
    w.saved[1] = following if end0 else start1
    w.saved[2] = following if end0 and end1 else start2
    w.count[0] = 0 if end0 else (w.count[0] + 1) & 0xFFFF
    if end0:
        w.count[1] = 0 if end1 else (w.count[1] + 1) & 0xFFFF
        if end1:
            w.count[2] = 0 if end2 else (w.count[2] + 1) & 0xFFFF


@part
def splitter_length(grid, s):
    """Beats - 1 of the burst at hand: to the next multiple of burst_beats, or to the run's end."""
    aligned = ~s.beat & (grid.burst_beats - 1)
    return min(s.more, aligned)


@part
def splitter_piece(grid, s, length):
    """Return what is remembered of the burst at hand: first, final, length, last, dest."""
    ends = s.more == length
    final = s.final if ends else grid.bus_words - 1
    last = s.last if ends else 0
    return s.first | final << 8 | length << 16 | last << 32 | s.dest << 33


@part
def splitter_edge(grid, s, w, moves, length):
    """blocks.dma_address.Splitter; ``moves``: the burst at hand is asked for."""
    ends = s.more == length
    takes = w.valid and (s.active == 0 or (moves and ends))
    if moves:
        s.beat += length + 1
        s.more -= length + 1
        s.first = 0
        s.active = not ends
    if takes:
        lanes = grid.bus_words
        lane = w.address & (lanes - 1)
        s.beat = w.address // lanes
        span = w.words + lane - 1
        s.final = span & (lanes - 1)
        s.more = (span // lanes) & BEAT_MASK
        s.first = lane
        s.last = w.last
        s.dest = w.tag
        s.active = 1


__all__ = [
    "BURSTS", "SPLITTER", "WALKER", "splitter_edge", "splitter_length", "splitter_piece",
    "walker_edge", "walker_wires",
]  # fmt: skip
