"""Weight input of the convolver (blocks.conv_weights): what is in its two rings."""

from __future__ import annotations

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, overlaid, record

RING = record(
    "space",  # beats that may still come
    "passed",  # beats from the oldest to the read position
    "unread",  # beats from there to the head
    "leaving",  # beats that were freed a cycle ago
    "ready",  # the beat at the read position is there
    "room",
)
"""blocks.conv_weights.Ring."""

WEIGHT_STORE = overlaid(
    [
        ("weights", RING),
        ("blocks", RING),  # parameters
        ("active", INT),
        ("leading", INT),  # parameter beats yet to come
        ("asked", INT),  # beats of the next block's parameters that are asked for
        ("all_asked", INT),
        ("valid", INT),  # they are there
        ("take", INT),  # wire
        ("arrived", INT),  # the beat taken a cycle ago is for: 1 the blocks, 2 the weights
    ]
)
"""blocks.conv_weights.WeightStore."""


@part
def weights_wires(w, config, line):
    """``config``: receiver, ``line``: link from the weights lines."""
    w.take = 0
    line.ready = 0
    config.ready = 0
    if w.active and line.valid:
        ring = w.blocks if w.leading else w.weights
        w.take = ring.room
        line.ready = w.take
        config.ready = w.take and line.last


@part
def _ring_edge(ring, comes, push, read, rewind, free):
    rewinds = rewind and not free
    ring.room = ring.space > push + comes
    ring.space += ring.leaving - push
    ring.leaving = ring.passed + read if free else 0
    ready = ring.ready
    if rewinds:
        ready = ready or ring.passed != 0
        ring.unread += ring.passed + push
    else:
        if read:
            ready = ring.unread > 1
        ring.unread += push - read
    ring.ready = push or ready
    if free or rewind:
        ring.passed = 0
    else:
        ring.passed += read


@part
def weights_edge(w, config, line, array, drain, drain_config):
    """``array``, ``drain``: the units that read, with their wires of this cycle."""
    take, starts = w.take, drain.start
    leads = w.leading != 0
    ring = w.blocks
    asks = not w.all_asked
    reads = asks and drain_config.valid and not drain.all_started and ring.ready
    comes, pushes = take and leads, w.arrived & 1
    if reads or starts or comes or pushes or ring.leaving or ring.room == (ring.space == 0):
        _ring_edge(
            ring, comes, pushes, reads,
            starts and drain.start_ends_group, starts and drain.start_ends_pass,
        )  # fmt: skip
    w.valid = not asks and not starts
    if starts:
        w.asked = w.all_asked = 0
    elif reads:
        w.asked = w.asked + 1 & 3
        w.all_asked = w.asked == drain_config.o.drain.beats

    ring = w.weights
    comes, pushes = take and not leads, w.arrived >> 1
    if array.issue:
        _ring_edge(ring, comes, pushes, array.reads, array.ends_group, array.frees)
    elif comes or pushes or ring.leaving or ring.room == (ring.space == 0):
        _ring_edge(ring, comes, pushes, 0, 0, 0)
    w.arrived = (1 if leads else 2) if take else 0

    if not w.active:
        w.active = config.valid
        w.leading = config.o.weights.lead
    elif take:
        w.active = not line.last
        if leads:
            w.leading -= 1
