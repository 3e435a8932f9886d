"""Pictures of the machine in streams of rows and weights: what is in one, and those that are kept.

A picture holds every register that a part which is awake reads, or what it compares of a counting one:
its value where that is small, else that it is not (``FAR``). What is forgotten here would make times
wrong; so whole records are taken, but for registers that are named. See ``cycle.streams``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuflow.blocks.dma_address import BURSTS
from neuflow.cycle import state
from neuflow.cycle.arbiter import ARBITER
from neuflow.cycle.array import MAC_ARRAY
from neuflow.cycle.compiled import called, part
from neuflow.cycle.control import COUNTERS
from neuflow.cycle.convolver import RESULT
from neuflow.cycle.figures import COUNTS
from neuflow.cycle.memory import MAX_OUTSTANDING
from neuflow.cycle.read_port import READ_PORT
from neuflow.cycle.rows import ROW_STORE
from neuflow.cycle.state import INT, MAX_COLUMNS
from neuflow.cycle.weights import WEIGHT_STORE
from neuflow.layout import Cause

PICTURES = 2048
"""Pictures that are kept; with as many, all are forgotten."""
SLOTS = 4 * PICTURES
"""Places of the table in which a picture is found. A power of two."""
LONGEST = 128
"""Cycles between two pictures at most."""
FAR = LONGEST + 4
"""Beats that a ring does not come to the end of in so many cycles, as one moves in a cycle at most."""
ENTRIES = 128
"""Beats that may wait in a read port where a picture is taken."""
WORDS = 6144
CREDIT, PAUSE = 1536, 4096
"""Pictures that may be taken beyond those that were of use; then none is taken for so many bursts."""

KINDS = 2
"""Read ports of a column whose streams are looked at: rows, weights."""
BEAT, MORE, SPACE, UNREAD, PASSED, CHANNEL, STORED = 0, KINDS, *range(2 * KINDS, 2 * KINDS + 5)
COUNTING = 2 * KINDS + 5
"""Counting registers of a column: of each port its beat, and how many bursts are more than it; of the
weights' ring; channels that the array, and the row store, are yet to go through."""
CLASSES = 3
"""Bits of ``far`` of a column."""
TOTALS = len(COUNTERS.names or ()) + len(Cause) + MAX_COLUMNS * COUNTS

HISTORY = np.dtype(
    [
        ("on", INT),  # pictures are taken
        ("picture", INT),  # 1 + the last one if the way from it may be kept; 0: it may not
        ("time", INT),  # when it was taken
        ("taken", INT),  # pictures that were not known, less those that were
        ("moves", INT),  # ways that the machine has moved at once
        ("pause", INT),  # bursts to which no picture is taken
        ("size", INT),  # pictures that are kept
        ("restores", INT),  # a picture is given back to the machine, not taken
        ("row", INT),  # the picture that is taken, or given back
        ("at", INT),  # its next word
        ("far", INT),  # by column: whether space and beats of its ring are FAR; its array is ahead
        ("values", INT, (MAX_COLUMNS, COUNTING)),  # counting registers
        ("before", INT, (MAX_COLUMNS, COUNTING)),  # the same at the last picture
        ("totals", INT, (TOTALS,)),  # counters and figures, at the last picture
        ("slots", INT, (SLOTS,)),  # 1 + picture
        # Of a picture.
        ("sums", INT, (PICTURES,)),  # a sum over its words
        ("lengths", INT, (PICTURES,)),
        ("fars", INT, (PICTURES,)),
        ("nexts", INT, (PICTURES,)),  # 1 + the picture that follows; 0: not known
        ("cycles", INT, (PICTURES,)),  # up to that
        ("moved", INT, (PICTURES, MAX_COLUMNS, COUNTING)),
        ("counted", INT, (PICTURES, TOTALS)),
        ("words", INT, (PICTURES + 1, WORDS)),
    ]
)
"""Pictures."""

_MIX = np.random.default_rng(0).integers(1, 1 << 62, WORDS, np.int64) | 1


