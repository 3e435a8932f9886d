# amaranth: UnusedElaboratable=no
"""The control unit fetching programs through the arbiter: packets, fences, frames, errors."""

import dataclasses
import random

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from axi_memory import AxiMemory
from helpers import simulate

from neuflow.blocks.arbiter import Arbiter
from neuflow.blocks.control import Control
from neuflow.blocks.counters import Counters
from neuflow.grid import TINY
from neuflow.layout import (
    ACTIVITY,
    ACTIVITY_BITS,
    INSTRUCTION,
    Activity,
    Error,
    Kind,
    Opcode,
    Relocate,
)

PAGE = 2048  # words of 4 KB
PROGRAM, INPUT, OUTPUT = 1, 16, 32  # addresses of the sections, pages


class System(Elaboratable):
    """Control unit and arbiter; the bench plays bus, ports and host."""

    def __init__(self):
        self.control = Control(TINY)
        self.arbiter = Arbiter(TINY)

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = self.control
        m.submodules.arbiter = arbiter = self.arbiter
        connect(m, control.request, arbiter.read[-1])
        m.d.comb += [
            control.response.payload.eq(arbiter.response),
            control.response.valid.eq(arbiter.response_valid[-1]),
            control.read_error.eq(arbiter.read_error),
            control.write_error.eq(arbiter.write_error),
            control.read_beat.eq(arbiter.read_beat),
            control.write_beat.eq(arbiter.write_beat),
        ]
        return m


def instruction(opcode, **values):
    fields = dict.fromkeys((f.name for f in INSTRUCTION.fields), 0)
    return INSTRUCTION.pack(**fields | {"opcode": opcode} | values)


def packet(kind, words, columns=1, sub=0, relocate=Relocate.NONE):
    head = instruction(
        Opcode.CONFIG, kind=kind, columns=columns, sub=sub, relocate=relocate, length=len(words)
    )
    return head + list(words)


def fence(columns, left=0):
    return instruction(Opcode.FENCE, columns=columns, left=left)


def end(input_step=0, output_step=0):
    return [*instruction(Opcode.END), input_step, output_step]


def memory_words(program):
    words = np.zeros(64 * PAGE, np.int64)
    flat = [half for word in program for half in (word & 0xFFFF, word >> 16)]
    words[PROGRAM * PAGE : PROGRAM * PAGE + len(flat)] = flat
    return words


