"""What the parts of the cycle judge share: links, receivers, the wires of a column.

The judge (``neuflow.cycle``) is a second description of *when* things happen in the grid: every
block of ``neuflow/blocks`` has a function here that computes its wires from its registers and one
that moves its registers at the clock's edge, without any data words. It runs compiled (numba), one
cycle after the other.

State is held in NumPy records whose fields are all int64, or records, or arrays of either; a *unit*
is one record, so that ``unit.level += 1`` reads like the block it mirrors. Compiled functions get
records by reference. Two functions a part:

``<part>_wires(...)``  computes from registers (and from wires computed before) what the part offers
    in this cycle; sets ``valid``, ``count``, ``last`` of its output links and ``ready`` of its
    input links.
``<part>_edge(...)``   moves the registers, using the links' ``valid`` and ``ready``.

All wires of a cycle are computed before any edge. An index that is negative counts from the end, as
in Python; 0/1 are flags. Sets of units, tiles of a column, or ports are numbers with one bit each:
``compiled.lowest`` is a member of ``n``, and ``n & (n - 1)`` is the set without it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuflow import layout
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, Kind

Record = npt.NDArray[np.void]
"""An array of records."""

INT = np.int64


def record(*names: str) -> np.dtype[np.void]:
    """Return a record type whose fields are all int64."""
    return np.dtype([(name, INT) for name in names])


def overlaid(
    fields: npt.DTypeLike, name: str = "flat", first: str = "", last: str = ""
) -> np.dtype[np.void]:
    """Return a record type with one field more: numbers that lie over those from ``first`` to ``last``.

    Without ``first`` and ``last`` it lies over all fields.
    """
    plain = np.dtype(fields)
    assert plain.fields is not None and plain.names is not None
    at = {n: plain.fields[n][1] for n in plain.names}
    begin = at[first or plain.names[0]]
    end = at[last] + plain.fields[last][0].itemsize if last else plain.itemsize
    return np.dtype(
        {
            "names": [*plain.names, name],
            "formats": [*(plain.fields[n][0] for n in plain.names), (INT, ((end - begin) // 8,))],
            "offsets": [*at.values(), begin],
            "itemsize": plain.itemsize,
        }
    )


LINK = record("valid", "ready", "count", "last")
"""A stream at this cycle: the handshake, the beat's words and its last flag."""

PACKET_FIELDS = 36
"""Columns of the table of packets: the fields of a layout in its order. MAPPER has more, but its
tables have no timing."""


def _config() -> np.dtype[np.void]:
    """Return the record of a decoded packet: ``fields``, or by name as the layout of a unit."""
    layouts = {
        "rows": layout.CONV_ROWS, "weights": layout.CONV_WEIGHTS, "array": layout.CONV_ARRAY,
        "drain": layout.CONV_DRAIN, "alu": layout.ALU, "window": layout.WINDOW,
        "mapper": layout.MAPPER, "read": layout.READ, "write": layout.WRITE,
    }  # fmt: skip
    views = [record(*[f.name for f in w.fields][:PACKET_FIELDS]) for w in layouts.values()]
    size = PACKET_FIELDS * np.dtype(INT).itemsize
    assert all(view.itemsize <= size for view in views)
    return np.dtype(
        {
            "names": ["fields", *layouts],
            "formats": [np.dtype((INT, (PACKET_FIELDS,))), *views],
            "offsets": [0] * (1 + len(views)),
            "itemsize": size,
        }
    )


CONFIG = _config()
"""A decoded packet: a row of the table of packets (``fields``) under the names of every layout, one
upon the other, so that ``receiver.o.drain.width`` reads as in the block."""

RECEIVER = overlaid(
    [
        ("depth", INT),  # grid.config_queue
        # What is looked at in every cycle, close together.
        ("ready", INT),  # wire: the unit takes the configuration in this cycle
        ("mine", INT),  # registers of blocks.config.ConfigReceiver: a word of its own has arrived
        ("full", INT),  # a packet is assembled, and waits
        ("valid", INT),  # o.valid
        ("arrived", INT),
        ("arrived_base", INT),
        ("assembled", INT),  # packet that is assembled, or waits
        ("assembled_base", INT),
        ("packet", INT),  # o.payload: row of the table of packets
        ("base", INT),  # its first word after relocation (address of a DMA descriptor)
        ("loads", INT),  # packets that have changed, whose fields are yet to be copied
        ("o", CONFIG),  # o.payload: its fields
    ],
    first="mine", last="packet",
)  # fmt: skip
"""A configuration receiver. ``packet`` is a row of the table of decoded packets: the judge never
moves configuration words, only which packet they belong to."""

