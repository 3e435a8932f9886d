"""Passes of the interpreter's convolver: what their fields must keep to; see docs/machine.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import (
    CLOSED_STEPS,
    ROW_ENDS,
    can_gather,
    channel_steps,
    tap_steps,
)
from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS, Scatter
from neuflow.run.device_drain import Fields, Packet
from neuflow.run.device_memory import DeviceFault

PHASED = (Scatter.PHASES, Scatter.FIRST_PHASE, Scatter.BOTH_PHASES)
"""Ways to store rows by phases."""


def check(grid: GridConfig, rows: Fields, array: Fields, drain: Fields) -> None:
    """Raise ``DeviceFault`` where fields do not go together."""
    rules = [
        (array["blocks"] == drain["blocks"], "blocks differ"),
        (1 <= drain["beats"] <= PARAMETER_BEATS, "parameters of no beats, or too many"),
        (array["groups"] == drain["groups"], "groups differ"),
        (array["pitch"] == drain["pitch"], "pitches differ"),
        (rows["rows"] == array["rows"], "rows differ"),
        (rows["stride"] >= 1 and stored_phases(rows) == array["stride"], "strides differ"),
        (_row_ends_close(grid, array), "lanes beyond a row's end do not find their banks"),
        (rows["ring_words"] == array["ring_words"], "rings differ"),
        ((array["base"] - rows["base"]) % rows["channel_step"] == 0 if rows["channel_step"]
         else rows["base"] == array["base"], "bases differ"),
        (not array["by_block"] or not absent(array), "absent channels of blocks"),
        (_longest_run(absent(array)) < array["kernel_y"] * array["kernel_x"],
         "more channels are absent than a channel has taps"),
        (array["by_tap"] == drain["by_tap"], "by tap or not"),
        (not array["by_tap"] or _may_tap(grid, array, drain), "this cannot be done by tap"),
        (not array["gather"] or _may_gather(grid, array), "last taps cannot be gathered"),
        (array["blocks"] <= grid.weight_blocks, "too many blocks"),
        (rows["scatter"] == Scatter.WORD or rows["x_step"] == 1, "scatter is needed"),
        ((rows["scatter"] in PHASED) == (rows["stride"] > 1), "phases and a stride go together"),
        (rows["scatter"] != Scatter.BOTH_PHASES or _phases_apart(grid, rows),
         "both phases at once would meet in a bank"),
        (rows["scatter"] != Scatter.ROWS or _rows_behind(grid, rows),
         "two channels' rows at once would meet in a bank"),
        (array["groups"] == 1 or not array["stream_weights"], "streamed weights, many groups"),
        (rows["ring_rows"] >= 1, "a ring of no rows"),
    ]
    if rows["ring_words"]:
        names = ("base", "channel_step", "phase_x_step", "phase_y_step", "ring_words")
        rules += [(rows[n] % grid.row_banks == 0, f"{n} is not whole banks") for n in names]
    for holds, text in rules:
        if not holds:
            raise DeviceFault(text)


def _phases_apart(grid: GridConfig, rows: Fields) -> bool:
    """Whether the words of both phases in x that a beat holds lie in banks behind each other."""
    apart = rows["phase_x_step"] % grid.row_banks
    return rows["stride"] == 2 and not rows["ring_words"] and apart == grid.bus_words // 2


def _rows_behind(grid: GridConfig, rows: Fields) -> bool:
    """Whether the words of a channel's row lie in banks behind those of the channel before."""
    return (rows["channel_step"] - rows["width"]) % grid.row_banks == 0 and not rows["ring_words"]


def _row_ends_close(grid: GridConfig, array: Fields) -> bool:
    """Whether stored rows are as long as lanes go on, or lanes may leave out what is between."""
    pitch, end = array["pitch"], array["pitch"] * array["height_out"]
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


