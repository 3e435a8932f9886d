"""The convolver's exit (blocks.conv_drain): when results leave the registers, and rows the buffer."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.arith import Requantise
from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.cycle.array import BLOCK
from neuflow.cycle.compiled import part
from neuflow.cycle.parts import PACKER, packer_edge, packer_ready
from neuflow.cycle.state import INT, record
from neuflow.fixed import PARTIAL_WORDS

PLACE = record("column", "row")

DRAIN = np.dtype(
    [
        # Blocks.
        ("held", BLOCK),  # waits in the registers
        ("running_block", BLOCK),
        *((n, INT) for n in ("waiting", "running", "left", "all_started")),
        # Values.
        ("words", INT),  # partial words taken; one more cycle to add
        ("sent", INT),  # partial words sent
        # Requantiser: flags of the stages after 0, bit 0 is stage 1.
        *((n, INT) for n in ("stage_step", "stage_ends_block", "stage_ends_group")),
        # Walk of the positions that are written.
        ("now", PLACE),
        ("marked", PLACE),
        # Rows that are sent.
        *((n, INT) for n in ("rows_done", "rows_sent", "x", "map")),
        *((n, INT) for n in ("s1_valid", "s1_count", "s1_last")),
        ("packer", PACKER),
        ("leaving", INT),  # rows of the pass before are still in the packer
        # Wires.
        *((n, INT) for n in ("partial", "step", "take", "ends", "rows_end", "issue", "move")),
        *((n, INT) for n in ("start", "start_ends_group", "start_ends_pass")),
        *((n, INT) for n in ("count", "row_ends", "map_ends")),
        ("packer_o_ready", INT),
    ]
)
"""blocks.conv_drain.Drain."""

_STAGES = (1 << Requantise.LATENCY) - 1
_END = Requantise.LATENCY - 1


@part
def drain_rests(d, config):
    """Whether nothing can move, unless the array hands over."""
    return not (
        config.valid or d.running or d.waiting or d.stage_step or d.s1_valid
        or d.packer.valid or d.packer.flush
    )  # fmt: skip


@part
def drain_ready(d, config):
    """Whether a block whose last tap is issued now finds the drain registers free."""
    if d.waiting:
        return False
    c = config.o.drain
    return not d.running or (not c.partial_in and not c.partial_out and d.left <= HAND_OVER + 1)


@part
def _have(d, c):
    """Whether the sums of a pixel are there, and may leave."""
    if not d.running or (c.partial_in and d.words != PARTIAL_WORDS + 1):
        return False
    return not (c.partial_out and d.leaving)


@part
def drain_offers(d, config, o, maps):
    """What stands at the output: partial sums, or rows from the packer."""
    c = config.o.drain
    d.partial = c.partial_out and config.valid and not d.leaving
    if d.partial:
        o.valid = _have(d, c)
        o.count = maps
        o.last = d.sent == PARTIAL_WORDS - 1 and d.left == 1 and d.running_block.ends_pass
    else:
        o.valid = d.packer.valid
        o.count, o.last = d.packer.count, d.packer.last


@part
def _start_wires(d, config, array, parameters):
    """Start a block when there is room for its rows and its parameters are there."""
    d.start = 0
    if not ((array.hand_over or d.waiting) and config.valid and not d.all_started and parameters):
        return
    c = config.o.drain
    block = array.leaving if array.hand_over else d.held
    last_row = min(block.last_row, c.height - 1)
    d.start = c.partial_out or last_row - d.rows_sent < c.slots
    d.start_ends_group, d.start_ends_pass = block.ends_group, block.ends_pass


@part
def _rows_wires(d, config, maps):
    """Read complete rows back, map by map, ``maps`` words a cycle."""
    d.move = not d.s1_valid or packer_ready(d.packer, d.packer_o_ready)
    d.issue = d.rows_end = 0
    if not (d.move and config.valid and d.rows_sent != d.rows_done):
        return
    c = config.o.drain
    rest = c.width - d.x
    d.issue = 1
    d.count = min(rest, maps)
    d.row_ends = rest <= maps
    d.map_ends = d.row_ends and d.map + 1 == c.maps
    d.rows_end = d.map_ends and d.rows_sent + 1 == c.height


@part
def drain_wires(d, config, array, parameters, partials, o, maps):
    """Everything that depends on the array's, the weights' and the router's answers.

    ``parameters``: those of the next block are there; ``partials``, ``o``: links.
    """
    c = config.o.drain
    _start_wires(d, config, array, parameters)
    d.take = d.running and c.partial_in and d.words < PARTIAL_WORDS and partials.valid
    partials.ready = d.take
    d.step = _have(d, c) and (not c.partial_out or (o.ready and d.sent == PARTIAL_WORDS - 1))
    d.ends = d.step and d.left == 1
    d.packer_o_ready = not d.partial and o.ready
    _rows_wires(d, config, maps)
    if c.partial_out:
        config.ready = d.ends and d.running_block.ends_pass
    else:
        config.ready = d.rows_end


@part
def _blocks_edge(d, array, pixels, passed):
    if d.step:
        d.left -= 1
    if d.ends:
        d.running = 0
    block = d.held
    if array.hand_over:
        leaving = array.leaving
        block.last_row = leaving.last_row
        block.ends_group, block.ends_pass = leaving.ends_group, leaving.ends_pass
        d.waiting = 1
    if d.start:
        d.waiting = 0
        d.running = 1
        d.left = pixels
        running = d.running_block
        running.ends_group, running.ends_pass = block.ends_group, block.ends_pass
        d.all_started = block.ends_pass
    if passed:
        d.all_started = 0


@part
def _walk_edge(d, c, ends_block, ends_group):
    """A pixel leaves the requantiser: on to the next position; count the rows that end."""
    now = d.now
    row_ends = now.column + 1 == c.pitch
    column = 0 if row_ends else now.column + 1
    row = now.row + 1 if row_ends else now.row
    if ends_block and ends_group:
        # Behind the last column of a row nothing is left but its gap.
        short_ends = not row_ends and column >= c.width
        d.rows_done = min(row + 1 if short_ends else row, c.height)
        d.marked.column, d.marked.row = column, row
    elif ends_block:
        column, row = d.marked.column, d.marked.row
    now.column, now.row = column, row


@part
def _requantise_edge(d, c, passed, step, ends, ends_group):
    """The stages of the requantiser and, at its end, the walk."""
    if passed:
        d.rows_done = 0
        d.now.column = d.now.row = d.marked.column = d.marked.row = 0
    elif d.stage_step >> _END & 1:
        _walk_edge(d, c, d.stage_ends_block >> _END & 1, d.stage_ends_group >> _END & 1)
    d.stage_step = (d.stage_step << 1 | step) & _STAGES
    d.stage_ends_block = (d.stage_ends_block << 1 | ends) & _STAGES
    d.stage_ends_group = (d.stage_ends_group << 1 | ends_group) & _STAGES


@part
def _rows_edge(d, maps):
    """``Drain._send_rows``."""
    packer = d.packer
    if packer.valid or packer.flush or d.s1_valid:
        packer_edge(packer, maps, d.s1_valid, d.s1_count, d.s1_last, d.packer_o_ready)
    if d.move:
        d.s1_valid, d.s1_count, d.s1_last = d.issue, d.count, d.rows_end
    if not d.issue:
        return
    d.x = 0 if d.row_ends else d.x + maps
    if d.map_ends:
        d.map = 0
        d.rows_sent = 0 if d.rows_end else d.rows_sent + 1
    elif d.row_ends:
        d.map += 1


@part
def drain_edge(d, config, array, o, pixels, maps):
    """Move the registers; what stands at ``o`` is found anew by :func:`drain_offers`."""
    c = config.o.drain
    passed = config.valid and config.ready
    if d.rows_end:
        d.leaving = 1
    elif d.packer.valid and d.packer_o_ready and d.packer.last:
        d.leaving = 0
    if d.partial and o.valid and o.ready:
        d.sent = 0 if d.sent == PARTIAL_WORDS - 1 else d.sent + 1
    if d.step:
        d.words = 0
    elif d.take or d.words == PARTIAL_WORDS:
        d.words += 1
    step = d.step and not c.partial_out
    ends_group = d.running_block.ends_group
    _blocks_edge(d, array, pixels, passed)
    _requantise_edge(d, c, passed, step, d.ends, ends_group)
    _rows_edge(d, maps)
    o.valid = o.ready = 0
