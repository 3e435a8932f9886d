"""Ports and lines of a column: between its tiles and the arbiter (blocks.top); who wakes whom.

``m`` is the machine (``machine.MACHINE``), ``c`` the column.
"""

from __future__ import annotations

import numpy as np

from neuflow.cycle.arbiter import asks_for
from neuflow.cycle.awake import (
    BACK,
    DRAIN,
    OPERAND_READER,
    PORTS,
    READER,
    ROWS,
    WEIGHTS,
    WRITER,
    changed,
    keep,
)
from neuflow.cycle.column import column_offers, write_offer
from neuflow.cycle.compiled import called, lowest, part
from neuflow.cycle.lines import line_edge, line_wants, line_wires
from neuflow.cycle.read_port import (
    operand_line_edge,
    operand_line_offer,
    operand_line_rests,
    read_port_delivers,
    read_port_edge,
)
from neuflow.cycle.state import READ_OPERAND, READ_ROWS, WRITE
from neuflow.cycle.write_port import write_port_edge, write_port_wires
from neuflow.layout import Activity, Operand

OPERAND = READ_OPERAND - READ_ROWS
"""Read ports of a column: rows 0, weights 1, operand 2."""
_CONVOLVER, _OPERATOR = int(Operand.CONVOLVER), int(Operand.OPERATOR)
_LISTENER = np.array([DRAIN if o == Operand.CONVOLVER else BACK for o in Operand], np.int64)
"""By destination of an operand: the part that takes it, and has the line moved while it is awake."""
_READ_BITS = (1 << Activity.READ_ROWS, 1 << Activity.READ_WEIGHTS)
_READ_OPERAND_BIT = 1 << Activity.READ_OPERAND
_WRITE_BIT, _WRITE_DONE_BIT = 1 << Activity.WRITE, 1 << Activity.WRITE_DONE


@part
def ports_offers(m, c):
    """What column ``c`` and its ports offer from their registers."""
    wires = m.wires[c]
    column_offers(m.grid, wires, m.tiles, c)
    if wires.awake & (BACK | DRAIN | OPERAND_READER):
        line = m.operand_lines[c]
        operand_line_offer(line.to[_CONVOLVER], wires.partials)
        operand_line_offer(line.to[_OPERATOR], wires.global_in)
    if wires.awake & (BACK | WRITER):
        writer = m.writers[c]
        wires.write_source = writer.cutter.source
        write_offer(m.grid, wires, m.tiles, c)
        wires.write.ready = 0
        if wires.write.valid:
            wires.awake |= WRITER
        if wires.awake & WRITER:
            write_port_wires(writer, wires.write)
        if wires.write.ready:
            wires.awake |= BACK


@part
def lines_wires(m, c):
    """What the lines bring to column ``c``."""
    wires = m.wires[c]
    if wires.awake & ROWS:
        source = wires.rows_source
        wires.rows_line.valid = 0
        if wires.rows_listening and source < m.grid.columns:
            line_wires(m.rows_lines, m.readers[source, 0], source, c, wires.rows_line)
    if wires.awake & WEIGHTS:
        source = wires.weights_source
        wires.weights_line.valid = 0
        if wires.weights_listening and source < m.grid.columns:
            line_wires(m.weights_lines, m.readers[source, 1], source, c, wires.weights_line)


@part
def lines_ready(m):
    """Which sinks take the beats on the lines; sets ``ready`` of the ports they come from."""
    columns = m.grid.columns
    for k in range(2):
        lines = m.weights_lines if k else m.rows_lines
        offered = lines.offered
        while offered:
            p = lowest(offered)
            offered &= offered - 1
            port = m.readers[p, k]
            taken, wants = 0, line_wants(lines, p, port, columns)
            while wants:
                c = lowest(wants)
                wants &= wants - 1
                wires = m.wires[c]
                line = wires.weights_line if k else wires.rows_line
                source = wires.weights_source if k else wires.rows_source
                if line.valid and line.ready and source == p:
                    taken |= 1 << c
            line_edge(lines, p, port, columns, taken)
            if port.ready:
                m.wires[p].activity |= _READ_BITS[k]
                m.wires[p].awake |= READER << k


@part
def ports_wires(m, c):
    """Handshakes of operand line and write port, and what they add to the activity."""
    wires = m.wires[c]
    line, port = m.operand_lines[c], m.readers[c, OPERAND]
    moves = wires.awake & (BACK | DRAIN | OPERAND_READER)
    if moves and not operand_line_rests(line, port):
        takes_partials = wires.partials.valid != 0 and wires.partials.ready != 0
        takes_operand = wires.global_in.valid != 0 and wires.global_in.ready != 0
        wakes = _LISTENER[line.dest & 1]
        passes = operand_line_edge(m.grid, line, port, takes_partials, takes_operand)
        if passes:
            wires.activity |= _READ_OPERAND_BIT
        if port.ready:
            wires.awake |= OPERAND_READER
        if takes_partials:
            wires.wakes |= DRAIN
        if takes_operand:
            wires.wakes |= BACK
        if passes or port.ready:
            wires.wakes |= wakes | _LISTENER[line.dest & 1]
    if wires.awake & WRITER:
        if wires.write.valid and wires.write.ready:
            wires.activity |= _WRITE_BIT
        if m.writers[c].done:
            wires.activity |= _WRITE_DONE_BIT


@part
def ports_edge(m, c):
    """The edge for the ports of column ``c``, as far as they are awake."""
    if m.wires[c].awake & PORTS == 0:
        return
    for k in range(3):
        if m.wires[c].awake >> k & READER:
            _reader_edge(m, c, k)
    if m.wires[c].awake & WRITER:
        _writer_edge(m, c)


@part
def _writer_edge(m, c):
    """The write port of column ``c``."""
    port, wires = m.writers[c], m.wires[c]
    cutter = port.cutter
    cuts = cutter.step or (cutter.valid and cutter.free)
    moves = port.granted or port.data_ready or port.response or cuts
    if not moves:
        keep(m.tiles.before, 0, port)
    write_port_edge(m, port, wires.receivers[WRITE], wires.write)
    s, a = m.scratchpad, m.arbiter
    s.write_requests, a.write_requests = asks_for(
        m.grid, port.asks, 1 << c, s.write_requests, a.write_requests
    )
    if moves or changed(m.tiles.before, 0, port):
        wires.wakes |= WRITER


@called
def _reader_edge(m, c, k):
    """Read port ``k`` of column ``c``; who listens to it is woken."""
    port = m.readers[c, k]
    moves = port.granted or port.arrives or port.ready or read_port_delivers(port)
    if not moves:
        keep(m.tiles.before, 0, port)
    read_port_edge(m, port, m.wires[c].receivers[READ_ROWS + k])
    s, a = m.scratchpad, m.arbiter
    s.read_requests, a.read_requests = asks_for(
        m.grid, port.asks, 1 << (3 * c + k), s.read_requests, a.read_requests
    )
    if not moves and not changed(m.tiles.before, 0, port):
        return
    m.wires[c].wakes |= READER << k
    if k == OPERAND:
        return
    lines = m.weights_lines if k else m.rows_lines
    lines.offered &= ~(1 << c)
    if port.leaves.valid:
        lines.offered |= 1 << c
        for sink in range(m.grid.columns):
            if port.leaves.b >> (1 + sink) & 1:
                m.wires[sink].wakes |= WEIGHTS if k else ROWS
