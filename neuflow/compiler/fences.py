"""Fences: turns wait for what others write, or still read, but for rows that are there early.

A fence costs a layer's start: the last writes of the layer before must be done, then its first rows
are read. So rows that nobody writes any more go before it. Of rows that are being written, the first
may go before it too: the last writer puts them into a WRITE packet of their own, and a fence that
leaves out the packet behind that one is all they wait for. Where another turn lies between, such as
the short cut of a residual block, they are read before that one writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from neuflow.compiler import cost
from neuflow.compiler.allocate import Place, Space
from neuflow.compiler.buffers import RowPlan
from neuflow.compiler.geometry import ConvShape, conv_shape
from neuflow.compiler.liveness import Memory
from neuflow.compiler.mapping import Chain, Pass, Piece, Span
from neuflow.compiler.turn import Turn
from neuflow.grid import GridConfig

WAY_OUT = 150
"""Cycles from a row's last tap until a fence has seen it written, about."""


class _Words(NamedTuple):
    """Words ``lo .. hi - 1`` of a space; of tensor ``of``, if given, only those of ``channels``."""

    space: Space
    lo: int
    hi: int
    of: str
    channels: Span

    def meet(self, other: _Words) -> bool:
        """Whether the two have words in common."""
        if self.of and self.of == other.of:
            return _meet(self.channels, other.channels)
        return self.space is other.space and self.lo < other.hi and other.lo < self.hi


def _meet(a: Span, b: Span) -> bool:
    return a.lo < b.hi and b.lo < a.hi


@dataclass(frozen=True)
class _Use:
    """What a turn does to memory. ``source``: what its rows are read from."""

    columns: int
    source: _Words
    reads: frozenset[_Words]
    writes: frozenset[_Words]


def _use(memory: Memory, turn: Turn, places: Mapping[str, Place]) -> _Use:
    def words(tensor: str) -> _Words:
        of, channels = memory.of(tensor)
        place = places[of]
        return _Words(place.space, place.base, place.base + place.size, of, channels)

    reads = {words(name) for name in turn.chain.tensors_read}
    writes: set[_Words] = set()
    for piece, sums in zip(turn.pieces, turn.sums, strict=True):
        if sums is not None:
            used = _Words(sums.space, sums.base, sums.base + sums.size, "", Span(0, 0))
            if piece.partial_out:
                writes.add(used)
            if piece.partial_in:
                reads.add(used)
        if not piece.partial_out:
            writes.add(words(turn.chain.output))
    return _Use(turn.columns, words(turn.chain.source), frozenset(reads), frozenset(writes))


def _conflict(now: _Use, earlier: _Use) -> bool:
    """Whether ``now`` touches memory that ``earlier`` may still be working on."""

    def meet(ours: frozenset[_Words], theirs: frozenset[_Words]) -> bool:
        return any(a.meet(b) for a in ours for b in theirs)

    # Pieces of one tensor are disjoint.
    both_write = any(a.meet(b) for a in now.writes for b in earlier.writes if not a.of or a.of != b.of)
    return both_write or meet(now.reads, earlier.writes) or meet(now.writes, earlier.reads)


def with_fences(
    turns: Sequence[Turn], memory: Memory, places: Mapping[str, Place], grid: GridConfig
) -> list[Turn]:
    """Fence the columns of every earlier turn that a turn conflicts with.

    A turn's writes are done only after its reads, so one fence ends both.
    """
    fenced = list(turns)
    pending: dict[_Use, list[int]] = {}  # turns by what they use: the passes of a layer do alike
    last: dict[int, int] = {}  # turn that has the last write of a column
    before: dict[int, int] = {}  # the same, without the turn before
    for number, turn in enumerate(turns):
        use = _use(memory, turn, places)
        fence = 0
        for earlier in pending:
            if _conflict(use, earlier):
                fence |= earlier.columns
        if fence and turn.chain.head is not None:
            writers = [
                n
                for earlier, numbers in pending.items()
                if any(words.meet(use.source) for words in earlier.writes)
                for n in numbers
            ]
            overtakes = _overtakes(fenced[number - 1], writers, number, grid)
            early = _Early(memory, fenced, before if overtakes else last, grid, overtakes)
            turn = early.rows(turn, writers)
        fenced[number] = replace(turn, fence=fence)
        pending = {e: n for e, n in pending.items() if e.columns & ~fence}
        pending.setdefault(use, []).append(number)
        before = dict(last)
        last |= {piece.column: number for piece in turn.pieces}
    return fenced


