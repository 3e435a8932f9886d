"""Read ports and the operand line (blocks.dma)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.dma_address import (
    SPLITTER,
    WALKER,
    is_near,
    may_follow,
    run_tail,
    splitter_edge,
    splitter_piece,
    walker_edge,
)
from neuflow.cycle.merger import MERGER, merger_edge, merger_ready
from neuflow.cycle.parts import (
    NARROW,
    QUEUE,
    SLICE,
    TAG,
    narrow_edge,
    narrow_ready,
    queue_at,
    queue_edge,
    slice_edge,
    tag_edge,
)
from neuflow.cycle.state import INT, overlaid, record
from neuflow.grid import GridConfig
from neuflow.layout import Operand

READ_PORT = overlaid(
    [
        ("walker", WALKER),
        ("runs", SLICE),  # a: first word, b: ``run_tail``
        ("splitter", SPLITTER),
        ("pieces", QUEUE),
        ("asks", SLICE),  # a: address, b: length; its output is the request
        ("near", INT),  # where the bursts under way lie
        ("under_way", INT),
        ("room", INT),
        ("left", INT),  # a beat left the buffer a cycle ago
        ("index", INT),  # beat of the burst that arrives
        ("buffer", QUEUE),  # value: count, last, dest
        ("head", record("there", "count", "last", "dest")),  # the merger's input
        ("merger", MERGER),
        ("tag", TAG),
        ("leaves", SLICE),  # a: count, b: last, dest; its output is the port's
        ("granted", INT),  # wire: request.ready
        ("arrives", INT),  # wire: response.valid
        ("ready", INT),  # wire: o.ready
    ]
)
"""dma.ReadPort."""

OPERAND_LINE = np.dtype([("narrow", NARROW), ("dest", INT), ("to", SLICE, (len(Operand),))])
"""dma.OperandLine; ``to``: a: count, b: last."""


def reset_read_port(grid: GridConfig, port: np.void, at: int, rows: bool) -> int:
    """Set the registers that are not 0 after reset; return the next free place of the store."""
    port["room"] = grid.rows_beats if rows else grid.dma_beats
    port["splitter"]["fits"] = 1  # a cycle after reset
    return queue_at(port["buffer"], queue_at(port["pieces"], at, BURSTS), grid.rows_beats)


@part
def _arrival(m, port):
    """A response beat goes to the buffer, with the lanes that are wanted of it."""
    arrives = port.arrives != 0
    ends = False
    entry = 0
    if arrives:
        piece = port.pieces.value
        ends = port.index == (piece >> 16) & 0xFFFF
        first = piece & 0xFF if port.index == 0 else 0
        final = (piece >> 8) & 0xFF if ends else m.grid.bus_words - 1
        last = (piece >> 32) & 1 if ends else 0
        entry = (final - first + 1) | last << 16 | (piece >> 33) << 17
        port.index = 0 if ends else port.index + 1
    head, merger = port.head, port.merger
    buffer_ready = head.there == 0 or merger_ready(merger, port.leaves.spare_valid == 0)
    return arrives, entry, arrives and ends, buffer_ready


@part
def _delivery_edge(m, port, buffer_ready):
    """``ReadPort._build_delivery``."""
    head, merger, leaves = port.head, port.merger, port.leaves
    leaves_ready = leaves.spare_valid == 0
    if leaves.valid or merger.valid:
        value = merger.last | port.tag.value << 1
        slice_edge(leaves, merger.valid, merger.count, value, port.ready)
    if head.there or merger.there or merger.valid or merger.flush:
        tag_edge(port.tag, merger, head.there, head.dest, leaves_ready)
        lanes = m.grid.bus_words
        merger_edge(merger, lanes, 0, head.there, head.count, head.last, leaves_ready)
    port.left = 0
    if buffer_ready:
        head.there = port.buffer.valid
        if head.there:
            value = port.buffer.value
            port.left = 1
            head.count = value & 0xFFFF
            head.last = (value >> 16) & 1
            head.dest = value >> 17


@part
def read_port_delivers(port):
    """Whether a beat moves on behind the buffer, or has just left it."""
    moving = port.head.there or port.merger.there or port.merger.valid or port.buffer.valid
    return port.left or (moving and port.leaves.spare_valid == 0)


@part
def read_port_edge(m, port, receiver):
    """blocks.dma.ReadPort; ``granted``, ``arrives``, ``ready`` are known."""
    grid, s, w, asks = m.grid, port.splitter, port.walker, port.asks
    runs, pieces, buffer = port.runs, port.pieces, port.buffer
    asked = (
        s.active != 0 and s.fits != 0 and pieces.level != BURSTS and asks.spare_valid == 0
        and may_follow(grid, s.beat, port.near, port.under_way)
    )
    length = s.length
    piece = splitter_piece(grid, s)
    arrives, entry, piece_ends, buffer_ready = _arrival(m, port)

    left = port.left
    _delivery_edge(m, port, buffer_ready)
    if arrives or buffer.level or buffer.valid:
        queue_edge(buffer, m.store, arrives, entry, buffer_ready)
    if asked or pieces.level or pieces.valid:
        queue_edge(pieces, m.store, asked, piece, piece_ends)
    port.under_way += (1 if asked else 0) - (1 if piece_ends else 0)
    if asked:
        port.near = is_near(grid, s.beat)
    if asked or asks.valid:
        slice_edge(asks, asked, s.beat, length, port.granted)
    d = receiver.o.read
    receiver.ready = 0
    if (
        asked or s.active == 0 or (s.there == 0 and runs.valid)
        or (runs.spare_valid == 0 if w.active else receiver.valid)
    ):  # fmt: skip
        ready = splitter_edge(grid, s, runs, asked)
        walker_ready = runs.spare_valid == 0
        slice_edge(runs, w.active, w.run, run_tail(w, d.dest, d.run), ready)
        walker_edge(w, receiver, walker_ready)
    port.room += left - (length + 1 if asked else 0)
    s.fits = port.room >= grid.burst_beats

    port.granted = 0
    port.arrives = 0
    port.ready = 0


@part
def operand_line_offer(leaves, sink):
    """Offer the beat of one of ``line.to`` at ``sink``, a LINK."""
    sink.valid = leaves.valid
    sink.count = leaves.a
    sink.last = leaves.b


@part
def operand_line_rests(line, port):
    """Whether nothing is there that could move."""
    to = line.to
    return not (line.narrow.left or port.leaves.valid or to[0].valid or to[1].valid)


@part
def operand_line_edge(grid, line, port, takes0, takes1):
    """blocks.dma.OperandLine; ``takes``: its sinks take a beat. Return whether one left the narrowing.

    Sets the operand port's ``ready``. Call it before that port's edge.
    """
    leaves, n, dest = port.leaves, line.narrow, line.dest & 1
    final = n.left <= grid.lanes
    count = n.left if final else grid.lanes
    last = n.last if final else 0
    there = n.left != 0
    o_ready = line.to[dest].spare_valid == 0
    port.ready = narrow_ready(n, grid.lanes, o_ready)
    slice_edge(line.to[0], there and dest == 0, count, last, takes0)
    slice_edge(line.to[1], there and dest == 1, count, last, takes1)
    if leaves.valid and port.ready:
        line.dest = leaves.b >> 1
    narrow_edge(n, grid.lanes, leaves.valid, leaves.a, leaves.b & 1, o_ready)
    return there and o_ready
