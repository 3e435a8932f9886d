"""Window reduction of a tile (blocks.window): its walk over rows, maps and windows."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.arith import Requantise
from neuflow.blocks.window_model import RING_WORDS
from neuflow.blocks.window_read import FLAT_BITS
from neuflow.cycle.compiled import part
from neuflow.cycle.merger import MERGER, merger_edge, merger_ready, merger_rests
from neuflow.cycle.parts import SLICE
from neuflow.cycle.parts import slice_edge as leaves_edge
from neuflow.cycle.pipeline import SPARE, slice_edge
from neuflow.cycle.state import INT

IDLE, SLOTS, OPEN, DECIDE, SCAN, DRAIN, FINISH = range(7)

_FLAT = (1 << FLAT_BITS) - 1
_SIGN = 1 << (FLAT_BITS - 1)
_EXIT = (1 << Requantise.LATENCY) - 1
_EXIT_END = Requantise.LATENCY - 1
_REDUCE, _REDUCE_END = 0b1_1111, 4
"""Stages of the row reduction, and the last of them."""
_REDUCE_WHOLE = 0b0_1000
"""The stage behind which only whole window rows go on."""
_MERGE, _MERGE_END = 0b1111, 3
"""Stages of the merge."""

WINDOW = np.dtype(
    [
        ("state", INT),
        # Words of the packet, numbered modulo 2**FLAT_BITS.
        *((n, INT) for n in ("written", "free", "base", "input_done")),
        *((n, INT) for n in ("input_ready", "ahead", "beats_written")),
        # Rows.
        *((n, INT) for n in ("real", "closing", "final", "slots", "open")),
        *((n, INT) for n in ("y", "opens_at", "closes_at", "reach", "opened", "closed")),
        # Scan: the next window, and the one that is being read.
        *((n, INT) for n in ("column", "image", "left", "some_open", "arrived")),
        *((n, INT) for n in ("b_valid", "b_hit", "b_final", "b_position", "b_end")),
        # Row reduction, merge, exit: flags of the stages, bit k is stage k + 1.
        *((n, INT) for n in ("s_valid", "s_whole", "s_final", "turn")),
        *((n, INT) for n in ("v_valid", "v_leaves", "v_final", "exit_valid", "exit_final")),
        ("leaves", SLICE),
        ("packer", MERGER),
        ("slice", SPARE),
        # Wires.
        *((n, INT) for n in ("en", "go", "works", "busy", "take", "finish", "packer_o_ready")),
        *((n, INT) for n in ("read", "whole", "load", "skip", "step", "scanned")),
        *((n, INT) for n in ("last_column", "last_map")),
    ]
)
"""blocks.window.Window."""


@part
def window_rests(w, config, o):
    """Whether nothing can move."""
    return not (
        w.state != IDLE or config.valid or w.exit_valid or o.valid or w.input_ready
        or w.ahead or w.leaves.valid or not merger_rests(w.packer)
    )  # fmt: skip


@part
def _ahead(written, position):
    """Return ``written - position`` as the signed number of the block's width."""
    return ((written - position + _SIGN) & _FLAT) - _SIGN


@part
def _scan_wires(w, c, lanes):
    position = w.b_position & -lanes
    w.whole = not w.b_hit or position == w.b_end & -lanes
    # A beat comes whole: its words are there when it is.
    there = not w.b_hit or _ahead(w.beats_written * lanes, position) > 0
    w.read = w.go and w.b_valid and there
    scanning = w.state == SCAN
    w.skip = scanning and not w.some_open and not w.b_valid and w.arrived
    w.load = scanning and w.some_open and (not w.b_valid or (w.read and w.whole))
    w.step = w.load or w.skip
    w.last_column = w.skip or w.column == c.width_out - 1
    w.last_map = w.image == c.maps - 1
    w.scanned = w.step and w.last_column and w.last_map


@part
def window_wires(w, config, i, lanes):
    """``i``: link. Return whether a beat of the input is taken (``active``)."""
    w.take = w.input_ready and i.valid
    i.ready = w.take
    w.packer_o_ready = w.slice.valid == 0
    w.en = (w.exit_valid >> _EXIT_END & 1) == 0 or w.leaves.spare_valid == 0
    reduced = w.s_valid >> _REDUCE_END & 1
    w.go = w.en and (not reduced or w.turn == 0)
    w.works = reduced or w.turn != 0
    w.busy = w.b_valid or w.s_valid or w.works or w.v_valid
    _scan_wires(w, config.o.window, lanes)
    w.finish = w.state == FINISH and w.input_done
    config.ready = w.finish
    return w.take


@part
def _ring_edge(w, configured, i, lanes):
    # Two beats may come before a full ring is noticed.
    room = w.ahead < max(4 * lanes, RING_WORDS) - 2 * lanes
    w.ahead = _ahead(w.written, w.free & -lanes)
    ends = w.take and i.last
    w.input_ready = configured and not w.input_done and not ends and room
    if w.finish:
        w.written = w.beats_written = w.input_done = 0
    elif w.take:
        w.written = (w.written + i.count) & _FLAT
        w.beats_written += 1
        w.input_done = i.last


