"""Counters of events, and the watchdog."""

from __future__ import annotations

from functools import reduce
from operator import add

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for

from neuflow.grid import GridConfig
from neuflow.layout import ACTIVITY, ACTIVITY_BITS, MAC_CAUSES, Activity, Cause


class Counters(Component):
    """The counters of ``layout.REGISTERS``, and the watchdog.

    Members: ``clear`` In (all to 0), ``busy`` In (count), ``host_watchdog`` In, ``hang`` Out: that
    many busy cycles without progress, i.e. without a configuration word, a memory beat or a tap of
    an array; the events of a cycle In: ``config_moves``, ``config_waits``, ``fence_waits``,
    ``read_beat``, ``write_beat``; ``activity`` (``layout.ACTIVITY`` a column) of the cycle before;
    the counters Out, 32 bits each. Counters stop at their largest value, those of two words at that
    of both. Latency of ``cycles`` 1 cycle, of events LATENCY cycles, of what comes with the activity
    LATE cycles; what counts is that ``busy`` was 1 with the event. A reset clears like ``clear``.
    """

    LATENCY = 2
    LATE = 5

    EVENTS = {
        "config_words": "config_moves",
        "config_stalls": "config_waits",
        "fence_stalls": "fence_waits",
        "read_beats": "read_beat",
        "write_beats": "write_beat",
    }
    """Counters of one event."""

    def __init__(self, grid: GridConfig, reset: int = 0):
        """Make the counters; ``reset`` is what their low words hold before the first ``clear``."""
        self.grid, self.reset = grid, reset
        self.causes = [cause.name.lower() for cause in Cause]
        self.wide = [cause.name.lower() for cause in MAC_CAUSES]
        sums = ("mac_cycles", "config_hidden", *self.causes)
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
                **{name: Out(32) for name in (*sums, *self.EVENTS)},
                **{f"{name}_high": Out(32) for name in self.wide},
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Events in registers, as they come from far away; those of an idle grid do not count.
        events = {}
        for name, event in self.EVENTS.items():
            events[name] = Signal(name=f"{event}_seen")
            m.d.sync += events[name].eq(self.busy & getattr(self, event))
        total = Signal(64)
        m.d.comb += Cat(self.cycles, self.cycles_high).eq(total)
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.Else():
            m.d.sync += total.eq(total + self.busy)
        # Events of the first cycle are counted after this; a register, as many wait for it.
        cleared = self._cleared(m, 1)
        for name, event in events.items():
            self._count(m, name, cleared, event)

        taps = self._build_activity(m)
        quiet = Signal(32)
        progress = Signal()
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

    def _cleared(self, m: Module, cycles: int) -> Signal:
        """Return ``clear`` so many cycles later, and 1 so many from a reset on.

        So the counters themselves need no reset: the way from it to a thousand registers is long.
        """
        begin = 0 if self.reset else (1 << cycles) - 1
        later = Signal(cycles, name=f"clear{cycles}", init=begin)
        m.d.sync += later.eq(Cat(self.clear, later))
        return later[-1]

    def _count(self, m: Module, name: str, clear: Signal, more) -> None:
        """Add ``more`` to a counter, up to its largest value."""
        words = [getattr(self, name)]
        if name in self.wide:
            words.append(getattr(self, f"{name}_high"))
        bits = 32 * len(words)
        first = (1 << bits) - (1 << 32) + self.reset if self.reset else 0
        counter = Signal(bits, name=f"{name}_count", init=first, reset_less=True)
        m.d.comb += Cat(words).eq(counter)
        following = Signal(len(counter) + 1, name=f"{name}_next")
        m.d.comb += following.eq(counter + more)
        with m.If(clear):
            m.d.sync += counter.eq(0)
        with m.Elif(more != 0):
            m.d.sync += counter.eq(following[:-1] | following[-1].replicate(len(counter)))

    def _build_activity(self, m: Module) -> Signal:
        """Count what comes with the activity: seen, split, summed, added. Return who issued a tap."""
        grid = self.grid
        busy = Signal()
        seen = Signal.like(self.activity)
        m.d.sync += [
            busy.eq(self.busy),
            seen.eq(Mux(busy, self.activity, 0)),
        ]
        columns = [
            data.View(ACTIVITY.shape(), seen.word_select(c, ACTIVITY_BITS))
            for c in range(grid.columns)
        ]
        taps = Cat(column.flags[Activity.MAC] for column in columns)
        cleared = self._cleared(m, self.LATE - 2)  # the cycles to the last addition
        split: dict[str, list[Signal]] = {"mac_cycles": list(taps)}
        split["config_hidden"] = [taps.any() & columns[0].flags[Activity.CONFIG]]
        for cause in Cause:
            split[cause.name.lower()] = [self._part(column, cause) for column in columns]
        for name, parts in split.items():
            held = []
            for c, part in enumerate(parts):
                held.append(Signal(len(part), name=f"{name}{c}", reset_less=True))
                m.d.sync += held[c].eq(part)
            bits = bits_for(sum((1 << len(part)) - 1 for part in parts))
            summed = Signal(bits, name=f"{name}_sum")
            m.d.sync += summed.eq(sum(held[1:], held[0]))
            self._count(m, name, cleared, summed)
        return taps

    def _part(self, column: data.View, cause: Cause):
        """Return what a column's cycle adds to the counter of ``cause``."""
        grid, tap = self.grid, column.flags[Activity.MAC]
        # ``seen`` is 0 while the grid is not busy: without lanes, maps, and other causes.
        lanes = column.lanes[: bits_for(grid.pixels)]
        maps = column.maps[: bits_for(grid.maps)]
        if cause == Cause.USEFUL:
            part = _times(lanes, maps)
        elif cause == Cause.EDGE_LANES:
            part = _times((grid.pixels - lanes)[: bits_for(grid.pixels)], Const(grid.maps))
        elif cause == Cause.MAP_REMAINDER:
            part = _times(lanes, (grid.maps - maps)[: bits_for(grid.maps)])
        else:
            return column.cause == cause
        return Mux(tap, part, 0)[: bits_for(grid.macs // grid.columns)]


def _times(lanes: Value, maps: Value) -> Value:
    """Return the product, of additions: a multiplier of an FPGA lies far away and is worth more."""
    return reduce(add, (Mux(maps[k], lanes << k, 0) for k in range(len(maps))))
