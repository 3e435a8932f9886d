"""Steps of a kernel row: a tap each or, by tap, as many as there are map lanes."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.utils import ceil_log2

from neuflow.blocks.loops import loop
from neuflow.grid import GridConfig

STEP_FLAGS = ("ends_x", "names", "goes_on", "keeps", "gathers")
"""What is known of a step: it is the last one of its kernel row; its last weight is where the next
channel lies; it works with the words that were read for the step before; what is read in its place
waits; it works with what waits, and what is read for itself."""


def row_steps(m: Module, grid: GridConfig, c, begin, issue, channel_ends) -> dict[str, Signal]:
    """Walk through the steps of kernel rows; return the present one's flags, by ``STEP_FLAGS``.

    ``c``: fields of CONV_ARRAY; ``begin``: start over; ``issue``: on to the next step;
    ``channel_ends``: the step is the last of its channel.

    With ``gather`` (docs/machine.md, "Array") a row has two steps that one reading serves, and in
    every ``maps``-th row counted from the last one a step of last taps follows them.
    """
    flags = {name: Signal(name=name) for name in STEP_FLAGS}
    ends, names, goes_on, keeps, gathers = flags.values()
    last_step = loop(m, "kx_ends", c.kernel_x, begin, issue & ~gathers)
    if not grid.tap_gather:
        m.d.comb += [ends.eq(last_step), names.eq(c.by_tap & last_step)]
        return flags

    due = Signal()  # of the row, a step of last taps
    named = Signal()  # of the channel, the next one
    left = Signal(ceil_log2(grid.maps))  # rows until one with such a step
    first = Signal.like(left)
    after = Signal.like(left)
    m.d.comb += [
        first.eq(c.kernel_y - 1),
        after.eq(Mux(begin | channel_ends, first, left - 1)),
        goes_on.eq(c.gather & last_step),
        keeps.eq(goes_on & ~due),
        ends.eq((last_step & ~(goes_on & due)) | gathers),
        names.eq(Mux(c.gather, gathers & ~named, c.by_tap & last_step)),
    ]
    with m.If(begin | (issue & ends)):
        m.d.sync += [left.eq(after), due.eq(after == 0)]
    with m.If(begin | issue):
        m.d.sync += gathers.eq(~begin & goes_on & due)
    with m.If(begin | (issue & (channel_ends | gathers))):
        m.d.sync += named.eq(~begin & ~channel_ends)
    return flags


__all__ = ["STEP_FLAGS", "row_steps"]
