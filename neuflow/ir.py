"""The nouns of the walk: Graph -> QuantGraph -> Mapping -> Schedule -> Program.

All are frozen; a pass takes one and returns the next. Tensors are (C, H, W) per image; the batch
is not part of a shape. Each noun has ``check()`` and prints itself as a readable listing.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Tensor:
    """A tensor of one image: ``shape`` (C, H, W); once quantised, ``bits`` and binary ``point``.

    Its values are word * ``scale`` * 2**-point; the scale of inputs and outputs is 1, that of a concat
    may be a tuple with one for every channel. ``onnx_shape`` is the model's own shape without the
    batch, for inputs and outputs.
    """

    name: str
    shape: Shape
    bits: int | None = None
    point: int | None = None
    onnx_shape: tuple[int, ...] | None = None
    scale: float | tuple[float, ...] = 1.0

    @property
    def size(self) -> int:
        """Values of one image."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Node:
    """One operation; ``op`` is a key of ``OPS`` (Graph) or ``QUANT_OPS`` (QuantGraph).

    ``attrs`` holds plain values and NumPy arrays, listed beside the op's key.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: MappingType[str, Any] = field(default_factory=dict)


OPS: dict[str, str] = {
    "conv": "weight float [M, C/groups, Ky, Kx], bias float [M], stride (y, x), dilation (y, x), "
    "pads (top, left, bottom, right), groups",
    "dense": "weight float [M, K], bias float [M]; the input is flattened in C, H, W order to K",
    "map": "function: relu, tanh, clip (low, high), power (exponent, low, high: the operand is held to "
    "low..high first), leakyrelu (alpha), ...: functions.FUNCTIONS has them all",
    "pool": "kind: max, average (padding counts as 0; sum / divisor, by default the kernel's size) or "
    "mean (of the real values alone); kernel (y, x), stride (y, x), pads (top, left, bottom, right)",
    "alu": "kind: add, sub, mul, div, max, min; two inputs of one shape",
    "concat": "two inputs or more of one H, W; joined along C; apart: only convolutions without groups "
    "read it, perhaps behind slices, so that its inputs may differ in point and scale; or left out",
    "slice": "first, count: channels first .. first + count - 1",
    "reshape": "shape (C, H, W); a view: same values in C, H, W order",
}
"""Operations of a :class:`Graph` with their attributes."""

GEOMETRY = ("stride", "dilation", "pads", "groups")
"""Attributes of a convolution that say where its taps lie."""

QUANT_OPS: dict[str, str] = {
    "conv": "as in Graph, with weight int64 words [M, C/groups, Ky, Kx] of weight * the input's scale / "
    "the output's, bias int64 [M] of bias / the output's, m int64 [M], s int64 [M], zero int64 [M], weight_point int64 [M] (int at 8 bits); output = requantise(sum, bias, m, s, zero, bits)",
    "dense": "as conv, weight int64 [M, K]",
    "map": "table: MapTable; function: str",
    "pool": "kind: max or sum; kernel, stride, pads; m, s, zero (int): "
    "sat(((reduce * m + half) >> s) + zero); max over real values only, sum counts padding as 0; m "
    "and s may be int64 [H, W], a value for each output place",
    "alu": "kind: add, sub, mul, div, max, min, abs, square; shift_a, shift_b, shift (int), see "
    "layout.ALU",
    "concat": "the words are unchanged; all inputs and the output have one point, or the output has a "
    "scale for every channel",
    "slice": "first, count: as in Graph; the words are unchanged",
    "reshape": "shape (C, H, W); the words are unchanged",
}
"""Operations of a :class:`QuantGraph` with their attributes."""


@dataclass(frozen=True)
class MapTable:
    """Contents of a mapper: see ``layout.MAPPER`` for the formula. 8 segments, ascending ``low``."""

    low: tuple[int, ...]
    b: tuple[int, ...]
    a: tuple[int, ...]
    q: tuple[int, ...]
    shift: int
    square: int
    odd: bool = False
    even: bool = False
    worst: float = 0.0
    """Worst error over all words against the exact function, in units of the output's last place."""
    noise: float = 0.0
    """RMS error over the input words that calibration has seen, as a share of the RMS of the exact values;
    0 for what is linear, which is exact but for one rounding."""


@dataclass(frozen=True)
class HostOp:
    """A final operation done on the host in float: softmax, logsoftmax or argmax."""

    op: str
    input: str
    output: str
    axis: int
    attrs: MappingType[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """The model in float, simplified: nodes in topological order.

    ``batch``: the model's fixed first dimension, or None where it is 1 or symbolic.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: MappingType[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host: tuple[HostOp, ...] = ()
    batch: int | None = None


@dataclass(frozen=True)
class QuantGraph:
    """The model in integers, what golden evaluates: every tensor has bits and a point."""

    name: str
    nodes: tuple[Node, ...]
    tensors: MappingType[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host: tuple[HostOp, ...] = ()
    batch: int | None = None
    bits: int = 16


Words = NDArray[np.int64]
"""Tensor words, int64 [N, C, H, W] in every judge."""


@dataclass(frozen=True)
class Port:
    """Where an input or output of the model lies within a frame's inputs or outputs.

    Image n, record y begins at word ``offset + n * image_step + y * record_step`` of the frame and
    holds C x W words. ``along_x``: the batch lies along x instead (shape (C, 1, batch) is one record).
    """

    tensor: Tensor
    offset: int
    image_step: int
    record_step: int
    along_x: bool = False


@dataclass(frozen=True)
class Layer:
    """What figures of one layer need: a Conv, Gemm or stand-alone node with what is fused to it.

    ``macs`` and ``words`` are nominal, for one image: padded taps counted, kernels that are zero
    throughout not; words = inputs, weights and outputs once, unpadded (``weight_words`` of them
    weights, which a batch shares, ``output_words`` outputs).
    ``writes[c]``: WRITE packets of column c in one frame that belong to this layer.
    """

    name: str
    operator: str
    macs: int
    words: int
    weight_words: int
    output_words: int
    writes: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A compiled model: what ``.nfp`` holds.

    ``device`` is the device section; ``work_words`` words of work memory lie behind it, from the
    next multiple of 4 KB on; a frame is one pass of ``batch`` images with ``input_words`` and
    ``output_words`` words (multiples of 4 KB / 2, so that rings are aligned). ``origins``: (first
    device word of 32 bit, its origin such as ``conv1/column3/CONV_ARRAY``), ascending.
    ``mapping`` and ``schedule`` are the stages' listings; ``cuts``: if a search has found any,
    all layers with the ranks of their cuts, see ``compiler.assign.cuts_to_try``.
    """

    name: str
    grid: Any  # GridConfig
    device: bytes
    work_words: int
    input_words: int
    output_words: int
    batch: int
    graph: QuantGraph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[Layer, ...]
    origins: tuple[tuple[int, str], ...]
    mapping: str = ""
    schedule: str = ""
    cuts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Result:
    """What a judge returns: output words int64 [N, C, H, W] by name, and statistics of the run."""

    outputs: MappingType[str, Words]
    stats: MappingType[str, Any]
