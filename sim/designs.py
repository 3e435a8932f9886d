"""What the benches run on: one design a block, and the machine; all of grid ``tiny``'s size."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.lib.wiring import Component

from neuflow.grid import TINY
from neuflow.layout import RouterIn, RouterOut

LANES = TINY.lanes
QUEUE = TINY.config_queue
ROUTER_INPUTS = (RouterIn.NORTH, RouterIn.EAST, RouterIn.LOCAL0)
ROUTER_OUTPUTS = (RouterOut.SOUTH, RouterOut.WEST, RouterOut.GLOBAL, RouterOut.LOCAL1)
WINDOW_WORDS = 512
FIFO_WORDS = 13


def alu() -> Component:
    """Return the term-by-term operator."""
    from neuflow.blocks.alu import Alu

    return Alu(LANES, QUEUE)


def convolver() -> Component:
    """Return the convolver."""
    from neuflow.blocks.convolver import Convolver

    return Convolver(TINY)


def fifo() -> Component:
    """Return a FIFO whose words are no whole number of beats."""
    from neuflow.blocks.fifo import Fifo

    return Fifo(LANES, FIFO_WORDS)


def mapper() -> Component:
    """Return the mapper."""
    from neuflow.blocks.mapper import Mapper

    return Mapper(LANES, QUEUE)


def router() -> Component:
    """Return a router with three inputs and four outputs."""
    from neuflow.blocks.router import Router

    return Router(ROUTER_INPUTS, ROUTER_OUTPUTS, LANES, QUEUE)


def window() -> Component:
    """Return the window reduction, with room for the cases of its tests."""
    from neuflow.blocks.window import Window

    return Window(LANES, WINDOW_WORDS, QUEUE)


BLOCKS: dict[str, Callable[[], Component]] = {
    make.__name__: make for make in (alu, convolver, fifo, mapper, router, window)
}
"""Name of the exported module -> component."""

MACHINE = "neuflow_top"
"""The whole grid behind the AXI names of ``rtl/neuflow_top.v``."""
