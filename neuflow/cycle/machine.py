"""The machine: everything in one record, and the loop over cycles."""

from __future__ import annotations

import mmap

import numpy as np

from neuflow.cycle.arbiter import (
    ARBITER,
    addresses_edge,
    arbiter_edge,
    arbiter_wires,
    reset_arbiter,
)
from neuflow.cycle.array import activity_at
from neuflow.cycle.awake import (
    ALL,
    ARRAY,
    BACK,
    DRAIN,
    PORTS,
    READER,
    ROWS,
    WEIGHTS,
)
from neuflow.cycle.column import (
    TILES,
    column_edge,
    column_wires,
    reset_tiles,
)
from neuflow.cycle.compiled import kernel, part
from neuflow.cycle.config_bus import (
    BUS,
    bus_edge,
    bus_ready,
    bus_wires,
    receivers_edge,
    receivers_load,
)
from neuflow.cycle.control import (
    COUNTERS,
    FETCHER,
    IDLE_TILE,
    SEQUENCER,
    counters_edge,
    fetcher_edge,
    outside_cause,
    reset_fetcher,
    sequencer_edge,
    sequencer_wires,
    start,
)
from neuflow.cycle.figures import (
    FIGURES,
    LATE,
    count_all,
    figures_edge,
    next_window,
    store_window,
)
from neuflow.cycle.jump import (
    goes_on_resting,
    is_still,
    jump,
    keep_around,
    keep_memory,
    may_rest,
    rested,
    rests_until,
    still_cycles,
)
from neuflow.cycle.lines import LINES
from neuflow.cycle.memory import MEMORY, memory_edge, memory_wires, reset_memory
from neuflow.cycle.parts import STORE
from neuflow.cycle.pictures import HISTORY
from neuflow.cycle.ports import (
    lines_ready,
    lines_wires,
    ports_edge,
    ports_offers,
    ports_wires,
)
from neuflow.cycle.read_port import (
    OPERAND_LINE,
    READ_PORT,
    reset_read_port,
)
from neuflow.cycle.scratchpad import (
    SCRATCHPAD,
    reset_scratchpad,
    scratchpad_edge,
    scratchpad_wires,
)
from neuflow.cycle.state import (
    GRID,
    MAX_COLUMNS,
    WIRES,
    Record,
    grid_record,
    overlaid,
    reset_wires,
)
from neuflow.cycle.streams import is_due, note_step, streams_ahead
from neuflow.cycle.write_port import (
    WRITE_PORT,
    reset_write_port,
)
from neuflow.grid import GridConfig, MemoryConfig
from neuflow.layout import FLAG_BITS, Activity, Cause

MACHINE = overlaid(
    [
        ("grid", GRID),
        ("memory", MEMORY),
        ("arbiter", ARBITER),
        ("scratchpad", SCRATCHPAD),
        ("sequencer", SEQUENCER),
        ("fetcher", FETCHER),
        ("rows_lines", LINES),
        ("weights_lines", LINES),
        ("counters", COUNTERS),
        ("bus", BUS),
        ("readers", READ_PORT, (MAX_COLUMNS, 3)),
        ("operand_lines", OPERAND_LINE, (MAX_COLUMNS,)),
        ("writers", WRITE_PORT, (MAX_COLUMNS,)),
        ("wires", WIRES, (MAX_COLUMNS,)),
        ("tiles", TILES),
        ("figures", FIGURES),
        ("store", STORE),
        ("history", HISTORY),
    ],
    first="arbiter", last="weights_lines",
)  # fmt: skip
"""The grid and its memory (blocks.top). Functions get it, or parts of it, by reference: arrays as
arguments would cost a count of references at every call."""

IDLE_CYCLES_BEFORE = 32
"""Cycles of the harness from its first to the last in which the grid is not busy (they move its
random stalls on)."""

_IDLE = 1 << Activity.IDLE | int(Cause.IDLE_TILE) << FLAG_BITS
_CONFIG_BIT = 1 << Activity.CONFIG
_WRITE_DONE_BIT = 1 << Activity.WRITE_DONE


