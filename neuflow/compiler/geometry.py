"""What a piece of a layer means for one column: its boxes backwards, the convolver's numbers.

All of it is exact arithmetic on extents; nothing here knows of memory addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import (
    CLOSED_STEPS,
    ROW_ENDS,
    can_gather,
    channel_steps,
    tap_steps,
)
from neuflow.compiler.mapping import Chain, Part, Piece, Region, Span
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS, Scatter


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


def round_up(value: int, unit: int) -> int:
    """Return the least multiple of ``unit`` that is at least ``value``."""
    return ceil_div(value, unit) * unit


def window_span(out: Span, kernel: int, stride: int, pad: int, size: int) -> Span:
    """Input span that windows ``out`` touch, at least one element within 0 .. size - 1."""
    lo = max(0, min(out.lo * stride - pad, size - 1))
    hi = min(size, (out.hi - 1) * stride - pad + kernel)
    return Span(lo, max(hi, lo + 1))


def backward(chain: Chain, out: Region) -> tuple[Region, ...]:
    """Return the box that enters each step, and last ``out`` itself."""
    regions = [out]
    for step, shape in zip(reversed(chain.steps), reversed(chain.shapes[:-1]), strict=True):
        region = regions[0]
        if step.node.op == "pool":
            (ky, kx), (sy, sx) = step.node.attrs["kernel"], step.node.attrs["stride"]
            top, left = step.node.attrs["pads"][:2]
            region = Region(
                region.maps,
                window_span(region.rows, ky, sy, top, shape[1]),
                window_span(region.cols, kx, sx, left, shape[2]),
            )
        regions.insert(0, region)
    return tuple(regions)


@dataclass(frozen=True)
class ConvShape:
    """A convolver pass, relative to its own input box: see ``layout.CONV_ARRAY``.

    ``rows``, ``cols``: the input box (a dense layer has ``cols`` = its images). ``width`` and
    ``height`` are the box's extents as the array sees them. ``every``: a stride that the array does
    not see, as of the box only every such row is read, and every such column stored.
    ``room``: see ``Piece``. ``block_channels``: not 0 if each block of maps has so many channels of
    its own. ``read``: the channels that are read, of those that are stored; empty: all. ``by_tap``: a
    block is one map, ``grid.maps`` of its taps at once; ``block_channels`` then are any of those stored.
    ``closed``: lanes go on from the end of an output row to the next, see :meth:`row_pitch`.
    ``channel_maps``: not 0 if each of a block's channels is read by so many of its maps alone.
    ``parameter_beats``: of each block, in its packet of weights.
    """

    channels: int
    kernel_y: int
    kernel_x: int
    stride: int
    dilation_y: int
    dilation_x: int
    tap_y: int
    tap_x: int
    rows: Span
    cols: Span
    height: int
    width: int
    out_height: int
    out_width: int
    maps: int
    parameter_beats: int
    least_pitch: int = 1
    every: int = 1
    block_channels: int = 0
    channel_maps: int = 0
    room: int = 0
    read: tuple[int, ...] = ()
    by_tap: bool = False
    closed: bool = False

    @property
    def channels_added(self) -> int:
        """Channels that one result adds up."""
        return self.block_channels or len(self.read) or self.channels

    @property
    def taps(self) -> int:
        """Products that one result adds up."""
        return self.channels_added * self.kernel_y * self.kernel_x

    @property
    def pitch(self) -> int:
        """Lanes from output row to output row; words from a stored row to the next, if not closed."""
        if self.closed:
            return self.out_width
        return max(self.out_width, ceil_div(self.width, self.stride), self.least_pitch)

    def row_pitch(self, grid: GridConfig) -> int:
        """Words from a stored row to the next of its phase.

        Where row ends are closed, the lanes beyond one read the banks behind those before it: the
        words between are whole rounds of the banks, and what the last taps of a step read beyond.
        """
        gap = ceil_div(self.width, self.stride) - self.out_width
        if not self.closed or gap <= 0:
            return self.pitch
        beyond = grid.tap_gap if self.by_tap else 0
        return self.out_width + beyond + round_up(gap - beyond, grid.row_banks)

    def closes(self, grid: GridConfig) -> bool:
        """Whether row ends can be closed, and lanes are saved: a group meets few of them.

        What is behind the last output row does not count; by tap it does, for the border mask of its
        first lane is that of words which the last lanes of the row read.
        """
        saved = ceil_div(self.width, self.stride) > self.out_width
        lanes = not self.by_tap or grid.tap_gap > 0
        if not (saved and lanes and self.steps(grid) >= CLOSED_STEPS and self.out_height > 1):
            return False
        groups = ceil_div(self.out_height * self.out_width, grid.pixels)
        first = np.arange(groups, dtype=np.int64) * grid.pixels
        last = first + grid.pixels - 1
        if not self.by_tap:
            last = np.minimum(last, self.out_height * self.out_width - 1)
        most = 1 if self.by_tap else ROW_ENDS
        return bool((last // self.out_width - first // self.out_width <= most).all())

    def groups(self, grid: GridConfig) -> int:
        """Groups of ``grid.pixels`` positions of the flattened output."""
        return ceil_div((self.out_height - 1) * self.pitch + self.out_width, grid.pixels)

    def lead_beats(self, grid: GridConfig) -> int:
        """Beats of parameters of all blocks."""
        return self.blocks(grid) * self.parameter_beats

    def blocks(self, grid: GridConfig) -> int:
        """Blocks of ``grid.maps`` maps; of one by tap."""
        return self.maps if self.by_tap else ceil_div(self.maps, grid.maps)

    def steps(self, grid: GridConfig) -> int:
        """Cycles in which a group of a block is computed, and beats of ``grid.maps`` weights of it."""
        if not self.by_tap:
            return self.taps
        row, gather = self.row_steps(grid), self.gathers(grid)
        return self.channels_added * channel_steps(self.kernel_y, row, grid.maps, gather)

    def row_steps(self, grid: GridConfig) -> int:
        """Steps by tap of a kernel row; without its last tap, where that one is gathered."""
        return tap_steps(self.kernel_x, grid.maps, self.gathers(grid))

    def gathers(self, grid: GridConfig) -> bool:
        """Whether last taps of kernel rows are worked together: see CONV_ARRAY.gather.

        One reading then serves two steps: with closed row ends it would need more banks.
        """
        kernel = self.kernel_y, self.kernel_x
        return self.by_tap and not self.closed and grid.tap_gather and can_gather(*kernel, grid.maps)

    @property
    def need(self) -> int:
        """Rows needed by an output row beyond row * stride; the last one needs all there are."""
        taps = self.tap_y + (self.kernel_y - 1) * self.dilation_y + 1
        return max(taps, self.height - (self.out_height - 1) * self.stride)

    @property
    def release(self) -> int:
        """Rows free beyond row * stride: those above its first tap, if the row before needed them.

        Rows that a stride skips are freed one output row later, so that no row is freed before it
        has arrived.
        """
        return min(self.tap_y, self.need - self.stride, 0)


def conv_shape(chain: Chain, piece: Piece) -> ConvShape:
    """Return the numbers of a piece's convolver pass."""
    assert chain.head is not None and piece.part is not None
    out = backward(chain, piece.out)[0]
    if chain.head.op == "dense":
        return _dense_shape(piece.part, out, piece.form(chain).beats)
    stride = chain.head.attrs["stride"][0]
    spans, taps = [], []
    for axis, span in enumerate((out.rows, out.cols)):
        kernel, size = piece.part[1 + axis], chain.source_shape[1 + axis]
        dilation = chain.head.attrs["dilation"][axis]
        pad = chain.head.attrs["pads"][axis] - kernel.lo * dilation
        read = window_span(span, (kernel.size - 1) * dilation + 1, stride, pad, size)
        spans.append(read if piece.box is None else piece.box[axis])
        taps.append(span.lo * stride - pad - spans[axis].lo)
    rows, cols = spans
    # One output row or column has no stride.
    stride = stride if out.rows.size > 1 or out.cols.size > 1 else 1
    height, width, every = rows.size, cols.size, 1
    last = ((out.rows.size - 1) * stride, (out.cols.size - 1) * stride)
    single = piece.part.ky.size == piece.part.kx.size == 1
    if stride > 1 and single and taps == [0, 0] and last == (rows.size - 1, cols.size - 1):
        # A single tap, which meets no padding: the array gets what it reads, and nothing between.
        height, width, every, stride = out.rows.size, out.cols.size, stride, 1
        if cols.lo == 0 and chain.source_shape[2] - cols.hi < every:
            # Whole rows lie side by side in memory: one walk instead of a burst for each.
            cols = Span(0, chain.source_shape[2])
    return ConvShape(
        channels=piece.part.channels.size,
        kernel_y=piece.part.ky.size,
        kernel_x=piece.part.kx.size,
        stride=stride,
        # A single tap has no dilation; fields stay small.
        dilation_y=chain.head.attrs["dilation"][0] if piece.part.ky.size > 1 else 0,
        dilation_x=chain.head.attrs["dilation"][1] if piece.part.kx.size > 1 else 0,
        tap_y=taps[0],
        tap_x=taps[1],
        rows=rows,
        cols=cols,
        height=height,
        width=width,
        out_height=out.rows.size,
        out_width=out.cols.size,
        maps=out.maps.size,
        parameter_beats=piece.form(chain).beats,
        least_pitch=piece.pitch,
        every=every,
        room=piece.room,
        read=() if piece.by_tap else read_channels(chain, piece.out.maps, piece.part),
        block_channels=_block_channels(chain, piece),
        channel_maps=chain.head.attrs["channel_maps"] if chain.by_block else 0,
        by_tap=piece.by_tap,
        closed=piece.closed,
    )


