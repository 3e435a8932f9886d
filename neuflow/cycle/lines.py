"""Global lines (blocks.lines): rows and weights to the convolvers of all columns that listen."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, MAX_COLUMNS

LINES = np.dtype([("done", INT, (MAX_COLUMNS,)), ("offered", INT)])
"""lines.Lines: by source, one bit a sink that has the present beat; sources that have one."""


@part
def line_wires(lines, source, number, column, sink):
    """Offer the beat of ``source``, read port of column ``number``, to the sink of ``column``.

    Call it where the sink listens to that source; ``sink`` is a LINK whose ``valid`` is 0.
    """
    leaves = source.leaves
    if leaves.valid and leaves.b >> (1 + column) & 1 and lines.done[number] >> column & 1 == 0:
        sink.valid = 1
        sink.count = leaves.a
        sink.last = leaves.b & 1


@part
def line_wants(lines, number, source, columns):
    """The sinks that are yet to take the beat of ``source``."""
    return source.leaves.b >> 1 & ((1 << columns) - 1) & ~lines.done[number]


@part
def line_edge(lines, number, source, columns, taken):
    """Note who has the beat; ``taken``: sinks that took it now. Sets the source's ``ready``.

    Nothing else reads ``done`` in this cycle, so that wire and edge are one function.
    """
    source.ready = (line_wants(lines, number, source, columns) & ~taken) == 0
    lines.done[number] = 0 if source.ready else lines.done[number] | taken
