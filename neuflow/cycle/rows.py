"""Row input of the convolver (blocks.conv_rows): when are words stored, how many rows are there."""

from __future__ import annotations

from neuflow.cycle.compiled import part
from neuflow.cycle.pipeline import SPARE, slice_edge
from neuflow.cycle.state import INT, LINK, overlaid
from neuflow.layout import SIZE, Scatter

ALL_STORED = (1 << SIZE) - 1
"""``stored`` while the array's pass is stored whole."""

_FLUSHING = 0b1111
"""Stages behind the count that a configuration waits for."""
_FLUSHED = _FLUSHING ^ (_FLUSHING >> 1)

WORD, PHASES, BOTH_PHASES, ROWS = (
    int(s) for s in (Scatter.WORD, Scatter.PHASES, Scatter.BOTH_PHASES, Scatter.ROWS)
)
JOINED = (int(Scatter.ROW), BOTH_PHASES, ROWS)
"""What is missing of a beat is taken from the next one."""

ROW_STORE = overlaid(
    [
        ("lead", INT),  # passes stored whole and not yet done by the array
        *((n, INT) for n in ("active", "opened", "follows", "flushing")),
        ("intake", LINK),  # output of the slice at the input
        ("slice", SPARE),
        *((n, INT) for n in ("valid", "left")),  # a beat under way, words of it that are left
        *((n, INT) for n in ("rest", "channel", "record")),  # rest: words left of the row
        ("lap", INT),  # phases that are stored of what the beat holds of the row
        *((n, INT) for n in ("room", "limit", "stored")),
        *((n, INT) for n in ("resident", "allowed")),
        *((n, INT) for n in ("starts", "finished", "record_ends", "row_ends", "count")),  # wires
        *((n, INT) for n in ("store", "beat_ends", "ahead")),  # ahead: words of the next beat
    ]
)
"""blocks.conv_rows.RowWriter."""


@part
def rows_wires(rows, config, line, lanes):
    """``config``: receiver, ``line``: link from the rows lines; ``lanes``: words of a beat."""
    rows.starts = not rows.active and config.valid and rows.flushing == 0
    config.ready = rows.flushing & _FLUSHED != 0
    line.ready = rows.opened and rows.slice.valid == 0
    rows.store = rows.room and rows.valid
    rows.record_ends = rows.row_ends = 0
    rows.finished = rows.active and rows.resident and rows.allowed
    rows.beat_ends = rows.ahead = 0
    if rows.store:
        c = config.o.rows
        most = rows.rest  # words that may be stored at once, were they here
        if c.scatter == ROWS and rows.channel + 1 < c.channels:
            most += c.width
        goes_on = most > rows.left
        if c.scatter == BOTH_PHASES and goes_on and rows.intake.valid == 0:
            rows.store = 0  # until the next beat is here
            return
        rows.count = 1 if c.scatter == WORD else min(most, rows.left)
        if goes_on and rows.intake.valid and c.scatter in JOINED:
            rows.ahead = min(most, lanes) - rows.left
            rows.count += rows.ahead
        if c.scatter == PHASES and rows.lap + 1 != rows.count and rows.lap + 1 != c.stride:
            rows.count = 0
        rows.row_ends = rows.count >= rows.rest
        if rows.row_ends and c.scatter == ROWS and rows.count == rows.rest + c.width:
            rows.row_ends = 2
        rows.beat_ends = rows.left + rows.ahead == rows.count
        rows.record_ends = rows.row_ends and rows.channel + rows.row_ends == c.channels
        rows.finished = rows.record_ends and rows.record + 1 == c.rows


@part
def _intake_edge(rows, c, line):
    """``RowWriter._take``: the slice, and the beat whose words are counted."""
    arrives = rows.opened and line.valid
    if rows.starts:
        rows.opened, rows.follows = c.rows != 0, c.two
    elif arrives and line.ready and line.last:
        rows.opened, rows.follows = rows.follows, 0
    intake = rows.intake
    moves = not rows.valid or rows.beat_ends
    if moves:
        rows.left = intake.count - rows.ahead
        rows.valid = intake.valid and rows.left > 0
    elif rows.store:
        rows.left -= rows.count
    if intake.valid or arrives:
        intake.ready = moves
        slice_edge(rows.slice, intake, arrives, line.count, line.last)


@part
def _room_edge(rows, c, released):
    record = rows.record + 1 if rows.record_ends else rows.record
    rows.room = (
        rows.active and not rows.finished and rows.lead <= c.ahead and record < rows.limit
    )
    rows.limit = c.ring_rows + (released if rows.lead == 0 else 0)


@part
def rows_edge(rows, config, line, released, pass_done):
    """``released``, ``pass_done``: the array's registers."""
    c = config.o.rows
    rows.stored = rows.record if rows.lead == 0 else ALL_STORED
    if rows.active or rows.starts:
        rows.resident, rows.allowed = c.rows == 0, rows.lead <= c.ahead
        _intake_edge(rows, c, line)
        _room_edge(rows, c, released)
    rows.lead += rows.finished - pass_done
    rows.flushing = (rows.flushing << 1 | rows.finished) & _FLUSHING
    if rows.starts:
        rows.active = 1
        rows.rest = c.width
    if not rows.store:
        if rows.finished:
            rows.active = 0
        return
    rows.lap = 0 if rows.count else rows.lap + 1
    rows.rest += rows.row_ends * c.width - rows.count
    rows.channel = 0 if rows.record_ends else rows.channel + rows.row_ends
    if rows.finished:
        rows.record = 0
        rows.active = 0
    elif rows.record_ends:
        rows.record += 1
