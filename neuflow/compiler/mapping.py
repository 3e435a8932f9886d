"""The noun Mapping: which column works on which piece of which layer in which pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.parameters_model import Form, form
from neuflow.ir import Node, QuantGraph, Shape


class Span(NamedTuple):
    """The half-open range ``lo .. hi - 1``."""

    lo: int
    hi: int

    @property
    def size(self) -> int:
        """Numbers in the range."""
        return self.hi - self.lo

    def split(self, parts: int, unit: int = 1) -> tuple[Span, ...]:
        """Cut into at most ``parts`` spans of one size, a multiple of ``unit``; the last less."""
        step = -(-self.size // (parts * unit)) * unit
        return tuple(Span(lo, min(lo + step, self.hi)) for lo in range(self.lo, self.hi, step))

    def share(self, parts: int, unit: int) -> tuple[Span, ...]:
        """Cut into at most ``parts`` spans whose units differ by one at most, the larger ones first."""
        units = -(-self.size // unit)
        parts = min(parts, units)
        bounds = [self.lo + unit * (k * (units // parts) + min(k, units % parts)) for k in range(parts)]
        return tuple(Span(lo, hi) for lo, hi in pairwise([*bounds, self.hi]))

    def __str__(self) -> str:
        return f"{self.lo}..{self.hi - 1}"


class Region(NamedTuple):
    """A box of a tensor of one image. In a batched chain rows are bands of images, columns these."""

    maps: Span
    rows: Span
    cols: Span

    @property
    def size(self) -> int:
        """Values in the box."""
        return self.maps.size * self.rows.size * self.cols.size

    def __str__(self) -> str:
        return f"maps {self.maps} rows {self.rows} cols {self.cols}"


class Part(NamedTuple):
    """The products that one pass adds up: input channels and kernel taps.

    ``channels`` are channels of the input tensor; for a dense layer words of its flattened input in
    the order of memory (y, c, x).
    """

    channels: Span
    ky: Span
    kx: Span

    def __str__(self) -> str:
        return f"channels {self.channels} taps {self.ky} x {self.kx}"


class Join(NamedTuple):
    """A tensor lies in the memory of tensor ``of``, from its channel ``channel`` on."""

    of: str
    channel: int


@dataclass(frozen=True)
class Step:
    """An ``alu``, ``pool`` or ``map`` node that the stream of a chain passes through.

    ``operand``: the tensor that an alu node takes from memory. ``sides``: which of the node's
    inputs the stream itself is, a subset of ``"ab"``.
    """

    node: Node
    operand: str | None = None
    sides: str = "a"


@dataclass(frozen=True)
class Chain:
    """Nodes that become one walk through a column: memory -> [convolver] -> steps -> memory.

    ``head`` is a conv or dense node, or None where the stream comes straight from memory.
    ``shapes[0]`` is what enters the first step, ``shapes[-1]`` what is written. ``batched``: all
    images of a frame at once, band below band, so that shapes are (C, bands, images of a band).
    ``reorder``: a copy in C, H, W order (a reshape that memory order does not allow as a view).
    ``kernels``: which kernels of a convolution are not zero, bool [M, C/groups]; None: most.
    ``kept``: the maps that are written, as nobody reads the others; None: all.
    ``scratchpad``: those of its tensors that lie there; ``interleaved``: those of them whose images
    lie word beside word, see ``allocate.tensor_place``.
    """

    name: str
    head: Node | None
    source: str
    source_shape: Shape
    steps: tuple[Step, ...]
    output: str
    shapes: tuple[Shape, ...]
    batched: bool
    bits: int
    reorder: bool = False
    kernels: NDArray[np.bool_] | None = None
    scratchpad: frozenset[str] = frozenset()
    interleaved: frozenset[str] = frozenset()
    kept: Span | None = None

    @property
    def maps(self) -> Span:
        """Maps that are written."""
        return self.kept or Span(0, self.shapes[-1][0])

    @property
    def channels_read(self) -> Span:
        """Input channels of a convolution, numbered within a group, from the first read to the last."""
        assert self.head is not None
        if self.kernels is None:
            return Span(0, self.head.attrs["weight"].shape[1])
        read = np.flatnonzero(self.kernels.any(axis=0))
        return Span(int(read[0]), int(read[-1]) + 1) if len(read) else Span(0, 1)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of the chain, in order."""
        head = () if self.head is None else (self.head,)
        return (*head, *(step.node for step in self.steps))

    @property
    def is_dense(self) -> bool:
        """Whether the head is a dense layer."""
        return self.head is not None and self.head.op == "dense"

    @property
    def flattens(self) -> bool:
        """Whether the head is a dense layer that reads images one after another, each as it lies."""
        beside = self.source_shape[1:] == (1, 1) or self.source in self.interleaved
        return self.is_dense and (self.shapes[-1][1:] == (1, 1) or not beside)

    @cached_property
    def form(self) -> Form:
        """How packets of weights say the parameters of the head's maps."""
        assert self.head is not None
        return form(*(self.head.attrs[name] for name in ("bias", "m", "s", "zero")))

    @property
    def by_block(self) -> bool:
        """Whether the head is a grouped convolution whose groups are blocks of maps."""
        return self.head is not None and self.head.attrs.get("by_block", False)

    @property
    def operand(self) -> Step | None:
        """The step that takes a tensor from memory, if any (at most one)."""
        return next((step for step in self.steps if step.operand is not None), None)

    @property
    def tensors_read(self) -> tuple[str, ...]:
        """Tensors in memory that the chain reads."""
        operands = (step.operand for step in self.steps if step.operand is not None)
        return (self.source, *operands)


