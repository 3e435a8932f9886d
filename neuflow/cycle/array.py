"""The multiply-accumulate array (blocks.conv_array): when is a tap issued, and why not."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, record
from neuflow.layout import SIZE, Activity

_MASK = (1 << SIZE) - 1

MAC = 1 << Activity.MAC
WAIT_ROWS = 1 << Activity.WAIT_ROWS
WAIT_WEIGHTS = 1 << Activity.WAIT_WEIGHTS
WAIT_DRAIN = 1 << Activity.WAIT_DRAIN
IDLE = 1 << Activity.IDLE

COORDINATES = record("made", "column", "row", "y", "need", "free", "last_row")
"""blocks.conv_array.Coordinates of the next group, made lane by lane."""

BLOCK = record("last_row", "ends_group", "ends_pass")
"""What the drain is told with the results of a block."""

MAC_ARRAY = np.dtype(
    [
        ("lanes", COORDINATES),
        *((n, INT) for n in ("active", "group", "block", "channel", "ky", "kx")),
        ("odd", INT),  # second tap of a beat of weights
        ("starts_group", INT),
        ("in_flight", INT),  # a block is between its last tap and the drain
        ("last_row", INT),  # of the present group
        ("stages", INT),  # flag ``last`` of the stages after 0, bit 0 is stage 1
        ("leaving", BLOCK),  # the block in flight
        ("released", INT),
        ("pass_done", INT),
        # Wires.
        *((n, INT) for n in ("issue", "reads", "frees", "ends_block", "ends_group", "ends_pass")),
        ("hand_over", INT),
    ]
)
"""blocks.conv_array.MacArray."""

_HAND_OVER_BIT = HAND_OVER - 1


@part
def array_wires(a, config, pixels, stored, weights_ready, drain_ready):
    """Stage 0: may the next tap be issued? Return the activity bit (``Sequence`` in the block)."""
    a.hand_over = a.stages >> _HAND_OVER_BIT & 1
    a.issue = 0
    config.ready = 0
    if not a.active:
        return IDLE
    if a.starts_group and (a.lanes.made != pixels or a.lanes.need > stored):
        return WAIT_ROWS
    if not a.odd and not weights_ready:
        return WAIT_WEIGHTS
    c = config.o.array
    a.ends_block = (
        a.kx + 1 == c.kernel_x and a.ky + 1 == c.kernel_y and a.channel + 1 == c.channels
    )
    if a.ends_block and (a.in_flight or not drain_ready):
        return WAIT_DRAIN
    a.issue = 1
    a.reads = not a.odd
    a.ends_group = a.ends_block and a.block + 1 == c.blocks
    a.ends_pass = a.ends_group and a.group + 1 == c.groups
    a.frees = a.ends_pass or c.stream_weights
    config.ready = a.ends_pass
    return MAC


@part
def _clipped(value, rows):
    return min(max(value, 0), rows)


@part
def _coordinates_edge(lanes, c, pixels, take):
    """``Coordinates``: one more lane of the next group, unless it is whole."""
    full = lanes.made == pixels
    if full and not take:
        return
    lanes.last_row = lanes.row
    lanes.need = _clipped(lanes.y + c.need, c.rows)
    if full or lanes.made == 0:
        lanes.free = _clipped(lanes.y + c.release, c.rows)
    lanes.made = 1 if full else lanes.made + 1
    if lanes.column + 1 == c.pitch:
        lanes.column = 0
        lanes.row = (lanes.row + 1) & _MASK
        lanes.y = (lanes.y + c.stride) & _MASK
    else:
        lanes.column += 1


@part
def _step(a, c):
    """Step through kx, ky, channel, block and group."""
    if a.kx + 1 != c.kernel_x:
        a.kx += 1
        return
    a.kx = 0
    if a.ky + 1 != c.kernel_y:
        a.ky += 1
        return
    a.ky = 0
    if not a.ends_block:
        a.channel += 1
        return
    a.channel = 0
    if not a.ends_group:
        a.block += 1
        return
    a.block = 0
    a.group = 0 if a.ends_pass else a.group + 1


@part
def array_edge(a, config, pixels):
    """Move the registers."""
    lanes = a.lanes
    a.stages = (a.stages << 1 | (a.issue and a.ends_block)) & ((1 << HAND_OVER) - 1)
    a.pass_done = a.issue and a.ends_pass
    if a.hand_over:
        a.in_flight = 0
    if not a.active:
        if not config.valid:
            return  # the lanes begin anew in the cycle that makes it active
        a.active = 1
        lanes.made = lanes.column = lanes.row = lanes.y = 0
        return
    c = config.o.array
    begins = a.starts_group
    if a.pass_done:
        a.released = 0
    elif begins and lanes.made == pixels:
        a.released = lanes.free
    if a.issue:
        if begins:
            a.last_row = lanes.last_row
        if a.ends_block:
            a.in_flight = 1
            a.leaving.last_row = a.last_row
            a.leaving.ends_group, a.leaving.ends_pass = a.ends_group, a.ends_pass
        a.starts_group = a.ends_group
        a.odd = not a.odd and not a.ends_block
        _step(a, c)
        if a.pass_done:
            a.active = 0
    _coordinates_edge(lanes, c, pixels, a.issue and begins)
