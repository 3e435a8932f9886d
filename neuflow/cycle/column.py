"""One column of tiles: its units and routers, and the links between them (blocks.array, tiles).

``tiles`` is one record with all columns, ``wires`` the record (``state.WIRES``) of column ``c``.
Offers of all columns come first, then wires, then edges; within an edge, units move before the
routers that they take from. Whoever drives a link clears its ``ready`` at the edge; ``ready`` is 1
only where a beat is taken. What rests is passed by.
"""

from __future__ import annotations

import numpy as np

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.cycle import state
from neuflow.cycle.alu import ALU, alu_edge, alu_wires
from neuflow.cycle.array import MAC_ARRAY
from neuflow.cycle.awake import ARRAY, BACK, BEFORE, DRAIN
from neuflow.cycle.compiled import lowest, part
from neuflow.cycle.convolver import RESULT, convolver_activity, convolver_edge, convolver_wires
from neuflow.cycle.drain import DRAIN as DRAIN_UNIT
from neuflow.cycle.fifo import BEATS, FIFO, fifo_edge, fifo_wires
from neuflow.cycle.mapper import MAPPER, mapper_edge, mapper_wires
from neuflow.cycle.router import (
    ROUTER,
    reset_router,
    router_edge,
    router_input,
    router_rests,
)
from neuflow.cycle.rows import ROW_STORE
from neuflow.cycle.state import INT, LINK, MAX_COLUMNS, MAX_ROWS, Record, overlaid
from neuflow.cycle.weights import WEIGHT_STORE
from neuflow.cycle.window import WINDOW, window_edge, window_rests, window_wires
from neuflow.errors import ConfigError
from neuflow.grid import GridConfig
from neuflow.layout import Activity, RouterIn, RouterOut, Row

RESULTS = 3
"""Local inputs of a router at most."""
FIFOS = 2
"""FIFOs of a FIFO tile."""
MAX_FIFO_TILES = MAX_ROWS - Row.FIFO

COLUMN = overlaid(
    [
        ("rows", ROW_STORE),
        ("weights", WEIGHT_STORE),
        ("array", MAC_ARRAY),
        ("drain", DRAIN_UNIT),
        ("alus", ALU, (2,)),
        ("window", WINDOW),
        ("mapper", MAPPER),
        ("results", LINK, (MAX_ROWS * RESULTS,)),  # output registers of the units, tile by tile
        ("drains", INT),  # wire: the drain does not rest
        ("windows", INT),  # wire: the window unit does not rest
        ("routers", ROUTER, (MAX_ROWS,)),
        ("fifos", FIFO, (MAX_FIFO_TILES * FIFOS,)),
        ("moves", INT),  # a beat moves at a router or a FIFO
        # Tiles, one bit each: what their routers and FIFOs have to do, found out from their registers.
        ("armed", INT),  # an input may move
        ("occupied", INT),  # a beat stands at an output
        ("moving", INT),  # wire: a beat moves through the router
        ("routing", INT),  # the router has something to do even if none does
        ("holding", INT),  # a FIFO holds beats
    ],
    name="back", first="alus", last="windows",
)  # fmt: skip
"""All tiles of a column, north to south."""

TILES = np.dtype(
    [
        ("columns", COLUMN, (MAX_COLUMNS,)),
        ("nothing", LINK),  # at the border
        ("now", INT),  # this cycle
        ("plain", INT),  # nothing sleeps, and nothing runs ahead
        ("crossing", INT),  # a beat stands at a link between two columns
        ("words_move", INT),  # a router's place for a ROUTE word has become full or empty
        ("before", BEFORE),
        ("back_before", BEFORE),
        ("still", BEFORE),  # see cycle.jump
        ("rests_until", INT),  # all around the columns rests up to this cycle, if nobody wakes it
    ]
)

_CONVOLVER, _OPERATOR, _MAPPER, _FIFO = (int(row) for row in Row)
_NORTH, _EAST, _SOUTH, _WEST = range(4)  # of RouterIn and of RouterOut
_GLOBAL_IN, _LOCAL_IN = int(RouterIn.GLOBAL), int(RouterIn.LOCAL0)
_GLOBAL_OUT, _LOCAL_OUT = int(RouterOut.GLOBAL), int(RouterOut.LOCAL0)
_WINDOW_OUT = int(RouterOut.LOCAL4)
_WINDOW_RESULT = _OPERATOR * RESULTS + 2
_FIFO_ROWS = (1 << MAX_ROWS) - (1 << Row.FIFO)
_CROSSING = 1 << _EAST | 1 << _WEST
_ALU_BIT, _WINDOW_BIT = 1 << Activity.ALU, 1 << Activity.WINDOW
_MAPPER_BIT = 1 << Activity.MAPPER


