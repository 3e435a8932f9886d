"""A loop that says in time when it is at its last turn."""

from __future__ import annotations

from amaranth.hdl import Module, Signal


def loop(m: Module, name: str, length, begin, step):
    """Return whether a loop of ``length`` is at its last turn; ``step``: on to the next turn.

    The answer comes from a register: counted a turn ahead, down to 1. ``begin`` starts over.
    """
    left, ends = Signal(len(length), name=f"{name}_left"), Signal(name=f"{name}_ends")
    with m.If(begin | (step & ends)):
        m.d.sync += [left.eq(length), ends.eq(length == 1)]
    with m.Elif(step):
        m.d.sync += [left.eq(left - 1), ends.eq(left == 2)]
    return ends
