"""Piecewise function of a tile (blocks.mapper)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.mapper import _STAGES, _TABLE_STAGES
from neuflow.cycle.compiled import part
from neuflow.cycle.pipeline import PIPELINE, SPARE, pipeline_edge, pipeline_stage, slice_edge
from neuflow.cycle.state import INT

MAPPER = np.dtype(
    [
        ("tails", PIPELINE),
        ("slice", SPARE),
        ("closing", INT),
        ("closed", INT),
        *((n, INT) for n in ("moves", "en", "accept")),  # wires
    ]
)
"""blocks.mapper.Mapper."""

_TABLE_STAGE = _TABLE_STAGES - 1
"""When the last beat of a packet stands here and moves on, the table may change a cycle later."""


@part
def mapper_wires(m, config, i, o):
    """``i``, ``o``: links. Return whether a beat leaves (``active``)."""
    config.ready = m.closed
    m.accept = 0
    m.moves = config.valid or m.tails.inside or o.valid
    if not m.moves:
        return False
    m.en = pipeline_stage(m.tails, _STAGES) == 0 or m.slice.valid == 0
    if m.en and not m.closing:
        m.accept = i.valid and config.valid
        i.ready = m.accept
    return o.valid != 0 and o.ready != 0


@part
def mapper_edge(m, config, i, o):
    """Move the registers."""
    if not m.moves:
        return
    table_read = pipeline_stage(m.tails, _TABLE_STAGE) & 1
    closed = m.closed
    m.closed = m.en and m.closing and not closed and table_read
    if closed:
        m.closing = 0
    elif m.accept and i.last:
        m.closing = 1
    beat = pipeline_stage(m.tails, _STAGES)
    slice_edge(m.slice, o, beat != 0, beat >> 1, beat & 1)
    if m.en:
        pipeline_edge(m.tails, _STAGES, m.accept, i.count, i.last)
