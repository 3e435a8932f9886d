"""The control unit: fetches the program, sends configurations, keeps fences, counts frames.

:class:`Fetcher` (memory to words) -> :class:`Sequencer` (words to packets) -> configuration bus;
:class:`Counters` watch. :class:`Control` is the three together.
"""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum
from amaranth.lib.wiring import Component, In, Out, flipped
from amaranth.utils import bits_for

from neuflow.blocks.config import config_stream
from neuflow.blocks.counters import Counters
from neuflow.blocks.dma_address import request_stream, response_stream
from neuflow.blocks.fetcher import Fetcher, word_stream
from neuflow.blocks.registers import counter_registers, member, value_registers
from neuflow.blocks.streams import wire
from neuflow.grid import GridConfig
from neuflow.layout import (
    ACTIVITY_BITS,
    CONFIG_BITS,
    INSTRUCTION,
    Cause,
    Error,
    Kind,
    Opcode,
    Relocate,
)

PAGE_WORDS = 2048
"""Words of 4 KB, the unit of the address registers."""


class State(enum.Enum, shape=2):
    """What the sequencer expects next."""

    DECODE = 0  # an instruction
    PAYLOAD = 1  # a word of a packet
    STEPS = 2  # END's two words
    FRAME = 3  # the frame's last write to be acknowledged


