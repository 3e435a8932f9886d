"""A pipeline whose stages all move together (``en``), as in the ALU, the mapper and the window."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT

PLACES = 16
"""Stages at most; a power of 2."""

PIPELINE = np.dtype(
    [
        ("beats", INT, (PLACES,)),  # a ring: what went in at each move, see ``pack``; 0: nothing
        ("at", INT),  # place of the next
        ("inside", INT),  # beats in the ring and in the output register
    ]
)


@part
def pack(count, last):
    """Return a beat as one number, not 0."""
    return count << 1 | last


@part
def pipeline_stage(p, stage):
    """Return what stands in the register behind ``stage`` (1 is the first)."""
    return p.beats[(p.at - stage) & (PLACES - 1)]


@part
def pipeline_edge(p, o, latency, accept, count, last):
    """Move all stages; ``o``: the output register, stage ``latency``. Call it where ``en`` is 1.

    Clears ``o.ready``. Nothing moves without a beat inside, which is the same as moving nothing.
    """
    o.ready = 0
    if not (accept or p.inside):
        return
    p.inside -= o.valid
    p.beats[p.at] = pack(count, last) if accept else 0
    p.inside += accept
    p.at = (p.at + 1) & (PLACES - 1)
    beat = p.beats[(p.at - latency) & (PLACES - 1)]
    o.valid = beat != 0
    o.count, o.last = beat >> 1, beat & 1
