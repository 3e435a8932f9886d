"""What a convolver pass takes of the buffers: rows, reorder buffer, weights, partial sums in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuflow.compiler.geometry import ConvShape, ceil_div, round_up
from neuflow.grid import GridConfig
from neuflow.layout import Scatter


@dataclass(frozen=True)
class RowPlan:
    """How a pass keeps its input in the row buffer: fields of CONV_ROWS and CONV_ARRAY.

    ``size``: words of the region, from its base. ``array_step``: CONV_ARRAY.channel_step.
    ``stride``: CONV_ROWS.stride.
    """

    size: int
    scatter: int
    width: int
    channels: int
    rows: int
    channel_step: int
    array_step: int
    ring_words: int
    ring_rows: int
    pitch: int
    x_step: int
    phase_x_step: int
    phase_y_step: int
    need: int
    release: int
    stride: int = 1


@lru_cache(maxsize=65536)
def least_ring(shape: ConvShape, grid: GridConfig) -> int:
    """Return the records that a ring for a pass must hold at least, so that no group waits for ever.

    Group g starts when its needed rows are there; before that only group g - 1 has released.
    """
    groups = np.arange(shape.groups(grid))
    before = np.concatenate(([0], shape.released(groups[:-1], grid)))
    return int(max(1, (shape.needed(groups, grid) - before).max()))


def row_plan(shape: ConvShape, grid: GridConfig, room: int) -> RowPlan | None:
    """Fit a convolution's input into ``room`` words: whole and linear, else as rings, else None."""
    s, pitch, rows = shape.stride, shape.row_pitch(grid), shape.height
    phases = s * s
    scatter = Scatter.PHASES if s > 1 else Scatter.ROW if shape.every == 1 else Scatter.FIRST_PHASE
    common = {
        "scatter": scatter, "width": shape.cols.size, "channels": shape.channels, "rows": rows,
        "pitch": pitch, "x_step": 1, "need": shape.need, "release": shape.release,
        "stride": s * shape.every,
    }  # fmt: skip
    linear = ceil_div(rows, s) * pitch
    if s == 2 and (plan := _both_phases(shape.channels, linear, grid, common)).size <= room:
        return plan
    if scatter == Scatter.ROW and (plan := _rows_joined(shape, linear, grid, common)).size <= room:
        return plan
    if shape.channels * phases * linear <= room:
        return RowPlan(
            size=shape.channels * phases * linear, ring_words=0, ring_rows=rows,
            channel_step=phases * linear, array_step=phases * linear,
            phase_x_step=linear, phase_y_step=s * linear, **common,
        )  # fmt: skip
    # Longest ring that fits; a ring of n rows a phase keeps any n * stride successive records.
    longest = room // (shape.channels * phases) // grid.row_banks * grid.row_banks
    ring_rows = min(longest // pitch * s, round_up(rows, s))
    if ring_rows < least_ring(shape, grid):
        return None
    ring = round_up(ring_rows // s * pitch, grid.row_banks)
    return RowPlan(
        size=shape.channels * phases * ring, ring_words=ring, ring_rows=ring_rows,
        channel_step=phases * ring, array_step=phases * ring,
        phase_x_step=ring, phase_y_step=s * ring, **common,
    )  # fmt: skip


def _rows_joined(
    shape: ConvShape, plane: int, grid: GridConfig, common: dict[str, int]
) -> RowPlan:
    """Lay out a whole input so that a beat with the end of a channel's row is stored at once.

    The next channel's words in it then lie in the banks behind. ``plane``: words of a channel.
    """
    step, scatter = plane, Scatter.ROW
    if shape.cols.size % grid.bus_words and shape.channels > 1:  # else no such beats come
        step, scatter = plane + (shape.cols.size - plane) % grid.row_banks, Scatter.ROWS
    return RowPlan(
        size=shape.channels * step, ring_words=0, ring_rows=common["rows"], channel_step=step,
        array_step=step, phase_x_step=plane, phase_y_step=plane, **common | {"scatter": scatter},
    )  # fmt: skip


def _both_phases(channels: int, plane: int, grid: GridConfig, common: dict[str, int]) -> RowPlan:
    """Lay out a whole input of stride 2 so that both phases in x are stored at once.

    All words of phase 0 come first, then all of phase 1, half a beat of banks further on. ``plane``:
    words of a phase in x and y of a channel.
    """
    half = grid.bus_words // 2
    apart = half + round_up(max(0, 2 * channels * plane - half), grid.row_banks)
    return RowPlan(
        size=apart + 2 * channels * plane, ring_words=0, ring_rows=common["rows"],
        channel_step=2 * plane, array_step=2 * plane, phase_x_step=apart, phase_y_step=plane,
        **common | {"scatter": Scatter.BOTH_PHASES},
    )  # fmt: skip


def flattened_row_plan(shape: ConvShape, room: int) -> RowPlan | None:
    """Fit images that a dense layer flattens: channel k of image n at k * images + n."""
    images, inputs = shape.height * shape.width, shape.channels
    size = images * inputs
    if size > room:
        return None
    common = {
        "size": size, "ring_words": 0, "array_step": images, "phase_x_step": 0, "phase_y_step": 0,
        "release": 0,
    }  # fmt: skip
    if images == 1:  # one record, stored at full width
        return RowPlan(
            scatter=Scatter.ROW, width=inputs, channels=1, rows=1, channel_step=inputs, ring_rows=1,
            pitch=inputs, x_step=1, need=1, **common,
        )  # fmt: skip
    return RowPlan(  # one record an image, scattered
        scatter=Scatter.WORD, width=inputs, channels=1, rows=images, channel_step=0, ring_rows=images,
        pitch=1, x_step=images, need=images, **common,
    )  # fmt: skip


@dataclass(frozen=True)
class DrainPlan:
    """Fields of CONV_DRAIN that depend on the reorder buffer."""

    slots: int
    map_step: int


def drain_plan(shape: ConvShape, grid: GridConfig, whole: bool = False) -> DrainPlan | None:
    """Fit rows into the reorder buffer: at least those that one group touches, and as many as there is
    room for, so that sums leave the array while rows wait for the last of their maps.

    ``whole``: all rows, so that every sum is taken even if no row can leave.
    """
    touched = 1 if grid.pixels < 2 else (grid.pixels - 2) // shape.pitch + 2
    least = shape.out_height if whole else min(touched, shape.out_height)
    # The longest step from map to map, 1 modulo the maps of a block.
    most = (grid.reorder_words // round_up(shape.maps, grid.maps) - 1) // grid.maps * grid.maps + 1
    slots = min(most // shape.out_width, shape.out_height)
    if slots < least:
        return None
    return DrainPlan(slots, round_up(slots * shape.out_width - 1, grid.maps) + 1)


def weight_words(shape: ConvShape, grid: GridConfig) -> int:
    """Words of the weights of a pass, without parameters: whole beats a block."""
    return shape.blocks(grid) * round_up(shape.steps(grid) * grid.maps, grid.bus_words)


def packet_words(shape: ConvShape, grid: GridConfig) -> int:
    """Words of a whole weights packet, parameters included."""
    return weight_words(shape, grid) + shape.lead_beats(grid) * grid.bus_words


def partial_words(shape: ConvShape, grid: GridConfig) -> int:
    """Words of the exact partial sums of a pass: three a value, all lanes."""
    return 3 * shape.groups(grid) * shape.blocks(grid) * grid.pixels * grid.maps
