"""Read ports and the operand line (blocks.dma)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.dma_address import (
    SPLITTER,
    WALKER,
    splitter_edge,
    splitter_length,
    splitter_piece,
    walker_edge,
    walker_wires,
)
from neuflow.cycle.parts import (
    NARROW,
    PACKER,
    QUEUE,
    narrow_edge,
    narrow_ready,
    packer_edge,
    packer_ready,
    queue_at,
    queue_edge,
)
from neuflow.cycle.state import INT, record
from neuflow.grid import GridConfig

READ_PORT = np.dtype(
    [
        ("busy", INT),  # something is in it, so its registers may move
        ("walker", WALKER),
        ("splitter", SPLITTER),
        ("pieces", QUEUE),
        ("room", INT),
        ("index", INT),  # beat of the burst that arrives
        ("buffer", QUEUE),  # value: count, last, dest
        ("loose", record("valid", "count", "last", "dest")),  # the packer's input
        ("packer", PACKER),  # its output is the port's
        ("dest", INT),
        *[(name, INT) for name in ("request_valid", "request_address", "request_length")],  # wires
        ("granted", INT),  # wire: request.ready
        ("arrives", INT),  # wire: a beat of this port moves on the bus
        ("ready", INT),  # wire: o.ready
    ]
)
"""dma.ReadPort."""

OPERAND_LINE = np.dtype([("narrow", NARROW), ("dest", INT)])
"""dma.OperandLine."""


def reset_read_port(grid: GridConfig, port: np.void, at: int) -> int:
    """Set the registers that reset does not clear; return the next free place of the store."""
    port["room"] = grid.dma_beats
    return queue_at(port["buffer"], queue_at(port["pieces"], at, BURSTS), grid.dma_beats)


@part
def read_port_wires(grid, port, receiver):
    """Offer the burst at hand; wake the port when a descriptor waits."""
    if receiver.valid:
        port.busy = 1
    s = port.splitter
    port.request_valid = 0
    if s.active:
        length = splitter_length(grid, s)
        port.request_address = s.beat
        port.request_length = length
        port.request_valid = port.room > length and port.pieces.level != BURSTS


@part
def read_port_response_ready(port):
    """``response.ready``."""
    return port.pieces.valid


@part
def read_port_edge(m, port, receiver):
    """blocks.dma.ReadPort; ``granted``, ``arrives``, ``ready`` are known."""
    grid, s, w = m.grid, port.splitter, port.walker
    asked = port.granted  # only what is offered is granted
    length = splitter_length(grid, s)
    splitter_ready = s.active == 0 or (asked != 0 and s.more == length)

    # Arrival: how many of this beat's lanes are wanted.
    arrives = port.arrives
    entry = 0
    ends = False
    if arrives:
        piece = port.pieces.value
        burst = (piece >> 16) & 0xFFFF
        ends = port.index == burst
        first = piece & 0xFF if port.index == 0 else 0
        final = (piece >> 8) & 0xFF if ends else grid.bus_words - 1
        last = (piece >> 32) & 1 if ends else 0
        entry = (final - first + 1) | last << 16 | (piece >> 33) << 17
        port.index = 0 if ends else port.index + 1

    # Delivery.
    loose, packer = port.loose, port.packer
    takes = packer_ready(packer, port.ready)
    buffer_ready = loose.valid == 0 or takes
    taken = buffer_ready and port.buffer.valid != 0
    if loose.valid and takes:
        port.dest = loose.dest
    packer_edge(packer, grid.bus_words, loose.valid, loose.count, loose.last, port.ready)
    if buffer_ready:
        loose.valid = port.buffer.valid
        if taken:
            value = port.buffer.value
            loose.count = value & 0xFFFF
            loose.last = (value >> 16) & 1
            loose.dest = value >> 17

    port.room += taken - asked * (length + 1)
    piece = splitter_piece(grid, s, length)
    queue_edge(port.pieces, m.store, asked, piece, arrives != 0 and ends)
    queue_edge(port.buffer, m.store, arrives, entry, buffer_ready)
    walker_wires(w, receiver, splitter_ready)
    splitter_edge(grid, s, w, asked, length)
    walker_edge(w, receiver, receiver.o.read.dest, splitter_ready)

    pieces, buffer = port.pieces, port.buffer
    port.granted = 0
    port.arrives = 0
    port.ready = 0
    port.busy = (
        w.valid | s.active | pieces.level | pieces.valid | buffer.level | buffer.valid
        | loose.valid | packer.valid | packer.flush | packer.fill
    )  # fmt: skip


@part
def operand_line_wires(grid, line, sink):
    """Offer a beat at ``sink``, a LINK with ``dest``; see :func:`operand_line_ready`."""
    n = line.narrow
    sink.valid = n.left != 0
    final = n.left <= grid.lanes
    sink.count = n.left if final else grid.lanes
    sink.last = n.last if final else 0
    sink.dest = line.dest


@part
def operand_line_ready(grid, line, port, o_ready):
    """Set the operand port's ``ready``."""
    port.ready = narrow_ready(line.narrow, grid.lanes, o_ready)


@part
def operand_line_edge(grid, line, port, o_ready):
    """blocks.dma.OperandLine. Call it before the port's edge, whose output it takes."""
    packer = port.packer
    if packer.valid and port.ready:
        line.dest = port.dest
    narrow_edge(line.narrow, grid.lanes, packer.valid, packer.count, packer.last, o_ready)
