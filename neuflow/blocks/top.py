"""The machine: control unit, registers, DMA ports, arbiter and the array. Composition only."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.arbiter import Arbiter
from neuflow.blocks.axi import axi4, axi4_lite
from neuflow.blocks.config import ConfigTap
from neuflow.blocks.control import Control
from neuflow.blocks.dma import OperandLine, ReadPort, WritePort
from neuflow.blocks.gate import share_gate
from neuflow.blocks.place import place
from neuflow.blocks.registers import Registers, counter_registers, member, value_registers
from neuflow.blocks.scratchpad import Scratchpad
from neuflow.blocks.streams import wire
from neuflow.grid import GridConfig
from neuflow.layout import ACTIVITY_BITS, Activity, Cause, Kind, Operand


class Top(Component):
    """The machine between its memory and its host.

    Members: ``m_axi`` Out (AXI4), ``s_axi`` In (AXI4-Lite), ``irq`` Out, ``activity`` Out (32 bits
    a column, ``layout.ACTIVITY``; one cycle late). The clock domain is ``sync``.

    Parameters
    ----------
    grid : the machine's parameters.
    array : the columns of tiles; by default ``blocks.array.Array(grid)``. Members, with c a column:
        ``config``; ``rows[c]``, ``rows_dest[c]``, ``weights[c]``, ``weights_dest[c]`` (streams of
        ``bus_words`` lanes, 8 bits), ``partials[c]``, ``operand[c]`` (``maps`` lanes)
        In; ``write[c]`` Out (``maps`` lanes), ``write_source[c]``, ``write_valid[c]`` In where it
        has them; ``activity[c]`` Out (``layout.ACTIVITY``; one cycle late).
    """

    def __init__(self, grid: GridConfig, array: Component | None = None):
        self.stand_in = array is not None
        if array is None:
            from neuflow.blocks.array import Array

            array = Array(grid)
        self.grid = grid
        self.array: Any = array
        super().__init__(
            {
                "m_axi": Out(axi4(grid)),
                "s_axi": In(axi4_lite()),
                "irq": Out(1),
                "activity": Out(ACTIVITY_BITS * grid.columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        registers, control, arbiter = Registers(grid), Control(grid), Arbiter(grid)
        memories: list[Any] = [arbiter]
        if grid.scratchpad_words:
            memories.append(Scratchpad(grid))
            place(m, "scratchpad", "scratchpad", memories[1], platform)
        tap = ConfigTap(4 * grid.columns)
        place(m, "registers", "registers", registers, platform)
        place(m, "control", "control", control, platform)
        place(m, "arbiter", "arbiter", arbiter, platform)
        place(m, "tap", "dma_tap", tap, platform)
        # A stand-in may be without a clock, which an exported module of its own must have.
        place(m, "array", "array", self.array, None if self.stand_in else platform)

        # Outside.
        connect(m, flipped(self.s_axi), registers.axi)
        connect(m, arbiter.axi, flipped(self.m_axi))
        m.d.comb += self.irq.eq(registers.irq)

        # Control unit: registers, program fetch (the last read port), configuration bus, memory.
        for name in ("start", "clear_done", *(member(r) for r in value_registers())):
            m.d.comb += getattr(control, name).eq(getattr(registers, name))
        for name in ("busy", "done", "error", *(member(r) for r in counter_registers(grid))):
            m.d.comb += getattr(registers, name).eq(getattr(control, name))
        self._connect_reader(m, memories[:1], len(arbiter.read) - 1, control)
        wire(m, control.config, tap.i)
        wire(m, tap.o, self.array.config)
        m.d.comb += [
            control.activity.eq(self.activity),
            control.read_error.eq(Cat(memory.read_error for memory in memories).any()),
            control.write_error.eq(Cat(memory.write_error for memory in memories).any()),
            control.read_beat.eq(arbiter.read_beat),
            control.write_beat.eq(arbiter.write_beat),
        ]

        lines = [OperandLine(grid) for _ in range(grid.columns)]
        named = {f"operand_line{column}": line for column, line in enumerate(lines)}
        share_gate(m, "operand_lines", named, platform, kind="operand_line")
        for column, line in enumerate(lines):
            self._build_column(m, platform, column, line, tap, memories, control)
        return m

    def _build_column(
        self, m: Module, platform, column: int, line, tap, memories: list[Any], control
    ) -> None:
        """Place the four ports of a column and connect its lines.

        ``line``: its operand line; ``memories``: the arbiter and, where there is one, the scratchpad.
        """
        grid, array = self.grid, self.array
        kinds = (Kind.READ_ROWS, Kind.READ_WEIGHTS, Kind.READ_OPERAND)
        ports: list[Any] = [ReadPort(grid) for _ in kinds] + [WritePort(grid)]
        for k, port in enumerate(ports):
            wire(m, tap.local[4 * column + k], port.bus)
            m.d.comb += port.columns.eq(1 << column)
        for k, kind in enumerate(kinds):
            place(m, f"{kind.name.lower()}{column}", "read_port", ports[k], platform)
            self._connect_reader(m, memories, 3 * column + k, ports[k])
            m.d.comb += ports[k].kind.eq(kind)
        rows, weights, operand, write = ports
        place(m, f"write{column}", "write_port", write, platform)

        # Lines to the array, and the one from it.
        wire(m, rows.o, array.rows[column])
        wire(m, weights.o, array.weights[column])
        wire(m, operand.o, line.i)
        wire(m, line.o[Operand.CONVOLVER], array.partials[column])
        wire(m, line.o[Operand.OPERATOR], array.operand[column])
        wire(m, array.write[column], write.i)
        m.d.comb += [
            array.rows_dest[column].eq(rows.dest),
            array.weights_dest[column].eq(weights.dest),
            line.i_dest.eq(operand.dest),
            array.write_source[column].eq(write.source),
        ]
        if "write_valid" in array.signature.members:
            m.d.comb += array.write_valid[column].eq(write.source_valid)

        # Write bursts and their responses.
        self._connect_requests(m, write.request, [memory.write[column] for memory in memories])
        m.d.comb += [
            *(memory.data[column].payload.eq(write.data.payload) for memory in memories),
            *(memory.data[column].valid.eq(write.data.valid) for memory in memories),
            # Each takes the beats of the bursts that it was asked for.
            write.data.ready.eq(Cat(memory.data[column].ready for memory in memories).any()),
            write.response.eq(Cat(memory.write_response[column] for memory in memories).any()),
            control.write_done[column].eq(write.done),
        ]

        own = {
            Activity.READ_ROWS: rows.o.valid & rows.o.ready,
            Activity.READ_WEIGHTS: weights.o.valid & weights.o.ready,
            Activity.READ_OPERAND: line.active,
            Activity.WRITE: write.i.valid & write.i.ready,
            Activity.WRITE_DONE: write.done,
            Activity.CONFIG: control.config.valid & control.config.ready,
        }
        self._build_activity(m, column, own, control.cause)

    def _build_activity(self, m: Module, column: int, own: dict[Activity, Any], cause: Any) -> None:
        """Complete a column's activity, which is one cycle late, by what lies outside of the array."""
        tiles = self.array.activity[column]
        late = {bit: Signal(name=f"{bit.name.lower()}{column}") for bit in own}
        m.d.sync += [late[bit].eq(flag) for bit, flag in own.items()]
        flags = [late[bit] if bit in own else tiles.flags[bit] for bit in range(len(tiles.flags))]
        m.d.comb += self.activity.word_select(column, ACTIVITY_BITS).eq(
            Cat(
                *flags,
                Mux(tiles.cause == Cause.IDLE_TILE, cause, tiles.cause),
                tiles.lanes,
                tiles.maps,
            )
        )

    def _connect_reader(self, m: Module, memories: list[Any], index: int, reader) -> None:
        """Connect a read port, or the program fetch, to where it reads from."""
        self._connect_requests(m, reader.request, [memory.read[index] for memory in memories])
        (valid, beat), *others = [answer for memory in memories for answer in memory.answers(index)]
        m.d.comb += [
            # A port asks one memory at a time, and one bank at a time gives it a beat.
            reader.response.payload.eq(beat),
            reader.response.valid.eq(Cat(valid, *(answers for answers, _ in others)).any()),
        ]
        for answers, beat in others:
            with m.If(answers):
                m.d.comb += reader.response.payload.eq(beat)

    def _connect_requests(self, m: Module, request, sinks: list[Any]) -> None:
        """Send each burst to the memory that its address's top bit names, if there are two."""
        named = request.payload.address[-1] if len(sinks) > 1 else Const(0)
        for number, sink in enumerate(sinks):
            m.d.comb += [
                sink.payload.eq(request.payload),
                sink.valid.eq(request.valid & (named == number)),
            ]
            with m.If(named == number):
                m.d.comb += request.ready.eq(sink.ready)
