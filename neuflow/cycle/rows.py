"""Row input of the convolver (blocks.conv_rows): when are words stored, how many rows are there."""

from __future__ import annotations

from neuflow.cycle.compiled import part
from neuflow.cycle.state import record
from neuflow.layout import SIZE

ALL_STORED = (1 << SIZE) - 1
"""``stored`` while the array's pass is stored whole."""

ROW_STORE = record(
    "lead",  # passes stored whole and not yet done by the array
    "active", "x", "channel", "record",  # position in the packet
    "taken",  # words of the present beat that are stored
    "store", "count", "row_ends", "beat_ends", "finished",  # wires
)  # fmt: skip
"""blocks.conv_rows.RowStore."""


@part
def rows_stored(rows):
    """Return the row records of the array's present pass that are complete."""
    if rows.lead:
        return ALL_STORED
    return rows.record if rows.active else 0


@part
def rows_wires(rows, config, line, released):
    """``config``: receiver, ``line``: link from the rows lines, ``released``: the array's register."""
    rows.store = rows.finished = 0
    line.ready = 0
    config.ready = 0
    if not (rows.active and line.valid):
        return
    c = config.o.rows
    in_use = rows.record - (released if rows.lead == 0 else 0)
    if not (in_use < c.ring_rows and rows.lead <= c.ahead):
        return
    rest_of_row = c.width - rows.x
    rest_of_beat = line.count - rows.taken
    rows.count = 1 if c.scatter else min(rest_of_row, rest_of_beat)
    rows.row_ends = rest_of_row == rows.count
    rows.beat_ends = rest_of_beat == rows.count
    rows.store = 1
    line.ready = rows.beat_ends
    if rows.row_ends and rows.channel + 1 == c.channels and rows.record + 1 == c.rows:
        rows.finished = 1
        config.ready = 1


@part
def rows_edge(rows, config, pass_done):
    """``pass_done``: the array's register."""
    rows.lead += rows.finished - pass_done
    if not rows.active:
        rows.active = config.valid
        rows.record = 0
        return
    if not rows.store:
        return
    rows.taken = 0 if rows.beat_ends else rows.taken + rows.count
    if not rows.row_ends:
        rows.x += rows.count
        return
    c = config.o.rows
    rows.x = 0
    if rows.channel + 1 != c.channels:
        rows.channel += 1
        return
    rows.channel = 0
    rows.record += 1
    if rows.finished:
        rows.active = 0