def _overtakes(earlier: Turn, writers: Sequence[int], number: int, grid: GridConfig) -> bool:
    """Whether early rows of turn ``number`` may be read before ``earlier``, the turn before it, writes.

    That is none of their writers. Its rows must find room while it cannot write yet: their READ packets
    are in front of these in the queue of the port. So they may not be a ring.
    """
    whole = all(place is not None and place.plan.ring_words == 0 for place in earlier.rows)
    return bool(writers) and number - 1 not in writers and whole and grid.config_queue > 1


class _Written(NamedTuple):
    """A piece that writes what is to be read: of turn ``turn`` its number ``i``; rows ``rows``.

    ``last``: it is the last write of its column.
    """

    turn: int
    i: int
    column: int
    rows: Span
    last: bool


class _Leaving(NamedTuple):
    """How the output ``rows`` of a piece leave: ``lanes`` of the array in ``groups``, in ``cycles``."""

    rows: Span
    cycles: float
    lanes: int
    groups: int

    def written(self, end: int, pixels: int) -> float:
        """Return when the rows before ``end`` are there, in cycles from the piece's first tap.

        They leave when the group of their last pixel has gone through all maps.
        """
        part = min(max(end - self.rows.lo, 0) / self.rows.size, 1.0)
        if self.groups:
            part = min(math.ceil(part * self.lanes / pixels) / self.groups, 1.0)
        return part * self.cycles


def _beside(reader: Chain) -> bool:
    """Whether a chain reads bands of images that lie side by side, which others write image by image."""
    return reader.source in reader.interleaved


def _rows(written: Piece, reader: Chain) -> Span:
    """Return the rows that a piece writes as their reader counts them: there a band of images is one."""
    if not _beside(reader):
        return written.out.rows
    band = written.image // reader.shapes[-1][2]
    return Span(band, band + 1)


