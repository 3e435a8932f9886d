"""Write ports (blocks.dma, blocks.dma_placer)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.dma_address import WALKER, walker_edge, walker_wires
from neuflow.cycle.parts import QUEUE, queue_at, queue_edge
from neuflow.cycle.state import INT, record
from neuflow.grid import GridConfig

PLACER = record(
    "active", "last", "beat", "left", "fill", "flush", "skip", "source", "length",
    "take", "ends", "emits", "step", "ready",  # wires
)  # fmt: skip
"""dma_placer.Placer; ``length``: beats of the burst that is being filled."""

WRITE_PORT = np.dtype(
    [
        ("busy", INT),
        ("walker", WALKER),
        ("placer", PLACER),
        ("buffer", QUEUE),  # value: last of its burst
        ("bursts", QUEUE),  # value: length, last of its descriptor, address
        ("notes", INT),
        ("under_way", INT),
        ("granted", INT),  # wire: a burst is asked for
        ("data_ready", INT),  # wire: data.ready
        ("response", INT),  # wire
        ("done", INT),  # wire
    ]
)
"""dma.WritePort."""


def reset_write_port(grid: GridConfig, port: np.void, at: int) -> int:
    """Place its queues; return the next free place of the store."""
    return queue_at(port["buffer"], queue_at(port["bursts"], at, BURSTS), grid.dma_beats)


@part
def write_request_valid(port):
    """``request.valid``."""
    return port.bursts.valid != 0 and port.under_way != BURSTS


@part
def write_port_wires(grid, port, receiver, link):
    """Set ``link.ready`` and what the placer does in this cycle."""
    p = port.placer
    link.ready = 0
    if receiver.valid:
        port.busy = 1
    if p.active == 0:
        p.step = 0
        return
    o_ready = port.buffer.level != port.buffer.depth and port.bursts.level != BURSTS
    offered = link.count - p.skip if link.valid else 0
    p.ends = p.left <= offered
    p.take = p.left if p.ends else offered
    total = p.fill + p.take
    p.emits = p.ends or total >= grid.bus_words
    p.step = o_ready and (p.flush != 0 or link.valid != 0)
    p.ready = p.step and p.flush == 0 and p.take == offered
    link.ready = p.ready


@part
def placer_edge(m, port, w):
    """blocks.dma_placer.Placer, and the queues behind it."""
    grid, p = m.grid, port.placer
    lanes = grid.bus_words
    pushes_beat = False
    beat_last = False
    burst = 0
    run_ends = False
    if p.step:
        total = p.fill + p.take
        spills = p.ends != 0 and total > lanes
        run_ends = p.ends != 0 and not spills
        p.fill = total & (lanes - 1)
        p.left -= p.take
        p.skip = 0 if p.ready else p.skip + p.take
        p.flush = spills
        if p.emits:
            pushes_beat = True
            boundary = grid.burst_beats - 1
            beat_last = run_ends or p.beat & boundary == boundary
            last = 1 if run_ends and p.last != 0 else 0
            burst = p.length | last << 16 | (p.beat - p.length) << 17
            p.length = 0 if beat_last else p.length + 1
            p.beat += 1
    queue_edge(port.buffer, m.store, pushes_beat, beat_last, port.data_ready)
    queue_edge(port.bursts, m.store, pushes_beat and beat_last, burst, port.granted)

    run_ready = p.active == 0 or run_ends
    if run_ready:
        p.active = w.valid
        if w.valid:
            p.beat = w.address // lanes
            p.left = w.words
            p.fill = w.address & (lanes - 1)
            p.last = w.last
            p.source = w.tag
    return run_ready


@part
def write_port_edge(m, port, receiver):
    """blocks.dma.WritePort; ``granted``, ``data_ready``, ``response`` are known."""
    w = port.walker
    if port.granted or port.response:
        remaining = port.under_way - port.response
        last = (port.bursts.value >> 16) & 1 if port.granted else 0
        port.notes = (port.notes >> port.response) | last << remaining
        port.under_way = remaining + port.granted
    run_ready = placer_edge(m, port, w)
    walker_wires(w, receiver, run_ready)
    walker_edge(w, receiver, receiver.o.write.source, run_ready)
    port.granted = 0
    port.data_ready = 0
    port.response = 0
    port.done = 0
    port.busy = (
        w.valid | port.placer.active | port.buffer.level | port.buffer.valid | port.bursts.level
        | port.bursts.valid | port.under_way
    )  # fmt: skip
