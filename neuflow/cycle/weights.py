"""Weight input of the convolver (blocks.conv_weights): what is in its two rings."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.conv_weights import PARAMETER_BEATS
from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, record

RING = record(
    "depth",
    "filled",  # beats from the oldest to the head
    "passed",  # beats from the oldest to the read position
)
"""blocks.conv_weights.Ring; ``room`` is ``filled != depth``, ``ready`` is ``passed != filled``."""

WEIGHT_STORE = np.dtype(
    [
        ("weights", RING),
        ("blocks", RING),  # parameters
        ("active", INT),
        ("leading", INT),  # parameter beats yet to come
        ("asked", INT),  # beats of the next block's parameters that are asked for
        ("arriving", INT),
        ("take", INT),  # wire
    ]
)
"""blocks.conv_weights.WeightStore."""


@part
def weights_ready(w):
    """Whether the beat of weights at the read position is there."""
    return w.weights.passed != w.weights.filled


@part
def parameters_valid(w):
    """Whether the parameters of the block that leaves next are there."""
    return w.asked == PARAMETER_BEATS and not w.arriving


@part
def weights_wires(w, config, line):
    """``config``: receiver, ``line``: link from the weights lines."""
    w.take = 0
    line.ready = 0
    config.ready = 0
    if w.active and line.valid:
        ring = w.blocks if w.leading else w.weights
        w.take = ring.filled != ring.depth
        line.ready = w.take
        config.ready = w.take and line.last


@part
def _ring_edge(ring, read, rewind, free):
    if free:
        ring.filled -= ring.passed + read
        ring.passed = 0
    elif rewind:
        ring.passed = 0
    else:
        ring.passed += read


@part
def weights_edge(w, config, line, array, drain):
    """``array``, ``drain``: the units that read, with their wires of this cycle."""
    take, leading, blocks = w.take, w.leading, w.blocks
    starts = drain.start
    w.arriving = w.asked != PARAMETER_BEATS and blocks.passed != blocks.filled  # it asks
    if starts or w.arriving:
        rewind, free = starts and drain.start_ends_group, starts and drain.start_ends_pass
        _ring_edge(blocks, w.arriving, rewind, free)
        w.asked = 0 if starts else w.asked + 1
    if array.issue:
        _ring_edge(w.weights, array.reads, array.ends_group, array.frees)
    if take:
        pushed = blocks if leading else w.weights
        pushed.filled += 1

    if not w.active:
        w.active = config.valid
        w.leading = PARAMETER_BEATS * config.o.weights.blocks
    elif take:
        w.active = not line.last
        if leading:
            w.leading = leading - 1