@dataclass(frozen=True)
class _Early:
    """Finds the rows that a turn may read before its fence; gives writers their first packets.

    ``turns`` are those of the schedule, whose writers it changes; ``last``: turn that writes last in
    a column, in front of the early rows. ``overtakes``: see ``Turn``.
    """

    memory: Memory
    turns: list[Turn]
    last: Mapping[int, int]
    grid: GridConfig
    overtakes: bool

    def rows(self, turn: Turn, writers: list[int]) -> Turn:
        """Return the turn with its early rows and their fence. ``writers``: turns not yet fenced."""
        readings = turn.readings()
        for reading in readings:
            turn = self._reading(turn, reading, writers, len(readings))
        return turn

    def _reading(self, turn: Turn, reading: list[int], writers: list[int], readings: int) -> Turn:
        piece, place = turn.pieces[reading[0]], turn.rows[reading[0]]
        assert place is not None
        plan, shape = place.plan, conv_shape(turn.chain, piece)
        written = self._written(turn, piece, writers)
        records = plan.rows
        ends = min((w.rows.hi for w in written or () if w.last), default=0)
        # A port with one place in its queue would hold up all that follows with its second packet.
        if written is None or (ends and self.grid.config_queue == 1):
            return turn
        if ends:
            most = min(plan.ring_rows if plan.ring_words else plan.rows, self._records(shape, ends - 1))
            records = self._wanted(turn, piece, plan, written, readings, most)
        if records <= 0:
            return turn
        end = min(shape.rows.lo + (records - 1) * shape.every + 1, shape.rows.hi)
        waits = [w for w in written if w.rows.lo < end]
        for w in waits:
            if w.last:
                self._split(w, end)
        rows = list(turn.rows)
        for i in reading:
            mine = rows[i]
            assert mine is not None
            rows[i] = replace(mine, early=records)
        fence = sum({1 << w.column for w in waits})
        fence |= turn.early_fence
        overtakes = self.overtakes and fence > 0
        return replace(turn, rows=tuple(rows), early_fence=fence, overtakes=overtakes)

    @staticmethod
    def _records(shape: ConvShape, end: int) -> int:
        """Records of a rows packet that need no input row from ``end`` on."""
        return max(0, (end - shape.rows.lo - 1) // shape.every + 1)

    def _written(self, turn: Turn, piece: Piece, writers: list[int]) -> list[_Written] | None:
        """Return who writes what ``piece`` reads; None: that cannot be told by rows."""
        chain, tensors = turn.chain, self.memory.graph.tensors
        assert piece.part is not None
        of, mine = self.memory.of(chain.source)
        found: list[_Written] = []
        for number in writers:
            writer = self.turns[number]
            by, theirs = self.memory.of(writer.chain.output)
            shapes = {tensors[name].shape[1:] for name in (chain.source, writer.chain.output, of)}
            alike = chain.batched == writer.chain.batched or _beside(chain)
            plain = alike and not (chain.flattens or writer.chain.reorder)
            if by != of or len(shapes) > 1 or not plain:
                return None
            channels = Span(mine.lo + piece.part.channels.lo, mine.lo + piece.part.channels.hi)
            for i, one in enumerate(writer.pieces):
                maps = Span(theirs.lo + one.out.maps.lo, theirs.lo + one.out.maps.hi)
                read = _beside(chain) or (one.image == piece.image and _meet(maps, channels))
                if read and not one.partial_out:
                    is_last = self.last[one.column] == number
                    found.append(_Written(number, i, one.column, _rows(one, chain), is_last))
        return found

    def _wanted(
        self, turn: Turn, piece: Piece, plan: RowPlan, written: list[_Written], readings: int, most: int
    ) -> int:
        """Return how many records, of ``most``, to read while the last writer works.

        With as many as are best the turn ends soonest, or has most time to spare: many wait for a
        late row, few leave others to be read behind the fence.
        """
        chain, shape, grid = turn.chain, conv_shape(turn.chain, piece), self.grid
        leaving = self._leaving(self.turns[max(w.turn for w in written if w.last)], chain)
        over = max(one.cycles for one in leaving) + WAY_OUT
        works = cost.work(chain, Pass(turn.pieces), piece, grid, kept=False)
        groups = np.arange(shape.groups(grid))
        # What is left of the turn from a group on, and the record that the group waits for.
        left = works.array * (1 - groups / len(groups))
        needed = shape.needed(groups, grid)
        record = plan.channels * plan.width * readings / cost.speed(chain, chain.source, grid)
        record = max(record, plan.channels * cost.store_cycles(plan, grid))

        def end(early: int) -> float:
            last = shape.rows.lo + (early - 1) * shape.every + 1
            begin = max(one.written(last, grid.pixels) for one in leaving) + WAY_OUT
            behind = max(begin + early * record, over) - early * record
            there = np.where(needed <= early, begin, behind) + needed * record
            return float((there + left).max())

        return min(range(most, 0, -1), key=end, default=0)

    def _leaving(self, writer: Turn, reader: Chain) -> list[_Leaving]:
        """Return how the rows of a turn's pieces leave it, as the reader counts them."""
        found = []
        for one in writer.pieces:
            works = cost.work(writer.chain, Pass(writer.pieces), one, self.grid, kept=False)
            cycles, lanes, groups = max(works.array, works.bus), 0, 0
            if writer.chain.head is not None:
                shape = conv_shape(writer.chain, one)
                lanes, groups = shape.out_height * shape.pitch, shape.groups(self.grid)
            found.append(_Leaving(_rows(one, reader), cycles, lanes, groups))
        return found

    def _split(self, written: _Written, end: int) -> None:
        """Give the rows before ``end`` a WRITE packet of their own."""
        writer = self.turns[written.turn]
        first = list(writer.first_write or (0,) * len(writer.pieces))
        first[written.i] = max(first[written.i], end - written.rows.lo)
        self.turns[written.turn] = replace(writer, first_write=tuple(first))


__all__ = ["with_fences"]
