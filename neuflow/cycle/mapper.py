"""Piecewise function of a tile (blocks.mapper)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.mapper_model import LATENCY
from neuflow.cycle.compiled import part
from neuflow.cycle.pipeline import PIPELINE, pipeline_edge, pipeline_stage
from neuflow.cycle.state import INT

MAPPER = np.dtype(
    [
        ("tails", PIPELINE),
        ("closing", INT),
        *((n, INT) for n in ("moves", "accept")),  # wires
    ]
)
"""blocks.mapper.Mapper."""

_TABLE_STAGE = 2
"""A packet whose last beat stands here no longer needs its table: the next may have it."""


@part
def mapper_wires(m, config, i, o):
    """``i``, ``o``: links. Return whether a beat leaves (``active``)."""
    config.ready = 0
    m.accept = 0
    m.moves = (config.valid or m.tails.inside) and (not o.valid or o.ready)
    if not m.moves:
        return False
    if m.closing:
        config.ready = pipeline_stage(m.tails, _TABLE_STAGE) & 1
    else:
        m.accept = i.valid and config.valid
        i.ready = m.accept
    return o.valid != 0


@part
def mapper_edge(m, config, i, o):
    """Move the registers."""
    if not m.moves:
        return
    if config.ready:
        m.closing = 0
    elif m.accept and i.last:
        m.closing = 1
    pipeline_edge(m.tails, o, LATENCY, m.accept, i.count, i.last)
