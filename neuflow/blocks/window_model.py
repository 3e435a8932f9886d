"""What the window reduction computes, what memory and time it takes. No Amaranth here."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuflow.fixed import Int, requantise
from neuflow.layout import WindowOp

EMPTY_MAX = -32768
"""MAX of a window that lies wholly in padding."""

RING_WORDS = 512
"""Columns that wait for their windows: the widest window, 255 columns, and what arrives meanwhile."""

ROW_OVERHEAD = 3
"""Cycles that a row record takes beside those of its chunks; a row of padding takes no others."""

PACKET_OVERHEAD = 48
"""Cycles at most, beside slots and rows, that a packet takes."""


@dataclass(frozen=True)
class WindowSpec:
    """Fields of ``layout.WINDOW`` that say what is computed (sizes come with the data).

    ``kernel``, ``stride``: (y, x), 1 to 255. ``pad``: (top, left), less than the kernel. Padding
    at the bottom and right is whatever the last windows reach beyond the input.
    """

    op: WindowOp
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int] = (0, 0)
    out: tuple[int, int] = (1, 1)
    m: int = 1
    s: int = 0
    zero: int = 0
    bits: int = 16

    def __post_init__(self) -> None:
        for kernel, stride, pad, out in zip(
            self.kernel, self.stride, self.pad, self.out, strict=True
        ):
            if not (1 <= kernel <= 255 and 1 <= stride <= 255 and 0 <= pad < kernel and out >= 1):
                raise ValueError(f"window: kernel, stride, pad, out = {kernel, stride, pad, out}")

    def fields(self, maps: int, height: int, width: int) -> dict[str, int]:
        """Return the fields of ``layout.WINDOW`` for an input of this shape."""
        return {
            "op": int(self.op), "maps": maps, "width": width, "height": height,
            "width_out": self.out[1], "height_out": self.out[0],
            "kernel_x": self.kernel[1], "kernel_y": self.kernel[0],
            "stride_x": self.stride[1], "stride_y": self.stride[0],
            "pad_x": self.pad[1], "pad_y": self.pad[0],
            "m": self.m, "s": self.s, "zero": self.zero, "narrow": int(self.bits == 8),
        }  # fmt: skip


def window(spec: WindowSpec, x: ArrayLike) -> Int:
    """Return ``sat(((reduce * m + half) >> s) + zero)`` of each window.

    Parameters
    ----------
    spec : what to compute.
    x : words [..., height, width].

    Returns
    -------
    words [..., spec.out[0], spec.out[1]]. MAX ignores padding, SUM counts it as 0; the MAX of
    padding alone is ``EMPTY_MAX``.
    """
    x = np.asarray(x, np.int64)
    largest = spec.op == WindowOp.MAX
    sizes = [
        max((out - 1) * stride + kernel, pad + have)
        for out, stride, kernel, pad, have in zip(
            spec.out, spec.stride, spec.kernel, spec.pad, x.shape[-2:], strict=True
        )
    ]
    padded = np.full((*x.shape[:-2], *sizes), EMPTY_MAX if largest else 0, np.int64)
    top, left = spec.pad
    padded[..., top : top + x.shape[-2], left : left + x.shape[-1]] = x
    (rows, columns), (step_y, step_x) = spec.kernel, spec.stride
    end_y, end_x = ((out - 1) * step + 1 for out, step in zip(spec.out, spec.stride, strict=True))
    combined = np.maximum if largest else np.add
    # All windows at once: their rows one after the other, then their columns.
    lines = [padded[..., k : k + end_y : step_y, :] for k in range(rows)]
    reduced = functools.reduce(combined, lines)
    points = [reduced[..., k : k + end_x : step_x] for k in range(columns)]
    reduced = functools.reduce(combined, points)
    return requantise(reduced, 0, spec.m, spec.s, spec.zero, spec.bits)


def slots(kernel_y: int, stride_y: int, height_out: int) -> int:
    """Return the output rows that are open between two input rows at most.

    ``min(ceil((kernel - 1) / stride), height_out)``: a row that closes makes room for one that opens.
    """
    return min(-(-(kernel_y - 1) // stride_y), height_out)


def chunks(width: int, lanes: int) -> int:
    """Return the chunks of a line: up to ``lanes`` words each."""
    return -(-width // lanes)


def memory_words(
    kernel_y: int, stride_y: int, height_out: int, maps: int, width: int, lanes: int
) -> int:
    """Return the row memory a packet needs; it must not exceed ``grid.window_words``."""
    return slots(kernel_y, stride_y, height_out) * maps * chunks(width, lanes) * lanes


def window_cycles(spec: WindowSpec, width: int, lanes: int) -> int:
    """Return the cycles of an output row of a map behind the ring: ``lanes`` columns a cycle."""
    left = np.arange(spec.out[1]) * spec.stride[1] - spec.pad[1]
    columns = np.clip(left + spec.kernel[1], 0, width) - np.clip(left, 0, width)
    return int(np.maximum(1, -(-columns // lanes)).sum())


def cycles_bound(spec: WindowSpec, maps: int, height: int, width: int, lanes: int) -> int:
    """Return an upper bound of the cycles of a packet whose input and output never stall.

    A row record costs the chunks of its lines, ``lanes`` words each, times the output rows open there
    (one that opens where another closes shares its cycle), and ``ROW_OVERHEAD``; a window costs a
    cycle for each ``lanes`` of its columns. Both go on at once, the windows behind by up to what the
    ring holds. Over 4 lanes and lines of 4 n words, windows 2 x 2 and 3 x 3 of stride 2 and means of
    whole images so take nearly 4 words a cycle; those of stride 1 take 1, up to 4 columns and 5 rows,
    for a word leaves in a cycle at most.
    """
    (kernel_y, _), (stride_y, _) = spec.kernel, spec.stride
    first = np.arange(spec.out[0]) * stride_y - spec.pad[0]
    last = first + kernel_y - 1
    row_chunks = maps * chunks(width, lanes)
    windows = maps * window_cycles(spec, width, lanes)
    held = windows * (RING_WORDS // lanes - 2) // row_chunks
    total, waiting = PACKET_OVERHEAD + slots(kernel_y, stride_y, spec.out[0]), 0
    for y in range(-spec.pad[0], max(height, int(last[-1]) + 1)):
        closes = bool((last == y).any())
        visits = int(((first <= y) & (y <= last)).sum()) - bool(closes and (first == y).any())
        rows = 0
        if 0 <= y < height:
            rows = row_chunks * max(1, visits)
        elif closes:
            rows = row_chunks
        waiting += windows * closes
        spent = max(rows + ROW_OVERHEAD, waiting - held)
        waiting = max(0, waiting - spent)
        total += spent
    return total + waiting


__all__ = [
    "EMPTY_MAX",
    "PACKET_OVERHEAD",
    "RING_WORDS",
    "ROW_OVERHEAD",
    "WindowSpec",
    "chunks",
    "cycles_bound",
    "memory_words",
    "slots",
    "window",
    "window_cycles",
]
