"""Counters of events, and the watchdog."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.grid import GridConfig
from neuflow.layout import ACTIVITY_BITS, Activity


class Counters(Component):
    """The counters of ``layout.REGISTERS``, and the watchdog.

    Members: ``clear`` In (all to 0), ``busy`` In (count), ``host_watchdog`` In, ``hang`` Out: that
    many busy cycles without progress, i.e. without a configuration word, a memory beat or a tap of
    an array; the events of a cycle In: ``config_moves``, ``config_waits``, ``fence_waits``,
    ``read_beat``, ``write_beat``, ``activity`` (16 bits a column, ``layout.Activity``); the
    counters Out, 32 bits each. Counters stop at their largest value. Latency of ``cycles`` 1 cycle,
    of events LATENCY cycles; what counts is that ``busy`` was 1 with the event.
    """

    LATENCY = 2

    SUMS = {
        "mac_cycles": Activity.MAC,
        "rows_stalls": Activity.WAIT_ROWS,
        "weights_stalls": Activity.WAIT_WEIGHTS,
        "drain_stalls": Activity.WAIT_DRAIN,
        "idle_cycles": Activity.IDLE,
    }
    """Counters that sum one activity bit over the columns."""

    EVENTS = {
        "config_words": "config_moves",
        "config_stalls": "config_waits",
        "fence_stalls": "fence_waits",
        "read_beats": "read_beat",
        "write_beats": "write_beat",
    }
    """Counters of one event."""

    def __init__(self, grid: GridConfig, reset: int = 0):
        """Make the counters; ``reset`` is what those of 32 bits hold before the first ``clear``."""
        self.grid = grid
        super().__init__(
            {
                "clear": In(1),
                "busy": In(1),
                "host_watchdog": In(32),
                "hang": Out(1),
                "activity": In(ACTIVITY_BITS * grid.columns),
                "cycles": Out(32),
                "cycles_high": Out(32),
                **{name: In(1) for name in self.EVENTS.values()},
                **{name: Out(32, init=reset) for name in (*self.SUMS, *self.EVENTS)},
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Events in registers, as they come from far away; those of an idle grid do not count.
        activity = Signal.like(self.activity)
        m.d.sync += activity.eq(Mux(self.busy, self.activity, 0))
        columns = [activity.word_select(c, ACTIVITY_BITS) for c in range(self.grid.columns)]
        events = {}
        for name, event in self.EVENTS.items():
            events[name] = Signal(name=f"{event}_seen")
            m.d.sync += events[name].eq(self.busy & getattr(self, event))
        for name, bit in self.SUMS.items():
            events[name] = sum((column[bit] for column in columns[1:]), columns[0][bit])

        total = Signal(64)
        m.d.comb += Cat(self.cycles, self.cycles_high).eq(total)
        with m.If(self.clear):
            m.d.sync += [total.eq(0), *(getattr(self, name).eq(0) for name in events)]
        with m.Else():
            m.d.sync += total.eq(total + self.busy)
            for name, event in events.items():
                counter = getattr(self, name)
                following = Signal(33, name=f"{name}_next")
                m.d.comb += following.eq(counter + event)
                with m.If(event != 0):
                    m.d.sync += counter.eq(Mux(following[32], 0xFFFF_FFFF, following))

        quiet = Signal(32)
        progress = Signal()
        taps = Cat(column[Activity.MAC] for column in columns)
        m.d.comb += [
            progress.eq(
                events["config_words"] | events["read_beats"] | events["write_beats"] | taps.any()
            ),
        ]
        m.d.sync += self.hang.eq(
            self.busy & (self.host_watchdog != 0) & (quiet >= self.host_watchdog)
        )
        m.d.sync += quiet.eq(Mux(progress | ~self.busy, 0, quiet + 1))
        return m
