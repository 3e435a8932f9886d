"""The row buffer in the interpreter: where rows go, and what lanes read; see docs/machine.md.

Every word in the buffer carries the record that it belongs to, and every lane checks what it reads:
a ring that is too short, or a pass that reads what it did not store, is found as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuflow.grid import GridConfig
from neuflow.run import device_kernel
from neuflow.run.device_drain import Fields, Packet
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_pass import channels_read, stored_phases, stored_step, tap_places

_CHUNK = 1 << 18
"""Words that lanes read at a time: they stay in the second-level cache."""

_FAULTS = {
    device_kernel.NOT_STORED: "a lane reads a word that this pass did not store",
    device_kernel.NOT_IN_RING: "a lane reads a record that is not in the ring",
    device_kernel.NOT_WAITED: "a lane reads a record not waited for, or released",
}


class RowBuffer:
    """How the rows of a pass are stored, and read: what its fields alone determine."""

    def __init__(self, grid: GridConfig, rows: Fields, array: Fields) -> None:
        self.grid, self.rows, self.array = grid, rows, array

    @cached_property
    def addresses(self) -> NDArray[np.int64]:
        """Where the words of the rows packet that are stored go, [rows, channels, width]."""
        rows, s = self.rows, stored_phases(self.rows)
        width = -(-rows["width"] * s // rows["stride"])
        y, c, x = np.arange(rows["rows"]), np.arange(rows["channels"]), np.arange(width)
        of_row = y // s * rows["pitch"]
        of_word = x // s * rows["x_step"]
        within = of_row[:, None, None] + of_word
        if rows["ring_words"]:
            within = within % rows["ring_words"]
        at = rows["base"] + c[:, None] * rows["channel_step"] + within
        if s > 1:
            at += (y % s * rows["phase_y_step"])[:, None, None] + x % s * rows["phase_x_step"]
        return at & self.grid.row_words - 1

    @property
    def is_whole(self) -> bool:
        """Whether the buffer holds all rows at once."""
        return self.rows["ring_rows"] >= self.rows["rows"]

    def words_used(self) -> int:
        """Return the words of the row buffer that rows are stored to, one bit each."""
        used = np.zeros(self.grid.row_words, bool)
        used[self.addresses] = True
        if self.is_whole and np.count_nonzero(used) != self.addresses.size:
            raise DeviceFault("two words of a whole map share an address")
        return int.from_bytes(np.packbits(used).tobytes(), "big")

    def numbers(self, channels: Packet) -> NDArray[np.int64] | None:
        """Return ``channels`` by their numbers among those stored; None: some lie elsewhere."""
        step = max(1, self.rows["channel_step"])
        behind = channels + (self.array["base"] - self.rows["base"]) & self.grid.row_words - 1
        numbers, rest = np.divmod(behind, step)
        return None if rest.any() or numbers.max() >= self.rows["channels"] else numbers

    def lanes_read(
        self, packet: Packet, channels: Packet
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Store rows as their ring allows; yield what the lanes of some groups read at a time.

        ``channels``: see :func:`channels_read`. Yields the first lane, and words [1 or blocks, taps of
        all channels, lanes], 0 at taps beyond the border.
        """
        rows, pixels, groups = self.rows, self.grid.pixels, self.array["groups"]
        packet = packet.reshape(rows["rows"], rows["channels"], rows["width"])
        packet = np.ascontiguousarray(packet[:, :, :: stored_step(rows)], np.int64)
        store = device_kernel.Store(packet, self.addresses, self._room)
        read = self._read(channels)
        words = np.empty(self.grid.row_words, np.int32)
        records = np.full(self.grid.row_words, -1, np.int32)
        blocks, taps = len(channels), channels.shape[1] * read.taps.shape[1]
        step, stored = max(1, _CHUNK // (blocks * taps * pixels)), 0
        for first in range(0, groups, step):
            found = np.zeros((blocks, taps, min(step, groups - first) * pixels), np.int64)
            fault, group, stored = device_kernel.lanes_read(
                words, records, store, read, pixels, first, stored, found
            )
            if fault:
                raise DeviceFault(f"group {group}: {_FAULTS[fault]}")
            yield first * pixels, found

    def reads_as_convolution(self) -> bool:
        """Whether every lane reads, at every tap, what a convolution of one channel reads, or 0."""
        rows, width, step = self.rows, self.rows["width"], stored_step(self.rows)
        if not self.is_whole and self.addresses.max() >= rows["channel_step"]:
            return False
        numbers, channels = np.arange(1, 1 + rows["rows"] * width), channels_read(self.array)
        read = self._read(channels)
        return all(
            device_kernel.as_convolution(read, first, found[0], width, step)
            for first, found in self.lanes_read(numbers, channels)
        )

    def _read(self, channels: Packet) -> device_kernel.Read:
        array, in_order = self.array, self.rows["x_step"] == 1
        known = [in_order and self.numbers(some) is not None for some in channels]
        return device_kernel.Read(
            channels + array["base"], np.array(known), self._taps, *self._records,
            array["pitch"], array["row_pitch"], array["ring_words"],
            array["stride"], array["height"], array["width"],
        )  # fmt: skip

    @cached_property
    def _records(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each group, how many records it waits for, and the first that is not released."""
        array, count = self.array, self.rows["rows"]
        first = np.arange(array["groups"]) * self.grid.pixels
        top = first // array["pitch"] * array["stride"]
        bottom = (first + (self.grid.pixels - 1)) // array["pitch"] * array["stride"]
        need = np.minimum(np.maximum(bottom + array["need"], 0), count)
        free = np.minimum(np.maximum(top + array["release"], 0), count)
        late = need[1:] > free[:-1] + self.rows["ring_rows"]
        if late.any() or need[0] > self.rows["ring_rows"]:
            g = int(np.argmax(late)) + 1 if need[0] <= self.rows["ring_rows"] else 0
            raise DeviceFault(f"deadlock: group {g} needs {need[g]} rows, too short a ring")
        if need[-1] < count:
            raise DeviceFault(f"the last group does not wait for rows {need[-1]} and up")
        if (free[1:] > need[:-1]).any() or free[0] > 0:
            raise DeviceFault("rows are released that no group has waited for")
        return need, free

    @cached_property
    def _room(self) -> NDArray[np.int64]:
        """For each group, how many records the ring has room for before it reads."""
        _, free = self._records
        return np.minimum(free + self.rows["ring_rows"], self.rows["rows"])

    @cached_property
    def _taps(self) -> NDArray[np.int64]:
        """Address offset, phase offset, input row, input column of taps (ky, kx), [4, taps]."""
        array = self.array
        s, ring = array["stride"], array["ring_words"] or self.grid.row_words
        flat, phases = [], []
        row, phase_y = array["start"], array["phase_y"]
        for _ in range(array["kernel_y"]):
            column, phase_x = row, array["phase_x"]
            for _ in range(array["kernel_x"]):
                flat.append(column)
                phases.append(phase_y * array["phase_y_step"] + phase_x * array["phase_x_step"])
                phase_x += array["phase_dx"]
                column = (column + array["step_x"] + phase_x // s) % ring
                phase_x %= s
            phase_y += array["phase_dy"]
            row = (row + array["step_y"] + phase_y // s * array["row_pitch"]) % ring
            phase_y %= s
        return np.array([flat, phases, *tap_places(array)])


__all__ = ["RowBuffer"]
