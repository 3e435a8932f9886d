"""Ramps: a large layer begins and ends with small pieces that share their input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from neuflow.compiler.buffers import least_ring
from neuflow.compiler.fit import plan_rows
from neuflow.compiler.geometry import conv_shape, round_up
from neuflow.compiler.mapping import Chain, Part, Pass, Piece, Region, Span
from neuflow.grid import GridConfig

RAMP_ROWS = (1, 2)
"""Rows of a piece in the first passes of a ramp, behind the very first with its halves of rows."""


class Boxes(NamedTuple):
    """Rows and columns of the pieces of a pass, and those whose input they all read, if they do."""

    places: list[tuple[Span, Span]]
    shared: list[tuple[Span, Span]]


def ramp(chain: Chain, columns: int) -> list[Boxes]:
    """Divide the output rows over columns so that all soon have work, and end with little to write.

    With large pieces alone, each column waits at the beginning for rows of its own, and all of
    them leave whole rows at the end. So neighbouring rows come first, fed by one reading, halves of
    few and then more, that last while those of the next pieces arrive; and the last are cut across.
    """
    _, height, width = chain.shapes[-1]
    whole = Span(0, width)

    def strips(rows: range) -> list[Boxes]:
        parts = [[(Span(y, y + 1), cols) for cols in whole.split(columns)] for y in rows]
        return [Boxes(part, [place for part in parts for place in part]) for part in parts]

    def bands(rows: Span) -> list[tuple[Span, Span]]:
        return [(span, whole) for span in rows.split(columns)]

    y = columns // 2
    halves = [(Span(row, row + 1), cols) for row in range(y) for cols in whole.split(2)]
    small = [Boxes(halves, halves)] if columns % 2 == 0 and width > 1 else []
    y *= len(small)
    for rows in RAMP_ROWS:
        places = bands(Span(y, y + rows * columns))
        small.append(Boxes(places, places))
        y += rows * columns
    last = height - 1 - (height - 1 - y) % columns
    return [
        *small,
        Boxes(bands(Span(y, last)), []),
        *strips(range(last, height)),
    ]


def ramp_passes(
    chain: Chain, columns: int, part: Part, image: int, grid: GridConfig
) -> Iterator[Pass]:
    """Yield the passes of a ramp.

    The large pieces use what the small ones before leave free, and no more rows than they need: so
    many rows at once would hold up what those write.
    """
    free = 0
    for boxes in ramp(chain, columns):
        pieces = _pieces(chain, part, image, boxes)
        room = grid.row_words
        if not boxes.shared:
            shape = conv_shape(chain, pieces[0])
            rows = least_ring(shape, grid) + shape.stride
            ring = round_up(rows * shape.row_pitch(grid), grid.row_banks)
            room = min(free, shape.channels * shape.stride * ring)
        pieces = tuple(replace(piece, room=room) for piece in pieces)
        plan = plan_rows(chain, conv_shape(chain, pieces[0]), grid)
        left = 0 if plan is None else max(0, grid.row_words - plan.size)
        free = left // grid.row_banks * grid.row_banks
        yield Pass(pieces)


def _pieces(chain: Chain, part: Part, image: int, boxes: Boxes) -> tuple[Piece, ...]:
    maps = Span(0, chain.shapes[-1][0])

    def piece(place: tuple[Span, Span], column: int = 0) -> Piece:
        return Piece(column, image, Region(maps, *place), part)

    pieces = tuple(piece(place, column) for column, place in enumerate(boxes.places))
    if not boxes.shared:
        return pieces
    shapes = [conv_shape(chain, piece(place)) for place in boxes.shared]
    rows, cols = (
        Span(min(span.lo for span in spans), max(span.hi for span in spans))
        for spans in ([shape.rows for shape in shapes], [shape.cols for shape in shapes])
    )
    return tuple(replace(one, box=(rows, cols)) for one in pieces)
