"""Golden model of the convolver: exact sums, weight packets, cycles of a pass. No Amaranth here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.parameters_model import Form, packed, to_half_words
from neuflow.fixed import requantise

Int = NDArray[np.int64]

HAND_OVER = 13
"""Cycles from the issue of a block's last tap to the edge that gives its first pixel to the drain."""

CLOSED_STEPS = 4
"""Steps of a block at least where lanes go on from row to row: where a row ends follows its group."""


def sums(
    image: Int,
    weight: Int,
    stride: int = 1,
    dilation: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Int:
    """Return exact sums [M, H', W'] of ``image`` [C, H, W] and ``weight`` [M, C, Ky, Kx].

    ``pads`` = (top, left, bottom, right). Written naively, tap by tap: it is the reference.
    """
    top, left, bottom, right = pads
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    maps, _, kernel_y, kernel_x = weight.shape
    height = (padded.shape[1] - (kernel_y - 1) * dilation[0] - 1) // stride + 1
    width = (padded.shape[2] - (kernel_x - 1) * dilation[1] - 1) // stride + 1
    total = np.zeros((maps, height, width), np.int64)
    for ky in range(kernel_y):
        for kx in range(kernel_x):
            y, x = ky * dilation[0], kx * dilation[1]
            view = padded[:, y : y + (height - 1) * stride + 1 : stride]
            view = view[:, :, x : x + (width - 1) * stride + 1 : stride]
            total += np.tensordot(weight[:, :, ky, kx], view, 1)
    return total


def convolve(
    image: Int, weight: Int, bias: Int, m: Int, s: Int, zero: Int, bits: int = 16, **geometry: object
) -> Int:
    """Return the words [M, H', W'] that leave: :func:`sums`, then one requantisation per map."""
    total = sums(image, weight, **geometry)  # type: ignore[arg-type]
    bias, m, s, zero = (np.asarray(v, np.int64)[:, None, None] for v in (bias, m, s, zero))
    return requantise(total, bias, m, s, zero, bits)


def groups(height: int, width: int, pitch: int, pixels: int) -> int:
    """Return the groups of ``pixels`` lanes that cover an output of ``height`` rows."""
    return -(-((height - 1) * pitch + width) // pixels)


def group_cycles(blocks: int, taps: int, pixels: int, addition: int = 0) -> int:
    """Return the cycles of one group where nothing stalls: taps of all blocks, or the drain.

    A block drains one pixel a cycle while the next one accumulates, and its last tap is issued
    only when the one before has been handed over. ``addition``: cycles by tap in which the map lanes'
    sums are added; a block leaves only when all but the last of them are over.
    """
    return blocks * max(taps, pixels + addition, HAND_OVER + 1)


def addition(lanes: int) -> int:
    """Return the cycles in which the sums of ``lanes`` map lanes become one: two and two."""
    return (lanes - 1).bit_length()


def tap_steps(kernel_x: int, lanes: int) -> int:
    """Return the steps of a row of ``kernel_x`` taps, ``lanes`` at once (CONV_ARRAY.by_tap).

    The last lane of the last step is always free: its weight names the next channel.
    """
    return kernel_x // lanes + 1


def by_tap(weight: Int, following: Int, lanes: int) -> Int:
    """Return ``weight`` [M, C, Ky, Kx] by tap: [M * lanes, C, Ky, steps], as if lanes were maps.

    ``following`` [M, C]: where the channel after lies, words behind CONV_ARRAY.base; after a map's
    last channel comes the next map's first.
    """
    maps, channels, kernel_y, kernel_x = weight.shape
    rows = np.zeros((maps, channels, kernel_y, tap_steps(kernel_x, lanes) * lanes), np.int64)
    rows[..., :kernel_x] = weight
    rows[..., -1] = following[..., None]
    steps = rows.reshape(maps, channels, kernel_y, -1, lanes)
    return steps.transpose(0, 4, 1, 2, 3).reshape(maps * lanes, channels, kernel_y, -1)


def weight_packet(
    weight: Int, bias: Int, m: Int, s: Int, zero: Int, maps: int, form: Form
) -> list[int]:
    """Return a weights packet (signed words) for ``weight`` [M, C, Ky, Kx] in blocks of ``maps``.

    First the parameters of every block, then the weights of every block (docs/machine.md).
    """
    count = weight.shape[0]
    blocks = -(-count // maps)

    def padded(values: Int) -> Int:
        values = np.asarray(values, np.int64)
        out = np.zeros((blocks * maps, *values.shape[1:]), np.int64)
        out[:count] = values
        return out.reshape(blocks, maps, *values.shape[1:])

    sent = packed(form, *(padded(values).reshape(-1) for values in (bias, m, s, zero)))
    words = to_half_words(sent.reshape(form.beats, blocks, maps).transpose(1, 0, 2))
    taps = padded(weight).reshape(blocks, maps, -1).transpose(0, 2, 1)
    if taps.shape[1] % 2:
        taps = np.concatenate([taps, np.zeros((blocks, 1, maps), np.int64)], 1)
    both = np.concatenate([words.reshape(-1), taps.reshape(-1)]) & 0xFFFF
    return [int(v) - 0x10000 if v & 0x8000 else int(v) for v in both]