@dataclasses.dataclass
class Session:
    """One run of a program; ``sent`` is what moved on the bus: (kind, sub, columns, data, last)."""

    program: list
    pause: float = 0.0
    seed: int = 0
    frames: int = 1
    ring: int = 0
    watchdog: int = 0
    latency: int = 6
    errors: tuple = ()
    write_delay: int | None = 5  # cycles from a WRITE's last word to its done; None: never
    bus_stops_after: int | None = None
    sent: list = dataclasses.field(default_factory=list)
    moments: list = dataclasses.field(default_factory=list)
    done_moments: list = dataclasses.field(default_factory=list)
    counters: dict = dataclasses.field(default_factory=dict)

    def run(self, limit=4000):
        print("seed", self.seed)
        dut = System()
        control = dut.control
        memory = AxiMemory(
            TINY, dut.arbiter.axi, memory_words(self.program), latency=self.latency,
            pause=self.pause, seed=self.seed, errors=set(self.errors),
        )  # fmt: skip
        rng = random.Random(self.seed)
        now = 0
        due = []

        async def bus(ctx):
            nonlocal now
            valid, ready = control.config.valid, control.config.ready
            async for _, _, moves, beat in ctx.tick().sample(valid & ready, control.config.payload):
                now += 1
                if moves:
                    self.sent.append((beat.kind, beat.sub, beat.columns, beat.data, beat.last))
                    self.moments.append(now)
                    if beat.kind == Kind.WRITE and beat.last and self.write_delay is not None:
                        due.append((now + self.write_delay, beat.columns))
                limit = self.bus_stops_after
                stopped = limit is not None and len(self.sent) >= limit
                ctx.set(ready, not stopped and rng.random() >= self.pause)
                # At most one pulse a column and cycle.
                pulses = 0
                for moment, columns in list(due):
                    if moment <= now and not pulses & columns:
                        pulses |= columns
                        due.remove((moment, columns))
                        self.done_moments.append(now)
                ctx.set(control.write_done, pulses)

        async def host(ctx):
            values = {
                "program": PROGRAM, "input": INPUT, "output": OUTPUT, "frames": self.frames,
                "ring": self.ring, "watchdog": self.watchdog,
            }  # fmt: skip
            for name, value in values.items():
                ctx.set(getattr(control, f"host_{name}"), value)
            ctx.set(control.start, 1)
            await ctx.tick()
            ctx.set(control.start, 0)
            await ctx.tick()
            assert ctx.get(control.busy)
            await ctx.tick().until(control.done)
            await ctx.tick()
            names = (
                "busy", "done", "error", "frames_done", "program_counter", "cycles", "config_words",
                "config_stalls", "fence_stalls", "read_beats",
            )  # fmt: skip
            self.counters = {name: ctx.get(getattr(control, name)) for name in names}
            await ctx.tick().repeat(5)
            assert ctx.get(control.cycles) == self.counters["cycles"], "cycles are not frozen"

        simulate(dut, host, background=[memory.run, bus], limit=limit)
        self.memory = memory
        return self


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("latency", [0, 12])
def test_packets_go_out_in_order_with_their_first_word_relocated(pause, latency):
    rng = random.Random(latency)
    bases = {
        Relocate.NONE: 0, Relocate.PROGRAM: PROGRAM * PAGE, Relocate.INPUT: INPUT * PAGE,
        Relocate.OUTPUT: OUTPUT * PAGE,
    }  # fmt: skip
    program, expected = [], []
    for _ in range(30):
        kind, sub, columns = rng.randrange(12), rng.randrange(16), rng.randrange(1, 4)
        relocate = Relocate(rng.randrange(4))
        words = [rng.randrange(1 << 32) for _ in range(rng.choice([1, 2, 7]))]
        program += packet(kind, words, columns, sub, relocate)
        moved = [(words[0] + bases[relocate]) % (1 << 32), *words[1:]]
        expected += [
            (kind, sub, columns, word, int(k == len(words) - 1)) for k, word in enumerate(moved)
        ]
    run = Session(program + end(), pause=pause, seed=3, latency=latency).run()
    assert run.sent == expected
    assert run.counters["error"] == Error.NONE
    assert not run.counters["busy"]
    assert run.counters["frames_done"] == 1
    assert run.counters["config_words"] == len(expected)


def test_one_word_a_cycle():
    program = packet(Kind.MAPPER, range(100)) + end()
    run = Session(program, latency=1).run()
    assert run.moments[-1] - run.moments[0] == 99
    # Start, fetch, instruction, packet, END: nothing else takes time.
    assert run.counters["cycles"] <= 100 + 20


def test_fence_waits_for_writes_of_its_columns_only():
    program = packet(Kind.WRITE, [1, 2], columns=1) + fence(2) + packet(Kind.ALU, [3])
    program += packet(Kind.WRITE, [4], columns=1) + fence(1) + packet(Kind.ALU, [5]) + end()
    run = Session(program, write_delay=50).run()
    assert [beat[3] for beat in run.sent] == [1, 2, 3, 4, 5]
    assert run.moments[2] < run.done_moments[0]
    assert run.moments[4] > run.done_moments[1] >= run.moments[3] + 50
    assert 45 <= run.counters["fence_stalls"] <= 55


