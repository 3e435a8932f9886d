"""The scratchpad (blocks.scratchpad): the DMA's memory on the chip."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.axi import ADDRESS_BITS
from neuflow.cycle.arbiter import round_robin
from neuflow.cycle.awake import READER, WRITER
from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, record
from neuflow.grid import SCRATCHPAD_BANKS as BANKS

assert BANKS == 2  # of two slots one at most waits for the other

SLOT = record("owner", "address", "left", "moves")
"""A burst at hand: its port (-1: none), its beat, beats after it; wire: the beat moves."""

TURNS = np.dtype(
    [
        ("slots", SLOT, (BANKS,)),
        *[(name, INT) for name in (
            "first",  # slot that goes first where both need one bank
            "after",  # ports behind the one served last
            "meet", "grant", "into",  # wires: both need one bank; port whose burst is taken (-1), slot
        )],
    ]
)  # fmt: skip
"""Of reads and writes each: scratchpad.Turns."""

SCRATCHPAD = np.dtype(
    [
        ("reads", TURNS), ("writes", TURNS),
        *[(name, INT) for name in (
            "read_requests", "write_requests",  # ports that ask for a burst here
            "read_error", "write_error",
            "busy",  # something is under way
            "awake",  # wire: that, or a port asks; else nothing moves
        )],
        # Of each bank: port whose beat leaves the RAM, arrives; column whose burst is written; or -1.
        *[(name, INT, (BANKS,)) for name in ("served", "answered", "acknowledged")],
    ]
)  # fmt: skip
"""scratchpad.Scratchpad. Read ports are numbered 3 column + kind."""


def reset_scratchpad(s: np.void) -> None:
    """Nobody has a turn."""
    for name in ("served", "answered", "acknowledged"):
        s[name] = -1
    for name in ("reads", "writes"):
        s[name]["slots"]["owner"] = -1
    s["busy"] = 1  # so that all wires are set once


@part
def scratchpad_wires(m):
    """Grant bursts, take beats, and tell ports which beats and acknowledgements come."""
    s = m.scratchpad
    asked = s.read_requests | s.write_requests
    s.awake = m.grid.scratchpad_words != 0 and (s.busy | asked | m.tiles.plain) != 0
    if not s.awake:
        return
    _choose_beats(s.reads)
    _choose_burst(s.reads, s.read_requests)
    if s.reads.grant >= 0:
        m.readers[s.reads.grant // 3, s.reads.grant % 3].granted = 1
        m.wires[s.reads.grant // 3].awake |= READER << s.reads.grant % 3

    _choose_beats(s.writes)
    for k in range(BANKS):
        slot = s.writes.slots[k]
        if slot.moves:
            port = m.writers[slot.owner]
            port.data_ready = 1
            m.wires[slot.owner].awake |= WRITER
            slot.moves = port.buffer.valid
    _choose_burst(s.writes, s.write_requests)
    if s.writes.grant >= 0:
        m.writers[s.writes.grant].granted = 1
        m.wires[s.writes.grant].awake |= WRITER

    for bank in range(BANKS):
        port = s.answered[bank]
        if port >= 0:
            m.readers[port // 3, port % 3].arrives = 1
            m.wires[port // 3].awake |= READER << port % 3
        column = s.acknowledged[bank]
        if column >= 0:
            m.writers[column].response = 1
            m.wires[column].awake |= WRITER


@part
def _choose_beats(turns):
    """Which slots may move a beat: one bank serves one of them."""
    a, b = turns.slots[0], turns.slots[1]
    a.moves = a.owner >= 0
    b.moves = b.owner >= 0
    turns.meet = a.moves != 0 and b.moves != 0 and (a.address ^ b.address) & 1 == 0
    if turns.meet:
        turns.slots[1 - turns.first].moves = 0


@part
def _choose_burst(turns, requests):
    """A slot that is free, or becomes so, takes a burst of a port that has none in the other."""
    turns.grant = turns.into = -1
    for k in range(BANKS - 1, -1, -1):
        slot = turns.slots[k]
        if slot.owner < 0 or (slot.moves and slot.left == 0):
            turns.into = k
        else:
            requests &= ~(1 << slot.owner)
    if turns.into >= 0 and requests:
        turns.grant = round_robin(requests, turns.after)


@part
def _outside(grid, beat):
    """Whether a beat lies beyond the end."""
    return (beat * grid.bus_words & ((1 << ADDRESS_BITS - 1) - 1)) >= grid.scratchpad_words


@part
def scratchpad_edge(m):
    """blocks.scratchpad.Scratchpad. Call it before the edges of the ports."""
    s = m.scratchpad
    if not s.awake:
        return
    for bank in range(BANKS):
        s.answered[bank] = s.served[bank]
        s.served[bank] = s.acknowledged[bank] = -1
    for k in range(BANKS):
        slot = s.reads.slots[k]
        if slot.moves:
            s.read_error |= _outside(m.grid, slot.address)
            s.served[slot.address & 1] = slot.owner
            _next_beat(slot)
        slot = s.writes.slots[k]
        if slot.moves:
            s.write_error |= _outside(m.grid, slot.address)
            if slot.left == 0:
                s.acknowledged[slot.address & 1] = slot.owner
            _next_beat(slot)
    if s.reads.grant >= 0:
        _take(s.reads, m.readers[s.reads.grant // 3, s.reads.grant % 3].asks)
    if s.writes.grant >= 0:
        _take(s.writes, m.writers[s.writes.grant].asks)
    if s.reads.meet:
        s.reads.first = 1 - s.reads.first
    if s.writes.meet:
        s.writes.first = 1 - s.writes.first
    s.busy = 0
    for k in range(BANKS):
        s.busy |= s.reads.slots[k].owner >= 0 or s.writes.slots[k].owner >= 0
        s.busy |= s.served[k] >= 0 or s.answered[k] >= 0 or s.acknowledged[k] >= 0


@part
def _next_beat(slot):
    if slot.left:
        slot.address += 1
        slot.left -= 1
    else:
        slot.owner = -1


@part
def _take(turns, asks):
    """The burst that is granted goes into its slot."""
    slot = turns.slots[turns.into]
    slot.owner = turns.grant
    slot.address = asks.a
    slot.left = asks.b
    turns.after = -1 << (turns.grant + 1)
