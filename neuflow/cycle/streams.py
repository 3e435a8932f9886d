"""Streams that repeat themselves: from one picture of the machine to the next at once.

While rows and weights stream from memory into their stores and nothing else is awake but arrays, the
machine goes through few states over and over again, but for registers that *count*: addresses and
words left of a run, beats in a ring, channels. So a *picture* of the machine (``cycle.pictures``) is
taken whenever the first of the read ports that are awake is granted a burst. The *way* from
one picture to the next (cycles, what was counted, by how much the counting registers moved) is kept
with the first. When the machine comes to a picture that is known, it moves on to the next one at once,
and to those behind it, as long as no counting register comes near a value that it is compared with.

Registers that are not in a picture cannot move up to the next one where one is taken
(:func:`_may_repeat`): control unit, scratchpad, writes, a port's next run, parameters, and all parts
that sleep. If one of those moves between two pictures, or a record of rows ends, the way is not kept
(:func:`note_step`).
"""

from __future__ import annotations

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle import state
from neuflow.cycle.array import form_waits
from neuflow.cycle.awake import ARRAY, READER, ROWS, WEIGHTS
from neuflow.cycle.compiled import called, part
from neuflow.cycle.figures import COUNTS, count_all
from neuflow.cycle.pictures import (
    CHANNEL,
    CLASSES,
    COUNTING,
    ENTRIES,
    FAR,
    KINDS,
    LONGEST,
    MORE,
    SPACE,
    STORED,
    UNREAD,
    give_back_values,
    note_values,
    picture,
    take,
)
from neuflow.cycle.rows import ALL_STORED
from neuflow.cycle.scratchpad import BANKS
from neuflow.layout import ACTIVITY_BITS

STREAMS = ROWS | WEIGHTS | ARRAY | READER | READER << 1
"""Parts that may be awake between two pictures."""


@part
def note_step(m):
    """Behind a cycle: where something else moved than a stream, the way is not kept."""
    others = m.bus.awake | m.sequencer.moves
    for c in range(m.grid.columns):
        wires = m.wires[c]
        others |= wires.awake & ~STREAMS
        # How far an array runs ahead depends on what is counted.
        others |= wires.awake & ARRAY != 0 and wires.resumes >= 0
        rows = m.tiles.columns[c].rows
        others |= wires.awake & ROWS != 0 and (rows.record_ends or rows.finished)
    if others:
        m.history.picture = 0


@part
def is_due(m):
    """Whether a picture is due behind this cycle: the first port that is awake is granted a burst."""
    h, grant = m.history, m.arbiter.read_grant
    for c in range(m.grid.columns):
        if m.wires[c].awake & ~STREAMS:
            return False
    for c in range(m.grid.columns):
        if m.wires[c].awake & (READER | READER << 1):
            if grant != (3 * c if m.wires[c].awake & READER else 3 * c + 1):
                return False
            break
    if h.pause:
        h.pause -= 1
        return False
    return True


@part
def _control_rests(m):
    """Whether the control unit stays as it is as long as no bus, write port or fetch moves."""
    s, f = m.sequencer, m.fetcher
    if s.moves or s.restart or s.next_frame or s.fault or s.hang or s.error or m.bus.wakes:
        return False
    if s.fetch_ready and (f.buffer.level or f.buffer.valid):
        return False
    if f.wanted or f.under_way or (s.enable and f.buffer.level <= m.grid.burst_beats):
        return False
    for c in range(m.grid.columns):
        if s.pending[c] != s.waiting[c]:
            return False
    return True


