"""The convolver's units (blocks.convolver): who is awake, and who wakes whom.

``column`` is the record of a column (``column.COLUMN``), ``wires`` its ``state.WIRES``.
"""

from __future__ import annotations

from neuflow.cycle import state
from neuflow.cycle.array import IDLE, UNKNOWN, array_ahead, array_edge, array_tells, array_wires
from neuflow.cycle.awake import ARRAY, BACK, DRAIN, ROWS, WEIGHTS, changed, keep
from neuflow.cycle.compiled import part
from neuflow.cycle.drain import drain_ahead, drain_edge, drain_rests, drain_wires
from neuflow.cycle.rows import rows_edge, rows_wires
from neuflow.cycle.weights import weights_edge, weights_wires
from neuflow.layout import FLAG_BITS, Activity, Cause

_IDLE_TILE = int(Cause.IDLE_TILE)
_WAIT_OUTPUT, _OUTPUT_DRAIN = int(Cause.WAIT_OUTPUT), int(Cause.OUTPUT_DRAIN)
_DRAINING = 1 << Activity.DRAIN
RESULT = 0
"""The convolver's output among those of the column: its tile is the first."""


@part
def convolver_wires(grid, wires, column):
    """Wires of the convolver's units that are awake."""
    receivers, awake = wires.receivers, wires.awake
    array, drain, weights = column.array, column.drain, column.weights
    if awake & ROWS:
        rows_wires(column.rows, receivers[state.ROWS], wires.rows_line, 2 * grid.maps)
    if awake & WEIGHTS:
        weights_wires(weights, receivers[state.WEIGHTS], wires.weights_line)
    if awake & ARRAY:
        array_wires(array, receivers[state.ARRAY], weights.weights.ready, drain.ready, grid.maps)
    if awake & DRAIN:
        config = receivers[state.DRAIN]
        config.ready = 0
        drain.start = drain.step = drain.issue = 0
        wires.partials.ready = 0
        column.drains = array.hand_over or not drain_rests(drain, config, column.results[RESULT])
        if column.drains:
            drain_wires(drain, config, array, weights.valid, wires.partials, grid.maps)


@part
def convolver_activity(wires, column):
    """Return the convolver's part of ``layout.ACTIVITY``."""
    array, config = column.array, wires.receivers[state.DRAIN]
    bits = array.bits
    if column.drain.step:
        bits |= _DRAINING
    return bits | _cause(array, array.bits, config, column.results[RESULT]) << FLAG_BITS


@part
def _cause(array, bits, config, o):
    """Return the cause of the cycle; ``config``, ``o`` of the drain."""
    if array.cause != UNKNOWN:
        return array.cause
    if bits & IDLE and not config.valid:
        return _IDLE_TILE
    return _WAIT_OUTPUT if o.valid and not o.ready else _OUTPUT_DRAIN


@part
def convolver_edge(grid, wires, tiles, column):
    """Move the registers of the convolver's units that are awake."""
    awake, array, drain = wires.awake, column.array, column.drain
    stored = column.rows.stored
    if awake & ROWS:
        _rows_edge(wires, tiles, column)
    if awake & (WEIGHTS | ARRAY) or drain.start:
        _weights_edge(wires, tiles, column)
    if awake & DRAIN and column.drains:
        _drain_edge(grid, wires, tiles, column)
    if awake & ARRAY:
        _array_edge(grid, wires, tiles, column, stored)
    if awake & DRAIN and column.drains and tiles.plain == 0:
        config, o = wires.receivers[state.DRAIN], column.results[RESULT]
        cycles = drain_ahead(drain, config, array, o, wires.partials, grid.pixels, grid.maps)
        if cycles:
            wires.drain_resumes = tiles.now + 1 + cycles


@part
def _rows_edge(wires, tiles, column):
    rows, array, line = column.rows, column.array, wires.rows_line
    stored = rows.stored
    moves = rows.store or (line.valid != 0 and line.ready != 0)
    if not moves:
        keep(tiles.before, 0, rows)
    rows_edge(rows, wires.receivers[state.ROWS], line, array.released, array.pass_done)
    if rows.stored != stored:
        wires.wakes |= ARRAY
    if moves or changed(tiles.before, 0, rows):
        wires.wakes |= ROWS


@part
def _drain_edge(grid, wires, tiles, column):
    drain, array, before = column.drain, column.array, tiles.before
    config, o = wires.receivers[state.DRAIN], column.results[RESULT]
    ready, shown = drain.ready, o.valid != 0 and o.ready == 0
    moves = drain.step or drain.issue or drain.start or o.valid != shown
    if not moves:
        keep(before, 0, drain)
    valid = o.valid
    drain_edge(drain, config, array, o, grid.pixels, grid.maps)
    if drain.ready != ready:
        wires.wakes |= ARRAY
    if o.valid and not shown:
        wires.wakes |= BACK
    if moves or o.valid != valid or changed(before, 0, drain):
        wires.wakes |= DRAIN


@part
def _weights_edge(wires, tiles, column):
    weights = column.weights
    ready, valid, takes = weights.weights.ready, weights.valid, weights.take
    if not takes:
        keep(tiles.before, 0, weights)
    weights_edge(
        weights, wires.receivers[state.WEIGHTS], wires.weights_line, column.array, column.drain,
        wires.receivers[state.DRAIN],
    )  # fmt: skip
    if weights.weights.ready != ready:
        wires.wakes |= ARRAY
    if weights.valid != valid:
        wires.wakes |= DRAIN
    if takes or changed(tiles.before, 0, weights):
        wires.wakes |= WEIGHTS


@part
def _array_edge(grid, wires, tiles, column, stored):
    array, config = column.array, wires.receivers[state.ARRAY]
    released, pass_done, stages, issue = array.released, array.pass_done, array.stages, array.issue
    if not issue:
        keep(tiles.before, 0, array)
    array_edge(array, config, grid.pixels, stored)
    if array.released != released or array.pass_done or pass_done:
        wires.wakes |= ROWS
    if array_tells(stages, array.stages):
        wires.wakes |= DRAIN
    if issue or changed(tiles.before, 0, array):
        wires.wakes |= ARRAY
    if tiles.plain == 0:
        bits, ring = array.bits, column.weights.weights
        cycles = array_ahead(array, config, grid.pixels, grid.maps, ring, tiles.now + 1)
        if cycles:
            wires.resting += array.bits - bits
            wires.resumes = tiles.now + 1 + cycles
            wires.wakes |= WEIGHTS
