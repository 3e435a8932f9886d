"""Tiles with a router and what it feeds: operator, mapper and FIFO tile.

One class is one kind of hardware: row and column come in through ports. All four links of a tile
exist; the array ties off those at its borders.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.alu import Alu
from neuflow.blocks.config import ConfigTap, config_stream
from neuflow.blocks.fifo import Fifo
from neuflow.blocks.gate import share_gate
from neuflow.blocks.mapper import Mapper
from neuflow.blocks.place import place
from neuflow.blocks.router import Router
from neuflow.blocks.streams import beat_stream
from neuflow.blocks.window import Window
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, RouterIn, RouterOut

DIRECTIONS = ("north", "east", "south", "west")
"""Links of a tile: ``<direction>_in`` In and ``<direction>_out`` Out, ``lanes`` words a beat."""

_LINKS_IN = (RouterIn.NORTH, RouterIn.EAST, RouterIn.SOUTH, RouterIn.WEST)
_LINKS_OUT = (RouterOut.NORTH, RouterOut.EAST, RouterOut.SOUTH, RouterOut.WEST)


class _Tile(Component):
    """What the tiles share: configuration tap, router, links.

    ``config_in`` In, ``config_out`` Out: configuration bus, one cycle a tile. ``row`` In(4): row of
    the tile, the ``sub`` of its router. ``columns`` In(8): one bit, its column. A beat takes one
    cycle from an input to an output of the router.
    """

    INPUTS: Sequence[RouterIn] = ()
    OUTPUTS: Sequence[RouterOut] = ()

    def __init__(self, grid: GridConfig, **more):
        self.grid = grid
        beats = beat_stream(grid.lanes)
        globals_in = {"global_in": In(beats)} if RouterIn.GLOBAL in self.INPUTS else {}
        super().__init__(
            {
                "config_in": In(config_stream()),
                "config_out": Out(config_stream()),
                "row": In(4),
                "columns": In(COLUMN_BITS),
                **{f"{name}_in": In(beats) for name in DIRECTIONS},
                **{f"{name}_out": Out(beats) for name in DIRECTIONS},
                **globals_in,
                "global_out": Out(beats),
                **more,
            }
        )

    def _build(self, units, platform):
        """Place tap and router, and connect the units (name, component, sub) to the bus."""
        m = Module()
        router = Router(
            (*_LINKS_IN, *self.INPUTS),
            (*_LINKS_OUT, *self.OUTPUTS),
            self.grid.lanes,
            self.grid.config_queue,
        )
        tap = ConfigTap(1 + len(units))
        share_gate(m, "links", {"tap": tap, "router": router}, platform)
        connect(m, flipped(self.config_in), tap.i)
        connect(m, tap.o, flipped(self.config_out))

        for name, unit, _ in units:
            place(m, name, type(unit).__name__.lower(), unit, platform)
        for k, (_, unit, sub) in enumerate([("router", router, self.row), *units]):
            connect(m, tap.local[k], unit.bus)
            m.d.comb += [unit.sub.eq(sub), unit.columns.eq(self.columns)]
        for name in (*DIRECTIONS, *(("global",) if hasattr(self, "global_in") else ())):
            connect(m, flipped(getattr(self, f"{name}_in")), getattr(router, f"{name}_in"))
        for name in (*DIRECTIONS, "global"):
            connect(m, getattr(router, f"{name}_out"), flipped(getattr(self, f"{name}_out")))
        return m, router


class OperatorTile(_Tile):
    """Two term-by-term operators and a window reduction.

    Beside what :class:`_Tile` lists: ``global_in`` In (operand line), ``global_out`` Out;
    ``alu_active``, ``window_active`` Out: a result beat left an operator, the window unit took one.
    Units on the bus: ALU 0 and 1, WINDOW 0.
    """

    INPUTS = (RouterIn.GLOBAL, RouterIn.LOCAL0, RouterIn.LOCAL1, RouterIn.LOCAL2)
    OUTPUTS = (
        RouterOut.GLOBAL, RouterOut.LOCAL0, RouterOut.LOCAL1, RouterOut.LOCAL2, RouterOut.LOCAL3,
        RouterOut.LOCAL4,
    )  # fmt: skip

    def __init__(self, grid: GridConfig):
        super().__init__(grid, alu_active=Out(1), window_active=Out(1))

    def elaborate(self, platform):
        grid = self.grid
        alus = [Alu(grid.lanes, grid.config_queue) for _ in range(2)]
        window = Window(grid.lanes, grid.window_words, grid.config_queue)
        m, router = self._build(
            [("alu0", alus[0], 0), ("alu1", alus[1], 1), ("window", window, 0)], platform
        )
        connect(m, router.local0_out, alus[0].a)
        connect(m, router.local1_out, alus[0].b)
        connect(m, router.local2_out, alus[1].a)
        connect(m, router.local3_out, alus[1].b)
        connect(m, router.local4_out, window.i)
        connect(m, alus[0].o, router.local0_in)
        connect(m, alus[1].o, router.local1_in)
        connect(m, window.o, router.local2_in)
        m.d.comb += [
            self.alu_active.eq(alus[0].active | alus[1].active),
            self.window_active.eq(window.active),
        ]
        return m


class MapperTile(_Tile):
    """A piecewise function.

    Beside what :class:`_Tile` lists: ``global_out`` Out (used where it is the column's last tile),
    ``mapper_active`` Out: a beat left the mapper. Unit on the bus: MAPPER 0.
    """

    INPUTS = (RouterIn.LOCAL0,)
    OUTPUTS = (RouterOut.GLOBAL, RouterOut.LOCAL0)

    def __init__(self, grid: GridConfig):
        super().__init__(grid, mapper_active=Out(1))

    def elaborate(self, platform):
        mapper = Mapper(self.grid.lanes, self.grid.config_queue)
        m, router = self._build([("mapper", mapper, 0)], platform)
        connect(m, router.local0_out, mapper.i)
        connect(m, mapper.o, router.local0_in)
        m.d.comb += self.mapper_active.eq(mapper.active)
        return m


class FifoTile(_Tile):
    """A bank of two FIFOs of ``grid.fifo_words // 2`` words.

    Beside what :class:`_Tile` lists: ``global_out`` Out (used where it is the column's last tile).
    FIFOs need no configuration.
    """

    INPUTS = (RouterIn.LOCAL0, RouterIn.LOCAL1)
    OUTPUTS = (RouterOut.GLOBAL, RouterOut.LOCAL0, RouterOut.LOCAL1)

    def elaborate(self, platform):
        m, router = self._build([], platform)
        fifos = [Fifo(self.grid.lanes, self.grid.fifo_words // 2) for _ in range(2)]
        named = {f"fifo{k}": fifo for k, fifo in enumerate(fifos)}
        share_gate(m, "fifos", named, platform, kind="fifo")
        for k, fifo in enumerate(fifos):
            connect(m, getattr(router, f"local{k}_out"), fifo.i)
            connect(m, fifo.o, getattr(router, f"local{k}_in"))
        return m


__all__ = ["DIRECTIONS", "FifoTile", "MapperTile", "OperatorTile"]
