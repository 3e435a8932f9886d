"""Window reduction of a tile (blocks.window): its walk over rows, chunks and windows."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.arith import Requantise
from neuflow.blocks.window_model import RING_WORDS
from neuflow.cycle.compiled import part
from neuflow.cycle.merger import MERGER, merger_edge, merger_ready, merger_rests
from neuflow.cycle.parts import SLICE
from neuflow.cycle.parts import slice_edge as leaves_edge
from neuflow.cycle.pipeline import SPARE, slice_edge
from neuflow.cycle.state import INT

IDLE, SLOTS, OPEN, DECIDE, SCAN, NEXT, FINISH = range(7)

_EXIT = (1 << Requantise.LATENCY) - 1
_EXIT_END = Requantise.LATENCY - 1
_REDUCE, _REDUCE_END = 0b1_1111, 4
"""Stages of the reduction behind the ring, and the last of them."""
_REDUCE_WHOLE = 0b0_1000
"""The stage behind which only whole windows go on."""
_MERGE, _MERGE_END = 0b1111, 3
"""Stages of the merge in front of the ring."""

WINDOW = np.dtype(
    [
        ("state", INT),
        # Lines: beats that wait, the beat that is held, and the lane of the next chunk in it.
        *((n, INT) for n in ("next_valid", "next_spare", "held", "place")),
        # Rows.
        *((n, INT) for n in ("above", "below", "unopened", "opens_in", "closes_in", "reach")),
        *((n, INT) for n in ("slots", "open", "real", "closing", "covers", "last_turn")),
        *((n, INT) for n in ("input_ends", "chunk", "line", "turn", "chunks", "tail")),
        # Ring, in chunks.
        *((n, INT) for n in ("reserved", "ahead", "room", "free", "written", "base")),
        # Scan: the walk, the window that waits (``span``: its columns but one), the one that is read
        # (``row``: the last in the ring that this read needs).
        *((n, INT) for n in ("walking", "column", "image", "row", "left")),
        *((n, INT) for n in ("f_valid", "f_hit", "f_final", "f_position", "f_span")),
        *((n, INT) for n in ("b_valid", "b_hit", "b_final", "b_position", "b_span", "b_row")),
        # Merge, reduction, exit: flags of the stages, bit k is stage k + 1.
        *((n, INT) for n in ("v_valid", "v_leaves", "s_valid", "s_whole", "s_final")),
        *((n, INT) for n in ("exit_valid", "exit_final")),
        ("leaves", SLICE),
        ("packer", MERGER),
        ("slice", SPARE),
        # Wires.
        *((n, INT) for n in ("en", "take", "finish", "packer_o_ready", "after", "spills")),
        *((n, INT) for n in ("line_ends", "packet_ends", "issue", "step", "scanned", "taken")),
        *((n, INT) for n in ("read", "whole", "load", "walks")),
    ]
)
"""blocks.window.Window."""


@part
def window_rests(w, config, o):
    """Whether nothing can move."""
    return not (
        w.state != IDLE or config.valid or w.exit_valid or o.valid or w.leaves.valid
        or (w.next_valid and not w.held) or not merger_rests(w.packer)
    )  # fmt: skip


@part
def _visit_wires(w, c, lanes):
    w.line_ends = w.chunk == w.chunks - 1
    last = w.line_ends and w.line == c.maps - 1
    w.after = w.place + (w.tail if w.line_ends else lanes)
    w.spills = w.after > lanes
    there = w.held and (not w.spills or w.next_valid)
    w.issue = w.state == SCAN and (there or not w.real) and (w.room or not w.closing)
    w.step = w.issue and w.turn == w.last_turn
    w.taken = w.step and w.real
    w.scanned = w.step and last
    w.packet_ends = w.input_ends and last


@part
def _scan_wires(w, lanes):
    w.whole = not w.b_hit or w.b_span < lanes
    w.read = w.en and w.b_valid and (not w.b_hit or w.written > w.b_row)
    w.load = w.f_valid and (not w.b_valid or (w.read and w.whole))
    w.walks = w.walking and (not w.f_valid or w.load)


@part
def window_wires(w, config, i, lanes):
    """``i``: link. Return whether a beat of the input is taken (``active``)."""
    w.take = config.valid and not w.next_spare and i.valid
    i.ready = w.take
    w.packer_o_ready = w.slice.valid == 0
    w.en = (w.exit_valid >> _EXIT_END & 1) == 0 or w.leaves.spare_valid == 0
    _visit_wires(w, config.o.window, lanes)
    _scan_wires(w, lanes)
    busy = w.walking or w.f_valid or w.b_valid or w.s_valid
    w.finish = w.state == FINISH and not busy
    config.ready = w.finish
    return w.take


@part
def _lines_edge(w, lanes):
    """``_build_lines``."""
    passes = w.taken and w.after >= lanes and (not w.packet_ends or w.spills)
    o_ready = not w.held or passes
    if w.taken and w.packet_ends:
        w.held = 0
    elif o_ready:
        w.held = w.next_valid
    if w.taken:
        w.place = 0 if w.packet_ends else w.after & (lanes - 1)
    if not w.next_valid or o_ready:
        w.next_valid = w.next_spare or w.take
        w.next_spare = 0
    elif w.take:
        w.next_spare = 1


@part
def _visits_edge(w, lanes):
    """``_build_visits``, ``_build_room``, ``_build_merge``."""
    leaves = w.turn == 0 and w.closing
    arrive = (w.v_valid & w.v_leaves) >> _MERGE_END & 1
    # Three more may come before the ring counts as full.
    w.room = w.ahead * lanes < RING_WORDS - 2 * lanes
    w.ahead = w.reserved - w.free
    w.v_valid = (w.v_valid << 1 | (w.issue and w.covers)) & _MERGE
    w.v_leaves = (w.v_leaves << 1 | leaves) & _MERGE
    if w.finish:
        w.written = w.reserved = 0
    else:
        w.written += arrive
        w.reserved += w.issue and leaves
    if w.state != SCAN:
        w.turn = w.chunk = w.line = 0
    elif w.step:
        w.turn = 0
        w.chunk += 1
        if w.line_ends:
            w.chunk = 0
            w.line += 1
    elif w.issue:
        w.turn += 1


@part
def _reduce_edge(w):
    """``_build_reduction``, then through the requantiser to the packer."""
    if not w.en:
        return
    whole = w.s_valid & (w.s_whole | ~_REDUCE_WHOLE)
    w.exit_valid = (w.exit_valid << 1 | (w.s_valid >> _REDUCE_END & 1)) & _EXIT
    w.exit_final = (w.exit_final << 1 | (w.s_final >> _REDUCE_END & 1)) & _EXIT
    w.s_valid = (whole << 1 | w.read) & _REDUCE
    w.s_whole = w.s_whole << 1 & _REDUCE | w.whole
    w.s_final = w.s_final << 1 & _REDUCE | w.b_final


@part
def _walk_edge(w, c, lanes):
    """``_build_windows``."""
    w.f_valid = w.walks or (w.f_valid and not w.load)
    if w.walks:
        low = max(w.left, 0)
        w.f_hit = w.left < c.width and w.left + c.kernel_x > 0
        w.f_position = w.base * lanes + low
        w.f_span = min(w.left + c.kernel_x, c.width) - 1 - low
        w.f_final = 0
        w.column += 1
        w.left += c.stride_x
        if w.column == c.width_out:
            w.column = 0
            w.left = -c.pad_x
            w.base += w.chunks
            w.image += 1
        if w.image == c.maps:
            w.image = 0
            w.row += 1
        if w.row == c.height_out:
            w.f_final = 1
            w.walking = 0
    if not w.walking:
        w.column = w.image = w.row = 0
        w.left = -c.pad_x
    if w.finish:
        w.base = 0


@part
def _scan_edge(w, c, lanes):
    """``_build_scan``."""
    if w.load and w.f_hit:
        w.free = w.f_position // lanes
    elif not (w.walking or w.f_valid or w.b_valid):
        w.free = w.base
    if w.load:
        w.b_hit, w.b_final, w.b_position, w.b_span = w.f_hit, w.f_final, w.f_position, w.f_span
    elif w.read:
        w.b_position += lanes
        w.b_span -= lanes
    if w.load or w.read:
        w.b_row = (w.b_position + min(w.b_span, lanes - 1)) // lanes
    w.b_valid = w.load or (w.b_valid and not (w.read and w.whole))
    _walk_edge(w, c, lanes)


@part
def _decide(w, c):
    """State DECIDE: what the row is for."""
    w.real = w.above == 0 and w.below != 0
    w.closing = w.closes_in == 1 and w.open != 0
    w.covers = w.open != 0
    w.input_ends = w.below == 1
    w.last_turn = min(w.open, w.slots) - 1 if w.real and w.covers else 0
    if w.real or w.closing:
        w.state = SCAN
    elif w.below == 0 and w.unopened == 0 and w.open == 0:
        w.state = FINISH
    else:
        w.state = NEXT


@part
def _row_ends(w, c):
    """State NEXT: on to the next row; a row that was closed makes place."""
    w.opens_in = c.stride_y if w.opens_in == 1 else w.opens_in - 1
    w.closes_in = c.stride_y if w.closes_in == 1 else w.closes_in - 1
    w.below -= w.real
    w.above -= w.above != 0
    w.open -= w.closing
    w.state = OPEN


@part
def _rows_edge(w, c, configured, lanes):
    """``_build_rows``."""
    state = w.state
    if state == IDLE:
        w.chunks, w.tail = (c.width + lanes - 1) // lanes, ((c.width - 1) & (lanes - 1)) + 1
        w.slots, w.reach, w.open = 1, c.stride_y + 1, 0
        w.above, w.below, w.unopened = c.pad_y, c.height, c.height_out
        w.opens_in, w.closes_in = 1, c.kernel_y
        if configured:
            w.state = SLOTS
    elif state == SLOTS:
        if w.reach >= c.kernel_y or w.slots == c.height_out:
            w.walking = 1
            w.state = OPEN
        else:
            w.slots += 1
            w.reach += c.stride_y
    elif state == OPEN:
        if w.opens_in == 1 and w.unopened:
            w.unopened -= 1
            w.open += 1
        w.state = DECIDE
    elif state == DECIDE:
        _decide(w, c)
    elif state == SCAN:
        if w.scanned:
            w.state = NEXT
    elif state == NEXT:
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
    _lines_edge(w, lanes)
    _visits_edge(w, lanes)
    _reduce_edge(w)
    _scan_edge(w, c, lanes)
    _rows_edge(w, c, config.valid, lanes)
