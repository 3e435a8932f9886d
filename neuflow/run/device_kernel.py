"""The interpreter's sums of products, and how words leave, compiled: exact, and on one thread.

A library of linear algebra would take both cores, and the judge *cycle* has work for the other one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuflow import fixed
from neuflow.blocks import mapper_model
from neuflow.cycle.compiled import kernel, part

requantised = kernel(fixed.requantised)
mapped = kernel(mapper_model.mapped)

_CHUNK = 512
"""Positions whose sums stay in the first-level cache."""

_FINE, NOT_WAITED, NOT_IN_RING, NOT_STORED = range(4)
"""Faults of what a lane reads, the worst last."""


class Store(NamedTuple):
    """Rows that are stored: words int64 and addresses [rows, channels, width].

    ``room``: records that there is room for before each group.
    """

    packet: NDArray[np.int64]
    address: NDArray[np.int64]
    room: NDArray[np.int64]


class Read(NamedTuple):
    """What lanes read: fields of CONV_ARRAY, but for arrays.

    ``channels``: addresses [1 or blocks; channels]; ``known``: whether those of a block are channels
    that are stored; ``taps``: address offset (less than a ring), phase offset, input row and column
    [4, taps]; ``need``, ``free``: records that a group has waited for, first one that is not released.
    """

    channels: NDArray[np.int64]
    known: NDArray[np.bool_]
    taps: NDArray[np.int64]
    need: NDArray[np.int64]
    free: NDArray[np.int64]
    pitch: int
    row_pitch: int
    ring_words: int
    stride: int
    height: int
    width: int


@kernel
def lanes_read(
    words: Any, records: Any, store: Any, read: Any, pixels: int, first: int, stored: int, found: Any
) -> Any:
    """Fill ``found`` int64 [1 or blocks, taps of all channels, lanes] from group ``first`` on.

    ``words``, ``records`` int32: the row buffer, and the record of each word, -1 for none. ``stored``:
    records that are stored already. Return the worst fault of the first group that has one, that
    group, and the records that are stored.
    """
    end = first + found.shape[2] // pixels
    for group in range(first, end):
        # As early as the ring allows: what is still needed must survive it.
        while stored < store.room[group]:
            _store_record(words, records, store, stored)
            stored += 1
        at = (group - first) * pixels
        fault = _group_reads(words, records, read, group, pixels, found[:, :, at : at + pixels])
        if fault != _FINE:
            return fault, group, stored
    return _FINE, end, stored


@part
def _store_record(words: Any, records: Any, store: Any, record: int) -> None:
    for c in range(store.packet.shape[1]):
        for x in range(store.packet.shape[2]):
            at = store.address[record, c, x]
            words[at] = store.packet[record, c, x]
            records[at] = record


@part
def _group_reads(words: Any, records: Any, read: Any, group: int, pixels: int, found: Any) -> int:
    """Fill ``found`` [1 or blocks, taps of all channels, pixels]; return the worst fault."""
    blocks, channels = read.channels.shape
    taps, fault, ring = read.taps.shape[1], _FINE, read.ring_words
    need, free = read.need[group], read.free[group]
    for b in range(blocks):
        known = read.known[b]
        for c in range(channels):
            for k in range(taps):
                base = read.channels[b, c] + read.taps[1, k]
                oy, ox = divmod(group * pixels, read.pitch)
                y, x = oy * read.stride + read.taps[2, k], ox * read.stride + read.taps[3, k]
                within = read.taps[0, k] + oy * read.row_pitch + ox
                for lane in range(pixels):
                    # A ring is met once in a row at most, but for its first lane.
                    if ring and within >= ring:
                        within %= ring
                    if 0 <= y < read.height and 0 <= x < read.width:
                        at = base + within & len(words) - 1  # of a power of two of words
                        if records[at] < 0:
                            fault = max(fault, NOT_STORED)
                        elif known and records[at] != y:
                            fault = max(fault, NOT_IN_RING)
                        elif known and not free <= y < need:
                            fault = max(fault, NOT_WAITED)
                        found[b, c * taps + k, lane] = words[at]
                    ox, x, within = ox + 1, x + read.stride, within + 1
                    if ox == read.pitch:
                        oy, ox = oy + 1, 0
                        y, x = y + read.stride, read.taps[3, k]
                        within = read.taps[0, k] + oy * read.row_pitch
    return fault


@kernel
def as_convolution(read: Any, first: int, found: Any, width: int, step: int) -> bool:
    """Whether lanes from ``first`` on have ``found`` [taps, lanes] what a convolution reads, or 0.

    Stored is word x of row y as the number ``y * width + x * step + 1``.
    """
    for k in range(found.shape[0]):
        oy, ox = divmod(first, read.pitch)
        y, x = oy * read.stride + read.taps[2, k], ox * read.stride + read.taps[3, k]
        for lane in range(found.shape[1]):
            inside = 0 <= y < read.height and 0 <= x < read.width
            if found[k, lane] != (y * width + x * step + 1 if inside else 0):
                return False
            ox, x = ox + 1, x + read.stride
            if ox == read.pitch:
                ox, x, y = 0, read.taps[3, k], y + read.stride
    return True


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
