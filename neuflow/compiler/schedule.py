"""Mapping -> Schedule: one global order of passes, memory for tensors, row buffers, and fences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from neuflow.compiler.allocate import Buffer, Place, Space, pack, side_by_side, tensor_place
from neuflow.compiler.buffers import packet_words, partial_words
from neuflow.compiler.fences import with_fences
from neuflow.compiler.fit import plan_rows
from neuflow.compiler.fuse import root
from neuflow.compiler.geometry import conv_shape, round_up
from neuflow.compiler.liveness import Memory, fits
from neuflow.compiler.mapping import Assignment, Chain, Mapping, Piece
from neuflow.compiler.turn import RowPlace, Turn
from neuflow.grid import GridConfig

PAGE_WORDS = 2048
"""Words of 4 KB: frames, and the work memory, begin on a page."""


@dataclass(frozen=True)
class Schedule:
    """Turns in order, and the place of every tensor. Sizes in words."""

    mapping: Mapping
    turns: tuple[Turn, ...]
    places: dict[str, Place]
    work_words: int
    input_words: int
    output_words: int

    def __str__(self) -> str:
        lines = [
            f"{name}: {place.space.value} {place.base}..{place.base + place.size - 1}"
            for name, place in self.places.items()
        ]
        return "\n".join([*lines, *(str(turn) for turn in self.turns)]) + "\n"


def schedule(mapping: Mapping, grid: GridConfig) -> Schedule:
    """Order the passes, place tensors and rows, and put fences where memory is handed on."""
    places, work = _places(mapping, grid)
    turns = list(_turns(mapping, grid, places))
    mine = {name: place for name, place in places.items() if name in mapping.graph.tensors}
    return Schedule(
        mapping,
        tuple(with_fences(turns, _memory(mapping), places, grid)),
        mine,
        work,
        _frame_words(places, Space.INPUT),
        _frame_words(places, Space.OUTPUT),
    )


def _frame_words(places: dict[str, Place], space: Space) -> int:
    used = max((p.base + p.size for p in places.values() if p.space is space), default=0)
    return round_up(used, PAGE_WORDS)


# --- memory -------------------------------------------------------------------------------------


def _places(mapping: Mapping, grid: GridConfig) -> tuple[dict[str, Place], int]:
    """Place inputs and outputs one after another in their frames, all else by liveness."""
    graph, batch, unit = mapping.graph, mapping.batch, grid.bus_words
    memory = _memory(mapping)
    places: dict[str, Place] = {}
    for space, names in ((Space.INPUT, graph.inputs), (Space.OUTPUT, graph.outputs)):
        at = 0
        for name in (memory.of(name)[0] for name in names):
            if name in places:
                continue
            places[name] = tensor_place(space, at, graph.tensors[name].shape, batch, unit)
            at += places[name].size

    buffers = list(_buffers(mapping, grid, places))
    near = _in_scratchpad(mapping, grid, buffers)
    interleaved = frozenset[str]().union(*(a.chain.interleaved for a in mapping.assignments))
    side = side_by_side(batch, grid) if batch > 1 else 0
    far = [buffer for buffer in buffers if buffer not in near]
    sizes = {buffer.name: buffer.size for buffer in buffers}
    work = 0
    for space, mine in ((Space.SCRATCHPAD, near), (Space.WORK, far)):
        offsets, work = pack(mine, unit)
        for name, base in offsets.items():
            if name in graph.tensors:
                shape = graph.tensors[name].shape
                aside = name in interleaved or shape[1:] == (1, 1)
                places[name] = tensor_place(space, base, shape, batch, unit, side * aside)
            else:
                places[name] = Place(space, base, sizes[name], 0, 0, 0, 0)
    for name in (*mapping.joins, *mapping.views):
        _place_within(mapping, name, places)
    return places, work


def _in_scratchpad(mapping: Mapping, grid: GridConfig, buffers: list[Buffer]) -> list[Buffer]:
    """Return the buffers there: tensors as the chains say, then partial sums while there is room."""
    memory = _memory(mapping)
    names = {
        memory.of(name)[0]
        for assignment in mapping.assignments
        for name in assignment.chain.scratchpad
    }
    near = [buffer for buffer in buffers if buffer.name in names]
    for buffer in buffers:
        if buffer.name not in mapping.graph.tensors and fits([*near, buffer], grid):
            near.append(buffer)
    return near


def _buffers(
    mapping: Mapping, grid: GridConfig, places: dict[str, Place]
) -> Iterator[Buffer]:
    """Yield what needs memory: tensors that have no place yet, and partial sums."""
    memory = _memory(mapping)
    for name, (first, last) in memory.lives([a.chain for a in mapping.assignments]).items():
        if name not in places:
            shape = mapping.graph.tensors[name].shape
            size = tensor_place(Space.WORK, 0, shape, mapping.batch, grid.bus_words).size
            yield Buffer(name, size, first, last)
    for index, assignment in enumerate(mapping.assignments):
        for name, size in _sums(assignment, grid).items():
            yield Buffer(name, size, index, index)


def _memory(mapping: Mapping) -> Memory:
    return Memory(mapping.graph, mapping.views, mapping.joins)


def _place_within(mapping: Mapping, name: str, places: dict[str, Place]) -> None:
    """Place an input of a concat, or a view, in the memory of what it belongs to."""
    if name in places:
        return
    shape = mapping.graph.tensors[name].shape
    if name in mapping.joins:
        of, channel = mapping.joins[name]
        _place_within(mapping, of, places)
        places[name] = places[of].part(channel)
    elif name in mapping.views:
        of = root(mapping.views, name)
        _place_within(mapping, of, places)
        if shape[1] == mapping.graph.tensors[of].shape[1] == 1:  # else only dense layers read it
            places[name] = places[of].view(shape)


def _sums(assignment: Assignment, grid: GridConfig) -> dict[str, int]:
    """Buffers for partial sums: for every column what is open at once, and two at least, so that the
    next sums need not wait."""
    sizes: dict[str, int] = {}
    for name, piece in _sum_names(assignment):
        size = round_up(partial_words(conv_shape(assignment.chain, piece), grid), grid.bus_words)
        sizes[name] = max(sizes.get(name, 0), size)
    return sizes


def _sum_names(assignment: Assignment) -> Iterator[tuple[str, Piece]]:
    for one, slot in zip(assignment.passes, _sum_slots(assignment), strict=True):
        for piece in one.pieces:
            if piece.partial_in or piece.partial_out:
                yield _sum_name(assignment.chain, piece, slot), piece


def _sum_slots(assignment: Assignment) -> list[int]:
    """Return for every pass which of its columns' buffers its sums lie in: they take turns."""
    begun: dict[tuple[object, ...], int] = {}  # sums under way, and their number
    numbers, count, most = [], 0, 2
    for one in assignment.passes:
        key = tuple((piece.image, piece.out) for piece in one.pieces)
        if not one.pieces[0].partial_in:
            begun[key] = count
            count += 1
            most = max(most, len(begun))
        numbers.append(begun[key] if one.pieces[0].partial_out else begun.pop(key))
    return [number % most for number in numbers]


