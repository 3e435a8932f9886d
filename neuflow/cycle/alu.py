"""Term-by-term operator (blocks.alu)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks import alu_model
from neuflow.blocks.alu import _STAGES
from neuflow.cycle.compiled import part
from neuflow.cycle.pipeline import PIPELINE, SPARE, pipeline_edge, pipeline_stage, slice_edge
from neuflow.cycle.state import INT
from neuflow.layout import AluOp

_ABS, _SQUARE, _DIV = int(AluOp.ABS), int(AluOp.SQUARE), int(AluOp.DIV)
_divide_cycles = part(alu_model.divide_cycles)

ALU = np.dtype(
    [
        ("tails", PIPELINE),
        ("slice", SPARE),
        ("busy", INT),  # the divider holds a beat
        ("left", INT),  # cycles until its quotient is there
        *((n, INT) for n in ("moves", "en", "both", "divides", "accept")),  # wires
    ]
)
"""blocks.alu.Alu."""


@part
def alu_wires(alu, config, a, b, o):
    """``a``, ``b``, ``o``: links. Return whether a beat leaves (``active``)."""
    config.ready = 0
    alu.both = 0
    alu.accept = 0
    alu.moves = config.valid or alu.tails.inside or o.valid
    if not alu.moves:
        return False
    alu.en = pipeline_stage(alu.tails, _STAGES) == 0 or alu.slice.valid == 0
    if config.valid and a.valid:
        c = config.o.alu
        unary = c.op == _ABS or c.op == _SQUARE
        alu.divides = c.op == _DIV
        if unary or b.valid:
            alu.both = 1
            alu.accept = alu.en and (not alu.divides or (alu.busy and alu.left == 0))
            a.ready = alu.accept
            b.ready = alu.accept and not unary
            config.ready = alu.accept and a.last
    return o.valid != 0 and o.ready != 0


@part
def alu_edge(alu, config, a, o):
    """Move the registers."""
    if not alu.moves:
        return
    c = config.o.alu
    if alu.both and alu.divides and not alu.busy:
        alu.busy = 1
        # Two of them are those in which the beat comes and leaves.
        alu.left = _divide_cycles(c.shift_a & 31, c.shift_b & 31) - 2
    elif alu.left:
        alu.left -= 1
    elif alu.accept:
        alu.busy = 0
    beat = pipeline_stage(alu.tails, _STAGES)
    slice_edge(alu.slice, o, beat != 0, beat >> 1, beat & 1)
    if alu.en:
        pipeline_edge(alu.tails, _STAGES, alu.accept, a.count, a.last)
