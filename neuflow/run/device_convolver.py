"""One convolver of the interpreter: passes by the formulas and capacity rules of docs/machine.md.

Every word in the row buffer carries the pass and the record that it belongs to, and every lane
checks what it reads: a ring that is too short, or two passes that meet, are found as such. Where
words go does not depend on what they are. So a pass is looked at once, with the number of each word
in its place (:meth:`DeviceConvolver._is_convolution`): if every lane reads what a convolution reads,
then all passes with the same fields are worked out as convolutions, which is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import tap_order
from neuflow.blocks.parameters_model import Form, from_half_words, unpacked
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS
from neuflow.run.device_drain import Fields, Packet, check_drain, leave
from neuflow.run.device_kernel import convolve, planes_of, products
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_pass import (
    Places,
    absent,
    check,
    places,
    steps_of_channel,
    stored_phases,
    stored_step,
    tap_places,
)

Taps = tuple[Packet, Packet, Packet, Packet]
_CHUNK = 1 << 21
"""Words gathered at a time."""


@dataclass(frozen=True)
class Plan:
    """What the fields of a pass alone determine.

    ``array``: its fields, by tap as :meth:`DeviceConvolver._tap_by_tap` says; ``channels``: which are
    read, see :func:`_channels`, and ``numbers``: likewise by number, where they are, both unless by
    tap; ``used``: words of the row buffer that it stores to, one bit each; ``places``: of a pass that
    is a convolution.
    """

    array: Fields
    channels: Packet
    numbers: Packet | None
    used: int
    places: Places | None


class Shared:
    """What the convolvers of a grid find out once for all: nothing that changes their results."""

    def __init__(self) -> None:
        self.plans: dict[tuple[int, ...], Plan] = {}
        self.convolutions: dict[tuple[tuple[str, int], ...], bool] = {}
        self.probe: DeviceConvolver | None = None
        self.planes: tuple[Packet, tuple[int, ...], NDArray[np.float64]] | None = None


class DeviceConvolver:
    """Row buffer of one column, and the passes that run on it."""

    def __init__(self, grid: GridConfig, shared: Shared | None = None) -> None:
        self.grid = grid
        # The row buffer, and the pass and record of its words: for passes that are no convolutions.
        self.words = np.zeros(0, np.int64)
        self.owner = np.zeros(0, np.int64)
        self.record = np.zeros(0, np.int64)
        self.passes = 0
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
        self.passes += rows_packet is not None
        self.stored = rows
        parameters, taps = self._weights(array, drain, *weights)
        channels, numbers, array = plan.channels, plan.numbers, plan.array
        if drain["by_tap"]:
            taps, channels = self._tap_by_tap(array, drain, taps)
            numbers = self._channel_numbers(rows, array, channels)
            parameters = parameters[:, :: self.grid.maps]
        if rows_packet is not None:
            self._arrive(rows, rows_packet, plan.used)
        sums: NDArray[Any]
        if numbers is not None and plan.places is not None:
            sums = self._convolve(array, taps, numbers, plan.places)
        else:
            real_only = not drain["partial_in"] and not drain["partial_out"]
            sums = self._sums(rows, array, (taps, channels), real_only)
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
        channels = _channels(array)
        if array["by_tap"]:
            array = self._one_tap_each(array)
        numbers = self._channel_numbers(rows, array, channels)
        where = places(self.grid, array, drain) if self._is_convolution(rows, array) else None
        return Plan(array, channels, numbers, self._used(rows), where)

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

    def _store_addresses(self, rows: Fields) -> NDArray[np.int64]:
        """Addresses of the words of the rows packet that are stored, (rows, channels, width)."""
        s = stored_phases(rows)
        width = -(-rows["width"] * s // rows["stride"])
        y, c, x = np.arange(rows["rows"]), np.arange(rows["channels"]), np.arange(width)
        y, c = y[:, None, None], c[:, None]
        within = y // s * rows["pitch"] + x // s * rows["x_step"]
        if rows["ring_words"]:
            within = within % rows["ring_words"]
        at = rows["base"] + c * rows["channel_step"] + within
        at = at + y % s * rows["phase_y_step"] + x % s * rows["phase_x_step"]
        return at % self.grid.row_words

    def _used(self, rows: Fields) -> int:
        """Return the words of the row buffer that rows are stored to, one bit each."""
        at = self._store_addresses(rows)
        used = np.zeros(self.grid.row_words, bool)
        used[at] = True
        if rows["ring_rows"] >= rows["rows"] and np.count_nonzero(used) != at.size:
            raise DeviceFault("two words of a whole map share an address")
        return int.from_bytes(np.packbits(used).tobytes(), "big")

    def _arrive(self, rows: Fields, packet: Packet, used: int) -> None:
        """Look at the rows that come and at the place they are to have."""
        if packet.size != rows["rows"] * rows["channels"] * rows["width"]:
            raise DeviceFault(f"a rows packet of {packet.size} words")
        self.packet = packet
        if rows["ahead"] and used & self.before:
            raise DeviceFault("rows loaded ahead overwrite those of the pass before")
        self.before = used

    def _sums(
        self, rows: Fields, array: Fields, reads: tuple[Packet, Packet], real_only: bool
    ) -> Packet:
        """Return sums (maps, groups * pixels); ``real_only``: 0 where a lane is no output position.

        ``reads``: weights of all taps, and the channels, see :func:`_channels`.
        """
        taps, channels = reads
        result = np.zeros((taps.shape[0] * taps.shape[2], array["groups"] * self.grid.pixels), np.int64)
        real = self._lanes(array, real_only)
        for first, block, gathered in self._groups(rows, array, channels):
            lanes = np.flatnonzero(real[first : first + gathered.shape[1]])
            weights = taps[block : block + 1] if array["by_block"] else taps
            sums = products(weights, np.ascontiguousarray(gathered[:, lanes]))
            maps = block * taps.shape[2] + np.arange(len(sums))
            result[maps[:, None], first + lanes] = sums
        return result

    def _groups(
        self, rows: Fields, array: Fields, channels: Packet
    ) -> Iterator[tuple[int, int, Packet]]:
        """Store rows as their ring allows; yield first lane, block, words (taps, lanes) of groups."""
        at = self._store_addresses(rows)
        assert self.packet is not None
        packet = self.packet.reshape(rows["rows"], rows["channels"], rows["width"])
        packet = packet[:, :, :: stored_step(rows)]
        groups, pixels, count = array["groups"], self.grid.pixels, rows["rows"]
        first = np.arange(groups) * pixels
        top = first // array["pitch"] * array["stride"]
        bottom = (first + pixels - 1) // array["pitch"] * array["stride"]
        need = np.clip(bottom + array["need"], 0, count)
        free = np.clip(top + array["release"], 0, count)
        whole = rows["ring_rows"] >= count
        taps = array["channels"] * array["kernel_y"] * array["kernel_x"]
        step = max(1, _CHUNK // (taps * pixels)) if whole else 1
        stored, looked_up = 0, self._taps(array)
        for g in range(0, groups, step):
            before = free[g - 1] if g else 0
            if need[g : g + step].max() > min(count, before + rows["ring_rows"]):
                raise DeviceFault(f"deadlock: group {g} needs {need[g]} rows, too short a ring")
            # As early as the ring allows: what is still needed must survive it.
            room = count if whole else min(count, free[g] + rows["ring_rows"])
            self._store(packet[stored:room], at[stored:room], stored)
            stored = max(stored, room)
            last = min(groups, g + step)
            for block, some in enumerate(channels):
                words = self._gather(rows, array, (g, last, some), looked_up, (need, free))
                yield g * pixels, block, words
        if need[-1] < count:
            raise DeviceFault(f"the last group does not wait for rows {need[-1]} and up")
        if (free[1:] > need[:-1]).any() or free[0] > 0:
            raise DeviceFault("rows are released that no group has waited for")

    def _lanes(self, array: Fields, real_only: bool) -> NDArray[np.bool_]:
        """Return which lanes of all groups are output positions, or all with ``real_only`` False."""
        y, x = np.divmod(np.arange(array["groups"] * self.grid.pixels), array["pitch"])
        return ((y < array["height_out"]) & (x < array["width_out"])) | (not real_only)

    # Passes that are convolutions.

    def _channel_numbers(self, rows: Fields, array: Fields, channels: Packet) -> Packet | None:
        """Return ``channels`` by their numbers among those stored; None: some lie elsewhere."""
        step = max(1, rows["channel_step"])
        behind = (channels + array["base"] - rows["base"]) % self.grid.row_words
        whole = (behind % step == 0).all() and (behind // step < rows["channels"]).all()
        return behind // step if whole else None

    def _is_convolution(self, rows: Fields, array: Fields) -> bool:
        """Whether every lane reads, at every tap, the word that a convolution reads, or 0.

        Tried out on one channel, as channels lie alike and share no word: :meth:`_used` sees to it where
        maps are whole, else they lie one behind the other.
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
            probe = self.shared.probe = self.shared.probe or DeviceConvolver(self.grid)
            probe.passes += 1
            self.shared.convolutions[key] = probe._reads_as_convolution(one_rows, one_array)
        return self.shared.convolutions[key]

    def _reads_as_convolution(self, rows: Fields, array: Fields) -> bool:
        """``_is_convolution`` of one channel; for a convolver of its own, in a new pass."""
        whole = rows["ring_rows"] >= rows["rows"]
        if not whole and self._store_addresses(rows).max() >= rows["channel_step"]:
            return False
        self.packet = np.arange(1, 1 + rows["rows"] * rows["width"])
        tap_y, tap_x = tap_places(array)
        for first, _, gathered in self._groups(rows, array, _channels(array)):
            y, x = np.divmod(first + np.arange(gathered.shape[1]), array["pitch"])
            y = y * array["stride"] + tap_y[:, None]
            x = x * array["stride"] + tap_x[:, None]
            inside = (y >= 0) & (y < array["height"]) & (x >= 0) & (x < array["width"])
            number = y * rows["width"] + x * stored_step(rows) + 1
            if (gathered != np.where(inside, number, 0)).any():
                return False
        return True

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

    def _store(self, packet: Packet, at: NDArray[np.int64], first: int) -> None:
        if not len(self.words):
            self.words, self.record = np.zeros((2, self.grid.row_words), np.int64)
            self.owner = np.full(self.grid.row_words, -1, np.int64)
        self.words[at] = packet
        self.owner[at] = self.passes
        self.record[at] = np.arange(first, first + len(at))[:, None, None]

    def _gather(
        self, rows: Fields, array: Fields, span: tuple[int, int, Packet], taps: Taps,
        bounds: tuple[Packet, Packet],
    ) -> Packet:  # fmt: skip
        """Return the words (taps, lanes) of the groups in ``span``; border taps are 0.

        ``span``: first group, the one after the last, and the channels that are read.
        """
        (flat, phases, y, x), (g, end, channel) = taps, span
        position = np.arange(g * self.grid.pixels, end * self.grid.pixels)
        oy, ox = np.divmod(position, array["pitch"])
        iy = oy[None] * array["stride"] + y[:, None]
        ix = ox[None] * array["stride"] + x[:, None]
        inside = (iy >= 0) & (iy < array["height"]) & (ix >= 0) & (ix < array["width"])

        within = flat[:, None] + (oy * array["row_pitch"] + ox)[None]
        if array["ring_words"]:
            within %= array["ring_words"]
        at = array["base"] + channel[:, None, None] + (phases[:, None] + within)[None]
        at = (at % self.grid.row_words).reshape(-1, len(position))
        live = np.broadcast_to(inside, (array["channels"], *inside.shape)).reshape(at.shape)

        if (self.owner[at] != self.passes)[live].any():
            raise DeviceFault(f"group {g}: a lane reads a word that this pass did not store")
        if rows["x_step"] == 1 and self._channel_numbers(rows, array, channel) is not None:
            wanted = np.broadcast_to(iy, (array["channels"], *iy.shape)).reshape(at.shape)
            if (self.record[at] != wanted)[live].any():
                raise DeviceFault(f"group {g}: a lane reads a record that is not in the ring")
            waited, released = (np.repeat(v[g:end], self.grid.pixels) for v in bounds)
            if ((iy >= waited) | (iy < released))[inside].any():
                raise DeviceFault(f"group {g}: a lane reads a record not waited for, or released")
        return np.where(live, self.words[at], 0)

    def _taps(self, array: Fields) -> Taps:
        """Return per tap (ky, kx): address offset, phase offset, input row, input column."""
        s, ring = array["stride"], array["ring_words"] or self.grid.row_words
        flat, phases, ys, xs = [], [], [], []
        row, phase_y = array["start"], array["phase_y"]
        for ky in range(array["kernel_y"]):
            column, phase_x = row, array["phase_x"]
            for kx in range(array["kernel_x"]):
                flat.append(column)
                phases.append(phase_y * array["phase_y_step"] + phase_x * array["phase_x_step"])
                ys.append(array["tap_y"] + ky * array["dilation_y"])
                xs.append(array["tap_x"] + kx * array["dilation_x"])
                phase_x += array["phase_dx"]
                column = (column + array["step_x"] + phase_x // s) % ring
                phase_x %= s
            phase_y += array["phase_dy"]
            row = (row + array["step_y"] + phase_y // s * array["row_pitch"]) % ring
            phase_y %= s
        return np.array(flat), np.array(phases), np.array(ys), np.array(xs)


def _channels(array: Fields) -> Packet:
    """Return the channels that blocks read, in words behind ``base``: [1, or each block; channels]."""
    left_out, count = absent(array), array["channels"]
    some = [0, *(k + 1 for k in range(ABSENT_CHANNELS) if not left_out >> k & 1)]
    read = np.array(some[:count]) if left_out else np.arange(count)
    first = np.arange(array["blocks"] if array["by_block"] else 1) * count
    return (first[:, None] + read) * array["channel_step"]


def _named_channels(named: Packet) -> Packet:
    """Return what :func:`_channels` does, of a pass by tap, whose channels name the next one.

    ``named``: [blocks, channels, times]; all the times the same one.
    """
    if (named != named[..., :1]).any():
        raise DeviceFault("by tap: rows of one channel name different ones")
    return np.append(0, named.reshape(-1, named.shape[2])[:-1, 0]).reshape(named.shape[:2])
