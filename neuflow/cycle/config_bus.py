"""The configuration bus: taps and receivers (blocks.config), in the chain of blocks.top and array.

Tap 0 is that of the DMA ports, tap 1 forks to the columns, then one a tile, column by column. What
travels is not the word but whose it is, see :data:`WORD`. Routers are asked by ``router_bus_ready``
and told through ``WIRES.route``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuflow.cycle.array import FORM_COLUMNS
from neuflow.cycle.awake import BACK, PART_OF, RECEIVERS, UNITS_OF
from neuflow.cycle.compiled import lowest, part
from neuflow.cycle.parts import SLICE, slice_edge
from neuflow.cycle.router import router_bus_ready
from neuflow.cycle.state import (
    ALU0,
    ARRAY,
    INT,
    MAPPER,
    MAX_COLUMNS,
    MAX_ROWS,
    PACKET_FIELDS,
    READ_ROWS,
    ROUTER,
    ROWS,
    UNITS,
)
from neuflow.layout import COLUMN_BITS

TAP = np.dtype([("head", SLICE), ("moves", INT)])
"""config.ConfigTap; ``moves``: the word at its output is taken by all in this cycle."""

DMA_TAP, FORK, FIRST = 0, 1, 2
BUS = np.dtype(
    [
        ("awake", INT),  # a word may move in this cycle
        ("wakes", INT),  # something has changed that words wait for
        ("loads", INT),  # a receiver has a new packet, whose fields are yet to be copied
        ("taps", TAP, (FIRST + MAX_COLUMNS * MAX_ROWS,)),
    ]
)
"""All taps."""

WORD = {
    "last": 1, "packet": 25, "unit": 4, "row": 4, "columns": COLUMN_BITS,
    "output": 4, "input": 4, "peers": 10,
}  # fmt: skip
"""A word on the bus, one number (``head.a``; ``head.b`` is the packet's first word after relocation):
field -> bits, from the lowest. ``packet``: row of the table of packets. ``unit``: receiver
(``state.ROWS`` ..), ``ROUTER``, or ``NOBODY``. ``row``: of its tile, ``DMA_ROW`` for a port. ``output``,
``input``, ``peers``: of a ROUTE word."""

PRESENT, FOLLOWING = 1, 2
"""Of ``loads``: fields to be copied are those of ``packet``, of ``assembled``."""

FIRST_UNIT = np.array([ROWS, ALU0, MAPPER] + [READ_ROWS] * (MAX_ROWS - 2), np.int64)
"""The receivers of the tile in a row are those from ``FIRST_UNIT[row]`` to before the next row's."""

NOBODY = 15
DMA_ROW = 15

_FROM: dict[str, int] = {}
_MASK: dict[str, int] = {}
_at = 0
for _name, _bits in WORD.items():
    _FROM[_name], _MASK[_name] = _at, (1 << _bits) - 1
    _at += _bits
assert _at < 63
_PACKET, _PACKET_MASK = _FROM["packet"], _MASK["packet"]
_UNIT, _ROW, _COLUMNS = _FROM["unit"], _FROM["row"], _FROM["columns"]
_OUTPUT, _INPUT, _PEERS = _FROM["output"], _FROM["input"], _FROM["peers"]
_PEERS_MASK = _MASK["peers"]


def bus_word(name: str, value: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return values of one field at their place in a word of the bus."""
    values = np.asarray(value, np.int64)
    if values.size and values.max() > _MASK[name]:
        raise ValueError(f"a {name} of {values.max()} does not fit")
    return values << _FROM[name]


@part
def _addresses(word, row, c):
    """Whether a word is for a unit at the tap of ``row`` in column ``c``."""
    return word >> _ROW & 15 == row and word >> (_COLUMNS + c) & 1 != 0


@part
def bus_ready(bus):
    """Whether the first tap takes a word."""
    return bus.taps[DMA_TAP].head.spare_valid == 0


@part
def _holds_up(receiver):
    """``~bus.ready``: a word that has arrived finds no room, and keeps all others at the tap."""
    return receiver.mine != 0 and receiver.full != 0


@part
def _dma_wires(m):
    """The tap of the ports."""
    tap = m.bus.taps[DMA_TAP]
    tap.moves = 0
    if tap.head.valid == 0 or m.bus.taps[FORK].head.spare_valid:
        return
    for c in range(m.grid.columns):
        for unit in range(READ_ROWS, UNITS):
            if _holds_up(m.wires[c].receivers[unit]):
                return
    tap.moves = 1


@part
def _tile_ready(wires, router, row):
    """Whether all units of a tile take a word."""
    ready = router_bus_ready(router) != 0
    for unit in range(FIRST_UNIT[row], FIRST_UNIT[row + 1]):
        if _holds_up(wires.receivers[unit]):
            ready = False
    return ready


@part
def bus_wires(m):
    """Decide for every tap whether its word moves on, and tell routers which words they take."""
    bus, grid = m.bus, m.grid
    _dma_wires(m)
    tap = bus.taps[FORK]
    tap.moves = tap.head.valid
    if tap.moves:
        for c in range(grid.columns):
            if bus.taps[FIRST + c * grid.rows].head.spare_valid:
                tap.moves = 0
    for c in range(grid.columns):
        wires = m.wires[c]
        column = m.tiles.columns[c]
        wires.routed = 0
        for row in range(grid.rows):
            t = FIRST + c * grid.rows + row
            tap, route = bus.taps[t], wires.route[row]
            tap.moves = 0
            route.take = 0
            if tap.head.valid and (row + 1 == grid.rows or bus.taps[t + 1].head.spare_valid == 0):
                tap.moves = _tile_ready(wires, column.routers[row], row)
                word = tap.head.a
                if tap.moves and word >> _UNIT & 15 == ROUTER and _addresses(word, row, c):
                    route.take = 1
                    wires.awake |= BACK
                    wires.routed |= 1 << row
                    route.output = word >> _OUTPUT & 15
                    route.input = word >> _INPUT & 15
                    route.peers = word >> _PEERS & _PEERS_MASK


@part
def _receiver_valid(bus, receiver):
    """What is assembled becomes ``o.payload``."""
    receiver.packet = receiver.assembled
    receiver.base = receiver.assembled_base
    receiver.valid = 1
    receiver.loads |= PRESENT
    bus.loads = 1


@part
def receiver_edge(bus, receiver):
    """blocks.config.ConfigReceiver, but for the words that arrive, see :func:`bus_edge`."""
    full = receiver.full
    if receiver.depth == 1:
        if receiver.ready:
            receiver.full = 0
            receiver.valid = 0
    elif full and (receiver.valid == 0 or receiver.ready):
        _receiver_valid(bus, receiver)
        receiver.full = 0
    elif receiver.ready:
        receiver.valid = 0
    if receiver.mine and full == 0:
        receiver.mine = 0
        receiver.assembled = receiver.arrived >> _PACKET & _PACKET_MASK
        receiver.assembled_base = receiver.arrived_base
        receiver.full = receiver.arrived & 1
        if receiver.full:
            receiver.loads |= FOLLOWING
            bus.loads = 1
        if receiver.depth == 1 and receiver.full:
            _receiver_valid(bus, receiver)


@part
def _arrives(wires, unit, head):
    """A word of its own arrives at a receiver; its tap has seen to it that there is room."""
    receiver = wires.receivers[unit]
    wires.wakes |= RECEIVERS
    receiver.mine = 1
    receiver.arrived = head.a
    receiver.arrived_base = head.b


@part
def receivers_load(m, packets):
    """Copy the fields of new packets. Once a packet, so that it may have an array as argument."""
    m.bus.loads = 0
    for c in range(m.grid.columns):
        for unit in range(UNITS):
            receiver = m.wires[c].receivers[unit]
            if receiver.loads & PRESENT:
                for k in range(PACKET_FIELDS):
                    receiver.o.fields[k] = packets[receiver.packet, k]
            if receiver.loads & FOLLOWING and unit == ARRAY:
                following = m.tiles.columns[c].array.following
                for k in range(len(following.flat)):
                    following.flat[k] = packets[receiver.assembled, FORM_COLUMNS[k]]
            receiver.loads = 0


@part
def receivers_edge(bus, wires):
    """All receivers of a column. A packet that has come, or gone, wakes the part that takes it."""
    units = UNITS_OF[wires.awake]
    while units:
        unit = lowest(units)
        units &= units - 1
        receiver = wires.receivers[unit]
        moves = receiver.valid & receiver.ready  # flags are 0 or 1
        if wires.awake & RECEIVERS:
            moves |= receiver.mine & ~receiver.full | receiver.full & ~receiver.valid
        if moves:
            receiver_edge(bus, receiver)
            wires.wakes |= PART_OF[unit] | RECEIVERS
            bus.wakes = 1


@part
def bus_edge(m):
    """Move the words on, from the last tap to the first, as each needs the one before it unmoved.

    Call it after all receivers' edges, so that a word finds the place of the one before it empty.
    The bus falls asleep when no word moves.
    """
    bus, grid, s = m.bus, m.grid, m.sequencer
    moves = s.config_moves
    for c in range(grid.columns):
        for row in range(grid.rows - 1, -1, -1):
            t = FIRST + c * grid.rows + row
            tap, upstream = bus.taps[t], bus.taps[t - 1 if row else FORK]
            moves |= tap.moves
            if tap.moves and _addresses(tap.head.a, row, c):
                unit = tap.head.a >> _UNIT & 15
                if unit < UNITS:
                    _arrives(m.wires[c], unit, tap.head)
            if tap.head.valid or upstream.moves:
                slice_edge(tap.head, upstream.moves, upstream.head.a, upstream.head.b, tap.moves)

    tap, fork = bus.taps[DMA_TAP], bus.taps[FORK]
    moves |= tap.moves | fork.moves
    slice_edge(fork.head, tap.moves, tap.head.a, tap.head.b, fork.moves)
    if tap.moves:
        unit = tap.head.a >> _UNIT & 15
        for c in range(grid.columns):
            if unit < UNITS and _addresses(tap.head.a, DMA_ROW, c):
                _arrives(m.wires[c], unit, tap.head)
    slice_edge(tap.head, s.config_moves, s.config_word, s.config_base, tap.moves)
    bus.wakes |= moves
