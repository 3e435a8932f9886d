"""Write ports (blocks.dma, blocks.dma_placer)."""

from __future__ import annotations

import numpy as np

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle.compiled import part
from neuflow.cycle.dma_address import (
    WALKER,
    is_near,
    may_follow,
    walker_edge,
    walker_last,
)
from neuflow.cycle.merger import MERGER, merger_edge, merger_ready
from neuflow.cycle.parts import QUEUE, SLICE, TAG, queue_at, queue_edge, slice_edge, tag_edge
from neuflow.cycle.state import INT, overlaid, record
from neuflow.grid import GridConfig

CUTTER = record(
    "active", "low", "high", "near", "skip", "mark", "start", "source",
    "valid", "count", "o_start", "last", "tag",  # its output
    "below", "ends", "whole", "step", "free",  # wires
)  # fmt: skip
"""dma_placer.Cutter. ``mark``, ``tag``: first beat of the run, and bit 0: last of its descriptor."""

BURST = record("fresh", "beat", "first", "length")
"""``Placer._build_bursts``: the burst that the merger's beats fill. ``fresh``: it is a run's first
beat; else ``beat``: its address, ``first``: that of its burst, ``length``: beats before it."""

WRITE_PORT = overlaid(
    [
        ("walker", WALKER),
        ("runs", SLICE),  # a: first word, b: words, last, source
        ("cutter", CUTTER),
        ("merger", MERGER),
        ("tag", TAG),
        ("burst", BURST),
        ("buffer", QUEUE),  # value: last of its burst
        ("bursts", QUEUE),  # value: length, last of its descriptor, address
        ("asks", SLICE),  # a: address, b: length; its output is the request
        *[(name, INT) for name in ("notes", "newest", "oldest", "under_way", "near", "done")],
        ("granted", INT),  # wire: request.ready
        ("data_ready", INT),  # wire: data.ready
        ("response", INT),  # wire
    ]
)
"""dma.WritePort."""


def reset_write_port(grid: GridConfig, port: np.void, at: int) -> int:
    """Place its queues; return the next free place of the store."""
    port["burst"]["fresh"] = 1
    return queue_at(port["buffer"], queue_at(port["bursts"], at, BURSTS), grid.dma_beats)


@part
def _o_ready(port):
    """``Placer.o_ready``."""
    return port.buffer.level != port.buffer.depth and port.bursts.level != BURSTS


@part
def write_port_wires(port, link):
    """Set ``link.ready`` and what the cutter does in this cycle."""
    c = port.cutter
    c.free = c.valid == 0 or merger_ready(port.merger, _o_ready(port))
    c.step = c.active != 0 and c.free != 0 and link.valid != 0
    if c.step:
        c.below = c.low < link.count
        c.ends = c.near != 0 and c.below != 0
        c.whole = c.ends == 0 or c.low + 1 == link.count
        link.ready = c.whole


@part
def _cutter_edge(grid, c, runs, link):
    """blocks.dma_placer.Cutter; return ``run.ready``."""
    lanes = grid.lanes
    run_ready = c.active == 0 or (c.step != 0 and c.ends != 0)
    offset = c.skip
    if c.active:
        offset = 0 if c.whole else c.low + 1
    if c.free:
        c.valid = c.step
    if c.step:
        c.count = (c.low + 1 if c.ends else link.count) - c.skip
        c.o_start = c.start
        c.last = c.ends
        c.tag = c.mark
        c.skip = 0 if c.whole else c.low + 1
        c.near = c.near != 0 or (c.below != 0 and c.high == 1)
        c.high -= c.below
        c.low += (lanes if c.below else 0) - link.count
    if run_ready:
        c.active = runs.valid
        if runs.valid:
            words = runs.b >> 2
            c.low = ((words - 1) & (lanes - 1)) + offset
            c.high = (words - 1) // lanes
            c.near = words <= lanes
            c.start = runs.a & (grid.bus_words - 1)
            c.mark = runs.a // grid.bus_words << 1 | (runs.b >> 1 & 1)
            c.source = runs.b & 1
    return run_ready


@part
def _burst_edge(grid, b, beat_last, tag):
    """A beat leaves the merger. Return whether it is its burst's last, and the burst."""
    if b.fresh:
        b.beat = tag >> 1
        b.first = b.beat
        b.length = 0
    closes = b.beat & (grid.burst_beats - 1) == grid.burst_beats - 1
    burst = b.length | (beat_last & tag & 1) << 16 | b.first << 17
    b.fresh = beat_last
    b.beat += 1
    b.length = 0 if closes else b.length + 1
    if closes:
        b.first = b.beat
    return beat_last != 0 or closes, burst


@part
def _placer_edge(m, port, link):
    """blocks.dma_placer.Placer and the queues behind it; return ``run.ready`` of the cutter."""
    grid, c, merger = m.grid, port.cutter, port.merger
    o_ready = _o_ready(port)
    moves = merger.valid != 0 and o_ready
    closes = False
    burst = 0
    if moves:
        closes, burst = _burst_edge(grid, port.burst, merger.last, port.tag.value)
    value = port.bursts.value
    asked = (
        port.bursts.valid != 0 and port.under_way != BURSTS and port.asks.spare_valid == 0
        and may_follow(grid, value >> 17, port.near, port.under_way)
    )
    if asked:
        port.near = is_near(grid, value >> 17)
    if port.asks.valid or asked:
        slice_edge(port.asks, asked, value >> 17, value & 0xFFFF, port.granted)
    _responses_edge(port, asked, value >> 16 & 1)
    queue_edge(port.buffer, m.store, moves, closes, port.data_ready)
    queue_edge(port.bursts, m.store, moves and closes, burst, asked)
    if c.valid or merger.there or merger.valid or merger.flush:
        tag_edge(port.tag, merger, c.valid, c.tag, o_ready)
        merger_edge(merger, grid.bus_words, c.o_start, c.valid, c.count, c.last, o_ready)
    return _cutter_edge(grid, c, port.runs, link)


@part
def _responses_edge(port, asked, last):
    """``WritePort._build_responses``; ``last``: the burst asked for is its descriptor's last."""
    port.done = port.response & (port.notes >> port.oldest)
    if asked:
        bit = 1 << port.newest
        port.notes = port.notes | bit if last else port.notes & ~bit
        port.newest = (port.newest + 1) & (BURSTS - 1)
        port.under_way += 1
    if port.response:
        port.oldest = (port.oldest + 1) & (BURSTS - 1)
        port.under_way -= 1


@part
def write_port_edge(m, port, receiver, link):
    """blocks.dma.WritePort; ``granted``, ``data_ready``, ``response`` are known."""
    w, runs = port.walker, port.runs
    run_ready = _placer_edge(m, port, link)
    walker_ready = runs.spare_valid == 0
    d = receiver.o.write
    if w.active or runs.valid:
        run = d.run << 2 | walker_last(w) << 1 | d.source
        slice_edge(runs, w.active, w.run, run, run_ready)
    walker_edge(w, receiver, walker_ready)
    port.granted = 0
    port.data_ready = 0
    port.response = 0