@part
def _around_rests(m):
    """Whether all around the columns rests but for what is read from memory."""
    a, memory, pad = m.arbiter, m.memory, m.scratchpad
    if memory.reads.size > BURSTS or memory.writes.size or memory.responses.size:
        return False
    if a.aw_valid or a.leaves.valid:
        return False
    if a.turns.level or a.turns.valid or a.write_requests or a.write_grant >= 0 or a.write_beat:
        return False
    if a.write_response >= 0 or a.read_error or a.write_error:
        return False
    if m.grid.scratchpad_words == 0:
        return True
    if pad.read_requests or pad.write_requests or pad.read_error or pad.write_error:
        return False
    for k in range(BANKS):
        if pad.reads.slots[k].owner >= 0 or pad.writes.slots[k].owner >= 0:
            return False
        if pad.served[k] >= 0 or pad.answered[k] >= 0 or pad.acknowledged[k] >= 0:
            return False
    return True


@part
def _run_rests(m, port, receiver):
    """Whether a port is in the middle of a run in memory, and those behind it wait; or has none."""
    s, w, runs = port.splitter, port.walker, port.runs
    if port.buffer.level > ENTRIES:
        return False
    if (runs.valid and s.there == 0) or (w.active and runs.spare_valid == 0):
        return False
    if w.active == 0 and receiver.valid:
        return False
    if s.active == 0:
        return s.there == 0
    if s.ends or s.more < 3 or port.near:
        return False
    end = (s.beat + (s.more + 1) * m.grid.burst_beats) * m.grid.bus_words * 2
    return end <= m.memory.size  # nor in the scratchpad, which lies above


@part
def _weights_rest(column, wires):
    """Whether no packet and no parameters come to the weight store, and none are asked for."""
    w, ring, config = column.weights, column.weights.blocks, wires.receivers[state.DRAIN]
    if w.leading or w.arrived & 1 or (w.active == 0 and wires.receivers[state.WEIGHTS].valid):
        return False
    if ring.leaving or ring.room == (ring.space == 0):
        return False
    return w.all_asked or config.valid == 0 or column.drain.all_started or ring.ready == 0


@part
def _rows_rest(rows, config, released):
    """Whether a row store is in the middle of a packet, or none waits; what it shows is settled."""
    c, first = config.o.rows, rows.lead == 0
    if rows.stored != (rows.record if first else ALL_STORED):
        return False
    if rows.active == 0:
        return config.valid == 0
    return rows.limit == c.ring_rows + (released if first else 0)


@part
def _may_repeat(m):
    """Whether a picture may be taken behind this cycle."""
    if not (_control_rests(m) and _around_rests(m)):
        return False
    for c in range(m.grid.columns):
        wires, column = m.wires[c], m.tiles.columns[c]
        if wires.wakes & ~STREAMS or (wires.activity | wires.resting) >> ACTIVITY_BITS:
            return False
        array, config = column.array, wires.receivers[state.ARRAY]
        if wires.resumes < 0:
            if array.active and config.o.array.channels - array.channel < 3:
                return False
            if array.lanes.known == 0 and not form_waits(array, config):
                return False
            if array.stages & 1:  # the last tap of a block; that wakes the drain in the next cycle
                return False
        for k in range(KINDS):
            if not _run_rests(m, m.readers[c, k], wires.receivers[state.READ_ROWS + k]):
                return False
        if not _rows_rest(column.rows, wires.receivers[state.ROWS], array.released):
            return False
        if not _weights_rest(column, wires):
            return False
    return True


