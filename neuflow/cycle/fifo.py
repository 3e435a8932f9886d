"""FIFO of beats (blocks.fifo)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.pipeline import pack
from neuflow.cycle.state import INT, overlaid

BEATS = 8192
"""Beats a FIFO of the judge holds at most."""

FIFO = overlaid(
    [
        *((n, INT) for n in ("depth", "level", "write", "read")),
        ("fetched", INT),  # the beat in the RAM's output register, 0: none
        ("holds", INT),  # beats in all places
        ("ram", np.int16, (BEATS,)),
    ],
    first="level", last="holds",
)  # fmt: skip
"""blocks.fifo.Fifo; ``room`` is ``level != depth``, ``some`` is ``level != 0``."""


@part
def fifo_wires(f, i):
    """``i``: link."""
    i.ready = i.valid and f.level != f.depth


@part
def fifo_edge(f, i, o):
    """Move the registers; ``i``, ``o``: links. Return whether one may have changed."""
    push = i.ready
    move = not o.valid or o.ready
    moves = push != 0 or f.holds != 0 and move
    pop = f.level != 0 and (not f.fetched or move)
    f.holds += push
    if move:
        f.holds -= o.valid
        o.valid = f.fetched != 0
        o.count, o.last = f.fetched >> 1, f.fetched & 1
        f.fetched = 0
    if pop:
        f.fetched = f.ram[f.read]
        f.read = 0 if f.read == f.depth - 1 else f.read + 1
        f.level -= 1
    if push:
        f.ram[f.write] = pack(i.count, i.last)
        f.write = 0 if f.write == f.depth - 1 else f.write + 1
        f.level += 1
    o.ready = 0
    return moves
