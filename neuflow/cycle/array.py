"""The multiply-accumulate array (blocks.conv_array, conv_lanes): when is a tap issued, and why not."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.conv_array import MacArray
from neuflow.blocks.conv_lanes import FORM, Coordinates
from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.cycle.compiled import called, lowest, part
from neuflow.cycle.state import INT, overlaid, record
from neuflow.layout import ACTIVITY_BITS, CONV_ARRAY, FLAG_BITS, LANE_BITS, SIZE, Activity, Cause

_MASK = (1 << SIZE) - 1

MAC = 1 << Activity.MAC
WAIT_ROWS = 1 << Activity.WAIT_ROWS
WAIT_WEIGHTS = 1 << Activity.WAIT_WEIGHTS
WAIT_DRAIN = 1 << Activity.WAIT_DRAIN
IDLE = 1 << Activity.IDLE
LANES, MAPS = FLAG_BITS + 4, FLAG_BITS + 4 + LANE_BITS
"""Places of these fields of ``layout.ACTIVITY``."""
PERIOD, PHASE, FEW = ACTIVITY_BITS, ACTIVITY_BITS + 12, ACTIVITY_BITS + 24
"""Places of what the judge has above them: every so many cycles, at those which leave this remainder,
there are fewer maps, by so many (0: never). An array shows it that runs ahead by tap."""
_PERIODS, _FEWER = (1 << 12) - 1, (1 << LANE_BITS) - 1
USEFUL, FILL = int(Cause.USEFUL), int(Cause.FILL)
WAIT_INPUT, WEIGHT_LOAD = int(Cause.WAIT_INPUT), int(Cause.WEIGHT_LOAD)
UNKNOWN = -1

COORDINATES = record(
    "column", "row", "y",  # the lane that is walked to
    "summed_row", "need_sum", "free_sum",  # the one before it
    "ready_row", "ready_need", "ready_free",  # and before that
    "lead",  # which of these hold a lane of the group, bit by bit
    "made", "full", "fed", "need", "free", "last_row",
    "summed_real", "ready_real", "count",  # lanes that are output positions
    "known", "runs",  # its pass is known; it is being made
    "borrows",  # the pass is the one behind that of the array's configuration
)  # fmt: skip
"""blocks.conv_lanes.Coordinates of the next group, made lane by lane."""

FORM_FIELDS = overlaid([(name, INT) for name in FORM])
"""What coordinates depend on of a configuration."""

FORM_COLUMNS = np.array([[f.name for f in CONV_ARRAY.fields].index(name) for name in FORM], np.int64)
"""Where a decoded packet has it."""

_LEADS = (1 << Coordinates.LEAD) - 1
_LED = _LEADS ^ (_LEADS >> 1)
"""Bit of ``lead`` that says of the oldest lane on its way that it is there."""

BLOCK = record("last_row", "ends_group", "ends_pass")
"""What the drain is told with the results of a block."""

_FLUSHING = 0b1111
"""Stages behind the issue that a configuration waits for."""
_FLUSHED = _FLUSHING ^ (_FLUSHING >> 1)
_SETTLED = 1 << MacArray.SETUP - 1
"""Bit of ``settled`` that says that all which is made of a configuration beforehand is."""

MAC_ARRAY = overlaid(
    [
        ("lanes", COORDINATES),
        ("form", FORM_FIELDS),  # of the group that is made
        ("following", FORM_FIELDS),  # of the configuration that waits in the receiver
        *((n, INT) for n in ("active", "settled", "flushing", "group", "block", "channel", "ky", "kx")),
        ("odd", INT),  # second tap of a beat of weights
        ("begins", INT),  # a group
        ("in_flight", INT),  # a block is between its last tap and the drain
        ("last_row", INT),  # of the present group
        ("count", INT),  # its lanes that are output positions
        ("at_last_taps", INT),  # the step works last taps of kernel rows (CONV_ARRAY.gather)
        ("stages", INT),  # flag ``last`` of the stages after 0, bit 0 is stage 1
        ("ending", BLOCK),  # the block whose last tap is in stage 1
        ("told", BLOCK),  # the block that the drain is told of
        ("released", INT),
        ("pass_done", INT),
        # Wires.
        *((n, INT) for n in ("issue", "reads", "frees")),
        *((n, INT) for n in ("ends_row", "ends_block", "ends_group", "ends_pass")),
        ("hand_over", INT),
        ("cause", INT),  # layout.Cause of this cycle, UNKNOWN: not for the array to say
        ("bits", INT),  # layout.ACTIVITY: flag, lanes and maps
    ]
)
"""blocks.conv_array.MacArray."""

_STAGES = (1 << HAND_OVER) - 1
_HAND_OVER_BIT = HAND_OVER - 1


@part
def fewer_cycles(activity, begin, end):
    """How many of the cycles from ``begin`` to before ``end`` have fewer maps than it says."""
    if activity >> FEW == 0:
        return 0
    period, phase = activity >> PERIOD & _PERIODS, activity >> PHASE & _PERIODS
    behind = period - 1 - phase
    return (end + behind) // period - (begin + behind) // period


@part
def with_fewer(activity):
    """``layout.ACTIVITY`` of those cycles."""
    return (activity & (1 << ACTIVITY_BITS) - 1) - ((activity >> FEW & _FEWER) << MAPS)


@part
def activity_at(activity, now):
    """``layout.ACTIVITY`` of a cycle."""
    if fewer_cycles(activity, now, now + 1):
        return with_fewer(activity)
    return activity & (1 << ACTIVITY_BITS) - 1


@part
def array_tells(before, after):
    """Whether the drain sees something new behind an edge; before and after it: ``stages``."""
    return before & 1 != 0 or (before | after) >> _HAND_OVER_BIT & 1 != 0


@part
def array_wires(a, config, weights_ready, drain_ready, maps):
    """Stage 0: may the next tap be issued?"""
    a.bits = _array_wires(a, config, weights_ready, drain_ready, maps)


@part
def _array_wires(a, config, weights_ready, drain_ready, maps):
    """Return flag, lanes and maps (``layout.ACTIVITY``)."""
    a.hand_over = a.stages >> _HAND_OVER_BIT & 1
    a.issue = 0
    config.ready = a.flushing & _FLUSHED != 0
    if not a.active:
        a.cause = FILL if config.valid else UNKNOWN
        return IDLE
    if a.begins and not (a.lanes.full and a.lanes.fed):
        a.cause = WAIT_INPUT if a.lanes.full else FILL
        return WAIT_ROWS
    if not a.odd and not weights_ready:
        a.cause = WEIGHT_LOAD
        return WAIT_WEIGHTS
    c = config.o.array
    a.ends_row = _ends_row(a, c, maps)
    a.ends_block = a.ends_row and a.ky + 1 == c.kernel_y and a.channel + 1 == c.channels
    if a.ends_block and (a.in_flight or not drain_ready):
        a.cause = UNKNOWN
        return WAIT_DRAIN
    a.cause = USEFUL
    a.issue = 1
    a.reads = not a.odd
    a.ends_group = a.ends_block and a.block + 1 == c.blocks
    a.ends_pass = a.ends_group and a.group + 1 == c.groups
    a.frees = a.ends_pass or c.stream_weights
    count = a.lanes.count if a.begins else a.count
    if c.gather:
        few = a.at_last_taps and a.ky < maps
    elif c.by_tap:
        few = a.kx + 1 == c.kernel_x
    else:
        few = c.by_block or a.block + 1 == c.blocks
    present = c.maps if few else maps
    return MAC | count << LANES | present << MAPS


@part
def _ends_row(a, c, maps):
    """Whether the step is the last one of its row of the kernel."""
    if c.gather and (c.kernel_y - 1 - a.ky) % maps == 0:
        return a.at_last_taps != 0
    return a.kx + 1 == c.kernel_x


@part
def _clipped(value, rows):
    return min(max(value, 0), rows)


@part
def _lane_edge(lanes, c, pixels):
    """One more lane of the next group goes on its way, the oldest one arrives."""
    lanes.last_row = lanes.ready_row
    lanes.need = lanes.ready_need
    if lanes.full or lanes.made == 0:
        lanes.free = lanes.ready_free
    if lanes.lead & _LED:
        before = 0 if lanes.full or lanes.made == 0 else lanes.count
        lanes.count = before + lanes.ready_real
    lanes.ready_real = lanes.summed_real
    lanes.summed_real = lanes.column < c.width_out and lanes.row < c.height_out
    lanes.ready_row = lanes.summed_row
    lanes.ready_need = _clipped(lanes.need_sum, c.rows)
    lanes.ready_free = _clipped(lanes.free_sum, c.rows)
    lanes.summed_row = lanes.row
    lanes.need_sum = lanes.y + c.need
    lanes.free_sum = lanes.y + c.release
    if lanes.lead & _LED:
        lanes.made = 1 if lanes.full else lanes.made + 1
        lanes.full = lanes.made == pixels
    lanes.lead = (lanes.lead << 1 | 1) & _LEADS


@part
def _walk_edge(lanes, c):
    if lanes.column + 1 == c.pitch:
        lanes.column = 0
        lanes.row = (lanes.row + 1) & _MASK
        lanes.y = (lanes.y + c.stride) & _MASK
    else:
        lanes.column += 1


@part
def _coordinates_edge(a, config, pixels, take, last, stored):
    """``Coordinates``; ``take``, ``last``: a group is taken, its pass's last."""
    lanes, form = a.lanes, a.form
    if lanes.full and not take:
        lanes.fed = lanes.need <= stored
    else:
        lanes.fed = lanes.ready_need <= stored
        _lane_edge(lanes, form, pixels)
        _walk_edge(lanes, form)
    if not lanes.runs:
        lanes.made = lanes.full = lanes.lead = 0
        lanes.column = lanes.row = lanes.y = 0
    _form_edge(a, config, take and last)


