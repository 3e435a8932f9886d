"""The arbiter (blocks.arbiter): all ports and the program fetch share one AXI4 master."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS, READ_BEATS, ROWS_TURNS, WRITES
from neuflow.cycle.awake import READER, WRITER
from neuflow.cycle.compiled import lowest, part
from neuflow.cycle.dma_address import is_near
from neuflow.cycle.memory import front
from neuflow.cycle.parts import QUEUE, SLICE, queue_at, queue_edge, slice_edge
from neuflow.cycle.state import INT, MAX_COLUMNS

ARBITER = np.dtype(
    [
        *[(name, INT) for name in (
            "read_after", "rows_after", "streak", "ar_valid", "ar_address", "ar_length", "ar_id",
            "under_way", "beats", "asked", "opened",
            "response_port", "response_error", "read_beat",  # the beat that came a cycle ago
            "write_after", "aw_valid", "aw_address", "aw_length", "aw_id",
            "write_beat", "write_response",  # of a cycle ago; -1: no response
            "read_error", "write_error",
            "read_requests", "write_requests",  # ports that ask for a burst in memory
            # Wires: ports granted (-1: none), length of the read burst, handshakes.
            "read_grant", "write_grant", "read_length", "w_moves", "data_moves",
        )],
        ("turns", QUEUE),  # value: port whose burst's data come next
        ("leaves", SLICE),  # a: last
    ]
)  # fmt: skip
"""arbiter.Arbiter. Masks have one bit a port; addresses are those of beats; port -1 is none."""


_ROWS_PORTS = sum(1 << 3 * c for c in range(MAX_COLUMNS))
_OPERAND_PORTS = _ROWS_PORTS << 2


@part
def asks_for(grid, asks, bit, near, far):
    """A port (``bit``) asks for the burst that stands in the slice ``asks``, or for none.

    ``near``, ``far``: the ports that ask for one in the scratchpad, in memory. Return them anew.
    """
    if not asks.valid:
        return near & ~bit, far & ~bit
    if is_near(grid, asks.a):
        return near | bit, far & ~bit
    return near & ~bit, far | bit


def reset_arbiter(arbiter: np.void, at: int) -> int:
    """Set what reset does not clear; return the next free place of the store."""
    arbiter["opened"] = 1  # soon after reset
    arbiter["response_port"] = arbiter["write_response"] = -1
    return queue_at(arbiter["turns"], at, WRITES)


@part
def round_robin(requests, after):
    """The port whose turn it is: the lowest behind the last one served, else the lowest."""
    behind = requests & after
    return lowest(behind if behind else requests)


@part
def arbiter_wires(m):
    """Grant bursts, and tell ports which of their beats and responses come."""
    a, columns = m.arbiter, m.grid.columns
    fetch = 3 * columns
    a.read_grant = -1
    if a.opened and (a.ar_valid == 0 or m.memory.arready):
        if m.fetcher.wanted:
            a.read_grant = fetch
            a.read_length = m.grid.burst_beats - 1
        else:
            requests = a.read_requests
            if requests:
                rows, operands = requests & _ROWS_PORTS, requests & _OPERAND_PORTS
                tired = a.streak == ROWS_TURNS and requests != rows
                if rows and not tired and (operands == 0 or a.streak == 0):
                    a.read_grant = round_robin(rows, a.rows_after)
                else:
                    behind = operands if rows and not tired else requests & ~rows
                    a.read_grant = round_robin(behind, a.read_after)
                port = m.readers[a.read_grant // 3, a.read_grant % 3]
                port.granted = 1
                m.wires[a.read_grant // 3].awake |= READER << a.read_grant % 3
                a.read_length = port.asks.b
    if 0 <= a.response_port < fetch:
        m.readers[a.response_port // 3, a.response_port % 3].arrives = 1
        m.wires[a.response_port // 3].awake |= READER << a.response_port % 3

    a.write_grant = -1
    if (a.aw_valid == 0 or m.memory.awready) and a.turns.level != a.turns.depth:
        if a.write_requests:
            a.write_grant = round_robin(a.write_requests, a.write_after)
            m.writers[a.write_grant].granted = 1
            m.wires[a.write_grant].awake |= WRITER
    a.w_moves = a.leaves.valid != 0 and m.memory.wready != 0
    a.data_moves = 0
    if a.turns.valid and a.leaves.spare_valid == 0:
        port = m.writers[a.turns.value]
        port.data_ready = 1
        m.wires[a.turns.value].awake |= WRITER
        a.data_moves = port.buffer.valid
    if a.write_response >= 0:
        m.writers[a.write_response].response = 1
        m.wires[a.write_response].awake |= WRITER


@part
def arbiter_edge(m):
    """blocks.arbiter.Arbiter. Call it before the edges of memory and ports."""
    _reads_edge(m)
    _writes_edge(m)


@part
def _reads_edge(m):
    a, memory, columns = m.arbiter, m.memory, m.grid.columns
    opened = a.under_way < BURSTS - 1 and a.beats < READ_BEATS
    issue = a.read_grant >= 0
    a.beats += a.asked - a.read_beat
    a.asked = a.read_length + 1 if issue else 0
    a.under_way += issue
    a.opened = opened
    if 0 <= a.response_port < 3 * columns and a.response_error:
        a.read_error = 1
    a.response_port = -1
    a.read_beat = memory.rvalid  # r.ready is always 1
    if memory.rvalid:
        burst = front(memory.reads)
        a.response_port = burst.id
        a.response_error = burst.response >> 1
        if burst.left == 1:
            a.under_way -= 1


@part
def addresses_edge(m, fetch_address):
    """Addresses of the bursts granted. Call it behind the memory's edge, which takes those before."""
    a, memory, columns = m.arbiter, m.memory, m.grid.columns
    if a.read_grant >= 0:
        a.ar_valid = 1
        a.ar_id = a.read_grant
        a.ar_length = a.read_length
        if a.read_grant == 3 * columns:
            a.ar_address = fetch_address
        else:
            a.ar_address = m.readers[a.read_grant // 3, a.read_grant % 3].asks.a
            if a.read_grant % 3 == 0:
                a.streak = min(a.streak + 1, ROWS_TURNS)
                a.rows_after = -1 << (a.read_grant + 1)
            else:
                a.streak = 0
                a.read_after = -1 << (a.read_grant + 1)
    elif memory.arready:
        a.ar_valid = 0
    if a.write_grant >= 0:
        asks = m.writers[a.write_grant].asks
        a.aw_valid = 1
        a.aw_id = a.write_grant
        a.aw_address = asks.a
        a.aw_length = asks.b
        a.write_after = -1 << (a.write_grant + 1)
    elif memory.awready:
        a.aw_valid = 0


@part
def _writes_edge(m):
    a, memory = m.arbiter, m.memory
    a.write_beat = a.w_moves
    last = 0
    if a.data_moves:
        last = m.writers[a.turns.value].buffer.value
    issue = a.write_grant >= 0
    if issue or a.turns.valid or a.turns.level:
        queue_edge(a.turns, m.store, issue, a.write_grant, a.data_moves != 0 and last != 0)
    if a.data_moves or a.leaves.valid:
        slice_edge(a.leaves, a.data_moves, last, 0, memory.wready)
    a.write_response = -1
    if memory.bvalid:
        burst = front(memory.responses)
        a.write_response = burst.id
        if burst.response >> 1:
            a.write_error = 1
