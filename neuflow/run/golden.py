"""The golden judge: a quantised graph in NumPy, integers only, exact.

It evaluates layer by layer what the ``QuantGraph`` says, with the graph's own weights. It never
sees configuration words, descriptors, routes or packed weights, so that a fault of the compiler's
back end cannot hide in both. Sums of products go through float64 matrix products (BLAS) where
every partial sum is below 2**53, hence exact; the bound is checked layer by layer, and int64
takes over where it does not hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from neuflow.blocks.alu_model import alu
from neuflow.blocks.mapper_model import apply_table
from neuflow.errors import InputError
from neuflow.fixed import requantise, saturate
from neuflow.ir import Node, Program, QuantGraph, Result, Words
from neuflow.layout import AluOp

EXACT = 1 << 53
"""Integers below are exact in float64, and so are their sums below it."""

BLOCK = 1 << 21
"""Values of the largest matrix of patches that a convolution makes at once (16 MB)."""


def run(program: Program | QuantGraph, inputs: Mapping[str, Words]) -> Result:
    """Return the output words int64 [N, C, H, W] by name, for input words of the same kind."""
    graph = program.graph if isinstance(program, Program) else program
    wanted = set(graph.outputs)
    outputs = {name: words for name, words in walk(graph, inputs) if name in wanted}
    return Result({name: outputs[name] for name in graph.outputs}, {})


def evaluate(graph: QuantGraph, inputs: Mapping[str, Words]) -> dict[str, Words]:
    """Return the words of every tensor by name."""
    return dict(walk(graph, inputs))


def walk(graph: QuantGraph, inputs: Mapping[str, Words]) -> Iterator[tuple[str, Words]]:
    """Yield (name, words) in order; a tensor is forgotten after its last use, to save memory."""
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    held = check_inputs(graph, inputs)
    yield from list(held.items())
    for node in graph.nodes:
        result = OPERATIONS[node.op](node, graph.bits, *[held[name] for name in node.inputs])
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                held.pop(name, None)
        if uses[node.output]:
            held[node.output] = result
        yield node.output, result


def check_inputs(graph: QuantGraph, inputs: Mapping[str, Words]) -> dict[str, Words]:
    """Return the inputs as int64; refuse names, shapes, types and values that do not fit."""
    if set(inputs) != set(graph.inputs):
        raise InputError(
            f"inputs given: {', '.join(sorted(inputs)) or 'none'}; the program takes: "
            f"{', '.join(graph.inputs)}"
        )
    checked: dict[str, Words] = {}
    for name in graph.inputs:
        tensor, words = graph.tensors[name], np.asarray(inputs[name])
        if words.dtype.kind not in "iu":
            raise InputError(
                f"input {name!r} has dtype {words.dtype}; give words (integers), or quantise first"
            )
        if words.ndim != 4 or words.shape[1:] != tensor.shape or not len(words):
            want = ", ".join(str(d) for d in ("N", *tensor.shape))
            raise InputError(f"input {name!r} has shape {words.shape}; its words are ({want})")
        words = words.astype(np.int64)
        if not np.array_equal(saturate(words, graph.bits), words):
            raise InputError(f"input {name!r} holds words beyond {graph.bits} bits; saturate them")
        checked[name] = words
    if len({len(words) for words in checked.values()}) > 1:
        raise InputError("inputs hold different numbers of images; give equally many")
    return checked


# --- sums of products -----------------------------------------------------------------------------


def _sum_type(weight: Words, bits: int) -> type[np.floating[Any]] | type[np.integer[Any]]:
    """Return float64 where every partial sum is exact in it, else int64."""
    largest = int(np.abs(weight.reshape(len(weight), -1)).sum(axis=1).max(initial=0))
    return np.float64 if largest << (bits - 1) < EXACT else np.int64


def _conv(node: Node, bits: int, x: Words) -> Words:
    """Convolution: every map's sum over its group's channels and taps, then requantised."""
    a = node.attrs
    weight: Words = a["weight"]
    maps, per_group, ky, kx = weight.shape
    dtype = _sum_type(weight, bits)
    top, left, bottom, right = a["pads"]
    padded = np.pad(x.astype(dtype), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (sy, sx), (dy, dx) = a["stride"], a["dilation"]
    reach = ((ky - 1) * dy + 1, (kx - 1) * dx + 1)
    seen = sliding_window_view(padded, reach, axis=(2, 3))[:, :, ::sy, ::sx, ::dy, ::dx]
    groups = a["groups"]
    matrix = weight.reshape(groups, maps // groups, -1).astype(dtype)
    out = np.empty((len(x), maps, *seen.shape[2:4]), np.int64)
    for images, rows in _blocks(len(x), seen.shape[2], seen.shape[3] * per_group * ky * kx):
        for group in range(groups):
            part = seen[images, group * per_group : (group + 1) * per_group, rows]
            sums = _products(matrix[group], part)
            each = slice(group * len(sums), (group + 1) * len(sums))
            out[images, each, rows] = _leave(sums, a, each, bits).swapaxes(0, 1)
    return out


def _blocks(images: int, rows: int, row_values: int) -> Iterator[tuple[slice, slice]]:
    """Cut images and output rows so that a block's patches stay near ``BLOCK`` values."""
    if rows * row_values <= BLOCK:
        step = max(1, BLOCK // (rows * row_values))
        for first in range(0, images, step):
            yield slice(first, first + step), slice(0, rows)
        return
    step = max(1, BLOCK // row_values)
    for image in range(images):
        for first in range(0, rows, step):
            yield slice(image, image + 1), slice(first, first + step)


def _products(matrix: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
    """Multiply weights [M, C Ky Kx] by patches [N, C, H, W, Ky, Kx]; return sums [M, N, H, W]."""
    n, channels, height, width, ky, kx = part.shape
    patches = part.transpose(1, 4, 5, 0, 2, 3).reshape(channels * ky * kx, -1)
    return (matrix @ patches).reshape(len(matrix), n, height, width)


def _leave(
    sums: NDArray[Any], attrs: Mapping[str, Any], maps: slice, bits: int
) -> Words:
    """Requantise sums whose first axis are ``maps``."""
    shape = (-1, *[1] * (sums.ndim - 1))
    bias, m, s, zero = (attrs[key][maps].reshape(shape) for key in ("bias", "m", "s", "zero"))
    return requantise(sums.astype(np.int64), bias, m, s, zero, bits)


def _dense(node: Node, bits: int, x: Words) -> Words:
    """Matrix by vector, image by image."""
    weight: Words = node.attrs["weight"]
    dtype = _sum_type(weight, bits)
    sums = weight.astype(dtype) @ x.reshape(len(x), -1).astype(dtype).T
    return _leave(sums, node.attrs, slice(None), bits).T[:, :, None, None]


# --- all else -------------------------------------------------------------------------------------


def _map(node: Node, bits: int, x: Words) -> Words:
    return apply_table(node.attrs["table"], x, bits)


def _pool(node: Node, bits: int, x: Words) -> Words:
    """Maximum over the real values of a window, or its sum with padding as 0; then scaled."""
    a = node.attrs
    top, left, bottom, right = a["pads"]
    largest = a["kind"] == "max"
    lowest = np.iinfo(np.int64).min
    padded = np.pad(
        x,
        ((0, 0), (0, 0), (top, bottom), (left, right)),
        constant_values=lowest if largest else 0,
    )
    (ky, kx), (sy, sx) = a["kernel"], a["stride"]
    seen = sliding_window_view(padded, (ky, kx), axis=(2, 3))[:, :, ::sy, ::sx]
    combine = np.maximum if largest else np.add
    total = seen[..., 0, 0].copy()
    for place in range(1, ky * kx):
        combine(total, seen[..., place // kx, place % kx], out=total)
    return requantise(total, 0, a["m"], a["s"], a["zero"], bits)


def _alu(node: Node, bits: int, a: Words, b: Words | None = None) -> Words:
    attrs = node.attrs
    return alu(
        AluOp[attrs["kind"].upper()], a, b,
        shift_a=attrs["shift_a"], shift_b=attrs["shift_b"], shift=attrs["shift"], bits=bits,
    )  # fmt: skip


def _concat(node: Node, bits: int, *parts: Words) -> Words:
    return np.concatenate(parts, axis=1)


def _slice(node: Node, bits: int, x: Words) -> Words:
    first: int = node.attrs["first"]
    return x[:, first : first + node.attrs["count"]]


def _reshape(node: Node, bits: int, x: Words) -> Words:
    return x.reshape(len(x), *node.attrs["shape"])


OPERATIONS: dict[str, Callable[..., Words]] = {
    "conv": _conv,
    "dense": _dense,
    "map": _map,
    "pool": _pool,
    "alu": _alu,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
}
