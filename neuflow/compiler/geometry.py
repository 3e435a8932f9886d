"""What a piece of a layer means for one column: its boxes backwards, the convolver's numbers.

All of it is exact arithmetic on extents; nothing here knows of memory addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import (
    CLOSED_STEPS,
    ROW_ENDS,
    can_gather,
    channel_steps,
    tap_steps,
)
from neuflow.compiler.mapping import Chain, Part, Piece, Region, Span, Step
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS


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


def step_span(step: Step, out: Span, axis: int, size: int) -> Span:
    """Rows (``axis`` 0) or columns, of ``size``, that enter a step for those that leave it."""
    if step.node.op != "pool":
        return out
    kernel, stride, pads = (step.node.attrs[name][axis] for name in ("kernel", "stride", "pads"))
    return window_span(out, kernel, stride, pads, size)


def backward(chain: Chain, out: Region) -> tuple[Region, ...]:
    """Return the box that enters each step, and last ``out`` itself."""
    regions = [out]
    for step, shape in zip(reversed(chain.steps), reversed(chain.shapes[:-1]), strict=True):
        maps, *spans = regions[0]
        rows, cols = (step_span(step, span, a, shape[1 + a]) for a, span in enumerate(spans))
        regions.insert(0, Region(maps, rows, cols))
    return tuple(regions)


def read_span(chain: Chain, out: Span, axis: int) -> Span:
    """Rows (``axis`` 0) or columns of its source that a chain reads for ``out`` of its output."""
    for step, shape in zip(reversed(chain.steps), reversed(chain.shapes[:-1]), strict=True):
        out = step_span(step, out, axis, shape[1 + axis])
    if chain.head is None or chain.head.op != "conv":
        return out
    return _conv_span(chain, out, axis, Span(0, chain.head.attrs["weight"].shape[2 + axis]))


def _conv_span(chain: Chain, out: Span, axis: int, taps: Span) -> Span:
    """Rows or columns that some taps of a chain's convolution touch, for ``out`` of its own output."""
    assert chain.head is not None
    stride, dilation, pad = (chain.head.attrs[name][axis] for name in ("stride", "dilation", "pads"))
    kernel = (taps.size - 1) * dilation + 1
    return window_span(out, kernel, stride, pad - taps.lo * dilation, chain.source_shape[1 + axis])


@dataclass(frozen=True)
class ConvShape:
    """A convolver pass, relative to its own input box: see ``layout.CONV_ARRAY``.

    ``rows``, ``cols``: the input box (of a dense layer: bands of images, and these). ``width`` and
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

    def needed(self, groups: NDArray[np.int64], grid: GridConfig) -> NDArray[np.int64]:
        """Return the records that must be stored before each of ``groups`` starts: see CONV_ARRAY."""
        last = groups * grid.pixels + grid.pixels - 1
        return np.clip(last // self.pitch * self.stride + self.need, 0, self.height)

    def released(self, groups: NDArray[np.int64], grid: GridConfig) -> NDArray[np.int64]:
        """Return the records, from the first on, that are free when each of ``groups`` is through."""
        first = groups * grid.pixels
        return np.clip(first // self.pitch * self.stride + self.release, 0, self.height)


def conv_shape(chain: Chain, piece: Piece) -> ConvShape:
    """Return the numbers of a piece's convolver pass."""
    assert chain.head is not None and piece.part is not None
    out = backward(chain, piece.out)[0]
    if chain.head.op == "dense":
        return _dense_shape(piece.part, out, piece.form(chain).beats)
    stride = chain.head.attrs["stride"][0]
    spans, taps = [], []
    for axis, span in enumerate((out.rows, out.cols)):
        kernel = piece.part[1 + axis]
        box = _conv_span(chain, span, axis, kernel) if piece.box is None else piece.box[axis]
        first = kernel.lo * chain.head.attrs["dilation"][axis] - chain.head.attrs["pads"][axis]
        spans.append(box)
        taps.append(span.lo * stride + first - box.lo)
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
    """Over a batch: a convolution of one tap, of bands of images."""
    extents = out.rows.size, out.cols.size
    return ConvShape(
        part.channels.size, 1, 1, 1, 0, 0, 0, 0, out.rows, out.cols, *extents, *extents,
        out.maps.size, parameter_beats,
    )  # fmt: skip
