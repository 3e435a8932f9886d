"""A pipeline whose stages all move together, and the register slice behind it.

So are the ALU and the mapper built; the window unit and the drain end in such a slice too.
"""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, record

PLACES = 32
"""Stages at most; a power of 2."""

PIPELINE = np.dtype(
    [
        ("beats", INT, (PLACES,)),  # a ring: what went in at each move, see ``pack``; 0: nothing
        ("at", INT),  # place of the next
        ("inside", INT),  # beats in the stages
    ]
)

SPARE = record("valid", "count", "last")
"""The second place of a streams.Slice; the first is the LINK that it drives. ``i.ready`` is
``valid == 0``."""


@part
def pack(count, last):
    """Return a beat as one number, not 0."""
    return count << 1 | last


@part
def pipeline_stage(p, stage):
    """Return what stands in the register behind ``stage`` (1 is the first)."""
    return p.beats[(p.at - stage) & (PLACES - 1)]


@part
def pipeline_edge(p, stages, accept, count, last):
    """Move all ``stages``. Nothing moves without a beat inside: that is as good as moving."""
    if not (accept or p.inside):
        return
    p.inside += accept - (pipeline_stage(p, stages) != 0)
    p.beats[p.at] = pack(count, last) if accept else 0
    p.at = (p.at + 1) & (PLACES - 1)


@part
def slice_edge(spare, o, i_valid, i_count, i_last):
    """streams.Slice with the output ``o`` (LINK); clears ``o.ready``."""
    if o.valid == 0 or o.ready:
        if spare.valid:
            o.count, o.last = spare.count, spare.last
            spare.valid = 0
            o.valid = 1
        else:
            o.count, o.last = i_count, i_last
            o.valid = i_valid
    elif i_valid and spare.valid == 0:
        spare.count, spare.last = i_count, i_last
        spare.valid = 1
    o.ready = 0