def part_kind(chain: Chain, part: Part) -> tuple[object, ...]:
    """Return what the extents of a pass depend on in a part; parts of one kind fit, or do not, alike.

    That is how many channels it has, not which; and without padding and strides how many taps.
    """
    assert chain.head is not None
    attrs = chain.head.attrs
    if chain.head.op == "conv" and not any(attrs["pads"]) and max(attrs["stride"]) == 1:
        return (part.channels.size, part.ky.size, part.kx.size)
    return (part.channels.size, part.ky, part.kx)


def _block_channels(chain: Chain, piece: Piece) -> int:
    assert chain.head is not None and piece.part is not None
    if piece.by_tap:
        return connections(chain, piece.out.maps, piece.part).shape[1]
    return chain.head.attrs["weight"].shape[1] if chain.by_block else 0


def connections(chain: Chain, maps: Span, part: Part) -> NDArray[np.int64]:
    """Return the channels [maps, as many as one of them reads] of each map, by their number in ``part``.

    A map that reads fewer gets some that it does not: their kernels are zero.
    """
    lo, hi = part.channels
    if chain.kernels is None:
        return np.broadcast_to(np.arange(hi - lo), (maps.size, hi - lo))
    read = chain.kernels[maps.lo : maps.hi, lo:hi]
    most = max(1, int(read.sum(axis=1).max()))
    return np.sort(np.argsort(~read, axis=1, kind="stable")[:, :most], axis=1)