def new_machine(
    grid: GridConfig, memory: MemoryConfig, size: int, seed: int | None, plain: bool = False
) -> Record:
    """Return a machine after reset (an array of length 1); memory of ``size`` bytes.

    With ``plain`` every part moves in every cycle: slower, and the same.
    """
    # Not np.zeros: it asks for large pages, each of which is cleared as a whole where a picture
    # touches a few words of it.
    made = np.frombuffer(mmap.mmap(-1, MACHINE.itemsize), MACHINE)
    m = made[0]
    m["grid"] = grid_record(grid)[0]
    reset_wires(grid, m["wires"][: grid.columns])
    reset_tiles(grid, m["tiles"])
    m["figures"]["width"] = 1
    m["tiles"]["plain"] = plain
    m["wires"]["wakes"] = ALL
    m["bus"]["wakes"] = 1
    reset_memory(m["memory"], memory, size, seed)
    reset_scratchpad(m["scratchpad"])
    at = reset_arbiter(m["arbiter"], reset_fetcher(grid, m["fetcher"], 0))
    for c in range(grid.columns):
        at = reset_write_port(grid, m["writers"][c], at)
        for kind, port in enumerate(m["readers"][c]):
            at = reset_read_port(grid, port, at, rows=kind == 0)
    return made


@part
def _begin(m, now):
    """Which parts move in this cycle, so far as registers tell."""
    m.tiles.now = now
    m.bus.awake = m.bus.wakes | m.tiles.plain
    m.bus.wakes = 0
    for c in range(m.grid.columns):
        wires = m.wires[c]
        wires.awake = ALL if m.tiles.plain else wires.wakes
        wires.wakes = 0
        if wires.drain_resumes > now:
            wires.awake &= ~DRAIN
        elif wires.drain_resumes >= 0:
            wires.awake |= DRAIN
            wires.drain_resumes = -1
        if wires.resumes > now:
            wires.awake &= ~ARRAY
        elif wires.resumes >= 0:
            wires.awake |= ARRAY
            wires.resumes = -1


@part
def _offers(m):
    """What columns and ports offer from their registers; return the columns' flags, ORed."""
    awake = 0
    for c in range(m.grid.columns):
        wires = m.wires[c]
        if wires.awake:
            ports_offers(m, c)
            awake |= wires.awake
    return awake


@part
def _column_edges(m, c):
    """The edge for column ``c``, its ports and its receivers."""
    wires = m.wires[c]
    column_edge(m.grid, wires, m.tiles, c)
    ports_edge(m, c)
    receivers_edge(m.bus, wires)


@part
def _complete_activity(m, wires):
    """What comes from outside of the column (``Top._build_activity``)."""
    s, cause = m.sequencer, wires.activity >> FLAG_BITS & 15
    if cause == IDLE_TILE:
        wires.activity += (outside_cause(s) - IDLE_TILE) << FLAG_BITS
    if s.config_moves:
        wires.activity |= _CONFIG_BIT


@part
def _columns_wires(m, rests):
    """Wires of all columns, and of lines and ports unless they rest; return the flags, ORed."""
    columns = m.grid.columns
    awake = 0
    for c in range(columns):
        wires = m.wires[c]
        awake |= wires.awake
        if wires.awake:
            lines_wires(m, c)
            column_wires(m.grid, wires, m.tiles, c)
        else:
            wires.activity = wires.resting
    if not rests and awake & (ROWS | WEIGHTS | READER | READER << 1):
        lines_ready(m)
    activity = 0
    for c in range(columns):
        wires = m.wires[c]
        if wires.awake and not rests:
            ports_wires(m, c)
        _complete_activity(m, wires)
        activity |= wires.activity
    return activity