def _ports(row: int) -> tuple[int, int]:
    """Return the inputs and the outputs of the router in a row, one bit each (blocks.tiles)."""
    if row == Row.CONVOLVER:
        sides = 1 << _EAST | 1 << _SOUTH | 1 << _WEST
        return sides | 1 << _LOCAL_IN, sides
    sides = 1 << _NORTH | 1 << _EAST | 1 << _SOUTH | 1 << _WEST
    locals_in, locals_out = {_OPERATOR: (3, 5), _MAPPER: (1, 1)}.get(row, (FIFOS, FIFOS))
    inputs = sides | ((1 << locals_in) - 1) << _LOCAL_IN
    if row == Row.OPERATOR:
        inputs |= 1 << _GLOBAL_IN
    return inputs, sides | 1 << _GLOBAL_OUT | ((1 << locals_out) - 1) << _LOCAL_OUT


def new_tiles(grid: GridConfig) -> Record:
    """Return the tiles of a grid after reset: an array of one record."""
    tiles = np.zeros(1, TILES)
    reset_tiles(grid, tiles[0])
    return tiles


def reset_tiles(grid: GridConfig, tiles: np.void) -> None:
    """Set the registers of all tiles that are not 0 after reset.

    Raises ``ConfigError`` where a FIFO holds more than ``fifo.BEATS`` beats.
    """
    beats = grid.fifo_words // 2 // grid.lanes
    if beats > BEATS:
        raise ConfigError(
            f"grid {grid.name!r}: the cycle judge knows FIFOs of {BEATS} beats at most; "
            f"fifo_words must be at most {2 * BEATS * grid.lanes}"
        )
    columns = tiles["columns"][: grid.columns]
    weights = columns["weights"]
    weights["weights"]["space"] = grid.weight_words // grid.bus_words
    weights["blocks"]["space"] = PARAMETER_BEATS * grid.weight_blocks
    weights["weights"]["room"] = weights["blocks"]["room"] = 1
    columns["array"]["begins"] = 1
    columns["drain"]["ready"] = 1
    # Those that are there alone: each is a page of memory.
    columns["fifos"]["depth"][:, : FIFOS * grid.fifo_tiles] = beats
    for row in range(grid.rows):
        reset_router(columns["routers"][:, row], *_ports(row), grid.config_queue)


@part
def input_link(grid, wires, tiles, c, row, i):
    """Return the link that leads to input ``i`` of the router in a row."""
    columns = tiles.columns
    if i >= _LOCAL_IN:
        return columns[c].results[row * RESULTS + i - _LOCAL_IN]
    if i == _NORTH and row > 0:
        return columns[c].routers[row - 1].out[_SOUTH].o
    if i == _SOUTH and row + 1 < grid.rows:
        return columns[c].routers[row + 1].out[_NORTH].o
    if i == _EAST and c + 1 < grid.columns:
        return columns[c + 1].routers[row].out[_WEST].o
    if i == _WEST and c > 0:
        return columns[c - 1].routers[row].out[_EAST].o
    if i == _GLOBAL_IN:
        return wires.global_in
    return tiles.nothing


@part
def _write_source(grid, wires, column):
    """Return the link that leads to the write port."""
    row = _OPERATOR if wires.write_source else grid.rows - 1
    return column.routers[row].out[_GLOBAL_OUT].o


@part
def column_offers(grid, wires, tiles, c):
    """What the column shows to the lines from registers alone."""
    column = tiles.columns[c]
    wires.rows_listening = column.rows.opened
    wires.rows_source = wires.receivers[state.ROWS].o.rows.source
    wires.weights_listening = column.weights.active
    wires.weights_source = wires.receivers[state.WEIGHTS].o.weights.source


@part
def write_offer(grid, wires, tiles, c):
    """What the column shows to its write port."""
    column = tiles.columns[c]
    source = _write_source(grid, wires, column)
    wires.write.valid = source.valid
    wires.write.count, wires.write.last = source.count, source.last


@part
def _routers_wires(grid, wires, tiles, c):
    column = tiles.columns[c]
    wires.global_in.ready = 0
    column.moving = 0
    rows = column.armed
    while rows:
        row = lowest(rows)
        rows &= rows - 1
        router = column.routers[row]
        armed = router.armed
        while armed:
            i = lowest(armed)
            router_input(router, i, input_link(grid, wires, tiles, c, row, i))
            armed &= armed - 1
        if router.moving:
            column.moving |= 1 << row
    column.moves |= column.moving
    if wires.write.valid and wires.write.ready:
        _write_source(grid, wires, column).ready = 1


@part
def _operator_wires(grid, wires, column):
    """Wires of the operators and of the window unit; return the activity bits."""
    bits = 0
    out = column.routers[_OPERATOR].out
    for k in range(2):
        config = wires.receivers[state.ALU0 + k]
        o = column.results[_OPERATOR * RESULTS + k]
        a, b = out[_LOCAL_OUT + 2 * k].o, out[_LOCAL_OUT + 2 * k + 1].o
        if alu_wires(column.alus[k], config, a, b, o):
            bits |= _ALU_BIT
    config = wires.receivers[state.WINDOW]
    window = column.window
    column.windows = not window_rests(window, config, column.results[_WINDOW_RESULT])
    config.ready = 0
    if column.windows and window_wires(window, config, out[_WINDOW_OUT].o, grid.lanes):
        bits |= _WINDOW_BIT
    return bits