def _sum_name(chain: Chain, piece: Piece, slot: int) -> str:
    return f"sums {chain.name}/{piece.column}/{slot}"


# --- order and row buffers ------------------------------------------------------------------------


def _turns(mapping: Mapping, grid: GridConfig, places: dict[str, Place]) -> Iterator[Turn]:
    before: dict[int, _Held] = {}
    for assignment in mapping.assignments:
        slots = _sum_slots(assignment)
        for number, one in enumerate(assignment.passes):
            yield Turn(
                assignment.chain,
                number,
                one.pieces,
                tuple(_row_place(assignment.chain, piece, grid, before) for piece in one.pieces),
                tuple(
                    _sum_place(assignment.chain, piece, slots[number], places)
                    for piece in one.pieces
                ),
                _weights_bound(assignment.chain, one.pieces, grid),
            )


def _weights_bound(chain: Chain, pieces: tuple[Piece, ...], grid: GridConfig) -> bool:
    if chain.head is None:
        return False
    shape = conv_shape(chain, pieces[0])
    words = packet_words(shape, grid) * len({piece.out.maps for piece in pieces})
    work = shape.groups(grid) * shape.blocks(grid) * shape.steps(grid)
    return words > work * grid.bus_words_per_cycle


def _sum_place(
    chain: Chain, piece: Piece, slot: int, places: dict[str, Place]
) -> Place | None:
    if not (piece.partial_in or piece.partial_out):
        return None
    return places[_sum_name(chain, piece, slot)]


class _Held(NamedTuple):
    """Words ``lo .. hi - 1`` of a row buffer in use; ``of`` says what lies there, whole, if so."""

    lo: int
    hi: int
    of: tuple[object, ...] | None


def _row_place(
    chain: Chain, piece: Piece, grid: GridConfig, before: dict[int, _Held]
) -> RowPlace | None:
    """Place a piece's rows behind, or before, those of the column's last pass, if they fit.

    What the last pass has stored whole is not read again.
    """
    if chain.head is None:
        return None
    shape = conv_shape(chain, piece)
    plan = plan_rows(chain, shape, grid)
    assert plan is not None
    whole = plan.ring_words == 0
    stored = replace(plan, need=0, release=0)
    content = (chain.name, piece.image, piece.part, shape.rows, shape.cols, stored) if whole else None
    base, ahead = 0, 0
    if piece.column in before:
        held = before[piece.column]
        if content is not None and held.of == content:
            return RowPlace(plan, held.lo, ahead=1, resident=True)
        behind = round_up(held.hi, grid.row_banks)
        # At the end, so that what is free next is in one piece.
        end = (grid.row_words - plan.size) // grid.row_banks * grid.row_banks
        if behind <= end:
            base, ahead = end, 1
        elif plan.size <= held.lo:
            ahead = 1
    before[piece.column] = _Held(base, base + plan.size, content)
    return RowPlace(plan, base, ahead)


__all__ = ["PAGE_WORDS", "Schedule", "schedule"]