@part
def _cycle(m, now):
    """One cycle: all wires, then all edges. Return whether it was still (``cycle.jump``)."""
    _begin(m, now)
    if m.bus.awake:
        bus_wires(m)
    awake = _offers(m)
    rests = goes_on_resting(m, now, awake)
    if not rests:
        if awake & PORTS == 0:
            keep_memory(m)
        memory_wires(m.memory, now)
        sequencer_wires(m, bus_ready(m.bus))
        arbiter_wires(m)
        scratchpad_wires(m)
    activity = _columns_wires(m, rests)
    begins_to_rest = not rests and may_rest(m)
    if begins_to_rest:
        keep_around(m)

    # In an order in which each finds the registers of the others as they were.
    if not rests:
        sequencer_edge(m)
    counters_edge(m, activity)
    if not rests:
        _around_edge(m, now)
    _columns_edge(m)
    if m.bus.awake or m.sequencer.config_moves:
        bus_edge(m)
    if not begins_to_rest or not rested(m):
        return False
    m.tiles.rests_until = rests_until(m, now + 1)
    return is_still(m)


@part
def _around_edge(m, now):
    """The edge for what lies around the columns, but for control unit and bus."""
    fetch_address = m.fetcher.beat
    fetcher_edge(m)
    arbiter_edge(m)
    scratchpad_edge(m)
    memory_edge(m.memory, now, m.arbiter, m.grid.bus_words * 2)
    addresses_edge(m, fetch_address)


@part
def _columns_edge(m):
    """The edge for all columns that are awake, their ports and receivers."""
    m.tiles.crossing = m.tiles.words_move = 0
    for c in range(m.grid.columns):
        if m.wires[c].awake:
            _column_edges(m, c)
    if m.tiles.crossing:
        for c in range(m.grid.columns):
            m.wires[c].wakes |= BACK
    m.bus.wakes |= m.tiles.words_move


@kernel
def run(machines, code, bus, packets, write_done, write_causes, timeline, trace, limit):
    """Run ``machines[0]`` until its program ends, or for ``limit`` cycles.

    ``code``, ``bus``, ``packets``: see ``program.Decoded``. Fills ``write_done[c, n]`` (cycle of the
    n-th descriptor done), ``write_causes[c, n, k]`` (MACs of cause k before it), ``timeline[w, c, k]``
    and ``trace[t, c]`` (activity of the first cycles, as long as the array is). Time 0 is the first
    cycle in which the grid is busy.
    """
    m = machines[0]
    columns = m.grid.columns
    for now in range(-IDLE_CYCLES_BEFORE, 0):
        memory_wires(m.memory, now)
    for c in range(columns):
        m.wires[c].activity = _IDLE
    for _ in range(LATE):
        if figures_edge(m):
            next_window(m, timeline)
    start(m)

    now = 0
    s = m.sequencer
    while s.busy and now < limit:
        word = s.program_counter
        s.word = code[word] if word < len(code) else 0
        s.bus_word = bus[word] if word < len(code) else 0
        still = _cycle(m, now)
        if m.bus.loads:
            receivers_load(m, packets)
        for c in range(columns):
            if m.wires[c].activity & _WRITE_DONE_BIT:
                _note_write(m, c, now, write_done, write_causes)
        cycles = 1
        if figures_edge(m):
            next_window(m, timeline)
        if still:
            cycles += still_cycles(m, now + 1, limit)
            jump(m, cycles - 1)
            if m.figures.filled == m.figures.width:
                next_window(m, timeline)
        if m.history.picture:
            note_step(m)
        if m.history.on and m.arbiter.read_grant >= 0 and is_due(m):
            cycles += streams_ahead(m, now + cycles, limit)
        for time in range(now, min(now + cycles, len(trace))):
            for c in range(columns):
                trace[time, c] = activity_at(m.wires[c].activity, time)
        now += cycles
    if m.figures.filled:
        store_window(m, timeline)


@part
def _note_write(m, c, now, write_done, write_causes):
    """A WRITE descriptor of column ``c`` is done."""
    n = m.figures.writes[c]
    if n < write_done.shape[1]:
        count_all(m)
        write_done[c, n] = now
        for k in range(write_causes.shape[2]):
            write_causes[c, n, k] = m.figures.causes[k]
        m.figures.writes[c] += 1


__all__ = ["LATE", "MACHINE", "new_machine", "run"]
