"""The interpreter's row buffer: what lanes read, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from neuflow.grid import TINY
from neuflow.layout import Scatter
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_pass import channels_read
from neuflow.run.device_rows import RowBuffer

ROWS = {
    "scatter": Scatter.ROW, "rows": 6, "channels": 1, "width": 8, "pitch": 8, "base": 0,
    "channel_step": 64, "ring_words": 0, "ring_rows": 6, "stride": 1, "x_step": 1,
    "phase_x_step": 0, "phase_y_step": 0,
}  # fmt: skip
ARRAY = {
    "groups": 6, "channels": 1, "blocks": 1, "by_block": 0, "by_tap": 0, "kernel_y": 3, "kernel_x": 3,
    "pitch": 8, "row_pitch": 8, "ring_words": 0, "stride": 1, "height": 6, "width": 8, "tap_x": 0,
    "tap_y": 0, "dilation_x": 1, "dilation_y": 1, "base": 0, "channel_step": 64, "start": 0,
    "step_x": 1, "step_y": 8, "phase_x": 0, "phase_y": 0, "phase_dx": 0, "phase_dy": 0,
    "phase_x_step": 0, "phase_y_step": 0, "need": 3, "release": 0, "absent0": 0, "absent1": 0,
}  # fmt: skip
"""A kernel 3 x 3 over 6 rows of 8 words: groups of 5 lanes, 8 lanes from row to row."""

RING = {"ring_words": 40}, {"ring_words": 40, "ring_rows": 5}
"""Five rows at a time: ``ARRAY``, ``ROWS``."""


def read(array: dict[str, int], rows: dict[str, int]) -> np.ndarray:
    """Return the words [taps, lanes] that lanes read."""
    array, rows = ARRAY | array, ROWS | rows
    words = np.arange(1, 49)
    buffer = RowBuffer(TINY, rows, array)
    found = [lanes for _, lanes in buffer.lanes_read(words, channels_read(array))]
    return np.concatenate(found, axis=2)[0]


@pytest.mark.parametrize(("array", "rows"), [({}, {}), RING], ids=["whole", "ring"])
def test_lanes_read_what_a_convolution_reads(array: dict, rows: dict) -> None:
    y, x = np.divmod(np.arange(30), 8)
    ky, kx = np.divmod(np.arange(9), 3)
    row, column = y + ky[:, None], x + kx[:, None]
    inside = (row < 6) & (column < 8)
    assert (read(array, rows) == np.where(inside, row * 8 + column + 1, 0)).all()
    assert RowBuffer(TINY, ROWS | rows, ARRAY | array).reads_as_convolution()


@pytest.mark.parametrize(
    ("array", "rows", "text"),
    [
        ({"base": 64}, {}, "group 0: a lane reads a word that this pass did not store"),
        ({"ring_words": 32}, {"ring_words": 32, "ring_rows": 5}, "a record that is not in the ring"),
        ({"row_pitch": 16, "step_y": 8}, {}, "group 1: a lane reads a record that is not in the ring"),
        ({"tap_y": -1, "start": 504}, {}, "a record not waited for, or released"),
        (RING[0], {"ring_words": 16, "ring_rows": 2}, "deadlock: group 0 needs 3 rows"),
        ({"need": 2}, {}, "the last group does not wait for rows 5 and up"),
        ({"release": 1}, {}, "rows are released that no group has waited for"),
    ],
)
def test_what_no_machine_would_do_is_refused(array: dict, rows: dict, text: str) -> None:
    with pytest.raises(DeviceFault, match=text):
        read(array, rows)


def test_two_words_at_an_address_are_refused() -> None:
    RowBuffer(TINY, ROWS, ARRAY).words_used()
    with pytest.raises(DeviceFault, match="two words of a whole map share an address"):
        RowBuffer(TINY, ROWS | {"pitch": 7}, ARRAY).words_used()