def test_fence_may_leave_out_the_last_write_of_each_column():
    program = packet(Kind.WRITE, [1], columns=1) + packet(Kind.WRITE, [2], columns=3)
    program += fence(3, left=1) + packet(Kind.ALU, [3])
    program += fence(2, left=1) + packet(Kind.ALU, [4]) + fence(3) + packet(Kind.ALU, [5]) + end()
    run = Session(program, write_delay=50).run()
    assert [beat[3] for beat in run.sent] == [1, 2, 3, 4, 5]
    first, last = run.done_moments[0], run.done_moments[-1]
    assert first < run.moments[2] <= first + 5 and run.moments[3] <= run.moments[2] + 4
    assert last < run.moments[4]


def test_broadcast_write_is_counted_in_every_column():
    program = packet(Kind.WRITE, [1], columns=3) + fence(3) + packet(Kind.ALU, [2]) + end()
    run = Session(program, write_delay=30).run()
    assert run.moments[1] > run.done_moments[0]


def test_end_waits_for_all_writes():
    run = Session(packet(Kind.WRITE, [1], columns=2) + end(), write_delay=200).run()
    assert run.counters["cycles"] > 200
    assert run.counters["fence_stalls"] == 0


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("ring", [0, 1, 2, 3])
def test_frames_step_through_their_rings(ring, pause):
    frames, steps = 5, (PAGE, 3 * PAGE)
    program = packet(Kind.READ_ROWS, [7], relocate=Relocate.INPUT)
    program += packet(Kind.WRITE, [9], relocate=Relocate.OUTPUT) + end(*steps)
    run = Session(program, frames=frames, ring=ring, pause=pause, seed=ring).run()
    expected = []
    for frame in range(frames):
        index = frame % ring if ring else frame
        expected += [INPUT * PAGE + 7 + index * steps[0], OUTPUT * PAGE + 9 + index * steps[1]]
    assert [beat[3] for beat in run.sent] == expected
    assert run.counters["frames_done"] == frames
    assert run.counters["error"] == Error.NONE


def test_runs_again_after_done():
    dut = System()
    memory = AxiMemory(TINY, dut.arbiter.axi, memory_words(packet(Kind.ALU, [5]) + end()))
    sent = []

    async def bus(ctx):
        ctx.set(dut.control.config.ready, 1)
        async for _, _, valid, beat in ctx.tick().sample(
            dut.control.config.valid, dut.control.config.payload.data
        ):
            if valid:
                sent.append(beat)

    async def host(ctx):
        ctx.set(dut.control.host_program, PROGRAM)
        cycles = []
        for _ in range(2):
            ctx.set(dut.control.start, 1)
            await ctx.tick()
            ctx.set(dut.control.start, 0)
            await ctx.tick()
            assert not ctx.get(dut.control.done)
            await ctx.tick().until(dut.control.done)
            cycles.append(ctx.get(dut.control.cycles))
            await ctx.tick().repeat(30)
        assert cycles[0] == cycles[1]
        ctx.set(dut.control.clear_done, 1)
        await ctx.tick()
        assert not ctx.get(dut.control.done)

    simulate(dut, host, background=[memory.run, bus])
    assert sent == [5, 5]


def test_watchdog_reports_a_hang():
    program = packet(Kind.ALU, range(8)) + end()
    run = Session(program, watchdog=100, bus_stops_after=3).run()
    assert run.counters["error"] == Error.HANG
    assert not run.counters["busy"]
    assert 100 <= run.counters["cycles"] <= 130
    assert run.counters["program_counter"] == 4
    assert run.counters["config_stalls"] >= 100


def test_watchdog_reports_a_write_that_never_ends():
    run = Session(packet(Kind.WRITE, [0]) + end(), watchdog=60, write_delay=None).run()
    assert run.counters["error"] == Error.HANG
    assert run.counters["program_counter"] == 4


