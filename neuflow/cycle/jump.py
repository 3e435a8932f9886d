"""Cycles that are not worked out in full: where all around the columns rests, and where all is still.

What lies around the columns (control unit, bus, arbiter, scratchpad, lines, memory) *rests* in a cycle
if no register of it changed and no handshake took place. It then goes on resting up to the first cycle
that looks at the time (a burst in memory is ripe, the watchdog barks), or in which a port is awake or a
column offers or asks something; until then only columns move.

A cycle is *still* if, besides, no part of a column moved in it. The next one is the same then, and so
are all up to the first that looks at the time, or in which an array or a drain that ran ahead moves
again. What counts, counts as it did in the still cycle.
"""

from __future__ import annotations

from neuflow.cycle.awake import BACK, DRAIN, PORTS, ROWS, WEIGHTS, changed, keep
from neuflow.cycle.compiled import part
from neuflow.cycle.memory import front
from neuflow.cycle.read_port import operand_line_rests
from neuflow.cycle.state import READ_OPERAND, READ_ROWS

_OPERAND = READ_OPERAND - READ_ROWS
NEVER = 1 << 62
"""A time that does not come."""


@part
def goes_on_resting(m, now, awake):
    """Whether all around the columns goes on resting in cycle ``now``; ``awake``: parts, ORed.

    Call it behind the ports' offers.
    """
    rests = (
        now < m.tiles.rests_until and awake != 0 and awake & PORTS == 0 and m.bus.awake == 0
        and not (awake & ROWS and m.rows_lines.offered)
        and not (awake & WEIGHTS and m.weights_lines.offered)
    )  # fmt: skip
    if rests:
        for c in range(m.grid.columns):
            line, port = m.operand_lines[c], m.readers[c, _OPERAND]
            if m.wires[c].awake & (BACK | DRAIN) and not operand_line_rests(line, port):
                rests = False
    if not rests:
        m.tiles.rests_until = now
    return rests


@part
def keep_memory(m):
    """Note the memory's registers; call it before its wires, which fill its buckets.

    Where a port is awake by then, :func:`may_rest` will not hold, and it need not be called.
    """
    keep(m.tiles.still, 0, m.memory)


@part
def may_rest(m):
    """Whether nothing around the columns has moved in this cycle so far; between wires and edges."""
    if m.tiles.plain or m.memory.stalls.on or m.bus.awake or m.sequencer.config_moves:
        return False
    for c in range(m.grid.columns):
        if m.wires[c].awake & PORTS:
            return False
    a, memory = m.arbiter, m.memory
    if memory.rvalid or memory.bvalid or a.w_moves:
        return False
    return not (a.ar_valid and memory.arready) and not (a.aw_valid and memory.awready)


@part
def keep_around(m):
    """Note all other registers that must stay, and the counters."""
    at = keep(m.tiles.still, len(m.memory.flat), m)
    keep(m.tiles.still, at, m.counters)


@part
def rested(m):
    """Whether they have stayed; call it behind the edges."""
    still = m.tiles.still
    if m.bus.wakes:
        return False
    return not changed(still, 0, m.memory) and not changed(still, len(m.memory.flat), m)


@part
def is_still(m):
    """Whether a cycle in which all around the columns rested was still; call it behind the edges."""
    for c in range(m.grid.columns):
        if m.wires[c].awake or m.wires[c].wakes:
            return False
    n, words, at = m.counters, m.tiles.still.words, len(m.flat) + len(m.memory.flat)
    return words[at] == n.progress and words[at + 1] == n.tapped


@part
def _sooner(end, q, now):
    """The time at which the first burst of a queue is ripe, if that is yet to come."""
    if q.size and front(q).ripe >= now:
        return min(end, front(q).ripe)
    return end


@part
def rests_until(m, now):
    """The first cycle from ``now`` on in which something around the columns looks at the time."""
    n, end = m.counters, NEVER
    end = _sooner(end, m.memory.reads, now)
    end = _sooner(end, m.memory.writes, now)
    end = _sooner(end, m.memory.responses, now)
    if n.host_watchdog:
        end = min(end, now + n.host_watchdog - n.quiet - 1)
    return end


@part
def still_cycles(m, now, limit):
    """How many cycles from ``now`` on are as the one before it, which was still."""
    f = m.figures
    end = min(limit, now + f.width - f.filled, m.tiles.rests_until)
    for c in range(m.grid.columns):
        if m.wires[c].resumes >= 0:
            end = min(end, m.wires[c].resumes)
        if m.wires[c].drain_resumes >= 0:
            end = min(end, m.wires[c].drain_resumes)
    return max(end - now, 0)


@part
def jump(m, cycles):
    """Count so many cycles as the still one was counted; but what is quiet may have ended in it."""
    n = m.counters
    quiet = 0 if n.progress else n.quiet + cycles
    at = len(m.flat) + len(m.memory.flat)
    for k in range(len(n.flat)):
        n.flat[k] += (n.flat[k] - m.tiles.still.words[at + k]) * cycles
    n.quiet = quiet
    m.figures.filled += cycles
