"""What the window reduction computes, what memory and time it takes. No Amaranth here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuflow.fixed import Int, requantise
from neuflow.layout import WindowOp

EMPTY_MAX = -32768
"""MAX of a window that lies wholly in padding."""

RING_WORDS = 512
"""Input words a unit holds: the widest window, 255 words, and what arrives meanwhile."""

ROW_OVERHEAD = 18
"""Cycles at most, beside those of its windows, that a row record takes."""

PACKET_OVERHEAD = 36
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
    views = np.lib.stride_tricks.sliding_window_view(padded, spec.kernel, (-2, -1))
    views = views[..., :: spec.stride[0], :: spec.stride[1], :, :]
    views = views[..., : spec.out[0], : spec.out[1], :, :]
    reduced = views.max((-2, -1)) if largest else views.sum((-2, -1))
    return requantise(reduced, 0, spec.m, spec.s, spec.zero, spec.bits)


def slots(kernel_y: int, stride_y: int, height_out: int) -> int:
    """Return the output rows that are open at once: ``min(ceil(kernel / stride), height_out)``."""
    return min(-(-kernel_y // stride_y), height_out)


def memory_words(kernel_y: int, stride_y: int, height_out: int, maps: int, width_out: int) -> int:
    """Return the row memory a packet needs; it must not exceed ``grid.window_words``."""
    return slots(kernel_y, stride_y, height_out) * maps * width_out


def cycles_bound(spec: WindowSpec, maps: int, height: int, width: int, lanes: int) -> int:
    """Return an upper bound of the cycles of a packet whose input and output never stall.

    A window costs the beats it touches in a row, or one cycle for each output row open there,
    whichever is more (1 where it lies in padding); a row record costs its windows (2 cycles a map
    where none is open), or its beats if those are more, and ``ROW_OVERHEAD``. A 2 x 2 window of
    stride 2 over 4 lanes so takes 2 words a cycle, 3 x 3 of stride 2 about 1.3, 3 x 3 of stride 1
    about a third.
    """
    (kernel_y, kernel_x), (stride_y, stride_x) = spec.kernel, spec.stride
    first = np.arange(spec.out[0]) * stride_y - spec.pad[0]
    last = first + kernel_y - 1
    starts = np.arange(maps)[:, None] * width + np.clip(
        np.arange(spec.out[1]) * stride_x - spec.pad[1], 0, width
    )
    ends = np.arange(maps)[:, None] * width + np.clip(
        np.arange(spec.out[1]) * stride_x - spec.pad[1] + kernel_x, 0, width
    )
    total = PACKET_OVERHEAD + slots(kernel_y, stride_y, spec.out[0]) + 2 * spec.pad[0]
    for y in range(max(height, int(last[-1]) + 1)):
        open_rows = int(((first <= y) & (y <= last)).sum())
        base = y * maps * width
        beats = np.where(
            ends > starts, (base + ends - 1) // lanes - (base + starts) // lanes + 1, 1
        )
        if y >= height:
            beats = np.ones_like(beats)
        windows = int(np.maximum(beats, open_rows).sum()) if open_rows else 2 * maps
        arrival = -(-maps * width // lanes) if y < height else 0
        total += max(windows, arrival) + ROW_OVERHEAD
    return total


__all__ = [
    "EMPTY_MAX",
    "PACKET_OVERHEAD",
    "RING_WORDS",
    "ROW_OVERHEAD",
    "WindowSpec",
    "cycles_bound",
    "memory_words",
    "slots",
    "window",
]
