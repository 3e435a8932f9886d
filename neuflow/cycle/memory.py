"""The external memory, exactly as on top of sim/harness.cpp, random stalls included."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import called, part
from neuflow.cycle.state import INT, overlaid, record
from neuflow.grid import MEMORY_RANGES, MemoryConfig

MAX_OUTSTANDING = MEMORY_RANGES["outstanding"][1]  # a power of two
BURST = record("address", "left", "id", "response", "ripe")
"""A burst under way: byte address, beats left, port, response, first cycle in which it is served."""

BURSTS = np.dtype([("first", INT), ("size", INT), ("entries", BURST, (MAX_OUTSTANDING,))])
"""A queue of bursts."""

CHANNELS = 5
STALLS = np.dtype([("on", INT), ("state", np.uint64), ("left", INT, (CHANNELS,))])
"""Random stalls; see ``Stalls`` in the harness."""

FREE, READING, WRITING = range(3)

BUS = record("level", "serving")

MEMORY = overlaid(
    [
        *[(name, INT) for name in (
            "tokens", "cost", "shared", "read_latency", "write_latency", "outstanding", "size",
            "offered_read", "offered_response",
            "arready", "awready", "rvalid", "wready", "bvalid",  # wires
        )],
        ("bus", BUS, (2,)),
        ("reads", BURSTS),
        ("writes", BURSTS),
        ("responses", BURSTS),
        ("stalls", STALLS),
    ],
    last="bus",
)  # fmt: skip
"""Memory model. The channels' payload is that of the first entry of the queues."""

_SEED_FACTOR = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def reset_memory(memory: np.void, config: MemoryConfig, size: int, seed: int | None) -> None:
    """Set parameters and reset values; ``size`` in bytes."""
    memory["tokens"], memory["cost"] = config.tokens, config.tokens_per_beat
    memory["shared"], memory["outstanding"] = config.shared, config.outstanding
    memory["read_latency"] = config.read_latency
    memory["write_latency"] = config.write_latency
    memory["size"] = size
    memory["bus"]["level"] = config.tokens_per_beat
    memory["stalls"]["on"] = seed is not None
    if seed is not None:
        memory["stalls"]["state"] = (seed + 1) * _SEED_FACTOR & _MASK


@part
def stalled(s, channel):
    """Whether the channel is held back in this cycle; call once a cycle, as the harness does."""
    return s.on != 0 and _drawn(s, channel)


@called
def _drawn(s, channel):
    """Random stalls are on: go on with the present one, or draw whether there is one."""
    if s.left[channel]:
        s.left[channel] -= 1
        return True
    state = s.state
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    s.state = state
    dice = np.int64(state >> np.uint64(32))
    if dice & 0xFF == 0:
        s.left[channel] = (dice >> 8) & 63
    return dice & 3 == 3


@part
def front(q):
    """The first burst of a queue."""
    return q.entries[q.first]


@part
def pop(q):
    """Drop the first burst."""
    q.first = (q.first + 1) & (MAX_OUTSTANDING - 1)
    q.size -= 1


@part
def push(q, address, left, number, response, ripe):
    """Append a burst."""
    burst = q.entries[(q.first + q.size) & (MAX_OUTSTANDING - 1)]
    burst.address = address
    burst.left = left
    burst.id = number
    burst.response = response
    burst.ripe = ripe
    q.size += 1


@part
def memory_wires(m, now):
    """Memory::drive: choose what is offered in cycle ``now``."""
    for k in range(2):
        m.bus[k].level = min(m.bus[k].level, m.cost) + m.tokens
    m.arready = m.reads.size < m.outstanding and not stalled(m.stalls, 0)
    m.awready = m.writes.size + m.responses.size < m.outstanding and not stalled(m.stalls, 1)
    _choose(m, now)

    read = m.bus[0]
    held = stalled(m.stalls, 2)
    m.rvalid = (
        read.serving == READING and read.level >= m.cost and (m.offered_read != 0 or not held)
    )
    if m.rvalid:
        m.offered_read = 1

    write = m.bus[0 if m.shared else 1]
    m.wready = write.serving == WRITING and write.level >= m.cost and not stalled(m.stalls, 3)

    held = stalled(m.stalls, 4)
    m.bvalid = (
        m.responses.size != 0
        and now >= front(m.responses).ripe
        and (m.offered_response != 0 or not held)
    )
    if m.bvalid:
        m.offered_response = 1


@part
def _choose(m, now):
    """Memory::choose: a free bus takes the burst that is ripe for longest."""
    read = m.reads.size != 0 and now >= front(m.reads).ripe
    write = m.writes.size != 0 and now >= front(m.writes).ripe
    first, second = m.bus[0], m.bus[1]
    if m.shared == 0:
        if first.serving == FREE and read:
            first.serving = READING
        if second.serving == FREE and write:
            second.serving = WRITING
    elif first.serving == FREE:
        if read and (not write or front(m.reads).ripe <= front(m.writes).ripe):
            first.serving = READING
        elif write:
            first.serving = WRITING


@part
def memory_edge(m, now, a, beat_bytes):
    """Memory::sample: note the handshakes of cycle ``now`` with the arbiter ``a``."""
    if m.rvalid:  # r.ready is always 1
        burst = front(m.reads)
        m.bus[0].level -= m.cost
        m.offered_read = 0
        burst.left -= 1
        if burst.left == 0:
            pop(m.reads)
            m.bus[0].serving = FREE
    if m.bvalid:  # b.ready is always 1
        pop(m.responses)
        m.offered_response = 0
    if a.w_moves:
        bus = m.bus[0 if m.shared else 1]
        bus.level -= m.cost
        burst = front(m.writes)
        burst.left -= 1
        if burst.left == 0:
            ripe = now + m.write_latency
            push(m.responses, burst.address, 0, burst.id, burst.response, ripe)
            pop(m.writes)
            bus.serving = FREE
    if a.ar_valid and m.arready:
        response = _outside(m, a.ar_address, a.ar_length, beat_bytes)
        ripe = now + m.read_latency
        push(m.reads, a.ar_address, a.ar_length + 1, a.ar_id, response, ripe)
    if a.aw_valid and m.awready:
        response = _outside(m, a.aw_address, a.aw_length, beat_bytes)
        push(m.writes, a.aw_address, a.aw_length + 1, a.aw_id, response, now + 1)


@part
def _outside(m, beat, length, beat_bytes):
    """DECERR for a burst that is not wholly inside the memory."""
    return 3 if (beat + length + 1) * beat_bytes > m.size else 0