@part
def _reduce_edge(w):
    """``_build_row_reduction``: the last stage keeps whole window rows only."""
    if w.go:
        whole = w.s_valid & (w.s_whole | ~_REDUCE_WHOLE)
        w.s_valid = (whole << 1 | w.read) & _REDUCE
        w.s_whole = w.s_whole << 1 & _REDUCE | w.whole
        w.s_final = w.s_final << 1 & _REDUCE | w.b_final


@part
def _merge_edge(w):
    """A turn for every open output row, then through the requantiser to the packer."""
    if not w.en:
        return
    leaves = (w.v_valid & w.v_leaves) >> _MERGE_END & 1
    w.exit_valid = (w.exit_valid << 1 | leaves) & _EXIT
    w.exit_final = (w.exit_final << 1 | (w.v_final >> _MERGE_END & 1)) & _EXIT
    first = w.turn == 0
    w.v_valid = (w.v_valid << 1 | w.works) & _MERGE
    w.v_leaves = (w.v_leaves << 1 | (first and w.closing)) & _MERGE
    w.v_final = (w.v_final << 1 | (w.s_final >> _REDUCE_END & 1)) & _MERGE
    if w.works:
        w.turn = 0 if w.turn == w.open - 1 else w.turn + 1


@part
def _scan_edge(w, c, lanes):
    stored_free = (w.state == SCAN and not w.some_open and not w.b_valid) or w.state == FINISH
    base = w.base
    if w.read:
        w.b_position = ((w.b_position & -lanes) + lanes) & _FLAT
        w.b_valid = not w.whole
    if w.load:
        low = max(w.left, 0)
        high = min(w.left + c.kernel_x, c.width)
        w.b_valid = 1
        w.b_hit = w.real and low < high
        w.b_final = w.final and w.last_column and w.last_map
        w.b_position = (base + low) & _FLAT
        w.b_end = (base + high - 1) & _FLAT
        if w.b_hit:
            w.free = w.b_position
    if w.step:
        w.column += 1
        w.left += c.stride_x
        if w.last_column:
            w.column = 0
            w.left = -c.pad_x
            w.image += 1
            if w.real:
                w.base = (base + c.width) & _FLAT
    if stored_free:
        w.free = base
    if w.state != SCAN:
        w.column = w.image = 0
        w.left = -c.pad_x
    if w.finish:
        w.base = w.free = 0


@part
def _row_ends(w, c):
    """State DRAIN: on to the next row; a row that was closed makes place."""
    w.y += 1
    if w.closing:
        w.closed += 1
        w.closes_at += c.stride_y
        w.open -= 1
    w.state = OPEN


@part
def _decide(w, c):
    """State DECIDE: what the row at ``y`` is for."""
    inside = 0 <= w.y < c.height
    closes = w.open != 0 and w.y == w.closes_at
    w.real, w.closing = inside, closes
    w.final = closes and w.closed == c.height_out - 1
    if w.y >= c.height and w.closed == c.height_out:
        w.state = FINISH
    elif inside or closes:
        w.state = SCAN
    else:
        w.y += 1
        w.state = OPEN


@part
def _rows_edge(w, c, configured):
    """``_build_rows``."""
    state = w.state
    if state == IDLE:
        w.slots, w.reach = 1, c.stride_y
        w.open = w.opened = w.closed = 0
        w.y = w.opens_at = -c.pad_y
        w.closes_at = c.kernel_y - 1 - c.pad_y
        if configured:
            w.state = SLOTS
    elif state == SLOTS:
        if w.reach >= c.kernel_y or w.slots == c.height_out:
            w.state = OPEN
        else:
            w.slots += 1
            w.reach += c.stride_y
    elif state == OPEN:
        if w.y == w.opens_at and w.opened != c.height_out:
            w.opened += 1
            w.opens_at += c.stride_y
            w.open += 1
        w.state = DECIDE
    elif state == DECIDE:
        _decide(w, c)
    elif state == SCAN:
        if w.scanned:
            w.state = DRAIN
    elif state == DRAIN:
        if not w.busy:
            _row_ends(w, c)
    elif w.finish:
        w.state = IDLE


@part
def window_edge(w, config, i, o, lanes):
    """Move the registers; clears ``o.ready``."""
    c = config.o.window
    packer, end = w.packer, w.exit_valid >> _EXIT_END & 1
    if o.valid or packer.valid:
        slice_edge(w.slice, o, packer.valid, packer.count, packer.last)
    leaves = w.leaves
    packs = merger_ready(packer, w.packer_o_ready)
    if leaves.valid or not merger_rests(packer):
        merger_edge(packer, lanes, 0, leaves.valid, 1, leaves.b, w.packer_o_ready)
    if leaves.valid or end:
        leaves_edge(leaves, end, 1, w.exit_final >> _EXIT_END & 1, packs)
    some_open = w.open != 0
    # After a step the base is another, which shows a cycle later.
    w.arrived = not w.step and _ahead(w.written, w.base) >= 0
    _ring_edge(w, config.valid, i, lanes)
    _merge_edge(w)
    _reduce_edge(w)
    _scan_edge(w, c, lanes)
    _rows_edge(w, c, config.valid)
    w.some_open = some_open