ILLEGAL = {
    "cleared memory": [0],
    "unknown opcode": [9],
    "empty packet": packet(Kind.ALU, []),
    "reserved bits": instruction(Opcode.FENCE, reserved=1),
    "column that the grid has not": packet(Kind.ALU, [1], columns=4),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_instruction_stops(name):
    program = packet(Kind.ALU, [1, 2]) + ILLEGAL[name] + packet(Kind.ALU, [3])
    run = Session(program).run()
    assert [beat[3] for beat in run.sent] == [1, 2]
    assert run.counters["error"] == Error.ILLEGAL_INSTRUCTION
    assert run.counters["program_counter"] == 3
    assert not run.counters["busy"]


def test_read_error_in_the_program_stops_at_the_word():
    program = packet(Kind.ALU, range(8)) + end()
    beat = (PROGRAM * PAGE + 2 * 4) // TINY.bus_words
    run = Session(program, errors=(beat,)).run()
    assert [b[3] for b in run.sent] == [0, 1, 2]
    assert run.counters["error"] == Error.READ_RESPONSE


def test_read_error_beyond_the_end_does_not_matter():
    program = packet(Kind.ALU, range(3)) + end()
    beyond = range((PROGRAM * PAGE + 2 * len(program) + 3) // TINY.bus_words, PROGRAM * PAGE)
    run = Session(program, errors=tuple(beyond), frames=3, write_delay=40).run()
    assert len(run.sent) == 9
    assert run.counters["error"] == Error.NONE
    assert any(beat in beyond for _, beat, _ in run.memory.reads), "nothing was read ahead"


def test_counters_stop_at_their_largest_value():
    dut = Counters(TINY, reset=0xFFFF_FFFC)

    async def run(ctx):
        ctx.set(dut.busy, 1)
        await ctx.tick()
        # Two columns with a tap of one lane and one map each: the last two MACs that fit.
        one = ACTIVITY.pack_int({"flags": 1 << Activity.MAC, "cause": 0, "lanes": 1, "maps": 1})
        ctx.set(dut.activity, one | one << ACTIVITY_BITS)
        await ctx.tick().repeat(Counters.LATE - 1)
        assert ctx.get(dut.mac_cycles) == ctx.get(dut.useful) == 0xFFFF_FFFE
        await ctx.tick().repeat(2)
        assert ctx.get(dut.mac_cycles) == ctx.get(dut.useful) == 0xFFFF_FFFF
        assert ctx.get(dut.useful_high) == 0xFFFF_FFFF
        assert ctx.get(dut.cycles) == Counters.LATE + 2

    simulate(dut, run)


def test_a_reset_of_one_cycle_clears_the_counters():
    """They have no reset of their own; what was on its way to them is lost, too."""
    dut, again = Counters(TINY), Signal(name="again")

    async def run(ctx):
        one = ACTIVITY.pack_int({"flags": 1 << Activity.MAC, "cause": 0, "lanes": 1, "maps": 1})
        ctx.set(dut.activity, one | one << ACTIVITY_BITS)
        for signal in (dut.busy, dut.read_beat):
            ctx.set(signal, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.useful) and ctx.get(dut.read_beats)
        ctx.set(again, 1)
        await ctx.tick()
        for signal in (again, dut.busy):
            ctx.set(signal, 0)
        await ctx.tick().repeat(Counters.LATE)
        names = [*Counters.EVENTS, *dut.causes, *(f"{n}_high" for n in dut.wide), "mac_cycles", "cycles"]
        assert not [name for name in names if ctx.get(getattr(dut, name))]

    simulate(ResetInserter(again)(dut), run)


def test_start_is_ignored_after_an_error():
    dut = System()
    memory = AxiMemory(TINY, dut.arbiter.axi, memory_words([0]))

    async def host(ctx):
        for _ in range(2):
            ctx.set(dut.control.start, 1)
            await ctx.tick()
            ctx.set(dut.control.start, 0)
            await ctx.tick().repeat(40)
            assert ctx.get(dut.control.error) == Error.ILLEGAL_INSTRUCTION
            assert not ctx.get(dut.control.busy)
            assert ctx.get(dut.control.done)
            assert ctx.get(dut.control.cycles) < 40

    simulate(dut, host, background=[memory.run])
