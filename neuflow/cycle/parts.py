"""The small parts that many blocks have: Slice, Narrow (blocks.streams), Queue (blocks.queue)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import called, part
from neuflow.cycle.state import INT, record

SLICE = record("valid", "a", "b", "spare_valid", "spare_a", "spare_b")
"""streams.Slice with a payload of two numbers: (count, last) of a beat, (address, length) of a
burst, (packet, base) of a configuration word. ``i.ready`` is ``spare_valid == 0``."""

QUEUE = record("at", "depth", "level", "valid", "value", "head")
"""queue.Queue with a payload of one number. Entries lie in ``store.entries[at : at + depth]``, which
all queues share. ``i.ready`` is ``level != depth``; ``valid``, ``value``: its output."""

STORE_WORDS = 1 << 16
STORE = np.dtype([("entries", INT, (STORE_WORDS,))])
"""Entries of all queues."""

TAG = record("placed", "value")
"""The tag that goes with the beats of a Merger (``merger.MERGER``); ``value``: at its output."""

NARROW = record("left", "last")
"""streams.Narrow: words that are left of the beat it holds."""


@part
def slice_edge(s, i_valid, i_a, i_b, o_ready):
    """blocks.streams.Slice."""
    if s.valid == 0 or o_ready:
        if s.spare_valid:
            s.a, s.b = s.spare_a, s.spare_b
            s.spare_valid = 0
            s.valid = 1
        else:
            s.a, s.b = i_a, i_b
            s.valid = i_valid
    elif i_valid and s.spare_valid == 0:
        s.spare_a, s.spare_b = i_a, i_b
        s.spare_valid = 1


@part
def queue_edge(q, store, push, value, o_ready):
    """blocks.queue.Queue; ``push``: an entry comes, and there is room for it."""
    if push or (q.level or q.valid if o_ready else q.level and q.valid == 0):
        _queue_moves(q, store, push, value, o_ready)


@called
def _queue_moves(q, store, push, value, o_ready):
    fetch = q.level != 0 and (q.valid == 0 or o_ready)
    if push:
        store.entries[q.at + ((q.head + q.level) & (q.depth - 1))] = value
        q.level += 1
    if fetch:
        q.value = store.entries[q.at + q.head]
        q.head = (q.head + 1) & (q.depth - 1)
        q.level -= 1
        q.valid = 1
    elif o_ready:
        q.valid = 0


@part
def queue_clear(q):
    """Queue.clear."""
    q.level = 0
    q.valid = 0
    q.head = 0


@part
def tag_edge(t, p, i_valid, i_tag, o_ready):
    """Move the tags of merger ``p``; call it before the merger's own edge."""
    if p.valid and not o_ready:
        return
    if p.there:
        t.value = t.placed
    if i_valid and p.flush == 0:
        t.placed = i_tag


@part
def narrow_ready(n, lanes, o_ready):
    """``i.ready`` of a Narrow with ``lanes`` words out."""
    return n.left == 0 or (n.left <= lanes and o_ready != 0)


@part
def narrow_edge(n, lanes, i_valid, i_count, i_last, o_ready):
    """blocks.streams.Narrow; its output is valid while ``left`` is not 0."""
    if i_valid and narrow_ready(n, lanes, o_ready):
        n.left = i_count
        n.last = i_last
    elif n.left and o_ready:
        n.left = 0 if n.left <= lanes else n.left - lanes


def queue_at(q: np.void, at: int, depth: int) -> int:
    """Give a queue its place in the store; return the first place behind it."""
    if at + depth > STORE_WORDS:
        raise ValueError(f"the queues of this grid hold more than {STORE_WORDS} entries")
    q["at"], q["depth"] = at, depth
    return at + depth
