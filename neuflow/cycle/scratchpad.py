"""The scratchpad (blocks.scratchpad): the DMA's memory on the chip."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.axi import ADDRESS_BITS
from neuflow.cycle.arbiter import round_robin
from neuflow.cycle.awake import READER, WRITER
from neuflow.cycle.compiled import part
from neuflow.cycle.state import record

TURN = ("owner", "address", "left", "after", "grant")
"""Of reads and writes each: port whose burst is at hand (-1: none), its beat, beats after it, ports
behind the one served last, port whose burst is taken in this cycle (-1: none; a wire)."""

SCRATCHPAD = record(
    *(f"read_{name}" for name in TURN), *(f"write_{name}" for name in TURN),
    "read_requests", "write_requests",  # ports that ask for a burst here
    "served", "answered",  # ports whose beat leaves the RAM, arrives; -1: none
    "acknowledged",  # column whose burst was written; -1: none
    "read_error", "write_error",
    "moves",  # wire: a beat is taken from the write port
)  # fmt: skip
"""scratchpad.Scratchpad. Read ports are numbered 3 column + kind."""


def reset_scratchpad(s: np.void) -> None:
    """Nobody has a turn."""
    for name in ("read_owner", "write_owner", "served", "answered", "acknowledged"):
        s[name] = -1


@part
def scratchpad_wires(m):
    """Grant bursts, take beats, and tell ports which beats and acknowledgements come."""
    s = m.scratchpad
    if m.grid.scratchpad_words == 0:
        return
    s.read_grant = s.write_grant = -1
    if s.read_owner < 0 or s.read_left == 0:
        _grant_read(m, s)
    if s.answered >= 0:
        m.readers[s.answered // 3, s.answered % 3].arrives = 1
        m.wires[s.answered // 3].awake |= READER << s.answered % 3
    s.moves = 0
    if s.write_owner >= 0:
        port = m.writers[s.write_owner]
        port.data_ready = 1
        m.wires[s.write_owner].awake |= WRITER
        s.moves = port.buffer.valid
    if s.write_owner < 0 or (s.moves and s.write_left == 0):
        _grant_write(m, s)
    if s.acknowledged >= 0:
        m.writers[s.acknowledged].response = 1
        m.wires[s.acknowledged].awake |= WRITER


@part
def _grant_read(m, s):
    if s.read_requests:
        s.read_grant = round_robin(s.read_requests, s.read_after)
        m.readers[s.read_grant // 3, s.read_grant % 3].granted = 1
        m.wires[s.read_grant // 3].awake |= READER << s.read_grant % 3


@part
def _grant_write(m, s):
    if s.write_requests:
        s.write_grant = round_robin(s.write_requests, s.write_after)
        m.writers[s.write_grant].granted = 1
        m.wires[s.write_grant].awake |= WRITER


@part
def _outside(grid, beat):
    """Whether a beat lies beyond the end."""
    return (beat * grid.bus_words & ((1 << ADDRESS_BITS - 1) - 1)) >= grid.scratchpad_words


@part
def scratchpad_edge(m):
    """blocks.scratchpad.Scratchpad. Call it before the edges of the ports."""
    s = m.scratchpad
    if m.grid.scratchpad_words == 0:
        return
    s.answered = s.served
    s.served = s.read_owner
    if s.read_owner >= 0:
        if _outside(m.grid, s.read_address):
            s.read_error = 1
        if s.read_left:
            s.read_address += 1
            s.read_left -= 1
        else:
            s.read_owner = -1
    if s.read_grant >= 0:
        asks = m.readers[s.read_grant // 3, s.read_grant % 3].asks
        s.read_owner = s.read_grant
        s.read_address = asks.a
        s.read_left = asks.b
        s.read_after = -1 << (s.read_grant + 1)
    s.acknowledged = -1
    if s.moves:
        if _outside(m.grid, s.write_address):
            s.write_error = 1
        if s.write_left:
            s.write_address += 1
            s.write_left -= 1
        else:
            s.acknowledged = s.write_owner
            s.write_owner = -1
    if s.write_grant >= 0:
        asks = m.writers[s.write_grant].asks
        s.write_owner = s.write_grant
        s.write_address = asks.a
        s.write_left = asks.b
        s.write_after = -1 << (s.write_grant + 1)