@part
def form_waits(a, config):
    """Whether the pass of the next group is not there yet."""
    there = config.full != 0 and config.depth != 1 if a.lanes.borrows else config.valid != 0
    return not a.lanes.known and not there


@part
def _form_edge(a, config, takes_last):
    """``Coordinates._form``."""
    lanes = a.lanes
    waits, borrows = form_waits(a, config), lanes.borrows
    lanes.runs = lanes.known
    if config.valid and config.ready:
        lanes.borrows = 0
    if takes_last:
        lanes.known = lanes.runs = 0
        lanes.borrows = 1
    elif not lanes.known and not waits:
        lanes.known = 1
        for k in range(len(a.form.flat)):
            own = config.o.fields[FORM_COLUMNS[k]]
            a.form.flat[k] = a.following.flat[k] if borrows else own


@part
def _step(a, c):
    """Step through kx, ky, channel, block and group."""
    a.at_last_taps = a.kx + 1 == c.kernel_x and not a.ends_row
    if not a.ends_row:
        a.kx = 0 if a.at_last_taps else a.kx + 1
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
def _copy(to, block):
    to.last_row, to.ends_group, to.ends_pass = block.last_row, block.ends_group, block.ends_pass


@part
def array_edge(a, config, pixels, stored):
    """Move the registers; ``stored``: the row store's register."""
    lanes, c = a.lanes, config.o.array
    if a.stages & 1:
        _copy(a.told, a.ending)
    if a.hand_over:
        a.in_flight = 0
    active, begins, last_group = a.active, a.begins, a.group + 1 == c.groups
    a.pass_done = a.issue and a.ends_pass
    if a.pass_done:
        a.released = 0
    elif active and begins and lanes.full:
        a.released = lanes.free
    settled = a.settled
    waits = config.valid and not active and a.flushing == 0
    a.settled = (settled << 1 | 1) & ((_SETTLED << 1) - 1) if waits else 0
    if not active:
        a.active = settled & _SETTLED != 0
    a.flushing = (a.flushing << 1 | a.pass_done) & _FLUSHING
    a.stages = (a.stages << 1 | (a.issue and a.ends_block)) & _STAGES
    if a.issue:
        if begins:
            a.last_row = lanes.last_row
            a.count = lanes.count
        if a.ends_block:
            a.in_flight = 1
            a.ending.last_row = a.last_row
            a.ending.ends_group, a.ending.ends_pass = a.ends_group, a.ends_pass
        a.begins = a.ends_group
        a.odd = not a.odd and not a.ends_block
        _step(a, c)
        if a.pass_done:
            a.active = 0
    _coordinates_edge(a, config, pixels, a.issue and begins, last_group, stored)