# Receivers of a column, in this order.
ROWS, WEIGHTS, ARRAY, DRAIN, ALU0, ALU1, WINDOW, MAPPER = range(8)
READ_ROWS, READ_WEIGHTS, READ_OPERAND, WRITE = range(8, 12)
UNITS = 12
ROUTER = 12
"""Stands for a router in the table of packets; routers have no RECEIVER, but queues of their own."""

UNIT_OF = {
    (Kind.CONV_ROWS, 0): ROWS,
    (Kind.CONV_WEIGHTS, 0): WEIGHTS,
    (Kind.CONV_ARRAY, 0): ARRAY,
    (Kind.CONV_DRAIN, 0): DRAIN,
    (Kind.ALU, 0): ALU0,
    (Kind.ALU, 1): ALU1,
    (Kind.WINDOW, 0): WINDOW,
    (Kind.MAPPER, 0): MAPPER,
    (Kind.READ_ROWS, 0): READ_ROWS,
    (Kind.READ_WEIGHTS, 0): READ_WEIGHTS,
    (Kind.READ_OPERAND, 0): READ_OPERAND,
    (Kind.WRITE, 0): WRITE,
}
"""(kind, sub) -> receiver of a column."""

MAX_ROWS = 11
"""Tiles of a column at most (grid.fifo_tiles is at most 8)."""
MAX_COLUMNS = COLUMN_BITS

ROUTE_WORD = record("take", "output", "input", "peers")
"""A ROUTE word on the bus; ``take`` is 1 in the cycle in which its router takes it."""

WIRES = np.dtype(
    [
        ("rows_line", LINK),  # lines as the convolver sees them
        ("weights_line", LINK),
        ("partials", LINK),  # operand line, dest 0
        ("global_in", LINK),  # operand line, dest 1
        ("write", LINK),  # into the write port
        ("rows_listening", INT),
        ("rows_source", INT),
        ("weights_listening", INT),
        ("weights_source", INT),
        ("write_source", INT),
        ("receivers", RECEIVER, (UNITS,)),
        ("route", ROUTE_WORD, (MAX_ROWS,)),  # what the router of a tile takes from the bus
        ("routed", INT),  # tiles whose router takes something
        ("activity", INT),  # bits of layout.Activity
        ("resting", INT),  # those of them that stay while all of the column sleeps
        ("awake", INT),  # parts that move in this cycle, see cycle.awake
        ("wakes", INT),  # parts that are to move in the next
        ("resumes", INT),  # first cycle in which an array that runs ahead is to move; -1: none does
        ("drain_resumes", INT),  # the same of a drain
    ]
)
"""What passes between the tiles of a column and the ports, lines and taps around them."""

GRID = record(
    "columns", "maps", "pixels", "row_banks", "row_words", "weight_words", "weight_blocks",
    "reorder_words", "window_words", "fifo_tiles", "fifo_words", "bus_words", "burst_beats",
    "dma_beats", "scratchpad_words", "config_queue", "lanes", "rows",
)  # fmt: skip
"""Parameters of the grid, named as in :class:`neuflow.grid.GridConfig`. Passed at run time, so that
one compilation serves all grids: no record's type depends on the grid."""


def grid_record(grid: GridConfig) -> Record:
    """Return the parameters of a grid as one record (an array of length 1)."""
    made = np.zeros(1, GRID)
    for name in GRID.names or ():
        made[name] = getattr(grid, name)
    return made


def reset_wires(grid: GridConfig, wires: Record) -> None:
    """Set what reset does not clear of the wires of all columns."""
    wires["receivers"]["depth"] = grid.config_queue
    wires["resumes"] = wires["drain_resumes"] = -1


def new_wires(grid: GridConfig) -> Record:
    """Return the wires of all columns after reset."""
    made = np.zeros(grid.columns, WIRES)
    reset_wires(grid, made)
    return made