class Sequencer(Component):
    """Execute the program: packets, fences, frames.

    Members
    -------
    i : In, program words; ``restart``, ``enable`` Out: for the fetcher.
    config : Out, configuration bus; one word a cycle, and one cycle for an instruction's first
        word.
    write_done : In, one bit a column: a WRITE packet of that column is done.
    start : In, ignored while busy and after an error. ``fault`` In: ``layout.Error`` from outside.
    clear_done : In, clears ``done``.
    host_program, host_input, host_output, host_frames, host_ring : In, the registers; to be kept
        still while busy.
    busy, done, error, frames_done, program_counter : Out, see ``layout.REGISTERS``.
    fence_waits : Out, a FENCE waits in this cycle. frame_ends : Out, END waits for writes.

    An error stops everything where it is, with ``done`` set; only a reset gets the grid out, as its
    units keep half a pass. Illegal: an unknown opcode, a reserved bit that is not 0, a column that
    the grid does not have, a packet of no words.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(word_stream()),
                "restart": Out(1),
                "enable": Out(1),
                "config": Out(config_stream()),
                "write_done": In(grid.columns),
                "start": In(1),
                "clear_done": In(1),
                "fault": In(bits_for(max(Error))),
                "host_program": In(32),
                "host_input": In(32),
                "host_output": In(32),
                "host_frames": In(32),
                "host_ring": In(32),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(8),
                "frames_done": Out(32),
                "program_counter": Out(32),
                "fence_waits": Out(1),
                "frame_ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        state = Signal(State)
        word = Signal(INSTRUCTION.shape())  # the word at hand as an instruction
        held = Signal(INSTRUCTION.shape(), reset_less=True)  # the packet's instruction
        left = Signal(8, reset_less=True)  # payload words to send
        first = Signal(reset_less=True)
        steps = Signal(reset_less=True)  # END's second word is next
        input_step, output_step = (
            Signal(CONFIG_BITS, name=f"{name}_step", reset_less=True) for name in ("input", "output")
        )
        last_frame = Signal()
        idle = Signal()
        next_frame = Signal()
        illegal = Signal()
        go = Signal()  # the word at hand may go
        moves = Signal()  # it goes

        # A frame takes several cycles, so this may be a cycle behind.
        m.d.sync += last_frame.eq(self.frames_done + 1 >= self.host_frames)
        at, there, bad = self._build_input(m, moves)
        m.d.comb += [
            word.as_value().eq(at.word),
            moves.eq(there & go),
            self.frame_ends.eq(state == State.FRAME),
            # Not before END's last word is here: it may lie in a burst that is yet to be asked for.
            self.enable.eq(self.busy & ~(last_frame & self.frame_ends)),
        ]
        fence_passes = self._build_fences(m, word, moves & (state == State.DECODE), idle)
        m.d.comb += self.config.payload.last.eq(left == 1)
        bases = self._build_bases(m, next_frame, input_step, output_step)
        self._build_payload(m, at, held, first, bases)

        with m.If(self.busy & (self.fault == 0)):
            with m.Switch(state):
                with m.Case(State.DECODE):
                    m.d.comb += [
                        illegal.eq(there & bad),
                        go.eq(~bad & ((word.opcode != Opcode.FENCE) | fence_passes)),
                        self.fence_waits.eq(there & ~bad & ~go),
                    ]
                    with m.If(moves):
                        m.d.sync += [held.eq(word), left.eq(word.length), first.eq(1), steps.eq(0)]
                        with m.If(word.opcode == Opcode.CONFIG):
                            m.d.sync += state.eq(State.PAYLOAD)
                        with m.Elif(word.opcode == Opcode.END):
                            m.d.sync += state.eq(State.STEPS)
                with m.Case(State.PAYLOAD):
                    m.d.comb += [
                        self.config.valid.eq(there & ~at.error),
                        go.eq(self.config.ready),
                    ]
                    with m.If(moves):
                        m.d.sync += [left.eq(left - 1), first.eq(0)]
                        with m.If(left == 1):
                            m.d.sync += state.eq(State.DECODE)
                with m.Case(State.STEPS):
                    m.d.comb += [go.eq(1), self.restart.eq(moves & steps)]
                    with m.If(moves):
                        m.d.sync += [
                            input_step.eq(output_step),
                            output_step.eq(at.word),
                            steps.eq(1),
                        ]
                        with m.If(steps):
                            m.d.sync += state.eq(State.FRAME)
                with m.Case(State.FRAME):
                    m.d.comb += next_frame.eq(idle)

        # Position in the program; END's last word stays the current one until the frame is over.
        with m.If(next_frame):
            m.d.sync += [
                self.frames_done.eq(self.frames_done + 1),
                self.program_counter.eq(0),
                state.eq(State.DECODE),
            ]
        with m.Elif(moves & ~((state == State.STEPS) & steps)):
            m.d.sync += self.program_counter.eq(self.program_counter + 1)

        failed = there & at.error & (state != State.FRAME)
        self._build_status(m, state, failed, illegal, next_frame & last_frame)
        return m

    def _build_input(self, m: Module, moves: Signal) -> tuple[data.View, Signal, Signal]:
        """Register the words. Return: the word at hand, whether there is one, no instruction."""
        at = Signal(self.i.payload.shape(), reset_less=True)
        there = Signal()
        bad = Signal(reset_less=True)
        word = Signal(INSTRUCTION.shape())
        m.d.comb += [
            word.as_value().eq(self.i.payload.word),
            self.i.ready.eq(~there | moves),
        ]
        known = (word.opcode == Opcode.CONFIG) & (word.length != 0)
        known |= (word.opcode == Opcode.FENCE) | (word.opcode == Opcode.END)
        beyond = (word.columns >> self.grid.columns) != 0
        with m.If(self.restart):
            m.d.sync += there.eq(0)
        with m.Elif(self.i.ready):
            m.d.sync += [
                there.eq(self.i.valid),
                at.eq(self.i.payload),
                bad.eq(~known | beyond | (word.reserved != 0)),
            ]
        return at, there, bad

    def _build_fences(self, m: Module, word: data.View, decodes: Value, idle: Signal) -> Value:
        """Count WRITE packets sent and not done. Return: few enough are left in the columns named."""
        # The queues between here and the response hold some 40 descriptors a column.
        waiting = [Signal(8, name=f"waiting{c}") for c in range(self.grid.columns)]
        # At the start one cycle passes before they are looked at.
        empty = Signal(self.grid.columns)  # none
        single = Signal(self.grid.columns)  # one at most
        sends = (word.opcode == Opcode.CONFIG) & (word.kind == Kind.WRITE)
        for c, count in enumerate(waiting):
            sent = decodes & sends & word.columns[c]
            m.d.sync += count.eq(count + sent - self.write_done[c])
            # A cycle late: a fence comes two words, or more, behind the packet's first.
            m.d.sync += [empty[c].eq(count == 0), single[c].eq(count <= 1)]
        m.d.comb += idle.eq(empty.all())
        return (~word.columns[: self.grid.columns] | Mux(word.left, single, empty)).all()

    def _build_payload(self, m: Module, at, held, first: Signal, bases: Array) -> None:
        """Drive the bus's payload; the first word of a packet is relocated."""
        m.d.comb += [
            self.config.payload.kind.eq(held.kind),
            self.config.payload.sub.eq(held.sub),
            self.config.payload.columns.eq(held.columns),
            self.config.payload.data.eq(at.word + Mux(first, bases[held.relocate], 0)),
        ]

    def _build_bases(self, m: Module, next_frame: Signal, input_step, output_step) -> Array:
        """Keep the addresses of this frame's inputs and outputs; return all by ``Relocate``."""
        ring_index = Signal(32, reset_less=True)
        input_base, output_base = (
            Signal(CONFIG_BITS, name=f"{name}_base", reset_less=True) for name in ("input", "output")
        )
        bases = Array([Const(0, CONFIG_BITS)] * len(Relocate))
        bases[Relocate.PROGRAM] = self.host_program * PAGE_WORDS
        bases[Relocate.INPUT] = input_base
        bases[Relocate.OUTPUT] = output_base
        wraps = Signal(reset_less=True)
        over = Signal()
        m.d.sync += wraps.eq(ring_index + 1 == self.host_ring)  # a frame takes several cycles
        m.d.comb += over.eq(~self.busy | wraps)
        with m.If(next_frame | (self.start & ~self.busy)):
            m.d.sync += [
                ring_index.eq(Mux(over, 0, ring_index + 1)),
                input_base.eq(Mux(over, self.host_input * PAGE_WORDS, input_base + input_step)),
                output_base.eq(Mux(over, self.host_output * PAGE_WORDS, output_base + output_step)),
            ]
        return bases

    def _build_status(
        self, m: Module, state: Value, failed: Value, illegal: Signal, finished: Value
    ) -> None:
        with m.If(self.clear_done | finished):
            m.d.sync += self.done.eq(finished)
        with m.If(finished):
            m.d.sync += self.busy.eq(0)
        with m.If(self.start & ~self.busy & (self.error == 0)):
            m.d.comb += self.restart.eq(1)
            m.d.sync += [
                self.busy.eq(1),
                self.done.eq(0),
                self.frames_done.eq(0),
                self.program_counter.eq(0),
                state.eq(State.DECODE),
            ]

        # Stop at the first error. A word that came with an error counts when it is to be used.
        code = Signal(8)
        with m.If(self.fault != 0):
            m.d.comb += code.eq(self.fault)
        with m.Elif(failed):
            m.d.comb += code.eq(Error.READ_RESPONSE)
        with m.Elif(illegal):
            m.d.comb += code.eq(Error.ILLEGAL_INSTRUCTION)
        with m.If(self.busy & (code != 0)):
            m.d.sync += [self.busy.eq(0), self.done.eq(1), self.error.eq(code)]