def read_channels(chain: Chain, maps: Span, part: Part) -> tuple[int, ...]:
    """Return which channels of ``part`` ``maps`` read, by their number in it; empty: all, perhaps.

    Between two of them lie fewer channels than a channel has taps: others are read in between.
    """
    if chain.kernels is None or part.channels.size > ABSENT_CHANNELS + 1:
        return ()
    lo, hi = part.channels
    read = np.flatnonzero(chain.kernels[maps.lo : maps.hi, lo:hi].any(axis=0)).tolist() or [0]
    found = read[:1]
    for channel in read[1:]:
        while channel - found[-1] > part.ky.size * part.kx.size:
            found.append(found[-1] + part.ky.size * part.kx.size)
        found.append(channel)
    return tuple(found)


def _dense_shape(part: Part, out: Region, parameter_beats: int) -> ConvShape:
    images = out.cols.size
    return ConvShape(
        part.channels.size, 1, 1, 1, 0, 0, 0, 0, Span(0, 1), out.cols, 1, images, 1, images,
        out.maps.size, parameter_beats,
    )  # fmt: skip


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
def least_ring(
    groups: int, pixels: int, pitch: int, stride: int, need: int, release: int, rows: int
) -> int:
    """Records a ring must hold so that no group waits for ever.

    Group g starts when its needed rows are there; before that only group g - 1 has released.
    """
    first = np.arange(groups, dtype=np.int64) * pixels
    needed = np.clip((first + pixels - 1) // pitch * stride + need, 0, rows)
    released = np.clip(first // pitch * stride + release, 0, rows)
    before = np.concatenate(([0], released[:-1]))
    return int(max(1, (needed - before).max()))


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
    least = least_ring(
        shape.groups(grid), grid.pixels, shape.pitch, s, shape.need, shape.release, rows
    )
    if ring_rows < least:
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


def dense_row_plan(chain: Chain, shape: ConvShape, room: int) -> RowPlan | None:
    """Fit the inputs of a dense layer: channel k of image n at k * images + n."""
    images, inputs = shape.width, shape.channels
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
    if chain.source_shape[1:] == (1, 1) or chain.source in chain.interleaved:  # the batch lies along x
        return RowPlan(
            scatter=Scatter.ROW, width=images, channels=inputs, rows=1, channel_step=images, ring_rows=1,
            pitch=images, x_step=1, need=1, **common,
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
