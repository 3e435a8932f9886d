"""The last part of the convolver's exit: rows that are complete leave the reorder buffer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import connect

from neuflow.blocks.conv_reorder import Reorder
from neuflow.blocks.gate import fires
from neuflow.blocks.loops import loop
from neuflow.blocks.streams import Packer, Slice
from neuflow.layout import ROW_ADDRESS, SIZE

if TYPE_CHECKING:
    from neuflow.blocks.conv_drain import Drain


def send_rows(m: Module, drain: Drain, packer: Packer):
    """Read complete rows back, map by map, ``maps`` words a cycle. Return: the last has left.

    Part of ``drain``'s module. Reads its ``known`` and ``rows_done``, drives its ``rows_sent``,
    ``reads``, ``unread``, ``unread_end`` and the reading side of its reorder buffer.
    """
    grid, c = drain.grid, drain.config.payload
    begin = ~drain.known
    issue = Signal()
    move = Signal()
    available = Signal()
    rest = Signal(SIZE)
    row_ends = Signal()
    map_ends = Signal()
    all_ends = Signal()
    count = Signal(range(grid.maps + 1))
    last_map = loop(m, "map", c.maps, begin, issue & row_ends)
    last_row = loop(m, "row", c.height, begin, issue & map_ends)
    last_slot = loop(m, "slot", c.slots, begin, issue & map_ends)
    m.d.comb += [
        map_ends.eq(row_ends & last_map),
        all_ends.eq(map_ends & last_row),
        count.eq(Mux(row_ends, rest, grid.maps)),
        issue.eq(move & drain.known & available),
    ]
    m.d.sync += available.eq(
        drain.known
        & Mux(
            issue & map_ends,
            drain.rows_sent + 1 != drain.rows_done,
            drain.rows_sent != drain.rows_done,
        )
    )
    address = _read(m, drain, packer, move, issue, count, map_ends, all_ends)

    with m.If(begin | (issue & row_ends)):
        m.d.sync += [rest.eq(c.width), row_ends.eq(c.width <= grid.maps)]
    with m.Elif(issue):
        m.d.sync += [rest.eq(rest - grid.maps), row_ends.eq(rest <= 2 * grid.maps)]

    slot_base = Signal(ROW_ADDRESS)
    map_base = Signal(ROW_ADDRESS)
    next_slot = Signal(ROW_ADDRESS)
    next_map = Signal(ROW_ADDRESS)
    m.d.comb += [
        next_slot.eq(Mux(last_slot, 0, slot_base + c.width)),
        next_map.eq(map_base + c.map_step),
    ]
    with m.If(begin):
        m.d.sync += [slot_base.eq(0), map_base.eq(0), address.eq(0), drain.rows_sent.eq(0)]
    with m.Elif(issue & map_ends):
        m.d.sync += [
            slot_base.eq(next_slot),
            map_base.eq(next_slot),
            address.eq(next_slot),
            drain.rows_sent.eq(Mux(all_ends, 0, drain.rows_sent + 1)),
        ]
    with m.Elif(issue & row_ends):
        m.d.sync += [map_base.eq(next_map), address.eq(next_map)]
    with m.Elif(issue):
        m.d.sync += address.eq(address + grid.maps)
    return issue & all_ends


def _read(m: Module, drain: Drain, packer: Packer, move, issue, count, map_ends, all_ends):
    """Read ``count`` words where the address, which is returned, stands; they go along with it.

    Drives ``move``: what is under way goes on.
    """
    reorder = drain.reorder
    beat = data.StructLayout({"valid": 1, "count": count.shape(), "last": 1})
    stages = [Signal(beat, name=f"r{k}_beat") for k in range(Reorder.READ + 1)]
    address = Signal(ROW_ADDRESS)
    end = stages[-1]
    # Cuts the way from a stalled output back to all that counts here.
    m.submodules.sends = sends = Slice(packer.i.payload.shape())
    connect(m, sends.o, packer.i)
    m.d.comb += [
        Cat(stages[0].valid, stages[0].count, stages[0].last).eq(Cat(issue, count, all_ends)),
        move.eq(~end.valid | sends.i.ready),
        drain.reads.eq(fires(sends.o) | (move & Cat(stage.valid for stage in stages).any())),
        reorder.move.eq(move),
        reorder.read_enable.eq(issue),
        reorder.read_address.eq(address),
        sends.i.valid.eq(end.valid),
        sends.i.payload.words.eq(reorder.read_words),
        sends.i.payload.count.eq(end.count),
        sends.i.payload.last.eq(end.last),
    ]
    with m.If(move):
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        m.d.sync += [drain.unread.eq(issue & map_ends), drain.unread_end.eq(issue & all_ends)]
    return address
