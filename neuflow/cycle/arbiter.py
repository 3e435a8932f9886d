"""The arbiter (blocks.arbiter): all ports and the program fetch share one AXI4 master."""

from __future__ import annotations

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.memory import front
from neuflow.cycle.read_port import read_port_response_ready
from neuflow.cycle.state import record
from neuflow.cycle.write_port import write_request_valid

ARBITER = record(
    "read_after", "ar_valid", "ar_address", "ar_length", "ar_id", "under_way",
    "write_after", "aw_valid", "aw_address", "aw_length", "aw_id", "busy", "owner",
    "read_error", "write_error",
    # Wires: ports granted (-1: none), beats that move, the port that a read beat is for.
    "read_grant", "write_grant", "read_beat", "write_beat", "w_last", "read_port",
    "fetch_beat", "r_last", "r_error", "b_error",
)  # fmt: skip
"""arbiter.Arbiter. Masks have one bit a port; addresses are those of beats."""


@part
def lowest(bits):
    """Index of the lowest bit that is set; there is one."""
    index = 0
    while bits >> index & 1 == 0:
        index += 1
    return index


@part
def round_robin(requests, after):
    """The port whose turn it is: the lowest behind the last one served, else the lowest."""
    behind = requests & after
    return lowest(behind if behind else requests)


@part
def arbiter_wires(m, fetch_valid):
    """Grant bursts, and say which beats move. ``fetch_valid``: the program fetch asks."""
    a, memory, columns = m.arbiter, m.memory, m.grid.columns
    fetch_id = 3 * columns

    # Read addresses: the program fetch first, the others in turn.
    a.read_grant = -1
    if (a.ar_valid == 0 or memory.arready) and a.under_way != BURSTS:
        if fetch_valid:
            a.read_grant = fetch_id
        else:
            requests = 0
            for c in range(columns):
                for k in range(3):
                    requests |= m.readers[c, k].request_valid << (3 * c + k)
            if requests:
                a.read_grant = round_robin(requests, a.read_after)
                m.readers[a.read_grant // 3, a.read_grant % 3].granted = 1

    # Read data.
    a.read_beat = 0
    a.fetch_beat = 0
    if memory.rvalid:
        burst = front(memory.reads)
        a.read_port = burst.id
        a.r_last = burst.left == 1
        a.r_error = burst.response >> 1
        if burst.id == fetch_id:
            a.read_beat = 1
            a.fetch_beat = 1
        else:
            port = m.readers[burst.id // 3, burst.id % 3]
            a.read_beat = read_port_response_ready(port)
            port.arrives = a.read_beat
    _write_wires(m)


@part
def _write_wires(m):
    """Write beats of the burst granted, then the next grant; responses."""
    a, memory = m.arbiter, m.memory
    a.write_beat = 0
    a.w_last = 0
    if a.busy:
        port = m.writers[a.owner]
        port.data_ready = memory.wready
        a.write_beat = port.buffer.valid != 0 and memory.wready != 0
        a.w_last = port.buffer.value
    a.write_grant = -1
    ends = a.write_beat != 0 and a.w_last != 0
    if (a.busy == 0 or ends) and (a.aw_valid == 0 or memory.awready):
        requests = 0
        for c in range(m.grid.columns):
            if write_request_valid(m.writers[c]):
                requests |= 1 << c
        if requests:
            a.write_grant = round_robin(requests, a.write_after)
            m.writers[a.write_grant].granted = 1
    a.b_error = 0
    if memory.bvalid:
        a.b_error = front(memory.responses).response >> 1
        port = m.writers[front(memory.responses).id]
        port.response = 1
        port.done = port.notes & 1


@part
def arbiter_edge(m, fetch_address):
    """blocks.arbiter.Arbiter. Call it after the memory's edge and before the ports'."""
    a, memory, columns = m.arbiter, m.memory, m.grid.columns
    if a.read_beat:
        if a.r_last:
            a.under_way -= 1
        if a.fetch_beat == 0 and a.r_error:
            a.read_error = 1

    issue = a.read_grant >= 0
    if issue:
        a.under_way += 1
        a.ar_id = a.read_grant
        if a.read_grant == 3 * columns:
            a.ar_address = fetch_address
            a.ar_length = m.grid.burst_beats - 1
        else:
            port = m.readers[a.read_grant // 3, a.read_grant % 3]
            a.ar_address = port.request_address
            a.ar_length = port.request_length
            a.read_after = -1 << (a.read_grant + 1)
    a.ar_valid = issue or (a.ar_valid != 0 and memory.arready == 0)

    ends = a.write_beat != 0 and a.w_last != 0
    issue = a.write_grant >= 0
    a.aw_valid = issue or (a.aw_valid != 0 and memory.awready == 0)
    a.busy = issue or (a.busy != 0 and not ends)
    if issue:
        burst = m.writers[a.write_grant].bursts.value
        a.aw_address = burst >> 17
        a.aw_length = burst & 0xFFFF
        a.aw_id = a.write_grant
        a.owner = a.write_grant
        a.write_after = -1 << (a.write_grant + 1)
    if a.b_error:
        a.write_error = 1
