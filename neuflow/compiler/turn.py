"""The noun Turn: a pass in its place in the global order, and where its rows lie."""

from __future__ import annotations

from dataclasses import dataclass

from neuflow.compiler.allocate import Place
from neuflow.compiler.buffers import RowPlan
from neuflow.compiler.geometry import conv_shape
from neuflow.compiler.mapping import Chain, Piece, Span


@dataclass(frozen=True)
class RowPlace:
    """Where a piece's input lies in the row buffer.

    ``ahead``: beside that of the pass before. ``resident``: it is that of the pass before, and
    still there. ``early``: records of the rows packet that are read before the turn's fence.
    """

    plan: RowPlan
    base: int
    ahead: int
    resident: bool = False
    early: int = 0

    @property
    def two(self) -> bool:
        """Whether the rows come as two packets: one before the fence, one behind it."""
        return 0 < self.early < self.plan.rows


@dataclass(frozen=True)
class Turn:
    """A pass in its place in the global order.

    ``number`` counts the passes of the chain. ``rows[i]`` and ``sums[i]`` belong to piece i.
    ``weights_bound``: its weights take the bus longer than the arrays work.

    ``fence``: columns whose writes must be done before this pass reads or writes, one bit each.
    ``early_fence``: those whose writes, but for the last WRITE packet of each, must be done before
    its early rows are read; ``overtakes``: before the turn before sends its WRITE packets, so that those
    of its writers are the last ones. ``first_write[i]``: rows of the output of piece i that have a WRITE
    packet of their own, as others read them early; 0: it has one packet.
    """

    chain: Chain
    number: int
    pieces: tuple[Piece, ...]
    rows: tuple[RowPlace | None, ...]
    sums: tuple[Place | None, ...]
    weights_bound: bool = False
    fence: int = 0
    early_fence: int = 0
    overtakes: bool = False
    first_write: tuple[int, ...] = ()

    @property
    def columns(self) -> int:
        """Columns that work on it, one bit each."""
        return sum(1 << piece.column for piece in self.pieces)

    @property
    def label(self) -> str:
        """Name of the pass in origins and listings."""
        return f"{self.chain.name}/pass{self.number}"

    def writes(self, i: int) -> tuple[Span, ...]:
        """Rows of the output of piece i that each of its WRITE packets has; partial sums: one."""
        rows = self.pieces[i].out.rows
        if not self.first_write or not self.first_write[i]:
            return (rows,)
        middle = rows.lo + self.first_write[i]
        return Span(rows.lo, middle), Span(middle, rows.hi)

    def readings(self) -> list[list[int]]:
        """Numbers of the pieces that take the same rows packet; those with resident rows take none."""
        found: dict[tuple[object, ...], list[int]] = {}
        for i, (piece, rows) in enumerate(zip(self.pieces, self.rows, strict=True)):
            if rows is not None and not rows.resident:
                shape = conv_shape(self.chain, piece)
                key = (piece.image, piece.part, shape.rows, shape.cols)
                found.setdefault(key, []).append(i)
        return list(found.values())

    def __str__(self) -> str:
        lines = [self.label + (f"  after fence of columns {self.fence:b}b" if self.fence else "")]
        if self.early_fence:
            columns = f"all WRITE packets but the last of columns {self.early_fence:b}b"
            before = ", before the turn before writes" if self.overtakes else ""
            lines.append(f"  early rows after {columns}{before}")
        for i, (piece, rows) in enumerate(zip(self.pieces, self.rows, strict=True)):
            lines.append(f"  {piece}")
            if len(writes := self.writes(i)) > 1:
                lines.append(f"    written as rows {writes[0]}, then {writes[1]}")
            if rows is not None:
                kind = f"ring of {rows.plan.ring_rows} rows" if rows.plan.ring_words else "whole"
                when = ", loaded ahead" if rows.ahead else ""
                when = ", from the pass before" if rows.resident else when
                early = f", {rows.early} of {rows.plan.rows} records before the fence"
                when += early if rows.early and self.fence else ""
                lines.append(f"    rows at {rows.base}, {rows.plan.size} words, {kind}{when}")
        return "\n".join(lines)


__all__ = ["RowPlace", "Turn"]