def _may_tap(grid: GridConfig, array: Fields, drain: Fields) -> bool:
    lanes = grid.tap_lanes
    return (
        lanes > 1
        and array["by_block"] == 1
        and not absent(array)
        and array["kernel_y"] > 1
        and array["stride"] == 1
        and array["dilation_x"] == array["step_x"] == lanes * (1 + array["gather"])
        and not drain["partial_in"]
        and not drain["partial_out"]
    )


def _may_gather(grid: GridConfig, array: Fields) -> bool:
    lanes = grid.maps
    kernel_x = 2 * lanes + 1
    gap = (array["row_pitch"] - array["pitch"]) % (array["ring_words"] or grid.row_words)
    return bool(
        array["by_tap"]
        and grid.tap_gather
        and can_gather(array["kernel_y"], kernel_x, lanes)
        and array["kernel_x"] == tap_steps(kernel_x, lanes, gather=True)
        and (gap == 0 or array["height_out"] == 1)
    )


def steps_of_channel(grid: GridConfig, array: Fields) -> int:
    """Return the steps of the array for one channel."""
    kernel = array["kernel_y"], array["kernel_x"]
    return channel_steps(*kernel, grid.maps, bool(array["gather"]))


def stored_phases(rows: Fields) -> int:
    """Phases in x, and in y, that are stored: the array's stride."""
    return 1 if rows["scatter"] == Scatter.FIRST_PHASE else rows["stride"]


def stored_step(rows: Fields) -> int:
    """From one word of a row that is stored to the next."""
    return rows["stride"] // stored_phases(rows)


def absent(array: Fields) -> int:
    """Return which channels are left out: bit k, channel k + 1 behind the first."""
    return array["absent0"] | array["absent1"] << 32


def channels_read(array: Fields) -> Packet:
    """Return the channels that blocks read, in words behind ``base``: [1, or each block; channels]."""
    left_out, count = absent(array), array["channels"]
    some = [0, *(k + 1 for k in range(ABSENT_CHANNELS) if not left_out >> k & 1)]
    read = np.array(some[:count]) if left_out else np.arange(count)
    first = np.arange(array["blocks"] if array["by_block"] else 1) * count
    return (first[:, None] + read) * array["channel_step"]


def _longest_run(bits: int) -> int:
    return max(len(run) for run in f"{bits:b}".split("0"))


@dataclass(frozen=True)
class Places:
    """Where a pass that is a convolution finds its words, in planes of a channel and phase each.

    A plane has ``height`` rows of ``width`` words, from row ``top`` and column ``left`` of its phase
    on; tap k of the output position at word p reads word ``p + offset[k]`` of plane ``phase[k]``.
    Output rows are as far apart as rows of a plane; ``rows`` x ``columns`` positions are wanted.
    """

    stride: int
    top: int
    left: int
    height: int
    width: int
    phase: NDArray[np.int64]
    offset: NDArray[np.int64]
    rows: int
    columns: int


def places(grid: GridConfig, array: Fields, drain: Fields) -> Places:
    """Return the places of a pass; with partial sums, of all lanes."""
    pitch, s = array["pitch"], array["stride"]
    rows, columns = drain["height"], drain["width"]
    if drain["partial_in"] or drain["partial_out"]:
        rows, columns = -(-array["groups"] * grid.pixels // pitch), pitch
    (y, phase_y), (x, phase_x) = (np.divmod(at, s) for at in tap_places(array))
    top, left = int(y.min()), int(x.min())
    height, width = rows + int(y.max()) - top, columns + int(x.max()) - left
    offset = (y - top) * width + x - left
    return Places(s, top, left, height, width, phase_y * s + phase_x, offset, rows, columns)


def tap_places(array: Fields) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return per tap (ky, kx): input row and column at output position 0."""
    ky, kx = np.divmod(np.arange(array["kernel_y"] * array["kernel_x"]), array["kernel_x"])
    return array["tap_y"] + ky * array["dilation_y"], array["tap_x"] + kx * array["dilation_x"]
