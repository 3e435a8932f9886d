"""The interpreter's sums of products, and how words leave, compiled: exact, and on one thread.

A library of linear algebra would take both cores, and the judge *cycle* has work for the other one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuflow import fixed
from neuflow.blocks import mapper_model
from neuflow.cycle.compiled import kernel

requantised = kernel(fixed.requantised)
mapped = kernel(mapper_model.mapped)

_CHUNK = 512
"""Positions whose sums stay in the first-level cache."""


@kernel
def products(weights: Any, words: Any) -> Any:
    """Return int64 sums [blocks * maps, lanes] over taps.

    ``weights``: integers [blocks, taps or one more, maps]; ``words``: int64 [taps, lanes].
    """
    blocks, _, maps = weights.shape
    taps, lanes = words.shape
    sums = np.zeros((blocks * maps, lanes), np.int64)
    for b in range(blocks):
        to = sums[b * maps : (b + 1) * maps]
        for t in range(taps):
            if lanes == 1:
                for m in range(maps):
                    to[m, 0] += np.int64(weights[b, t, m]) * words[t, 0]
                continue
            row = words[t]
            for m in range(maps):
                weight, sums_of_map = np.int64(weights[b, t, m]), to[m]
                for lane in range(lanes):
                    sums_of_map[lane] += weight * row[lane]
    return sums


@kernel
def planes_of(packet: Any, shape: Any, place: Any) -> Any:
    """Return rows as planes, float64 [channels, phases, words]; see ``device_pass.Places``.

    ``packet``: words (y, channel, x); ``shape``: channels, words of a row, every how many of them one
    is stored, rows and columns of the input; ``place``: stride, top, left, height, width of planes.
    """
    channels, words, step, height, width = shape
    stride, top, left, plane_height, plane_width = place
    planes = np.zeros((channels, stride * stride, plane_height * plane_width))
    for y in range(max(0, top * stride), height):
        row = y // stride - top
        if row >= plane_height:
            break
        for c in range(channels):
            at = (y * channels + c) * words
            for x in range(max(0, left * stride), width):
                column = x // stride - left
                if column >= plane_width:
                    break
                phase = y % stride * stride + x % stride
                planes[c, phase, row * plane_width + column] = packet[at + x * step]
    return planes


@kernel
def convolve(
    weights: Any, planes: Any, reads: Any, phase: Any, offset: Any, room: int, count: int
) -> Any:
    """Return float64 sums [blocks * maps, room] over channels and taps of a kernel, the first ``count``.

    ``planes``: float64 [channels, phases, words]; tap k of position p reads word ``p + offset[k]`` of
    plane ``phase[k]``. ``reads``: channels of each block, or of all, [1 or blocks; channels].
    ``weights``: integers [blocks, channels * taps or one more, maps]. Exact below 2**22 products of
    16-bit words.
    """
    blocks, _, maps = weights.shape
    channels, taps = reads.shape[1], len(phase)
    sums = np.zeros((blocks * maps, room))
    for b in range(blocks):
        read = reads[b if len(reads) > 1 else 0]
        for first in range(0, count, _CHUNK):
            end = min(first + _CHUNK, count)
            for c in range(channels):
                for k in range(taps):
                    at, t = offset[k], c * taps + k
                    row = planes[read[c], phase[k], first + at : end + at]
                    m = 0
                    while m + 4 <= maps:
                        w0, w1 = float(weights[b, t, m]), float(weights[b, t, m + 1])
                        w2, w3 = float(weights[b, t, m + 2]), float(weights[b, t, m + 3])
                        n = b * maps + m
                        s0, s1 = sums[n, first:end], sums[n + 1, first:end]
                        s2, s3 = sums[n + 2, first:end], sums[n + 3, first:end]
                        for i in range(len(row)):
                            word = row[i]
                            s0[i] += w0 * word
                            s1[i] += w1 * word
                            s2[i] += w2 * word
                            s3[i] += w3 * word
                        m += 4
                    while m < maps:
                        weight, to = float(weights[b, t, m]), sums[b * maps + m, first:end]
                        for i in range(len(row)):
                            to[i] += weight * row[i]
                        m += 1
    return sums