class Control(Component):
    """The control unit.

    Members: ``request``, ``response`` (program fetch, to the arbiter), ``config`` Out
    (configuration bus), ``write_done`` In (one bit a column), ``read_error``, ``write_error``,
    ``read_beat``, ``write_beat`` (from the arbiter), ``activity`` In (one cycle late), ``cause`` Out:
    why a tile without work had none, one cycle late (``layout.Cause``); towards the registers
    ``start``, ``clear_done`` In, ``busy``, ``done``, ``error`` Out, and every value register In,
    every counter register Out under its name in lower case. See :class:`Sequencer` for what it
    does.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "request": Out(request_stream(grid)),
                "response": In(response_stream(grid)),
                "config": Out(config_stream()),
                "write_done": In(grid.columns),
                "activity": In(ACTIVITY_BITS * grid.columns),
                "cause": Out(range(len(Cause))),
                "read_error": In(1),
                "write_error": In(1),
                "read_beat": In(1),
                "write_beat": In(1),
                "start": In(1),
                "clear_done": In(1),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(8),
                **{member(r): In(32) for r in value_registers()},
                **{member(r): Out(32) for r in counter_registers(grid)},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self.grid)
        m.submodules.sequencer = sequencer = Sequencer(self.grid)
        m.submodules.counters = counters = Counters(self.grid)
        wire(m, fetcher.request, flipped(self.request))
        wire(m, flipped(self.response), fetcher.response)
        wire(m, fetcher.o, sequencer.i)
        wire(m, sequencer.config, flipped(self.config))

        m.d.comb += [fetcher.restart.eq(sequencer.restart), fetcher.enable.eq(sequencer.enable)]
        for part in (fetcher, sequencer, counters):
            self._connect_same_names(m, part)
        m.d.comb += [
            counters.clear.eq(self.start & ~self.busy & (self.error == 0)),
            counters.busy.eq(self.busy),
        ]

        # A fault stays, so it may come a cycle late.
        with m.If(self.read_error):
            m.d.sync += sequencer.fault.eq(Error.READ_RESPONSE)
        with m.Elif(self.write_error):
            m.d.sync += sequencer.fault.eq(Error.WRITE_RESPONSE)
        with m.Elif(counters.hang):
            m.d.sync += sequencer.fault.eq(Error.HANG)

        config = self.config
        m.d.comb += [
            counters.config_moves.eq(config.valid & config.ready),
            counters.config_waits.eq(config.valid & ~config.ready),
            counters.fence_waits.eq(sequencer.fence_waits),
        ]
        self._build_cause(m, sequencer)
        return m

    def _build_cause(self, m: Module, sequencer: Sequencer) -> None:
        """Say a cycle later what the program did, for tiles that had no work."""
        waits = Signal()
        stuck = Signal()
        busy = Signal()
        m.d.sync += [
            waits.eq(sequencer.fence_waits | sequencer.frame_ends),
            stuck.eq(self.config.valid & ~self.config.ready),
            busy.eq(self.busy),
        ]
        m.d.comb += self.cause.eq(
            Mux(
                stuck | ~busy,
                Cause.IDLE_TILE,
                Mux(waits, Cause.DEPENDENCY, Cause.CONFIGURATION),
            )
        )

    def _connect_same_names(self, m: Module, part: Component) -> None:
        """Connect what ``part`` and this unit have under one name and in one direction."""
        mine = self.signature.members
        for name, port in part.signature.members.items():
            if name not in mine or not port.is_port or mine[name].flow != port.flow:
                continue
            source, sink = (self, part) if port.flow == In else (part, self)
            m.d.comb += getattr(sink, name).eq(getattr(source, name))
