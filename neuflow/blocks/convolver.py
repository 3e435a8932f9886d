"""The convolver: rows and weights in, rows out."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.conv_array import ARRAY_FLAGS, MacArray
from neuflow.blocks.conv_drain import Drain
from neuflow.blocks.conv_rows import RowStore
from neuflow.blocks.conv_weights import WeightStore
from neuflow.blocks.gate import add_gated, share_gate
from neuflow.blocks.streams import beat_stream
from neuflow.grid import GridConfig
from neuflow.layout import (
    COLUMN_BITS,
    CONV_ARRAY,
    CONV_DRAIN,
    CONV_ROWS,
    CONV_WEIGHTS,
    LANE_BITS,
    Kind,
)

FLAGS = (*ARRAY_FLAGS, "draining", "drain_configured", "held")
"""What a convolver does in a cycle."""


class Convolver(Component):
    """2-D convolution, matrix-vector and matrix-matrix product on ``maps * pixels`` MACs.

    Computes ``out[k, y, x] = requantise(sum over c, ky, kx of w[k, c, ky, kx] * in[c, y s + ky d -
    pad, x s + kx d - pad])`` as its four configurations say (docs/machine.md, "Convolver").

    Members
    -------
    rows, weights : In, beats of ``bus_words`` words; with ``rows_listening``, ``rows_source`` and
        ``weights_listening``, ``weights_source`` Out: which column's line is listened to.
    partials : In, ``o`` : Out, beats of ``maps`` words.
    config[0..3] : In configuration bus (CONV_ROWS, CONV_WEIGHTS, CONV_ARRAY, CONV_DRAIN).
    columns : In, the own column's bit.
    FLAGS, lanes, maps : Out, see ``MacArray``, and ``Drain`` for draining, drain_configured, held.

    Throughput: one tap a cycle (``maps * pixels`` MACs) in groups of at least ``pixels`` cycles.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "rows": In(beat_stream(grid.bus_words)),
                "rows_listening": Out(1),
                "rows_source": Out(3),
                "weights": In(beat_stream(grid.bus_words)),
                "weights_listening": Out(1),
                "weights_source": Out(3),
                "partials": In(beat_stream(grid.maps)),
                "o": Out(beat_stream(grid.maps)),
                "config": In(config_stream()).array(4),
                "columns": In(COLUMN_BITS),
                **{name: Out(1) for name in FLAGS},
                "lanes": Out(LANE_BITS),
                "maps": Out(LANE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.row_store = rows = RowStore(grid)
        m.submodules.weight_store = weights = WeightStore(grid)
        array, drain = MacArray(grid), Drain(grid)
        add_gated(m, "array", array, platform)
        add_gated(m, "drain", drain, platform)

        units = (
            (Kind.CONV_ROWS, CONV_ROWS, rows),
            (Kind.CONV_WEIGHTS, CONV_WEIGHTS, weights),
            (Kind.CONV_ARRAY, CONV_ARRAY, array),
            (Kind.CONV_DRAIN, CONV_DRAIN, drain),
        )
        receivers = {
            f"config_{layout.name.lower()}": ConfigReceiver(
                kind, layout, grid.config_queue, peeks=unit is array
            )
            for kind, layout, unit in units
        }
        share_gate(m, "config", receivers, platform)
        for number, (receiver, (_, _, unit)) in enumerate(
            zip(receivers.values(), units, strict=True)
        ):
            connect(m, flipped(self.config[number]), receiver.bus)
            connect(m, receiver.o, unit.config)
            m.d.comb += receiver.columns.eq(self.columns)
            if unit is array:
                m.d.comb += [
                    array.following.eq(receiver.following),
                    array.follows.eq(receiver.follows),
                ]

        connect(m, flipped(self.rows), rows.i)
        connect(m, flipped(self.weights), weights.i)
        connect(m, flipped(self.partials), drain.partials)
        connect(m, drain.o, flipped(self.o))
        m.d.comb += [
            self.rows_listening.eq(rows.listening),
            self.rows_source.eq(rows.source),
            self.weights_listening.eq(weights.listening),
            self.weights_source.eq(weights.source),
            # rows -> array
            array.stored.eq(rows.stored),
            rows.released.eq(array.released),
            rows.pass_done.eq(array.pass_done),
            rows.read.eq(array.read),
            rows.read_enable.eq(array.read_enable),
            array.words.eq(rows.words),
            # weights -> array, parameters -> drain
            array.weights_ready.eq(weights.ready),
            weights.read.eq(array.weights_read),
            weights.rewind.eq(array.weights_rewind),
            weights.free.eq(array.weights_free),
            array.weights.eq(weights.value),
            drain.parameters.eq(weights.parameters),
            drain.parameters_valid.eq(weights.parameters_valid),
            weights.parameters_beats.eq(drain.parameters_beats),
            weights.parameters_wanted.eq(drain.parameters_wanted),
            weights.parameters_take.eq(drain.parameters_take),
            weights.parameters_rewind.eq(drain.parameters_rewind),
            weights.parameters_free.eq(drain.parameters_free),
            # array -> drain
            *(drain.pixel[k].eq(array.pixel[k]) for k in range(grid.maps)),
            array.shift.eq(drain.shift),
            drain.hand_over.eq(array.hand_over),
            drain.block.eq(array.block),
            array.drain_ready.eq(drain.ready),
            # counters
            *(getattr(self, name).eq(getattr(array, name)) for name in ARRAY_FLAGS),
            self.lanes.eq(array.lanes),
            self.maps.eq(array.maps),
            self.draining.eq(drain.draining),
            self.drain_configured.eq(drain.configured),
            self.held.eq(drain.held),
        ]
        return m