def _places(fields: np.dtype[np.void], *but: str) -> npt.NDArray[np.int64]:
    """Return where the fields of a record lie among its numbers, but for some: "splitter.beat"."""
    found: list[int] = []

    def walk(inner: np.dtype[np.void], at: int, prefix: str) -> None:
        assert inner.fields is not None
        for name in inner.names or ():
            what, offset = inner.fields[name][:2]
            if name == "flat" or prefix + name in but:
                continue
            if what.fields is not None:
                walk(what, at + offset, prefix + name + ".")
            else:
                found.extend((at + offset) // 8 + k for k in range(what.itemsize // 8))

    walk(fields, 0, "")
    return np.array(found, np.int64)


_ARBITER = _places(
    ARBITER, "ar_address", "write_after", "aw_valid", "aw_address", "aw_length", "aw_id",
    "write_beat", "write_response", "write_requests", "write_grant", "turns", "leaves",
)  # fmt: skip
_PORT = _places(
    READ_PORT, "walker", "runs", "splitter.there", "splitter.address", "splitter.end",
    "splitter.coming_last", "splitter.coming_dest", "splitter.beat", "splitter.more",
    "splitter.final", "splitter.final_low", "splitter.last", "asks.a", "asks.spare_a",
    "pieces", "buffer",
)  # fmt: skip
_WEIGHTS = _places(WEIGHT_STORE, "weights.space", "weights.passed", "weights.unread", "blocks")
_ARRAY = _places(MAC_ARRAY, "channel", "block", "group")
_ROWS = _places(ROW_STORE, "channel", "record", "limit", "stored")
_PORT_WORDS = len(_PORT) + 2 * 4 + ENTRIES + BURSTS
_COLUMN_WORDS = KINDS * _PORT_WORDS + len(_ROWS) + len(_WEIGHTS) + len(_ARRAY) + 60
assert len(_ARBITER) + 4 * BURSTS + MAX_COLUMNS * (_COLUMN_WORDS + 2) < WORDS - 64


@part
def _word(h, value):
    """Take a word into the picture, or return the one that is given back."""
    at = h.at
    h.at = at + 1
    if h.restores:
        return h.words[h.row, at]
    h.words[h.row, at] = value
    return value


@part
def _registers(h, record, places):
    """Those of a record at some places."""
    at, row = h.at, h.row
    if h.restores:
        for k in range(len(places)):
            record.flat[places[k]] = h.words[row, at + k]
    else:
        for k in range(len(places)):
            h.words[row, at + k] = record.flat[places[k]]
    h.at = at + len(places)


@part
def _queue(m, h, q):
    q.level, q.valid, q.value = _word(h, q.level), _word(h, q.valid), _word(h, q.value)
    for k in range(q.level):
        at = q.at + ((q.head + k) & (q.depth - 1))
        m.store.entries[at] = _word(h, m.store.entries[at])


@part
def _lines(h, lines):
    for c in range(MAX_COLUMNS):
        lines.done[c] = _word(h, lines.done[c])
    lines.offered = _word(h, lines.offered)


@part
def _around(m, h, now):
    """Arbiter, lines, memory, and what the counters compare."""
    a, memory, n, s = m.arbiter, m.memory, m.counters, m.sequencer
    _registers(h, m, _ARBITER)
    _lines(h, m.rows_lines)
    _lines(h, m.weights_lines)
    for k in range(len(memory.flat)):
        memory.flat[k] = _word(h, memory.flat[k])
    q = memory.reads
    q.size = _word(h, q.size)
    for k in range(q.size):
        burst = q.entries[(q.first + k) & (MAX_OUTSTANDING - 1)]
        burst.left, burst.id = _word(h, burst.left), _word(h, burst.id)
        burst.response = _word(h, burst.response)
        burst.ripe = now + _word(h, burst.ripe - now)
    n.progress, n.tapped = _word(h, n.progress), _word(h, n.tapped)
    n.quiet = _word(h, n.quiet)
    _word(h, s.config_valid)  # what is shown as the cause, and counted
    _word(h, s.fence_waits)
    _word(h, s.state)
    if a.ar_valid and a.ar_id % 3 < KINDS and a.ar_id < 3 * m.grid.columns:
        beat = m.readers[a.ar_id // 3, a.ar_id % 3].splitter.beat
        a.ar_address = beat + _word(h, a.ar_address - beat)
    else:
        a.ar_address = _word(h, a.ar_address if a.ar_valid else 0)


@part
def _port(m, h, port):
    """Read port; its addresses are those of the burst at hand, or some before it."""
    asks, beat = port.asks, port.splitter.beat
    _registers(h, port, _PORT)
    asks.a = beat + _word(h, asks.a - beat if asks.valid else 0)
    asks.spare_a = beat + _word(h, asks.spare_a - beat if asks.spare_valid else 0)
    _queue(m, h, port.pieces)
    _queue(m, h, port.buffer)


@part
def _array(h, column, config):
    """An array that is not run ahead, and what it sees of others."""
    array, c = column.array, config.o.array
    _registers(h, array, _ARRAY)
    _word(h, array.block + 1 == c.blocks)
    _word(h, array.group + 1 == c.groups)
    _word(h, config.valid)
    _word(h, config.full)
    _word(h, c.kernel_x)
    _word(h, c.kernel_y)
    _word(h, c.maps)
    _word(h, c.by_tap)
    _word(h, c.by_block)
    _word(h, c.gather)
    _word(h, c.stream_weights)
    _word(h, column.rows.stored)
    _word(h, column.drain.ready)


@part
def _rows(h, column, wires):
    """Row store. No record ends on a way, so that an array which is run ahead changes nothing here."""
    rows, c = column.rows, wires.receivers[state.ROWS].o.rows
    _registers(h, rows, _ROWS)
    _word(h, c.scatter)
    _word(h, c.width)
    _word(h, c.stride)
    _word(h, c.source)
    _word(h, c.rows == 0)
    _word(h, c.channels - rows.channel < 2)
    _word(h, rows.lead <= c.ahead)
    if wires.resumes >= 0:
        _word(h, rows.record < rows.limit)
    else:
        _word(h, rows.record)
        _word(h, c.ring_rows)
        rows.limit, rows.stored = _word(h, rows.limit), _word(h, rows.stored)


@part
def _link(h, link):
    link.valid, link.ready = _word(h, link.valid), _word(h, link.ready)
    link.count, link.last = _word(h, link.count), _word(h, link.last)


@part
def _column(m, h, c):
    """A column; its counting registers only as far as they are compared."""
    wires, column = m.wires[c], m.tiles.columns[c]
    for k in range(KINDS):
        _port(m, h, m.readers[c, k])
    _rows(h, column, wires)
    _registers(h, column.weights, _WEIGHTS)
    ring, result = column.weights.weights, column.results[RESULT]
    looks = wires.resumes < 0  # an array that runs ahead does not look at the ring
    if h.restores == 0:
        classes = (ring.space > FAR) | (looks and ring.unread > FAR) << 1 | (not looks) << 2
        h.far |= classes << CLASSES * c
    _word(h, min(ring.space, FAR + 1))
    _word(h, min(ring.unread, FAR + 1) if looks else 0)
    _word(h, ring.passed != 0)
    _word(h, looks)
    if looks:
        _array(h, column, wires.receivers[state.ARRAY])
    wires.wakes = _word(h, wires.wakes)
    wires.activity, wires.resting = _word(h, wires.activity), _word(h, wires.resting)
    _word(h, column.weights.active)
    _word(h, wires.receivers[state.WEIGHTS].o.weights.source)
    _link(h, wires.rows_line)
    _link(h, wires.weights_line)
    _word(h, column.drain.step)
    _word(h, wires.receivers[state.DRAIN].valid)
    _word(h, result.valid)
    _word(h, result.ready)


@called
def picture(m, h, now):
    """Take the picture ``h.row`` of the machine before cycle ``now``, or give it back."""
    h.at = 0
    _around(m, h, now)
    for c in range(m.grid.columns):
        _column(m, h, c)


@part
def note_values(m, h):
    """Note the counting registers."""
    for c in range(m.grid.columns):
        column, receivers, values = m.tiles.columns[c], m.wires[c].receivers, h.values[c]
        ring = column.weights.weights
        for k in range(KINDS):
            s = m.readers[c, k].splitter
            values[BEAT + k], values[MORE + k] = s.beat, s.more
        values[SPACE], values[UNREAD], values[PASSED] = ring.space, ring.unread, ring.passed
        values[CHANNEL] = receivers[state.ARRAY].o.array.channels - column.array.channel
        values[STORED] = receivers[state.ROWS].o.rows.channels - column.rows.channel


@part
def give_back_values(m, h):
    for c in range(m.grid.columns):
        column, receivers, values = m.tiles.columns[c], m.wires[c].receivers, h.values[c]
        ring = column.weights.weights
        for k in range(KINDS):
            s = m.readers[c, k].splitter
            s.beat, s.more = values[BEAT + k], values[MORE + k]
        ring.space, ring.unread, ring.passed = values[SPACE], values[UNREAD], values[PASSED]
        column.array.channel = receivers[state.ARRAY].o.array.channels - values[CHANNEL]
        column.rows.channel = receivers[state.ROWS].o.rows.channels - values[STORED]


@part
def _same(h, a, b):
    differ = 0
    for k in range(h.lengths[a]):
        differ |= h.words[a, k] ^ h.words[b, k]
    return differ == 0


@part
def _forget(h):
    for k in range(SLOTS):
        h.slots[k] = 0
    h.size = h.picture = 0


@called
def take(m, h, now):
    """Take a picture; return its number, which is that of an equal one if there is one."""
    if h.size == PICTURES:
        _forget(h)
    new = h.row = h.size
    h.restores = h.far = 0
    picture(m, h, now)
    total = 0
    for k in range(h.at):
        total += h.words[new, k] * _MIX[k]
    total ^= total >> 29
    slot = total & (SLOTS - 1)
    h.lengths[new] = h.at
    while h.slots[slot]:
        known = h.slots[slot] - 1
        if h.sums[known] == total and h.lengths[known] == h.at and _same(h, new, known):
            h.taken = max(h.taken - 1, 0)
            return known
        slot = (slot + 1) & (SLOTS - 1)
    h.slots[slot] = new + 1
    h.sums[new], h.fars[new], h.nexts[new] = total, h.far, 0
    h.size += 1
    h.taken += 1
    if h.taken == CREDIT:
        h.taken, h.pause = CREDIT // 2, PAUSE
    return new
