"""Window reduction of a tile (blocks.window): its walk over rows, maps and windows."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.arith import Requantise
from neuflow.blocks.window_read import FLAT_BITS as _FLAT_BITS
from neuflow.blocks.window_model import RING_WORDS
from neuflow.cycle.compiled import part
from neuflow.cycle.parts import PACKER, packer_edge, packer_ready
from neuflow.cycle.state import INT

IDLE, SLOTS, OPEN, DECIDE, SCAN, DRAIN, FINISH = range(7)

_FLAT = (1 << _FLAT_BITS) - 1
_SIGN = 1 << (_FLAT_BITS - 1)
_EXIT = (1 << Requantise.LATENCY) - 1
_EXIT_END = Requantise.LATENCY - 1

WINDOW = np.dtype(
    [
        ("state", INT),
        # Words of the packet, numbered modulo 2**_FLAT_BITS.
        *((n, INT) for n in ("written", "free", "base", "input_done")),
        # Rows.
        *((n, INT) for n in ("real", "closing", "final", "slots", "open")),
        *((n, INT) for n in ("y", "opens_at", "closes_at", "reach", "opened", "closed")),
        # Scan: the next window, and the one that is being read.
        *((n, INT) for n in ("column", "image", "left")),
        *((n, INT) for n in ("b_valid", "b_hit", "b_final", "b_position", "b_end")),
        # Row reduction, merge, exit (bit k of exit_valid: stage k of the requantiser).
        *((n, INT) for n in ("s1_valid", "s1_whole", "s1_final", "s2_valid", "s2_whole")),
        *((n, INT) for n in ("s2_final", "s3_valid", "s3_final", "turn")),
        *((n, INT) for n in ("v1_valid", "v1_leaves", "v1_final")),
        *((n, INT) for n in ("exit_valid", "exit_final")),
        ("packer", PACKER),
        # Wires.
        *((n, INT) for n in ("en", "go", "works", "busy", "take", "finish")),
        *((n, INT) for n in ("read", "whole", "load", "skip", "step", "scanned")),
        *((n, INT) for n in ("last_column", "last_map")),
    ]
)
"""blocks.window.Window."""


@part
def window_rests(w, config):
    """Whether nothing can move."""
    return not (
        w.state != IDLE or config.valid or w.exit_valid or w.packer.valid or w.packer.flush
    )


@part
def _ahead(written, position):
    """Return ``written - position`` as the signed number of the block's width."""
    return ((written - position + _SIGN) & _FLAT) - _SIGN


@part
def _ring_wires(w, configured, i, lanes):
    oldest = w.free & -lanes
    room = _ahead(w.written, oldest) < max(4 * lanes, RING_WORDS)
    w.take = i.valid and configured and not w.input_done and room
    i.ready = w.take


@part
def _scan_wires(w, c, lanes):
    position = w.b_position & -lanes
    w.whole = not w.b_hit or position == w.b_end & -lanes
    end_lane = w.b_end & (lanes - 1) if w.whole else lanes - 1
    there = not w.b_hit or _ahead(w.written, position | end_lane) > 0
    w.read = w.go and w.b_valid and there
    scanning = w.state == SCAN
    arrived = _ahead(w.written, w.base) >= 0
    w.skip = scanning and w.open == 0 and not w.b_valid and arrived
    w.load = scanning and w.open != 0 and (not w.b_valid or (w.read and w.whole))
    w.step = w.load or w.skip
    w.last_column = w.skip or w.column == c.width_out - 1
    w.last_map = w.image == c.maps - 1
    w.scanned = w.step and w.last_column and w.last_map


@part
def window_wires(w, config, i, o, lanes):
    """``i``, ``o``: links. Return whether a beat of the input is taken (``active``)."""
    _ring_wires(w, config.valid, i, lanes)
    w.en = (w.exit_valid >> _EXIT_END & 1) == 0 or packer_ready(w.packer, o.ready)
    w.go = w.en and (not w.s3_valid or w.turn == 0)
    w.works = w.s3_valid or w.turn != 0
    w.busy = w.b_valid or w.s1_valid or w.s2_valid or w.works or w.v1_valid
    _scan_wires(w, config.o.window, lanes)
    w.finish = w.state == FINISH and w.input_done
    config.ready = w.finish
    return w.take


@part
def _ring_edge(w, i):
    if w.finish:
        w.written = w.input_done = 0
    elif w.take:
        w.written = (w.written + i.count) & _FLAT
        w.input_done = i.last


@part
def _reduce_edge(w):
    """``_build_row_reduction``: the stages before the merge."""
    if w.go:
        w.s3_valid = w.s2_valid and w.s2_whole
        w.s3_final = w.s2_final
        w.s2_valid, w.s2_whole, w.s2_final = w.s1_valid, w.s1_whole, w.s1_final
        w.s1_valid, w.s1_whole, w.s1_final = w.read, w.whole, w.b_final


@part
def _merge_edge(w):
    """A turn for every open output row, then through the requantiser to the packer."""
    if not w.en:
        return
    leaves = w.v1_valid and w.v1_leaves
    w.exit_valid = (w.exit_valid << 1 | leaves) & _EXIT
    w.exit_final = (w.exit_final << 1 | (leaves and w.v1_final)) & _EXIT
    w.v1_valid = w.works
    if w.works:
        w.v1_leaves = w.turn == 0 and w.closing
        w.v1_final = w.s3_final
        w.turn = 0 if w.turn == w.open - 1 else w.turn + 1


@part
def _scan_edge(w, c, lanes):
    stored_free = (w.state == SCAN and w.open == 0 and not w.b_valid) or w.state == FINISH
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
    packer = w.packer
    ready, leaves = o.ready, w.exit_valid >> _EXIT_END & 1
    if leaves or packer.valid or packer.flush:
        packer_edge(packer, lanes, leaves, 1, w.exit_final >> _EXIT_END & 1, ready)
    o.valid, o.count, o.last = packer.valid, packer.count, packer.last
    o.ready = 0
    _ring_edge(w, i)
    _merge_edge(w)
    _reduce_edge(w)
    _scan_edge(w, c, lanes)
    _rows_edge(w, c, config.valid)
