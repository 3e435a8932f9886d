"""One convolver of the interpreter: passes by the formulas and capacity rules of docs/machine.md.

Every word in the row buffer carries the pass and the record that it belongs to, and every lane
checks what it reads: a ring that is too short, or two passes that meet, are found as such. Where
words go does not depend on what they are. So a pass is looked at once, with the number of each word
in its place (:meth:`DeviceConvolver._is_convolution`): if every lane reads what a convolution reads,
then all passes with the same fields are worked out as convolutions, which is faster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import (
    CLOSED_STEPS,
    ROW_ENDS,
    can_gather,
    channel_steps,
    tap_order,
    tap_steps,
)
from neuflow.blocks.parameters_model import PARAMETER_BEATS, Form, from_half_words, unpacked
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS, Scatter
from neuflow.run.device_drain import Fields, Packet, leave
from neuflow.run.device_kernel import convolve, products
from neuflow.run.device_memory import DeviceFault

Taps = tuple[Packet, Packet, Packet, Packet]
_CHUNK = 1 << 21
"""Words gathered at a time."""


class Shared:
    """What the convolvers of a grid find out once for all: nothing that changes their results."""

    def __init__(self) -> None:
        self.convolutions: dict[tuple[tuple[str, int], ...], bool] = {}
        self.regions: dict[tuple[tuple[str, int], ...], tuple[NDArray[np.bool_], int]] = {}
        self.planes: tuple[Packet, tuple[int, ...], NDArray[np.float64]] | None = None


class DeviceConvolver:
    """Row buffer of one column, and the passes that run on it."""

    def __init__(self, grid: GridConfig, shared: Shared | None = None) -> None:
        self.grid = grid
        self.words = np.zeros(grid.row_words, np.int64)
        self.owner = np.full(grid.row_words, -1, np.int64)
        self.record = np.zeros(grid.row_words, np.int64)
        self.passes = 0
        self.before = np.zeros(grid.row_words, bool)
        self.stored: Fields = {}
        self.packet: Packet | None = None
        self.shared = shared or Shared()

    def run(
        self, rows: Fields, weights: Fields, array: Fields, drain: Fields,
        rows_packet: Packet | None, weights_packet: Packet, partial: Packet | None,
    ) -> Packet:  # fmt: skip
        """Return the packet that leaves. ``rows_packet``: None where the rows are resident."""
        if rows_packet is None:
            rows = self._resident(rows)
        self._check(rows, weights, array, drain)
        self.passes += rows_packet is not None
        self.stored = rows
        parameters, taps = self._weights(array, drain, weights_packet)
        channels = _channels(array)
        if array["by_tap"]:
            array, taps, channels = self._tap_by_tap(array, drain, taps)
            parameters = parameters[:, :: self.grid.maps]
        real_only = not drain["partial_in"] and not drain["partial_out"]
        numbers = self._channel_numbers(rows, array, channels)
        if numbers is not None and self._is_convolution(rows, array):
            self._arrive(rows, rows_packet)
            sums = self._convolve(rows, array, taps, numbers, real_only)
        else:
            sums = self._sums(rows, array, rows_packet, (taps, channels), real_only)
        return leave(self.grid, drain, parameters, sums, partial)

    def _resident(self, rows: Fields) -> Fields:
        """Return what the pass before stored; this one must describe the same."""
        kept = {**self.stored, **{name: rows[name] for name in ("rows", "ahead", "source")}}
        if kept != dict(rows) or self.stored["ring_rows"] < self.stored["rows"]:
            raise DeviceFault("resident rows are not those of the pass before, or not whole")
        return self.stored

    def _check(self, rows: Fields, weights: Fields, array: Fields, drain: Fields) -> None:
        grid = self.grid
        rules = [
            (array["blocks"] == drain["blocks"], "blocks differ"),
            (1 <= drain["beats"] <= PARAMETER_BEATS, "parameters of no beats, or too many"),
            (weights["lead"] == drain["blocks"] * drain["beats"], "beats of parameters differ"),
            (array["groups"] == drain["groups"], "groups differ"),
            (array["pitch"] == drain["pitch"], "pitches differ"),
            (rows["rows"] == array["rows"], "rows differ"),
            (rows["stride"] >= 1 and self._phases(rows) == array["stride"], "strides differ"),
            (self._row_ends_close(array), "lanes beyond a row's end do not find their banks"),
            (rows["ring_words"] == array["ring_words"], "rings differ"),
            ((array["base"] - rows["base"]) % rows["channel_step"] == 0 if rows["channel_step"]
             else rows["base"] == array["base"], "bases differ"),
            (not array["by_block"] or not _absent(array), "absent channels of blocks"),
            (_longest_run(_absent(array)) < array["kernel_y"] * array["kernel_x"],
             "more channels are absent than a channel has taps"),
            (array["by_tap"] == drain["by_tap"], "by tap or not"),
            (not array["by_tap"] or self._may_tap(array, drain), "this cannot be done by tap"),
            (not array["gather"] or self._may_gather(array), "last taps cannot be gathered"),
            (array["blocks"] <= grid.weight_blocks, "too many blocks"),
            (rows["scatter"] == Scatter.WORD or rows["x_step"] == 1, "scatter is needed"),
            (rows["scatter"] >= Scatter.PHASES or rows["stride"] == 1, "a stride needs phases"),
            (rows["scatter"] < Scatter.PHASES or rows["stride"] > 1, "phases need a stride"),
            (array["groups"] == 1 or not array["stream_weights"], "streamed weights, many groups"),
            (rows["ring_rows"] >= 1, "a ring of no rows"),
        ]
        if rows["ring_words"]:
            names = ("base", "channel_step", "phase_x_step", "phase_y_step", "ring_words")
            rules += [(rows[n] % grid.row_banks == 0, f"{n} is not whole banks") for n in names]
        for holds, text in rules:
            if not holds:
                raise DeviceFault(text)

    def _row_ends_close(self, array: Fields) -> bool:
        """Whether stored rows are as long as lanes go on, or lanes may leave out what is between."""
        grid, pitch, end = self.grid, array["pitch"], array["pitch"] * array["height_out"]
        gap = (array["row_pitch"] - pitch) % (array["ring_words"] or grid.row_words)
        if gap == 0 or array["height_out"] == 1:
            return True
        beyond = grid.tap_gap if array["by_tap"] else 0
        first = np.arange(0, end, grid.pixels)
        # By tap, the border mask of the first lane behind the last row is that of words in it.
        last = first + grid.pixels - 1 if array["by_tap"] else np.minimum(first + grid.pixels, end) - 1
        most = 1 if array["by_tap"] else ROW_ENDS
        return (
            gap % grid.row_banks == beyond
            and (beyond > 0 or not array["by_tap"])
            and array["channels"] * array["kernel_y"] * array["kernel_x"] >= CLOSED_STEPS
            and bool((last // pitch - first // pitch <= most).all())
        )

    # Weights.

    def _weights(self, array: Fields, drain: Fields, packet: Packet) -> tuple[Packet, Packet]:
        """Return what ``unpacked`` does, and weights (blocks, taps or one more, maps of a block)."""
        p, blocks = self.grid.maps, array["blocks"]
        taps = array["channels"] * self._channel_steps(array)
        even = taps + taps % 2
        beats = drain["beats"]
        lead = blocks * beats * 2 * p
        words = lead + blocks * even * p
        if len(packet) != words:
            raise DeviceFault(f"weights packet of {len(packet)} words, not {words}")
        if not array["stream_weights"] and blocks * even * p > self.grid.weight_words:
            raise DeviceFault("weights overflow their buffer")
        sent = from_half_words(packet[:lead]).reshape(blocks, beats, p).transpose(1, 0, 2)
        parameters = unpacked(Form(beats, drain["shift"]), sent.reshape(beats, -1))
        return parameters, packet[lead:].reshape(blocks, even, p)

    def _may_tap(self, array: Fields, drain: Fields) -> bool:
        lanes = self.grid.tap_lanes
        return (
            lanes > 1
            and array["by_block"] == 1
            and not _absent(array)
            and array["kernel_y"] > 1
            and array["stride"] == 1
            and array["dilation_x"] == array["step_x"] == lanes * (1 + array["gather"])
            and not drain["partial_in"]
            and not drain["partial_out"]
        )

    def _may_gather(self, array: Fields) -> bool:
        lanes = self.grid.maps
        kernel_x = 2 * lanes + 1
        gap = (array["row_pitch"] - array["pitch"]) % (array["ring_words"] or self.grid.row_words)
        return bool(
            array["by_tap"]
            and self.grid.tap_gather
            and can_gather(array["kernel_y"], kernel_x, lanes)
            and array["kernel_x"] == tap_steps(kernel_x, lanes, gather=True)
            and (gap == 0 or array["height_out"] == 1)
        )

    def _channel_steps(self, array: Fields) -> int:
        kernel = array["kernel_y"], array["kernel_x"]
        return channel_steps(*kernel, self.grid.maps, bool(array["gather"]))

    def _tap_by_tap(
        self, array: Fields, drain: Fields, packet: Packet
    ) -> tuple[Fields, Packet, Packet]:
        """Return the pass, one tap after the other, its weights (blocks, taps, 1), and its channels.

        A tap is what a lane does in a step: lane k reads the word k behind that of lane 0, or, where
        last taps are gathered, that of another row.
        """
        blocks, lanes, channels = len(packet), packet.shape[2], array["channels"]
        gather, kernel_x = bool(array["gather"]), array["kernel_x"] * lanes
        # A lane that has no tap reads a word nevertheless: all but the last, which names a channel.
        kernel_x += 1 if gather else -1
        order, names = tap_order(array["kernel_y"], kernel_x, lanes, gather)
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
        each = {**array, "by_tap": 0, "gather": 0, "kernel_x": kernel_x, "dilation_x": 1, "step_x": 1}
        return each, taps.reshape(blocks, -1, 1), _named_channels(following)

    # Rows and array.

    @staticmethod
    def _phases(rows: Fields) -> int:
        """Phases in x, and in y, that are stored: the array's stride."""
        return 1 if rows["scatter"] == Scatter.FIRST_PHASE else rows["stride"]

    def _stored_step(self, rows: Fields) -> int:
        """From one word of a row that is stored to the next."""
        return rows["stride"] // self._phases(rows)

    def _store_addresses(self, rows: Fields) -> NDArray[np.int64]:
        """Addresses of the words of the rows packet that are stored, (rows, channels, width)."""
        s = self._phases(rows)
        width = -(-rows["width"] * s // rows["stride"])
        y, c, x = np.ogrid[: rows["rows"], : rows["channels"], :width]
        within = y // s * rows["pitch"] + x // s * rows["x_step"]
        if rows["ring_words"]:
            within = within % rows["ring_words"]
        at = rows["base"] + c * rows["channel_step"] + within
        at = at + y % s * rows["phase_y_step"] + x % s * rows["phase_x_step"]
        return at % self.grid.row_words

    def _arrive(self, rows: Fields, packet: Packet | None) -> None:
        """Look at the rows that come, if any do, and at the place they are to have."""
        if packet is None:
            return
        shape = (rows["rows"], rows["channels"], rows["width"])
        if packet.size != np.prod(shape):
            raise DeviceFault(f"rows packet of {packet.size} words, not {shape}")
        self.packet = packet.reshape(shape)[:, :, :: self._stored_step(rows)]
        self._check_region(rows)

    def _sums(
        self, rows: Fields, array: Fields, packet: Packet | None, reads: tuple[Packet, Packet],
        real_only: bool,
    ) -> Packet:  # fmt: skip
        """Return sums (maps, groups * pixels); ``real_only``: 0 where a lane is no output position.

        ``reads``: weights of all taps, and the channels, see :func:`_channels`.
        """
        self._arrive(rows, packet)
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
        at, packet = self._store_addresses(rows), self.packet
        assert packet is not None
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

        Tried out on one channel, as channels lie side by side without touching each other.
        """
        size = rows["channels"] * rows["channel_step"]
        if rows["x_step"] != 1 or size > self.grid.row_words:
            return False
        if rows["channel_step"] != array["channel_step"] or size == 0:
            return False
        one_rows = {**rows, "channels": 1, "source": 0, "ahead": 0, "base": 0}
        one_array = {**array, "channels": 1, "blocks": 1, "by_block": 0, "maps": 1, "base": 0}
        one_array |= {"absent0": 0, "absent1": 0}
        key = (*one_rows.items(), *one_array.items())
        if key not in self.shared.convolutions:
            probe = DeviceConvolver(self.grid)
            self.shared.convolutions[key] = probe._reads_as_convolution(one_rows, one_array)
        return self.shared.convolutions[key]

    def _reads_as_convolution(self, rows: Fields, array: Fields) -> bool:
        """``_is_convolution`` of one channel; only for a convolver that does nothing else."""
        if self._store_addresses(rows).max() >= rows["channel_step"]:
            return False
        self._arrive(rows, np.arange(1, 1 + rows["rows"] * rows["width"]))
        tap_y, tap_x = self._tap_places(array)
        for first, _, gathered in self._groups(rows, array, _channels(array)):
            y, x = np.divmod(first + np.arange(gathered.shape[1]), array["pitch"])
            y = y * array["stride"] + tap_y[:, None]
            x = x * array["stride"] + tap_x[:, None]
            inside = (y >= 0) & (y < array["height"]) & (x >= 0) & (x < array["width"])
            number = y * rows["width"] + x * self._stored_step(rows) + 1
            if (gathered != np.where(inside, number, 0)).any():
                return False
        return True

    @staticmethod
    def _tap_places(array: Fields) -> tuple[Packet, Packet]:
        """Return per tap (ky, kx): input row and column at output position 0."""
        ky, kx = np.divmod(np.arange(array["kernel_y"] * array["kernel_x"]), array["kernel_x"])
        return array["tap_y"] + ky * array["dilation_y"], array["tap_x"] + kx * array["dilation_x"]

    def _convolve(
        self, rows: Fields, array: Fields, taps: Packet, numbers: Packet, real_only: bool
    ) -> Packet:
        """Return what :meth:`_sums` does, of a pass that is a convolution; ``numbers``: of channels."""
        lanes, pitch, s = array["groups"] * self.grid.pixels, array["pitch"], array["stride"]
        height, width = -(-lanes // pitch), pitch
        if real_only:
            height, width = array["height_out"], array["width_out"]
        (y, phase_y), (x, phase_x) = (np.divmod(at, s) for at in self._tap_places(array))
        top, left = int(y.min()), int(x.min())
        shape = (height + int(y.max()) - top, width + int(x.max()) - left)
        planes = self._planes(array, (s, top, left, *shape))
        offset = (y - top) * shape[1] + x - left
        count = (height - 1) * shape[1] + width
        of_blocks = np.split(taps, len(numbers))
        sums = np.concatenate(
            [
                convolve(weights, _chosen(planes, read), phase_y * s + phase_x, offset, count)
                for weights, read in zip(of_blocks, numbers, strict=True)
            ]
        )
        result = np.zeros((len(sums), height, pitch), np.int64)
        padded = np.zeros((len(sums), height * shape[1]))
        padded[:, :count] = sums
        result[:, :, :width] = padded.reshape(len(sums), height, -1)[:, :, :width]
        result = result.reshape(len(sums), -1)[:, :lanes]
        return np.pad(result, ((0, 0), (0, lanes - result.shape[1])))

    def _planes(self, array: Fields, key: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the rows, phase by phase with zeros around: (channels, phases, words)."""
        packet, held = self.packet, self.shared.planes
        assert packet is not None
        s, top, left, height, width = key
        key = (*key, array["height"], array["width"], *packet.strides)
        if held is not None and held[0] is packet.base and held[1] == key:
            return held[2]
        image = packet[: array["height"], :, : array["width"]].transpose(1, 0, 2)
        planes = np.zeros((len(image), s * s, height, width))
        for phase in range(s * s):
            part = image[:, phase // s :: s, phase % s :: s]
            y, x = max(0, top), max(0, left)
            part = part[:, y : top + height, x : left + width]
            planes[:, phase, y - top :, x - left :][:, : part.shape[1], : part.shape[2]] = part
        flat = planes.reshape(len(image), s * s, -1)
        if packet.base is not None:
            self.shared.planes = packet.base, key, flat
        return flat

    def _check_region(self, rows: Fields) -> None:
        key = tuple(rows.items())
        if key not in self.shared.regions:
            at = self._store_addresses(rows)
            used = np.zeros(self.grid.row_words, bool)
            used[at] = True
            self.shared.regions[key] = used, at.size
        used, size = self.shared.regions[key]
        if rows["ahead"] and (used & self.before).any():
            raise DeviceFault("rows loaded ahead overwrite those of the pass before")
        self.before = used
        if rows["ring_rows"] >= rows["rows"] and used.sum() != size:
            raise DeviceFault("two words of a whole map share an address")

    def _store(self, packet: Packet, at: NDArray[np.int64], first: int) -> None:
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


def _absent(array: Fields) -> int:
    return array["absent0"] | array["absent1"] << 32


def _longest_run(bits: int) -> int:
    return max(len(run) for run in f"{bits:b}".split("0"))


def _channels(array: Fields) -> Packet:
    """Return the channels that blocks read, in words behind ``base``: [1, or each block; channels]."""
    absent, count = _absent(array), array["channels"]
    some = [0, *(k + 1 for k in range(ABSENT_CHANNELS) if not absent >> k & 1)]
    read = np.array(some[:count]) if absent else np.arange(count)
    first = np.arange(array["blocks"] if array["by_block"] else 1) * count
    return (first[:, None] + read) * array["channel_step"]


def _named_channels(named: Packet) -> Packet:
    """Return what :func:`_channels` does, of a pass by tap, whose channels name the next one.

    ``named``: [blocks, channels, times]; all the times the same one.
    """
    if (named != named[..., :1]).any():
        raise DeviceFault("by tap: rows of one channel name different ones")
    return np.append(0, named.reshape(-1, named.shape[2])[:-1, 0]).reshape(named.shape[:2])


def _chosen(planes: NDArray[np.float64], read: Packet) -> NDArray[np.float64]:
    """Return some of the planes; all of them as they are."""
    return planes if np.array_equal(read, np.arange(len(planes))) else planes[read]
