"""The convolver's exit (blocks.conv_drain): when results leave the registers, and rows the buffer."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.arith import Requantise
from neuflow.blocks.conv_reorder import Reorder
from neuflow.blocks.convolver_model import HAND_OVER, addition
from neuflow.cycle.array import BLOCK
from neuflow.cycle.compiled import called, part
from neuflow.cycle.merger import MERGER, merger_edge, merger_ready, merger_rests
from neuflow.cycle.parts import SLICE
from neuflow.cycle.parts import slice_edge as sends_edge
from neuflow.cycle.pipeline import SPARE, slice_edge
from neuflow.cycle.state import INT, overlaid, record
from neuflow.fixed import PARTIAL_WORDS
from neuflow.layout import LANE_BITS

PLACE = record("column", "row")
BEAT = record("valid", "count", "last")
READS = Reorder.READ
ADDITION = np.array([addition(lanes) for lanes in range(1 << LANE_BITS)])
"""Cycles that a result takes more, by tap; by the map lanes."""

DRAIN = overlaid(
    [
        ("known", INT),  # a configuration is, since so many cycles (one bit each)
        # Room for the rows of the array's last block.
        *((n, INT) for n in ("height_less", "last_row", "limit", "room")),
        # Blocks.
        ("running_block", BLOCK),
        *((n, INT) for n in ("ready", "waiting", "running", "left", "all_started")),
        # Values.
        ("words", INT),  # partial words taken; one more cycle to add
        ("sent", INT),  # partial words sent
        ("sums_end", INT),  # the last partial sum has left, one cycle ago
        # By tap: flags of results whose map lanes are being added, bit 0 is the first cycle.
        *((n, INT) for n in ("adds_step", "adds_ends_block", "adds_ends_group")),
        # Requantiser: flags of the stages after 0, bit 0 is stage 1.
        *((n, INT) for n in ("stage_step", "stage_ends_block", "stage_ends_group")),
        # Walk of the positions that are written.
        ("now", PLACE),
        ("marked", PLACE),
        *((n, INT) for n in ("complete", "rows_done")),
        # Rows that are sent.
        *((n, INT) for n in ("rows_sent", "available", "rest", "map")),
        *((n, INT) for n in ("unread", "unread_end")),
        ("reads", BEAT, (READS,)),
        ("sends", SLICE),
        ("packer", MERGER),
        ("leaving", INT),  # rows of the pass before are still in the packer
        ("slice", SPARE),
        # Wires.
        *((n, INT) for n in ("partial", "have", "step", "take", "ends", "rows_end", "issue")),
        *((n, INT) for n in ("move", "start", "start_ends_group", "start_ends_pass")),
        *((n, INT) for n in ("row_ends", "map_ends", "packer_o_ready")),
    ]
)
"""blocks.conv_drain.Drain."""

_KNOWN = 0b111
"""Cycles after which all that is made of a configuration beforehand is known."""
_STAGES = (1 << Requantise.LATENCY) - 1
_WALK = Requantise.LATENCY - Reorder.WRITE - 3
"""Bit of the stage that walks."""


@part
def drain_rests(d, config, o):
    """Whether nothing can move, unless the array hands over."""
    return not (
        config.valid or d.known or d.running or d.waiting or d.adds_step or d.stage_step or d.sums_end
        or d.reads[0].valid or d.reads[1].valid or d.reads[2].valid or d.sends.valid or o.valid
        or d.ready == 0 or d.leaving or not merger_rests(d.packer)
    )  # fmt: skip


@part
def _start_wires(d, c, array, parameters, maps):
    """Start a block when there is room for its rows and its parameters are there."""
    d.start = 0
    if c.by_tap and (d.running or d.adds_step & (1 << ADDITION[maps] - 1) - 1):
        return
    if (array.hand_over or d.waiting) and d.known == _KNOWN and not d.all_started:
        d.start = d.room and parameters
        d.start_ends_group, d.start_ends_pass = array.told.ends_group, array.told.ends_pass


@part
def _rows_wires(d, c, maps):
    """Read complete rows back, map by map, ``maps`` words a cycle."""
    d.packer_o_ready = not d.partial and d.slice.valid == 0
    d.move = not d.reads[READS - 1].valid or d.sends.spare_valid == 0
    d.issue = d.rows_end = d.map_ends = 0
    if d.move and d.known == _KNOWN and d.available:
        d.issue = 1
        d.row_ends = d.rest <= maps
        d.map_ends = d.row_ends and d.map + 1 == c.maps
        d.rows_end = d.map_ends and d.rows_sent + 1 == c.height


@part
def drain_wires(d, config, array, parameters, partials, maps):
    """``parameters``: those of the next block are there; ``partials``: link."""
    c = config.o.drain
    _start_wires(d, c, array, parameters, maps)
    d.partial = c.partial_out and config.valid and not d.leaving
    d.take = d.running and c.partial_in and d.words < PARTIAL_WORDS and partials.valid
    partials.ready = d.take
    d.have = (
        d.running
        and (not c.partial_in or d.words == PARTIAL_WORDS + 1)
        and not (c.partial_out and d.leaving)
    )
    last_word = d.sent == PARTIAL_WORDS - 1
    d.step = d.have and (not c.partial_out or (d.slice.valid == 0 and last_word))
    d.ends = d.step and d.left == 1
    _rows_wires(d, c, maps)
    config.ready = d.sums_end or d.rows_end


@part
def _output_edge(d, o, maps):
    """The slice at the output: partial sums, or rows from the packer."""
    if d.partial:
        last_word = d.sent == PARTIAL_WORDS - 1
        last = last_word and d.left == 1 and d.running_block.ends_pass
        if d.have and d.slice.valid == 0:
            d.sent = 0 if last_word else d.sent + 1
        slice_edge(d.slice, o, d.have, maps, last)
    else:
        slice_edge(d.slice, o, d.packer.valid, d.packer.count, d.packer.last)


@part
def _room_edge(d, c, array):
    keeps = d.unread_end or (d.unread and d.last_row + 1 == d.limit)
    d.room = c.partial_out or (d.last_row < d.limit and not keeps)
    d.limit = d.rows_sent + c.slots
    told = array.told.last_row
    d.last_row = told if told < c.height else d.height_less
    d.height_less = c.height - 1


@part
def _ready_next(d, c, array, pixels):
    """Whether a block may be handed over from the next cycle on."""
    plain = not c.partial_in and not c.partial_out
    if d.start:
        return plain and pixels <= HAND_OVER + 1
    free = not d.running or d.ends or (plain and d.left <= HAND_OVER + 2)
    return not d.waiting and not array.hand_over and free


@part
def _blocks_edge(d, c, array, pixels, passed):
    d.ready = _ready_next(d, c, array, pixels)
    if d.step:
        d.left -= 1
    if d.ends:
        d.running = 0
    if array.hand_over:
        d.waiting = 1
    if d.start:
        d.waiting = 0
        d.running = 1
        d.left = pixels
        running = d.running_block
        running.ends_group, running.ends_pass = d.start_ends_group, d.start_ends_pass
        d.all_started = d.start_ends_pass
    if passed:
        d.all_started = 0


@part
def _walk_edge(d, c):
    """A pixel leaves the requantiser soon: on to the next position."""
    now = d.now
    column, row = now.column + 1, now.row
    if column == c.pitch:
        column, row = 0, row + 1
    if d.stage_ends_block >> _WALK & 1:
        if d.stage_ends_group >> _WALK & 1:
            d.marked.column, d.marked.row = column, row
        else:
            column, row = d.marked.column, d.marked.row
    now.column, now.row = column, row


@part
def _passed_on(flags, flag, maps):
    """Return the flags of the next cycle, and the one that comes to its end in this."""
    cycles = ADDITION[maps]
    return (flags << 1 | flag) & (1 << cycles) - 1, flags >> cycles - 1 & 1


@part
def _requantise_edge(d, c, passed, step, ends, ends_group):
    """The stages of the requantiser, the walk, and the rows that are whole."""
    marked = d.marked
    if passed:
        d.complete = d.rows_done = 0
        d.now.column = d.now.row = marked.column = marked.row = 0
    else:
        d.rows_done = d.complete
        # Behind the last column of a row nothing is left but its gap.
        row_done = 1 if marked.column >= c.width else 0
        d.complete = c.height if marked.row >= c.height else marked.row + row_done
        if d.stage_step >> _WALK & 1:
            _walk_edge(d, c)
    d.stage_step = (d.stage_step << 1 | step) & _STAGES
    d.stage_ends_block = (d.stage_ends_block << 1 | ends) & _STAGES
    d.stage_ends_group = (d.stage_ends_group << 1 | ends_group) & _STAGES


@part
def _rows_edge(d, c, maps, known):
    """``Drain._send_rows``."""
    count = d.rest if d.row_ends else maps
    sent = d.rows_sent + 1 if d.map_ends else d.rows_sent
    end, sends = d.reads[READS - 1], d.sends
    packs = merger_ready(d.packer, d.packer_o_ready)
    if sends.valid or not merger_rests(d.packer):
        merger_edge(d.packer, maps, 0, sends.valid, sends.a, sends.b, d.packer_o_ready)
    if sends.valid or end.valid:
        sends_edge(sends, end.valid, end.count, end.last, packs)
    if d.move:
        d.unread, d.unread_end = d.map_ends, d.rows_end
        for k in range(READS - 1, 0, -1):
            to, beat = d.reads[k], d.reads[k - 1]
            to.valid, to.count, to.last = beat.valid, beat.count, beat.last
        first = d.reads[0]
        first.valid, first.count, first.last = d.issue, count, d.rows_end
    if not known:
        d.available = 0
        d.rest = c.width
        d.map = d.rows_sent = 0
        return
    d.available = sent != d.rows_done
    if not d.issue:
        return
    d.rest = c.width if d.row_ends else d.rest - maps
    if d.map_ends:
        d.map = 0
        d.rows_sent = 0 if d.rows_end else sent
    elif d.row_ends:
        d.map += 1


@part
def drain_edge(d, config, array, o, pixels, maps):
    """Move the registers; clears ``o.ready``."""
    c = config.o.drain
    passed = config.valid and config.ready
    known = d.known == _KNOWN
    if config.valid:
        _room_edge(d, c, array)
    d.known = (d.known << 1 | 1) & _KNOWN if config.valid and not passed else 0

    _output_edge(d, o, maps)
    if d.rows_end:
        d.leaving = 1
    elif d.packer.valid and d.packer_o_ready and d.packer.last:
        d.leaving = 0
    if d.step:
        d.words = 0
    elif d.take or d.words == PARTIAL_WORDS:
        d.words += 1
    ends, ends_group = d.ends, d.running_block.ends_group
    step = d.step and not c.partial_out
    if c.by_tap:
        d.adds_step, step = _passed_on(d.adds_step, step, maps)
        d.adds_ends_block, ends = _passed_on(d.adds_ends_block, ends, maps)
        d.adds_ends_group, ends_group = _passed_on(d.adds_ends_group, ends_group, maps)
    d.sums_end = ends and d.running_block.ends_pass and c.partial_out
    _rows_edge(d, c, maps, known)
    _blocks_edge(d, c, array, pixels, passed)
    _requantise_edge(d, c, passed, step, ends, ends_group)


_AHEAD = HAND_OVER - 4
"""Cycles that a drain may be ahead of an array which has no block on its way: the block that it may
issue in the next cycle arrives later, even by the cycles from what it tells to ``room``."""


@part
def _steady(d, c, array, o):
    """Whether the drain works by itself, on results that it has, and shows nothing new.

    What is in the way most often is looked at first.
    """
    return not (
        o.valid or d.available or array.stages or d.known != _KNOWN or d.issue or d.start or d.waiting
        or d.reads[0].valid or d.reads[1].valid or d.reads[2].valid or d.sends.valid
        or d.leaving or not merger_rests(d.packer) or array.hand_over or c.partial_in or c.partial_out
    )  # fmt: skip


@called
def drain_ahead(d, config, array, o, partials, pixels, maps):
    """Move the drain ahead of time; return by how many cycles. Call it behind all edges.

    It does so while results pass through it: in each of those cycles it takes one, or none in each,
    and shows the same to all others. Nobody may move the drain in the cycles that were run ahead.
    """
    c = config.o.drain
    if config.ready or not _steady(d, c, array, o) or not (d.running or d.stage_step or d.adds_step):
        return 0
    step, cycles = d.step, 0
    while cycles < _AHEAD:
        drain_wires(d, config, array, 0, partials, maps)
        stays = d.step == step and _ready_next(d, c, array, pixels) == (d.ready != 0)
        if not stays or d.issue or config.ready:
            break
        drain_edge(d, config, array, o, pixels, maps)
        cycles += 1
    d.step, d.issue, config.ready = step, 0, 0
    return cycles