@dataclass(frozen=True)
class Piece:
    """What one column does in one pass.

    ``out``: box of the chain's output. ``part``: products added up, None without a convolver.
    ``partial_in``, ``partial_out``: exact sums come from / go to the chain's partial-sum memory.
    ``pitch``: lanes from an output row to the next, at least; sums of one piece lie by lanes, so
    all its parts have the same. ``room``: words of the row buffer that it may use, if not half of
    them. ``box``: rows and columns of the input that it takes, if more than it reads. ``by_tap``: the
    map lanes of the array work on taps of one map, see ``layout.CONV_ARRAY``. ``closed``: its pixel
    lanes go on from the end of an output row to the next.
    """

    column: int
    image: int
    out: Region
    part: Part | None = None
    partial_in: bool = False
    partial_out: bool = False
    pitch: int = 1
    room: int = 0
    box: tuple[Span, Span] | None = None
    by_tap: bool = False
    closed: bool = False

    def form(self, chain: Chain) -> Form:
        """Return how its packet of weights says its maps' parameters; sums do without."""
        return Form() if self.partial_out else chain.form

    def __str__(self) -> str:
        part = "" if self.part is None else f" {self.part}"
        sums = f"{' +sums' if self.partial_in else ''}{' ->sums' if self.partial_out else ''}"
        how = (" by tap" if self.by_tap else "") + (" closed" if self.closed else "")
        return f"column {self.column}: image {self.image} {self.out}{part}{how}{sums}"


@dataclass(frozen=True)
class Pass:
    """Pieces that run at the same time, at most one a column."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Assignment:
    """A chain and its passes in order; ``cycles`` the compiler expects, ``reason``: the cut.

    ``rank``: of the cut, see ``assign.cuts_to_try``; 0: the best by estimate.
    """

    chain: Chain
    passes: tuple[Pass, ...]
    cycles: int
    reason: str
    rank: int = 0

    def __str__(self) -> str:
        ops = " -> ".join(f"{node.name}({node.op})" for node in self.chain.nodes) or "copy"
        shape = f"{self.chain.shapes[-1]}{' batched' if self.chain.batched else ''}"
        lines = [
            f"{self.chain.name}: {self.chain.source} -> {ops} -> {self.chain.output} {shape}",
            f"  {self.reason}; {len(self.passes)} passes, about {self.cycles} cycles",
        ]
        for number, one in enumerate(self.passes):
            lines += [f"    pass {number} {piece}" for piece in one.pieces]
        return "\n".join(lines)


@dataclass(frozen=True)
class Mapping:
    """The whole network cut into passes.

    ``views``: tensor -> tensor whose memory it shares; ``joins``: where inputs of concats lie.
    ``searched``: chains for which a search has found another cut.
    """

    graph: QuantGraph
    batch: int
    assignments: tuple[Assignment, ...]
    views: dict[str, str] = field(default_factory=dict)
    joins: dict[str, Join] = field(default_factory=dict)
    searched: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = [f"found by search: {', '.join(self.searched)}"] if self.searched else []
        return "\n".join([*map(str, self.assignments), *found]) + "\n"
