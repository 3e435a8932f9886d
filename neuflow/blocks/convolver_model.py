"""Golden model of the convolver: exact sums, weight packets, cycles of a pass. No Amaranth here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.parameters_model import Form, packed, to_half_words
from neuflow.fixed import requantise

Int = NDArray[np.int64]

HAND_OVER = 14
"""Cycles from the issue of a block's last tap to the edge that gives its first pixel to the drain."""

CLOSED_STEPS = 4
"""Steps of a block at least where lanes go on from row to row: where a row ends follows its group."""

ROW_ENDS = 2
"""Ends of output rows at most among the lanes of a group that go on from row to row; by tap one."""


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


def tap_steps(kernel_x: int, lanes: int, gather: bool = False) -> int:
    """Return the steps of a row of ``kernel_x`` taps, ``lanes`` at once (CONV_ARRAY.by_tap).

    The last lane of the last step is always free: its weight names the next channel. With
    ``gather`` the row's last tap is left to other steps, see :func:`tap_order`.
    """
    return kernel_x // lanes + (not gather)


def can_gather(kernel_y: int, kernel_x: int, lanes: int) -> bool:
    """Whether last taps of ``lanes`` kernel rows can be worked together (CONV_ARRAY.gather).

    A row then has two steps without its last tap. The first step of last taps has fewer of them, as
    a lane of it names the next channel, and is not the only one.
    """
    return kernel_x == 2 * lanes + 1 and kernel_y > lanes and kernel_y % lanes > 0


def channel_steps(kernel_y: int, row_steps: int, lanes: int, gather: bool) -> int:
    """Return the steps of a channel whose kernel rows have ``row_steps`` each; ``gather``: and more."""
    return kernel_y * row_steps + (-(-kernel_y // lanes) if gather else 0)


def tap_order(
    kernel_y: int, kernel_x: int, lanes: int, gather: bool = False
) -> tuple[Int, NDArray[np.bool_]]:
    """Return which tap of a channel is worked where by tap, and which steps name the next channel.

    Taps [steps, lanes]: ky Kx + kx; -1 where a lane has none. A step that names the channel does so
    in its last lane. With ``gather`` the last taps of ``lanes`` rows, the latest one first, follow
    that one's other taps.
    """
    numbers = np.arange(kernel_y * kernel_x).reshape(kernel_y, kernel_x)
    row_steps = tap_steps(kernel_x, lanes, gather)
    order = np.full((channel_steps(kernel_y, row_steps, lanes, gather), lanes), -1)
    names = np.zeros(len(order), bool)
    step = 0
    for ky, row in enumerate(numbers):
        of_row = row[:-1] if gather else row
        order[step : step + row_steps].reshape(-1)[: len(of_row)] = of_row
        step += row_steps
        if gather and (kernel_y - 1 - ky) % lanes == 0:
            last_taps = numbers[ky::-1, -1][:lanes]
            order[step, : len(last_taps)] = last_taps
            names[step] = ky < lanes
            step += 1
        elif not gather:
            names[step - 1] = True
    return order, names


def by_tap(weight: Int, following: Int, lanes: int, gather: bool = False) -> Int:
    """Return ``weight`` [M, C, Ky, Kx] by tap: [M * lanes, C, steps], as if lanes were maps.

    ``following`` [M, C]: where the channel after lies, words behind CONV_ARRAY.base; after a map's
    last channel comes the next map's first.
    """
    maps, channels, *kernel = weight.shape
    order, names = tap_order(*kernel, lanes, gather)
    steps = np.where(order < 0, 0, weight.reshape(maps, channels, -1)[..., order])
    steps[..., names, -1] = following[..., None]
    return steps.transpose(0, 3, 1, 2).reshape(maps * lanes, channels, -1)


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