@part
def column_wires(grid, wires, tiles, c):
    """All other wires of the column; needs the lines, ports and offers of this cycle."""
    column, awake = tiles.columns[c], wires.awake
    bits = 0
    if awake & BACK:
        column.moves = 0
        _routers_wires(grid, wires, tiles, c)
        if column.results[RESULT].ready:
            wires.awake |= DRAIN
    convolver_wires(grid, wires, column)
    if awake & BACK:
        bits = _back_wires(grid, wires, column)
    if wires.awake & (ARRAY | BACK | DRAIN):
        wires.resting = convolver_activity(wires, column)
    wires.activity = wires.resting | bits


@part
def _back_wires(grid, wires, column):
    """Operators, mapper and FIFOs; return their activity bits."""
    bits = _operator_wires(grid, wires, column)
    i = column.routers[_MAPPER].out[_LOCAL_OUT].o
    if mapper_wires(column.mapper, wires.receivers[state.MAPPER], i, column.results[_MAPPER * RESULTS]):
        bits |= _MAPPER_BIT
    rows = column.occupied & _FIFO_ROWS
    while rows:
        row = lowest(rows)
        rows &= rows - 1
        for k in range(FIFOS):
            i = column.routers[row].out[_LOCAL_OUT + k].o
            fifo_wires(column.fifos[(row - _FIFO) * FIFOS + k], i)
    return bits


@part
def _operator_edge(grid, wires, column):
    out = column.routers[_OPERATOR].out
    for k in range(2):
        o = column.results[_OPERATOR * RESULTS + k]
        alu_edge(column.alus[k], wires.receivers[state.ALU0 + k], out[_LOCAL_OUT + 2 * k].o, o)
    if column.windows:
        i, o = out[_WINDOW_OUT].o, column.results[_WINDOW_RESULT]
        window_edge(column.window, wires.receivers[state.WINDOW], i, o, grid.lanes)


@part
def column_edge(grid, wires, tiles, c):
    """Move the registers of the parts that are awake."""
    column = tiles.columns[c]
    looks = wires.awake & BACK and column.moves == 0 and tiles.now & _LOOKS == 0
    if looks:
        for k in range(len(column.back)):
            tiles.back_before.words[k] = column.back[k]
    convolver_edge(grid, wires, tiles, column)
    if wires.awake & BACK:
        _back_edge(grid, wires, tiles, column)
        if not looks or column.moves or _back_changed(tiles, column):
            wires.wakes |= BACK


_LOOKS = 1
"""What stands behind the array is large, so that only every other cycle looks whether it changes.
Routers and FIFOs say so by themselves (``moves``)."""


@part
def _back_changed(tiles, column):
    differ = 0
    for k in range(len(column.back)):
        differ |= tiles.back_before.words[k] ^ column.back[k]
    return differ != 0


@part
def _back_edge(grid, wires, tiles, column):
    """Operators, mapper, FIFOs and routers."""
    _operator_edge(grid, wires, column)
    i = column.routers[_MAPPER].out[_LOCAL_OUT].o
    o = column.results[_MAPPER * RESULTS]
    mapper_edge(column.mapper, wires.receivers[state.MAPPER], i, o)
    rows = (column.occupied | column.holding) & _FIFO_ROWS
    while rows:
        row = lowest(rows)
        rows &= rows - 1
        column.holding &= ~(1 << row)
        for k in range(FIFOS):
            fifo = column.fifos[(row - _FIFO) * FIFOS + k]
            i, o = column.routers[row].out[_LOCAL_OUT + k].o, column.results[row * RESULTS + k]
            column.moves |= fifo_edge(fifo, i, o)
            if fifo.holds:
                column.holding |= 1 << row
    rows = column.moving | column.routing | wires.routed
    while rows:
        row = lowest(rows)
        rows &= rows - 1
        _router_edge(wires, tiles, column, row)


@part
def _router_edge(wires, tiles, column, row):
    """Move the registers of one router, and note what it is to do next."""
    router, bit = column.routers[row], 1 << row
    spare_valid = router.spare_valid
    column.moves |= router_edge(router, wires.route[row])
    tiles.words_move |= router.spare_valid ^ spare_valid
    tiles.crossing |= router.occupied & _CROSSING
    column.armed = column.armed | bit if router.armed else column.armed & ~bit
    column.occupied = column.occupied | bit if router.occupied else column.occupied & ~bit
    column.routing = column.routing & ~bit if router_rests(router) else column.routing | bit


__all__ = [
    "COLUMN", "TILES", "column_edge", "column_offers", "column_wires", "new_tiles", "reset_tiles",
    "write_offer",
]  # fmt: skip
