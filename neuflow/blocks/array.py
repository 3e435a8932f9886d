"""The grid: columns of tiles, their links, the global lines. Composition only."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import ConfigTap, config_stream
from neuflow.blocks.conv_tile import ConvolverTile
from neuflow.blocks.convolver import FLAGS
from neuflow.blocks.lines import Lines
from neuflow.blocks.place import place
from neuflow.blocks.streams import beat_stream
from neuflow.blocks.tiles import FifoTile, MapperTile, OperatorTile
from neuflow.grid import GridConfig
from neuflow.layout import ACTIVITY, COLUMN_BITS, Activity, Cause, Row


class Array(Component):
    """All tiles of a grid.

    Members; lists over the columns: ``rows``, ``weights`` In, beats of ``bus_words`` words, with
    ``rows_dest``, ``weights_dest`` In; ``partials`` (to the convolvers), ``operand`` (to the operator
    tiles) In, beats of ``lanes`` words; ``write`` Out with ``write_source`` In; ``activity`` Out
    (``layout.ACTIVITY``, flags MAC to MAPPER): what a column did one cycle ago, IDLE_TILE where the
    reason lies outside of it.
    ``config`` In: configuration bus, which reaches a tile after row + 2 cycles.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        wide, link = beat_stream(grid.bus_words), beat_stream(grid.lanes)
        super().__init__(
            {
                "config": In(config_stream()),
                "rows": In(wide).array(grid.columns),
                "rows_dest": In(COLUMN_BITS).array(grid.columns),
                "weights": In(wide).array(grid.columns),
                "weights_dest": In(COLUMN_BITS).array(grid.columns),
                "partials": In(link).array(grid.columns),
                "operand": In(link).array(grid.columns),
                "write": Out(link).array(grid.columns),
                "write_source": In(1).array(grid.columns),
                "activity": Out(ACTIVITY.shape()).array(grid.columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        columns = [self._build_column(m, c, platform) for c in range(self.grid.columns)]
        self._connect_config(m, columns)
        self._connect_links(m, columns)
        for line in ("rows", "weights"):
            self._connect_lines(m, line, [tiles[Row.CONVOLVER] for tiles in columns], platform)
        for c, tiles in enumerate(columns):
            self._connect_ports(m, c, tiles)
            self._connect_activity(m, c, tiles)
        return m

    def _build_column(self, m, c, platform):
        """Place the tiles of column ``c``, north to south."""
        grid = self.grid
        tiles = [ConvolverTile(grid), OperatorTile(grid), MapperTile(grid)]
        tiles += [FifoTile(grid) for _ in range(grid.fifo_tiles)]
        kinds = ["convolver_tile", "operator_tile", "mapper_tile"] + ["fifo_tile"] * grid.fifo_tiles
        for row, (tile, kind) in enumerate(zip(tiles, kinds, strict=True)):
            place(m, f"column{c}_row{row}", kind, tile, platform)
            m.d.comb += [tile.row.eq(row), tile.columns.eq(1 << c)]
        return tiles

    def _connect_config(self, m, columns):
        """The bus forks to the columns, then runs south from tile to tile."""
        m.submodules.tap = tap = ConfigTap(len(columns))
        connect(m, flipped(self.config), tap.i)
        m.d.comb += tap.o.ready.eq(1)
        for c, tiles in enumerate(columns):
            connect(m, tap.local[c], tiles[0].config_in)
            for upper, lower in zip(tiles, tiles[1:], strict=False):
                connect(m, upper.config_out, lower.config_in)
            m.d.comb += tiles[-1].config_out.ready.eq(1)

    def _connect_links(self, m, columns):
        """Links between neighbours; those at the border lead nowhere and are never ready."""
        for c, tiles in enumerate(columns):
            for row, tile in enumerate(tiles):
                if row + 1 < len(tiles):
                    connect(m, tile.south_out, tiles[row + 1].north_in)
                    connect(m, tiles[row + 1].north_out, tile.south_in)
                if c + 1 < len(columns):
                    neighbour = columns[c + 1][row]
                    connect(m, tile.east_out, neighbour.west_in)
                    connect(m, neighbour.west_out, tile.east_in)

    def _connect_lines(self, m, line, convolvers, platform):
        lines = Lines(self.grid.columns, self.grid.bus_words)
        place(m, f"{line}_lines", "lines", lines, platform)
        for c, tile in enumerate(convolvers):
            connect(m, flipped(getattr(self, line)[c]), lines.i[c])
            connect(m, lines.o[c], getattr(tile, line))
            m.d.comb += [
                lines.dest[c].eq(getattr(self, f"{line}_dest")[c]),
                lines.listening[c].eq(getattr(tile, f"{line}_listening")),
                lines.source[c].eq(getattr(tile, f"{line}_source")),
            ]

    def _connect_ports(self, m, c, tiles):
        """Operand line to convolver and operator tile; write port from operator or last tile."""
        write, operator = self.write[c], tiles[Row.OPERATOR]
        connect(m, flipped(self.partials[c]), tiles[Row.CONVOLVER].partials)
        connect(m, flipped(self.operand[c]), operator.global_in)
        with m.If(self.write_source[c]):
            connect(m, operator.global_out, flipped(write))
        with m.Else():
            connect(m, tiles[-1].global_out, flipped(write))

    def _connect_activity(self, m, c, tiles):
        convolver, operator, mapper = tiles[: Row.FIFO]
        flags = {
            Activity.MAC: convolver.tap,
            Activity.WAIT_ROWS: convolver.wait_rows,
            Activity.WAIT_WEIGHTS: convolver.wait_weights,
            Activity.WAIT_DRAIN: convolver.wait_drain,
            Activity.IDLE: convolver.idle,
            Activity.DRAIN: convolver.draining,
            Activity.ALU: operator.alu_active,
            Activity.WINDOW: operator.window_active,
            Activity.MAPPER: mapper.mapper_active,
        }
        activity = self.activity[c]
        m.d.sync += [activity.flags[bit].eq(flag) for bit, flag in flags.items()]
        m.d.comb += [activity.lanes.eq(convolver.lanes), activity.maps.eq(convolver.maps)]

        # Flags come late in a cycle: the cause is worked out in the next one.
        did = {name: Signal(name=f"column{c}_{name}") for name in FLAGS}
        m.d.sync += [did[name].eq(getattr(convolver, name)) for name in FLAGS]
        m.d.comb += activity.cause.eq(column_cause(m, did))


def column_cause(m: Module, did: dict[str, Signal]) -> Signal:
    """Return the cause of a column's cycle, see ``layout.Cause``; the first that holds counts."""
    cause = Signal(range(len(Cause)))
    drain = Mux(did["held"], Cause.WAIT_OUTPUT, Cause.OUTPUT_DRAIN)
    with m.If(did["tap"]):
        m.d.comb += cause.eq(Cause.USEFUL)
    with m.Elif(did["wait_rows"]):
        m.d.comb += cause.eq(Mux(did["fill"], Cause.FILL, Cause.WAIT_INPUT))
    with m.Elif(did["wait_weights"]):
        m.d.comb += cause.eq(Cause.WEIGHT_LOAD)
    with m.Elif(did["wait_drain"]):
        m.d.comb += cause.eq(drain)
    with m.Elif(did["configured"]):
        m.d.comb += cause.eq(Cause.FILL)
    with m.Elif(did["drain_configured"]):
        m.d.comb += cause.eq(drain)
    with m.Else():
        m.d.comb += cause.eq(Cause.IDLE_TILE)
    return cause
