"""Put words side by side (streams.Merger, and Packer around it): counts and last flags only."""

from __future__ import annotations

from neuflow.cycle.compiled import called, part
from neuflow.cycle.state import record

MERGER = record(
    "begun",  # a packet is under way
    "fill",  # lane that its next word goes to
    "flush",  # what spilled over at the end of a packet leaves by itself
    "there", "emits", "placed_count", "placed_last",  # first stage
    "valid", "count", "last",  # output
)  # fmt: skip
"""blocks.streams.Merger."""


@part
def merger_ready(p, o_ready):
    """``i.ready``."""
    return (p.valid == 0 or o_ready) and p.flush == 0


@part
def merger_rests(p):
    """Whether nothing moves unless a beat comes in."""
    return not (p.valid or p.there or p.flush)


@called
def merger_edge(p, lanes, start, i_valid, i_count, i_last, o_ready):
    """Move the registers; ``start``: lane of a packet's first word (a Packer: 0)."""
    if p.valid and not o_ready:
        return
    p.valid = p.there and p.emits
    if p.there:
        p.count, p.last = p.placed_count, p.placed_last
    p.there = p.flush or i_valid
    if not p.there:
        return
    total = p.fill if p.begun else start
    if not p.flush:
        total += i_count
    last = p.flush or i_last
    full = total >= lanes
    spills = last and full and total != lanes
    p.placed_count = min(total, lanes)
    p.placed_last = last and not spills
    p.emits = full or last
    p.flush = spills
    p.begun = not last or spills
    p.fill = total - lanes if full else total
