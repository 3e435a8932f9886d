"""The convolver tile: convolver and router."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import ConfigTap, config_stream
from neuflow.blocks.convolver import FLAGS, Convolver
from neuflow.blocks.gate import share_gate
from neuflow.blocks.router import Router
from neuflow.blocks.streams import beat_stream
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, LANE_BITS, RouterIn, RouterOut


class ConvolverTile(Component):
    """Northernmost tile of a column.

    Members: ``config_in``, ``config_out`` configuration bus; ``row`` In(4), ``columns`` In(8);
    ``east_in`` .. ``south_out`` links (no northern neighbour); ``rows``, ``weights`` In lines with
    their ``_listening`` and ``_source``; ``partials`` In; the convolver's activity flags.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        link = beat_stream(grid.lanes)
        super().__init__(
            {
                "config_in": In(config_stream()),
                "config_out": Out(config_stream()),
                "row": In(4),
                "columns": In(COLUMN_BITS),
                **{f"{side}_in": In(link) for side in ("east", "south", "west")},
                **{f"{side}_out": Out(link) for side in ("east", "south", "west")},
                "rows": In(beat_stream(grid.bus_words)),
                "weights": In(beat_stream(grid.bus_words)),
                "partials": In(link),
                **{f"{line}_listening": Out(1) for line in ("rows", "weights")},
                **{f"{line}_source": Out(3) for line in ("rows", "weights")},
                **{flag: Out(1) for flag in FLAGS},
                "lanes": Out(LANE_BITS),
                "maps": Out(LANE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        tap = ConfigTap(5)
        m.submodules.convolver = convolver = Convolver(grid)
        router = Router(
            (RouterIn.EAST, RouterIn.SOUTH, RouterIn.WEST, RouterIn.LOCAL0),
            (RouterOut.EAST, RouterOut.SOUTH, RouterOut.WEST),
            grid.lanes,
            grid.config_queue,
        )
        share_gate(m, "links", {"tap": tap, "router": router}, platform)
        connect(m, flipped(self.config_in), tap.i)
        connect(m, tap.o, flipped(self.config_out))
        for number in range(4):
            connect(m, tap.local[number], convolver.config[number])
        connect(m, tap.local[4], router.bus)
        m.d.comb += [
            convolver.columns.eq(self.columns),
            router.columns.eq(self.columns),
            router.sub.eq(self.row),
        ]

        connect(m, flipped(self.rows), convolver.rows)
        connect(m, flipped(self.weights), convolver.weights)
        connect(m, flipped(self.partials), convolver.partials)
        connect(m, convolver.o, router.local0_in)
        for side in ("east", "south", "west"):
            connect(m, flipped(getattr(self, f"{side}_in")), getattr(router, f"{side}_in"))
            connect(m, getattr(router, f"{side}_out"), flipped(getattr(self, f"{side}_out")))
        sources = ("rows_listening", "rows_source", "weights_listening", "weights_source")
        for name in (*FLAGS, "lanes", "maps", *sources):
            m.d.comb += getattr(self, name).eq(getattr(convolver, name))
        return m