SHORTEST = 4
"""Cycles that it pays to run ahead."""


@part
def _place(a, c, maps):
    """The step at hand among those of its channel, and how many these are."""
    place = a.ky * c.kernel_x + (c.kernel_x if a.at_last_taps else a.kx)
    area = c.kernel_y * c.kernel_x
    if c.gather:
        # Of last taps: one step behind the last row and every ``maps``-th before it.
        gathered = (c.kernel_y + maps - 1) // maps
        place += gathered - 1 - (c.kernel_y - 1 - a.ky) // maps
        area += gathered
    return place, area


@part
def _shows_fewer(c, maps, place, area, now):
    """What to add to ``bits`` where, from cycle ``now`` on, some steps have work for fewer maps."""
    fewer = maps - c.maps
    if c.by_tap == 0 or fewer == 0:
        return 0
    period, few = c.kernel_x, c.kernel_x - 1
    if c.gather:
        period, few = area, c.kernel_x * ((c.kernel_y - 1) % maps + 1)
    return period << PERIOD | (now + few - place) % period << PHASE | fewer << FEW


@called
def array_ahead(a, config, pixels, maps, ring, now):
    """Issue taps ahead of time, from cycle ``now`` on; return of how many cycles.

    It does so in the middle of a block whose weights are there: in each of those cycles the array
    issues a tap, whatever else happens, and shows what ``bits`` say. The last tap of a block is
    never among them: with it results leave, and the coordinates of the next group are looked at (which
    go on being made meanwhile; whether its rows are there is looked at before each first tap).
    ``ring``: of the weights. Nobody may move the array in the cycles that were run ahead.
    """
    c = config.o.array
    steady = a.active and a.issue and not a.begins and not a.hand_over
    if not steady or c.stream_weights or a.stages & 1 or a.flushing or a.pass_done or not ring.ready:
        return 0
    if form_waits(a, config):
        return 0
    place, area = _place(a, c, maps)
    cycles = (c.channels - a.channel) * area - 1 - place
    # One beat holds two taps and is read with the first; the last one there stays.
    cycles = min(cycles, 2 * (ring.unread - 1) + a.odd)
    if a.stages:
        # A block is on its way; in the cycle before it arrives the array wakes the drain.
        cycles = min(cycles, _HAND_OVER_BIT - 1 - lowest(a.stages))
    if cycles < SHORTEST:
        return 0
    a.stages <<= cycles
    reads = (cycles + 1 - a.odd) // 2
    ring.unread -= reads
    ring.passed += reads
    a.odd = (a.odd + cycles) & 1
    made = 0
    while made < cycles and not a.lanes.full:
        _coordinates_edge(a, config, pixels, False, False, 0)
        made += 1
    if c.by_tap:
        present = a.bits >> MAPS
        a.bits += (maps - present << MAPS) + _shows_fewer(c, maps, place, area, now)
    a.channel += cycles // area
    a.ends_block = 0
    for _ in range(cycles % area):
        a.ends_row = _ends_row(a, c, maps)
        _step(a, c)
    a.issue = 0
    return cycles
