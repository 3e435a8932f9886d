"""Cutting: ways to divide a chain over columns and passes.

A cut never changes a result: maps, rows, columns and images are independent, and sums over
channels or taps that are cut pass through memory with all their bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

import numpy as np

from neuflow.compiler.fit import limit
from neuflow.compiler.geometry import ceil_div, conv_shape, part_kind, read_channels, read_span
from neuflow.compiler.mapping import Chain, Part, Pass, Piece, Region, Span
from neuflow.compiler.ramp import RAMP_ROWS, ramp, ramp_passes
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ARRAY


@dataclass(frozen=True)
class Cut:
    """One way to cut a chain.

    ``images``, ``maps``, ``rows``: parts that work side by side in as many columns (their product
    is at most the grid's columns); images of a batched chain are parts of its x.
    ``rounds``: map parts one after another; ``row_rounds``: row
    parts; ``strips``: parts of the output columns (of the images, where batched). ``parts``: sums
    one after another through memory. ``keep``: rows are kept whole from one round of maps to the
    next, even if no others can arrive meanwhile; of the sums, then, one for all maps after another.
    ``ramp``: begin and end with small pieces that share their input, see ``compiler.ramp``.
    ``by_tap``, ``closed``: of all pieces, see ``Piece``.
    """

    images: int = 1
    maps: int = 1
    rows: int = 1
    rounds: int = 1
    row_rounds: int = 1
    strips: int = 1
    parts: tuple[Part, ...] = ()
    keep: bool = False
    ramp: bool = False
    by_tap: bool = False
    closed: bool = False

    def __str__(self) -> str:
        names = ("images", "maps", "rows")
        side = " x ".join(f"{getattr(self, n)} {n}" for n in names if getattr(self, n) > 1)
        text = f"columns: {side or '1'}"
        for name in ("rounds", "row_rounds", "strips"):
            if getattr(self, name) > 1:
                text += f", {getattr(self, name)} {name.replace('_', ' ')}"
        sums = f", {len(self.parts)} sums" if len(self.parts) > 1 else ""
        text += sums + (", rows kept" if self.keep else "") + (", by tap" if self.by_tap else "")
        text += ", row ends closed" if self.closed else ""
        return text + (", small first and last pieces" if self.ramp else "")


class Axes(NamedTuple):
    """What a cut makes of each axis: chunks that run side by side, or spans one after another."""

    images: list[list[int]]
    rows: list[list[Span]]
    strips: list[list[Span]]
    maps: list[list[Span]]

    def extremes(self, chain: Chain, by_tap: bool) -> Axes:
        """Keep the first part, the largest, the one that reads most, the last: none demands more."""
        return Axes(
            self.images[:1],
            _extremes(self.rows, lambda span: read_span(chain, span, 0).size),
            _extremes(self.strips, lambda span: read_span(chain, span, 1).size),
            _extremes(self.maps, lambda span: _channels(chain, span, by_tap)),
        )

    def one_round(self, most: int) -> Axes:
        """Keep the first place, with at most ``most`` groups of maps, evenly chosen."""
        maps = self.maps[:: -(-len(self.maps) // most)]
        return Axes(self.images[:1], self.rows[:1], self.strips[:1], maps)


def _extremes(parts: list[list[Span]], read: Callable[[Span], int]) -> list[list[Span]]:
    def most(size: Callable[[Span], int]) -> int:
        return max(range(len(parts)), key=lambda i: max(map(size, parts[i])))

    kept = {0, most(lambda span: span.size), most(read), len(parts) - 1}
    return [parts[i] for i in sorted(kept)]


def _channels(chain: Chain, maps: Span, by_tap: bool) -> int:
    """Channels that some maps read, or one of them at most; 0 where all read all of them."""
    if chain.kernels is None:
        return 0
    read = chain.kernels[maps.lo : maps.hi]
    return int(read.sum(axis=1).max() if by_tap else read.any(axis=0).sum())


def axes(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> Axes:
    """Divide images, rows, columns and maps as ``cut`` says."""
    _, height, width = chain.shapes[-1]
    across = cut.images if chain.batched else 1
    return Axes(
        _chunks([0] if chain.batched else list(range(batch)), cut.images),
        _chunks(_at_borders(Span(0, height).split(cut.rows * cut.row_rounds), chain, 0), cut.rows),
        _chunks(_at_borders(Span(0, width).split(across * cut.strips), chain, 1), across),
        _chunks(_map_spans(chain, cut, grid), cut.maps),
    )


def _at_borders(spans: tuple[Span, ...], chain: Chain, axis: int) -> list[Span]:
    """Cut rows (axis 0) or columns where a pool's divisor changes: a pass has one."""
    edges = set()
    for step in chain.steps:
        m, s = (np.asarray(step.node.attrs.get(name, 0)) for name in ("m", "s"))
        if m.ndim:
            changes = (np.diff(m, axis=axis) != 0) | (np.diff(s, axis=axis) != 0)
            edges |= set((np.flatnonzero(changes.any(axis=1 - axis)) + 1).tolist())
    bounds = sorted(edges | {span.lo for span in spans} | {spans[-1].hi})
    return [Span(lo, hi) for lo, hi in pairwise(bounds)]


def count_passes(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> int:
    """Return how many passes :func:`passes` yields."""
    divided = axes(chain, cut, grid, batch)
    if cut.ramp:
        return len(divided.images) * len(ramp(chain, cut.rows))
    return prod(len(axis) for axis in divided) * max(1, len(cut.parts))


def passes(chain: Chain, cut: Cut, grid: GridConfig, divided: Axes) -> Iterator[Pass]:
    """Yield the passes of a cut: images, then rows, strips and maps.

    Sums are innermost; where rows are kept, around the maps.
    """
    if cut.ramp:
        for (image,) in divided.images:
            yield from ramp_passes(chain, cut.rows, cut.parts[0], image, grid)
        return
    spread = grid.columns // cut.images // cut.maps // cut.rows if needs_helper(chain) else 1
    for *places, rounds in product(*divided[:-1], [divided.maps]):
        turns = [
            _parts(chain, cut, list(product(*places, some_maps)), spread, grid)
            for some_maps in rounds
        ]
        # By round, then by part; or the other way round.
        for some in zip(*turns, strict=True) if cut.keep else turns:
            yield from (Pass(tuple(pieces)) for pieces in some)


def image_passes(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Pass]:
    """Yield passes of an image, or of a batch of one."""
    return passes(chain, cut, grid, axes(chain, cut, grid, 1))


def can_ramp(chain: Chain, cut: Cut) -> bool:
    """Whether a cut is such that its rows can be divided as a ramp needs."""
    if cut.by_tap or cut.closed:
        return False
    alone = (cut.images, cut.maps, cut.rounds, cut.row_rounds, cut.strips, len(cut.parts))
    least = cut.rows * (sum(RAMP_ROWS) + 3)
    return (
        chain.head is not None
        and chain.head.op == "conv"
        and not (chain.batched or chain.by_block or conv_groups(chain) > 1)
        and all(step.node.op != "pool" for step in chain.steps)
        and alone == (1,) * 6
        and cut.rows > 1
        and chain.shapes[-1][1] >= least
    )


def _parts(
    chain: Chain, cut: Cut, boxes: list[tuple[int, Span, Span, Span]], spread: int, grid: GridConfig
) -> list[list[Piece]]:
    """Return the pieces of each part of some boxes: image, rows, columns and maps."""
    turns = [
        [
            Piece(
                column=spread * i,
                image=image,
                out=Region(map_span, row_span, col_span),
                part=part if cut.by_tap else _read_part(chain, part, map_span),
                partial_in=number > 0,
                partial_out=number < len(cut.parts) - 1,
                room=grid.row_words if cut.keep else 0,
                by_tap=cut.by_tap,
                closed=cut.closed,
            )
            for i, (image, row_span, col_span, map_span) in enumerate(boxes)
        ]
        for number, part in enumerate(cut.parts or (None,))
    ]
    return list(_one_pitch(chain, turns))


def _one_pitch(chain: Chain, turns: list[list[Piece]]) -> Iterator[list[Piece]]:
    """Give all parts of a piece the pitch of the widest: their sums are added lane by lane."""
    if len(turns) == 1:
        yield from turns
        return
    pitches = []
    for parts in zip(*turns, strict=True):
        unlike = {part_kind(chain, p.part): p for p in parts if p.part is not None}
        pitches.append(max(conv_shape(chain, piece).pitch for piece in unlike.values()))
    for pieces in turns:
        yield [replace(p, pitch=pitch) for p, pitch in zip(pieces, pitches, strict=True)]


def needs_helper(chain: Chain) -> bool:
    """Whether a second operand has to come through a neighbouring column."""
    return chain.head is None and chain.operand is not None


def _chunks(items: list | tuple, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]


def conv_groups(chain: Chain) -> int:
    """Groups of a grouped convolution; 1 for all else."""
    return 1 if chain.head is None else chain.head.attrs.get("groups", 1)


def map_unit(chain: Chain, by_tap: bool, grid: GridConfig) -> int:
    """Maps of a block."""
    return 1 if chain.head is None or by_tap else grid.maps


def can_tap(chain: Chain, grid: GridConfig) -> bool:
    """Whether a chain may be computed by tap, and blocks of maps would leave lanes idle.

    Columns of padding are no word that is stored. A channel names the next one before its last row.
    """
    if grid.tap_lanes == 1 or chain.head is None or chain.head.op != "conv" or conv_groups(chain) > 1:
        return False
    attrs = chain.head.attrs
    _, left, _, right = attrs["pads"]
    idle = chain.kernels is not None or chain.shapes[0][0] % grid.maps > 0
    return (
        idle
        and attrs["weight"].shape[2] > 1
        and (attrs["stride"][0], attrs["dilation"][1], left, right) == (1, 1, 0, 0)
    )


def can_close(chain: Chain) -> bool:
    """Whether rows of the input are longer than those of the output, and many taps read them.

    Pieces of such a chain may go on from row to row, see :meth:`ConvShape.closes`.
    """
    if chain.head is None or chain.head.op != "conv":
        return False
    stride, width = chain.head.attrs["stride"][1], chain.source_shape[2]
    kernel = chain.head.attrs["weight"].shape[3]
    return kernel > 1 and ceil_div(width, stride) > chain.shapes[0][2]


def _map_spans(chain: Chain, cut: Cut, grid: GridConfig) -> list[Span]:
    groups = conv_groups(chain)
    size = chain.maps.size // groups
    unit = map_unit(chain, cut.by_tap, grid)
    if chain.by_block or chain.head is None:
        return list(chain.maps.share(cut.maps * cut.rounds, unit))
    parts = max(1, cut.maps * cut.rounds // groups)
    return [
        span
        for group in range(groups)
        for span in Span(group * size, (group + 1) * size).share(parts, min(unit, size))
    ]


def _read_part(chain: Chain, part: Part | None, maps: Span) -> Part | None:
    """Return what ``maps`` read of a part that is given for all of a group."""
    return _in_group(chain, _connected(chain, part, maps), maps)


def _connected(chain: Chain, part: Part | None, maps: Span) -> Part | None:
    """Leave out channels at the ends of a part, within a group, that none of ``maps`` reads.

    Not where the array leaves them out: then all columns can listen to one reading.
    """
    if part is None or chain.kernels is None or read_channels(chain, maps, part):
        return part
    lo, hi = part.channels
    read = np.flatnonzero(chain.kernels[maps.lo : maps.hi, lo:hi].any(axis=0))
    if not len(read):
        return part._replace(channels=Span(lo, lo + 1))
    return part._replace(channels=Span(lo + int(read[0]), lo + int(read[-1]) + 1))


def _in_group(chain: Chain, part: Part | None, maps: Span) -> Part | None:
    """Shift a part, given in channels of a group, to the group of ``maps``, or to all of theirs."""
    if part is None or (groups := conv_groups(chain)) == 1:
        return part
    if chain.by_block:
        maps_of, channels_of = chain.shapes[0][0] // groups, chain.source_shape[0] // groups
        lo, hi = (end // maps_of * channels_of for end in maps)
        return part._replace(channels=Span(lo, hi))
    first = maps.lo // (chain.shapes[0][0] // groups) * (chain.source_shape[0] // groups)
    return part._replace(channels=Span(part.channels.lo + first, part.channels.hi + first))


def ladder(last: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 8, 12, 16, ... below ``last``, and ``last``."""
    value = 1
    while value < last:
        yield value
        if value >= 2 and value + value // 2 < last and value & (value - 1) == 0:
            yield value + value // 2
        value *= 2
    yield last


def part_lists(chain: Chain) -> Iterator[tuple[Part, ...]]:
    """Yield ways to cut the sums, from none at all to single taps of single channels."""
    if chain.head is None:
        yield ()
        return
    one = Span(0, 1)
    if chain.is_dense:
        for spans in _dense_spans(chain):
            yield tuple(Part(span, one, one) for span in spans)
        return
    kernel = chain.head.attrs["weight"].shape[2:]
    least = [
        size if dilation > limit(CONV_ARRAY, "dilation_y") and size > 1
        else ceil_div(size, limit(CONV_ARRAY, "kernel_y"))
        for size, dilation in zip(kernel, chain.head.attrs["dilation"], strict=True)
    ]  # fmt: skip
    # Blocks that have channels of their own walk through all of them.
    channels = 1 if chain.by_block else chain.channels_read.size
    ways = [(n, *least) for n in ladder(channels)]
    ways += [(channels, n, least[1]) for n in ladder(kernel[0]) if n > least[0]]
    ways += [(channels, kernel[0], n) for n in ladder(kernel[1]) if n > least[1]]
    for way in ways:
        whole = (chain.channels_read, *(Span(0, size) for size in kernel))
        axes = [span.split(n) for span, n in zip(whole, way, strict=True)]
        yield tuple(Part(*spans) for spans in product(*axes))


def _dense_spans(chain: Chain) -> Iterator[tuple[Span, ...]]:
    """Cut the inputs of a dense layer at records of its source, or within each of them."""
    channels, height, width = chain.source_shape
    record = channels * width
    inputs = record * height
    for pieces in ladder(inputs):
        length = ceil_div(inputs, pieces)
        if height == 1:
            yield Span(0, inputs).split(pieces)
        elif length >= record:
            yield tuple(
                Span(rows.lo * record, rows.hi * record)
                for rows in Span(0, height).split(ceil_div(height, length // record))
            )
        else:
            yield tuple(
                span
                for y in range(height)
                for span in Span(y * record, (y + 1) * record).split(ceil_div(record, length))
            )
