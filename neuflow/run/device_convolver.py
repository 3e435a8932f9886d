"""One convolver of the interpreter: passes by the formulas and capacity rules of docs/machine.md.

Where rows go, and what lanes read, does not depend on what the words are. So a pass is looked at
once, with the number of each word in its place (:meth:`DeviceConvolver._is_convolution`): if every
lane reads what a convolution reads, then all passes with the same fields are worked out as
convolutions, which is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import tap_order
from neuflow.blocks.parameters_model import Form, from_half_words, unpacked
from neuflow.grid import GridConfig
from neuflow.run.device_drain import Fields, Packet, check_drain, leave
from neuflow.run.device_kernel import convolve, planes_of, products
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_pass import (
    Places,
    channels_read,
    check,
    places,
    steps_of_channel,
    stored_step,
)
from neuflow.run.device_rows import RowBuffer


@dataclass(frozen=True)
class Plan:
    """What the fields of a pass alone determine.

    ``array``: its fields, by tap as :meth:`DeviceConvolver._one_tap_each` says; ``channels``: which are
    read, see :func:`channels_read`, and ``numbers``: likewise by number, where they are, both unless by
    tap; ``used``: words of the row buffer that it stores to, one bit each; ``places``: of a pass that
    is a convolution.
    """

    array: Fields
    buffer: RowBuffer
    channels: Packet
    numbers: Packet | None
    used: int
    places: Places | None


class Shared:
    """What the convolvers of a grid find out once for all: nothing that changes their results."""

    def __init__(self) -> None:
        self.plans: dict[tuple[int, ...], Plan] = {}
        self.convolutions: dict[tuple[tuple[str, int], ...], bool] = {}
        self.planes: tuple[Packet, tuple[int, ...], NDArray[np.float64]] | None = None


class DeviceConvolver:
    """Row buffer of one column, and the passes that run on it."""

    def __init__(self, grid: GridConfig, shared: Shared | None = None) -> None:
        self.grid = grid
        self.before = 0
        self.stored: Fields = {}
        self.packet: Packet | None = None
        self.shared = shared or Shared()

    def run(
        self, rows: Fields, array: Fields, drain: Fields, rows_packet: Packet | None,
        weights: tuple[Packet, Packet], partial: Packet | None,
    ) -> Packet:  # fmt: skip
        """Return the packet that leaves. ``rows_packet``: None where the rows are resident.

        ``weights``: words of parameters and of weights, as many as :meth:`weights_taken` says.
        """
        if rows_packet is None:
            rows = self._resident(rows)
        plan = self._plan(rows, array, drain)
        self.stored = rows
        parameters, taps = self._weights(array, drain, *weights)
        channels, numbers, array = plan.channels, plan.numbers, plan.array
        if drain["by_tap"]:
            taps, channels = self._tap_by_tap(array, drain, taps)
            numbers = plan.buffer.numbers(channels)
            parameters = parameters[:, :: self.grid.maps]
        if rows_packet is not None:
            self._arrive(rows, rows_packet, plan.used)
        sums: NDArray[Any]
        if numbers is not None and plan.places is not None:
            sums = self._convolve(array, taps, numbers, plan.places)
        else:
            real_only = not drain["partial_in"] and not drain["partial_out"]
            sums = self._sums(plan.buffer, taps, channels, real_only)
        return leave(self.grid, drain, parameters, sums, partial)

    def _plan(self, rows: Fields, array: Fields, drain: Fields) -> Plan:
        """Return the plan of a pass; how its rows come, and when, does not matter."""
        rows = {**rows, "source": 0, "ahead": 0, "two": 0}
        key = (*rows.values(), *array.values(), *drain.values())
        plan = self.shared.plans.get(key)
        if plan is None:
            plan = self.shared.plans[key] = self._planned(rows, array, drain)
        return plan

    def _planned(self, rows: Fields, array: Fields, drain: Fields) -> Plan:
        check(self.grid, rows, array, drain)
        check_drain(self.grid, drain)
        channels = channels_read(array)
        if array["by_tap"]:
            array = self._one_tap_each(array)
        buffer = RowBuffer(self.grid, rows, array)
        where = places(self.grid, array, drain) if self._is_convolution(rows, array) else None
        return Plan(array, buffer, channels, buffer.numbers(channels), buffer.words_used(), where)

    def _resident(self, rows: Fields) -> Fields:
        """Return what the pass before stored; this one must describe the same."""
        kept = {**self.stored, **{name: rows[name] for name in ("rows", "ahead", "two", "source")}}
        if kept != dict(rows) or self.stored["ring_rows"] < self.stored["rows"]:
            raise DeviceFault("resident rows are not those of the pass before, or not whole")
        return self.stored

    # Weights.

    def weights_taken(self, array: Fields, drain: Fields) -> tuple[int, int]:
        """Return how many words of parameters and of weights a pass takes."""
        taps = array["channels"] * steps_of_channel(self.grid, array)
        lanes = array["blocks"] * self.grid.maps
        return 2 * drain["beats"] * lanes, (taps + taps % 2) * lanes

    def _weights(
        self, array: Fields, drain: Fields, lead: Packet, weights: Packet
    ) -> tuple[Packet, Packet]:
        """Return what ``unpacked`` does, and weights (blocks, taps or one more, maps of a block)."""
        p, blocks, beats = self.grid.maps, array["blocks"], drain["beats"]
        if not array["stream_weights"] and len(weights) > self.grid.weight_words:
            raise DeviceFault("weights overflow their buffer")
        sent = from_half_words(lead).reshape(blocks, beats, p).transpose(1, 0, 2)
        parameters = unpacked(Form(beats, drain["shift"]), sent.reshape(beats, -1))
        return parameters, weights.reshape(blocks, -1, p)

    def _one_tap_each(self, array: Fields) -> Fields:
        """Return the fields of a pass by tap, worked one tap after the other.

        A tap is what a lane does in a step: lane k reads the word k behind that of lane 0, or, where
        last taps are gathered, that of another row.
        """
        # A lane that has no tap reads a word nevertheless: all but the last, which names a channel.
        kernel_x = array["kernel_x"] * self.grid.maps + (1 if array["gather"] else -1)
        return {**array, "by_tap": 0, "kernel_x": kernel_x, "dilation_x": 1, "step_x": 1}

    def _tap_by_tap(self, array: Fields, drain: Fields, packet: Packet) -> tuple[Packet, Packet]:
        """Return weights (blocks, taps, 1) of a pass by tap, and its channels.

        ``array``: see :meth:`_one_tap_each`; ``packet``: as :meth:`_weights` has them.
        """
        blocks, lanes, channels = len(packet), packet.shape[2], array["channels"]
        kernel_x = array["kernel_x"]
        order, names = tap_order(array["kernel_y"], kernel_x, lanes, bool(array["gather"]))
        steps = packet[:, : channels * len(order)].reshape(blocks, channels, *order.shape)
        following = steps[:, :, names, -1].astype(np.int64) % self.grid.row_words
        weights = steps.copy()
        weights[:, :, names, -1] = 0
        if weights[:, :, order < 0].any():
            raise DeviceFault("by tap: a lane without a tap has a weight")
        taps = np.zeros((blocks, channels, array["kernel_y"], kernel_x), packet.dtype)
        taps.reshape(blocks, channels, -1)[..., order[order >= 0]] = weights[:, :, order >= 0]
        columns = array["tap_x"] + np.flatnonzero(taps.any(axis=(0, 1, 2)))
        if columns.size and not 0 <= columns[0] <= columns[-1] <= array["width"] - drain["width"]:
            raise DeviceFault("by tap: columns of padding")
        return taps.reshape(blocks, -1, 1), _named_channels(following)

    # Rows and array.

    def _arrive(self, rows: Fields, packet: Packet, used: int) -> None:
        """Look at the rows that come and at the place they are to have."""
        if packet.size != rows["rows"] * rows["channels"] * rows["width"]:
            raise DeviceFault(f"a rows packet of {packet.size} words")
        self.packet = packet
        if rows["ahead"] and used & self.before:
            raise DeviceFault("rows loaded ahead overwrite those of the pass before")
        self.before = used

    def _sums(
        self, buffer: RowBuffer, taps: Packet, channels: Packet, real_only: bool
    ) -> NDArray[np.int64]:
        """Return sums (maps, groups * pixels); ``real_only``: 0 where a lane is no output position.

        ``taps``: weights of all taps; ``channels``: see :func:`channels_read`.
        """
        array = buffer.array
        assert self.packet is not None
        result = np.zeros((taps.shape[0] * taps.shape[2], array["groups"] * self.grid.pixels), np.int64)
        real = self._lanes(array, real_only)
        for first, found in buffer.lanes_read(self.packet, channels):
            lanes = np.flatnonzero(real[first : first + found.shape[2]])
            for block, words in enumerate(found):
                weights = taps[block : block + 1] if array["by_block"] else taps
                sums = products(weights, np.ascontiguousarray(words[:, lanes]))
                maps = block * taps.shape[2] + np.arange(len(sums))
                result[maps[:, None], first + lanes] = sums
        return result

    def _lanes(self, array: Fields, real_only: bool) -> NDArray[np.bool_]:
        """Return which lanes of all groups are output positions, or all with ``real_only`` False."""
        y, x = np.divmod(np.arange(array["groups"] * self.grid.pixels), array["pitch"])
        return ((y < array["height_out"]) & (x < array["width_out"])) | (not real_only)

    # Passes that are convolutions.

    def _is_convolution(self, rows: Fields, array: Fields) -> bool:
        """Whether every lane reads, at every tap, the word that a convolution reads, or 0.

        Tried out on one channel, as channels lie alike and share no word: :meth:`RowBuffer.words_used`
        sees to it where maps are whole, else they lie one behind the other.
        """
        size = rows["channels"] * rows["channel_step"]
        if rows["x_step"] != 1 or size > self.grid.row_words:
            return False
        if rows["channel_step"] != array["channel_step"] or size == 0:
            return False
        one_rows = {**rows, "channels": 1, "source": 0, "ahead": 0, "two": 0, "base": 0}
        one_array = {**array, "channels": 1, "blocks": 1, "by_block": 0, "maps": 1, "base": 0}
        one_array |= {"absent0": 0, "absent1": 0}
        key = (*one_rows.items(), *one_array.items())
        if key not in self.shared.convolutions:
            one = RowBuffer(self.grid, one_rows, one_array)
            self.shared.convolutions[key] = one.reads_as_convolution()
        return self.shared.convolutions[key]

    def _convolve(
        self, array: Fields, taps: Packet, numbers: Packet, where: Places
    ) -> NDArray[np.float64]:
        """Return sums (maps, rows, words of a row) of a pass that is a convolution.

        ``numbers``: channels that blocks read, [1 or blocks; channels].
        """
        planes = self._planes(array, where)
        count = (where.rows - 1) * where.width + where.columns
        sums = convolve(
            taps, planes, numbers, where.phase, where.offset, where.rows * where.width, count
        )
        return sums.reshape(-1, where.rows, where.width)

    def _planes(self, array: Fields, where: Places) -> NDArray[np.float64]:
        """Return the rows, phase by phase with zeros around: (channels, phases, words)."""
        assert self.packet is not None
        packet, rows, held = self.packet, self.stored, self.shared.planes
        step = stored_step(rows)
        height = min(array["height"], rows["rows"])
        width = min(array["width"], -(-rows["width"] // step))
        shape = rows["channels"], rows["width"], step, height, width
        place = where.stride, where.top, where.left, where.height, where.width
        if held is None or held[0] is not packet or held[1] != (*shape, *place):
            planes = planes_of(packet, shape, place)
            self.shared.planes = held = packet, (*shape, *place), planes
        return held[2]


def _named_channels(named: Packet) -> Packet:
    """Return what :func:`channels_read` does, of a pass by tap, whose channels name the next one.

    ``named``: [blocks, channels, times]; all the times the same one.
    """
    if (named != named[..., :1]).any():
        raise DeviceFault("by tap: rows of one channel name different ones")
    return np.append(0, named.reshape(-1, named.shape[2])[:-1, 0]).reshape(named.shape[:2])