@part
def _total(m, k):
    """Counter or figure ``k`` of those that only add up."""
    n, causes = len(m.counters.flat), len(m.figures.causes)
    if k < n:
        return m.counters.flat[k]
    if k < n + causes:
        return m.figures.causes[k - n]
    k -= n + causes
    return m.figures.counts[k // COUNTS, k % COUNTS]


@part
def _totals(m):
    return len(m.counters.flat) + len(m.figures.causes) + m.grid.columns * COUNTS


@part
def _keep_way(m, h, number, now):
    """Keep the way from the last picture to this one."""
    last = h.picture - 1
    if h.nexts[last] or now - h.time > LONGEST or h.fars[last] != h.fars[number]:
        return
    for c in range(m.grid.columns):
        values, before = h.values[c], h.before[c]
        for k in range(KINDS):
            if values[MORE + k] > before[MORE + k]:
                return
        if values[CHANNEL] > before[CHANNEL] or values[STORED] != before[STORED] and values[STORED] < 2:
            return
    h.nexts[last], h.cycles[last] = number + 1, now - h.time
    for c in range(m.grid.columns):
        for k in range(COUNTING):
            h.moved[last, c, k] = h.values[c, k] - h.before[c, k]
    for k in range(_totals(m)):
        h.counted[last, k] = _total(m, k) - h.totals[k]


@part
def _may_move(m, h, number, end):
    """Whether the way from a picture is the same now; ``end``: the time behind it."""
    for c in range(m.grid.columns):
        wires, far = m.wires[c], h.fars[number] >> CLASSES * c
        if 0 <= wires.resumes <= end or 0 <= wires.drain_resumes <= end:
            return False
        values, moved = h.values[c], h.moved[number, c]
        for k in range(KINDS):
            if m.readers[c, k].splitter.active and values[MORE + k] + moved[MORE + k] < 3:
                return False
        if moved[STORED] and values[STORED] + moved[STORED] < 2:
            return False
        if wires.resumes < 0 and moved[CHANNEL] and values[CHANNEL] + moved[CHANNEL] < 3:
            return False
        if far & 1 and values[SPACE] + moved[SPACE] <= FAR:
            return False
        if far >> 1 & 1 and values[UNREAD] + moved[UNREAD] <= FAR:
            return False
    return True


@part
def _follow(m, h, number, now, limit):
    """Move on from a picture as far as the ways are known; return the last one, and its time."""
    totals = _totals(m)
    for k in range(totals):
        h.totals[k] = 0
    while h.nexts[number]:
        end = now + h.cycles[number]
        if end > limit or not _may_move(m, h, number, end):
            break
        for c in range(m.grid.columns):
            for k in range(COUNTING):
                h.values[c, k] += h.moved[number, c, k]
        for k in range(totals):
            h.totals[k] += h.counted[number, k]
        now = end
        number = h.nexts[number] - 1
        h.moves += 1
    return number, now


@part
def _count_on(m, h, cycles):
    """Add what was counted on the way, ``h.totals``, in so many cycles."""
    n, f = m.counters, m.figures
    for k in range(len(n.flat)):
        n.flat[k] += h.totals[k]
    at = len(n.flat)
    for k in range(len(f.causes)):
        f.causes[k] += h.totals[at + k]
    at += len(f.causes)
    f.filled += cycles
    for c in range(m.grid.columns):
        for k in range(COUNTS):
            f.counts[c, k] += h.totals[at + c * COUNTS + k]
        f.since[c] = f.filled


@part
def _give_back(m, h, number, now):
    """Put the machine into the state of a picture, before cycle ``now``."""
    give_back_values(m, h)
    h.restores, h.row = 1, number
    picture(m, h, now)
    for c in range(m.grid.columns):
        m.figures.activity[c] = m.wires[c].activity
    m.tiles.rests_until = 0


@called
def streams_ahead(m, now, limit):
    """Take a picture before cycle ``now``; return by how many cycles the machine has moved from it."""
    h = m.history
    if not _may_repeat(m):
        h.picture = 0
        return 0
    number = take(m, h, now)
    count_all(m)
    note_values(m, h)
    if h.picture:
        _keep_way(m, h, number, now)
    last, end = _follow(m, h, number, now, limit)
    if end != now:
        _count_on(m, h, end - now)
        _give_back(m, h, last, end)
    h.picture, h.time = last + 1, end
    for c in range(m.grid.columns):
        for k in range(COUNTING):
            h.before[c, k] = h.values[c, k]
    for k in range(_totals(m)):
        h.totals[k] = _total(m, k)
    return end - now
