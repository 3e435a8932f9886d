"""Jumps in time: cycles in which nothing changes but counters are not worked out one by one.

A cycle is *still* if no part of a column moved in it, no register of control unit, arbiter, lines
and memory changed, and no handshake took place. The next one is the same then, and so are all up to
the first that looks at the time: an array that ran ahead moves again, a burst in memory is ripe, the
watchdog barks. What counts, counts as it did in the still cycle.
"""

from __future__ import annotations

from neuflow.cycle.awake import changed, keep
from neuflow.cycle.compiled import part
from neuflow.cycle.memory import front


@part
def may_be_still(m):
    """Whether nothing has moved in this cycle so far; call it between wires and edges."""
    if m.tiles.plain or m.memory.stalls.on or m.bus.awake or m.sequencer.config_moves:
        return False
    for c in range(m.grid.columns):
        if m.wires[c].awake:
            return False
    a, memory = m.arbiter, m.memory
    if memory.rvalid or memory.bvalid or a.w_moves:
        return False
    return not (a.ar_valid and memory.arready) and not (a.aw_valid and memory.awready)


@part
def keep_memory(m):
    """Note the memory's registers; call it before its wires, which fill its buckets.

    Where a column is awake by then, :func:`may_be_still` will not hold, and it need not be called.
    """
    keep(m.tiles.still, 0, m.memory)


@part
def keep_still(m):
    """Note all other registers that must stay, and the counters."""
    at = keep(m.tiles.still, len(m.memory.flat), m)
    keep(m.tiles.still, at, m.counters)


@part
def is_still(m):
    """Whether they have stayed; call it behind the edges."""
    if m.bus.wakes:
        return False
    for c in range(m.grid.columns):
        if m.wires[c].wakes:
            return False
    n, still, at = m.counters, m.tiles.still, len(m.memory.flat)
    if changed(still, 0, m.memory) or changed(still, at, m):
        return False
    words, at = still.words, at + len(m.flat)
    return words[at] == n.progress and words[at + 1] == n.tapped


@part
def _sooner(end, q, now):
    """The time at which the first burst of a queue is ripe, if that is yet to come."""
    if q.size and front(q).ripe >= now:
        return min(end, front(q).ripe)
    return end


@part
def still_cycles(m, now, limit):
    """How many cycles from ``now`` on are as the one before it, which was still."""
    n, f = m.counters, m.figures
    end = min(limit, now + f.width - f.filled)
    for c in range(m.grid.columns):
        if m.wires[c].resumes >= 0:
            end = min(end, m.wires[c].resumes)
    end = _sooner(end, m.memory.reads, now)
    end = _sooner(end, m.memory.writes, now)
    end = _sooner(end, m.memory.responses, now)
    if n.host_watchdog:
        end = min(end, now + n.host_watchdog - n.quiet - 1)
    return max(end - now, 0)


@part
def jump(m, cycles):
    """Count so many cycles as the still one was counted."""
    n = m.counters
    at = len(m.flat) + len(m.memory.flat)
    for k in range(len(n.flat)):
        n.flat[k] += (n.flat[k] - m.tiles.still.words[at + k]) * cycles
    m.figures.filled += cycles
