# amaranth: UnusedElaboratable=no
"""Read ports, write ports and arbiter together, against a memory that stalls at random."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from axi_memory import AxiMemory
from helpers import Clock, Config, Pace, configure, put, simulate, watch

from neuflow.blocks import dma_model
from neuflow.blocks.arbiter import Arbiter
from neuflow.blocks.config import ConfigTap
from neuflow.blocks.dma import OperandLine, ReadPort, WritePort
from neuflow.blocks.dma_address import BURSTS, READ_BEATS, WRITES
from neuflow.grid import TINY, VIRTEX6
from neuflow.layout import Kind

WORDS = 8192
KINDS = (Kind.READ_ROWS, Kind.READ_WEIGHTS, Kind.READ_OPERAND)


class Dma(Elaboratable):
    """All ports of a grid behind one tap and one arbiter; ``readers[3 c + k]``, ``writers[c]``."""

    def __init__(self, grid):
        self.grid = grid
        self.readers = [ReadPort(grid) for _ in range(3 * grid.columns)]
        self.writers = [WritePort(grid) for _ in range(grid.columns)]
        self.arbiter = Arbiter(grid)
        self.tap = ConfigTap(4 * grid.columns)
        self.bus = self.tap.i

    def elaborate(self, platform):
        m = Module()
        m.submodules.tap = self.tap
        m.submodules.arbiter = arbiter = self.arbiter
        m.d.comb += self.tap.o.ready.eq(1)
        for k, port in enumerate(self.readers + self.writers):
            m.submodules[f"port{k}"] = port
            connect(m, self.tap.local[k], port.bus)
        for k, port in enumerate(self.readers):
            connect(m, port.request, arbiter.read[k])
            m.d.comb += [
                port.kind.eq(KINDS[k % 3]),
                port.columns.eq(1 << k // 3),
                port.response.payload.eq(arbiter.response),
                port.response.valid.eq(arbiter.response_valid[k]),
            ]
        for k, port in enumerate(self.writers):
            connect(m, port.request, arbiter.write[k])
            connect(m, port.data, arbiter.data[k])
            m.d.comb += [port.columns.eq(1 << k), port.response.eq(arbiter.write_response[k])]
        return m


def random_descriptor(rng, low, high):
    """Return a descriptor whose words lie within low..high-1; all shapes and signs of steps."""
    while True:
        values = {"run": rng.choice([1, 1, 2, 3, 5, rng.randint(1, 40)])}
        for level in range(3):
            values[f"count{level}"] = rng.choice([1, 1, 2, 3, rng.randint(1, 6)])
            values[f"step{level}"] = rng.choice([0, 1, -1, rng.randint(-60, 60), values["run"]])
        # Often near a 4 KB boundary, where bursts are cut.
        base = rng.choice([rng.randrange(low, high), low + 2048 + rng.randint(-30, 30)])
        values["base"] = base
        starts = list(dma_model.runs(values))
        total = len(starts) * values["run"]
        if low <= min(starts) and max(starts) + values["run"] <= high and total <= 120:
            return values


def random_memory(rng):
    return np.array([rng.randrange(1 << 16) for _ in range(WORDS)], np.int64)


async def receive(ctx, *, port, count, into, pace):
    """Receive packets as (dest, words) from a read port; dest must not change within a packet."""
    words, dests = [], set()
    while len(into) < count:
        while pace.waits():
            await ctx.tick()
        ctx.set(port.o.ready, 1)
        beat, dest = await ctx.tick().sample(port.o.payload, port.dest).until(port.o.valid)
        ctx.set(port.o.ready, 0)
        words += [beat.words[lane] & 0xFFFF for lane in range(beat.count)]
        dests.add(int(dest))
        if beat.last:
            (dest,) = dests
            into.append((dest, words))
            words, dests = [], set()


@pytest.mark.parametrize("pauses", [0.0, 0.3])
@pytest.mark.parametrize("queue", [1, 2])
def test_read_ports_deliver_random_descriptors(pauses, queue):
    grid = dataclasses.replace(TINY, config_queue=queue)
    seed = 10 * queue + int(10 * pauses)
    print("seed", seed)
    rng = random.Random(seed)
    dut = Dma(grid)
    memory = AxiMemory(
        grid, dut.arbiter.axi, random_memory(rng),
        latency=rng.randint(0, 12), pause=pauses, interleave=pauses > 0, seed=seed,
    )  # fmt: skip
    plan = [[] for _ in dut.readers]
    packets = []
    for _ in range(8 * len(dut.readers)):
        k = rng.randrange(len(dut.readers))
        values = random_descriptor(rng, 0, WORDS) | {"dest": rng.randrange(256)}
        plan[k].append(values)
        packets.append(Config(KINDS[k % 3], values, columns=1 << k // 3))
    got = [[] for _ in dut.readers]
    benches = [functools.partial(configure, bus=dut.bus, packets=packets)]
    rules = [memory.run]
    for k, port in enumerate(dut.readers):
        pace = Pace(pauses, seed + k)
        benches.append(
            functools.partial(receive, port=port, count=len(plan[k]), into=got[k], pace=pace)
        )
        rules.append(functools.partial(watch, stream=port.o))
    simulate(dut, *benches, background=rules)

    for k, descriptors in enumerate(plan):
        expected = [
            (d["dest"], memory.words[dma_model.word_addresses(d)].tolist()) for d in descriptors
        ]
        assert got[k] == expected
        bursts = [(beat, beats) for number, beat, beats in memory.reads if number == k]
        assert bursts == [burst for d in descriptors for burst in dma_model.bursts(d, grid)]


@pytest.mark.parametrize("pauses", [0.0, 0.3])
@pytest.mark.parametrize("queue", [1, 2])
def test_write_ports_write_random_descriptors_and_nothing_else(pauses, queue):
    grid = dataclasses.replace(TINY, config_queue=queue)
    seed = 100 + 10 * queue + int(10 * pauses)
    print("seed", seed)
    rng = random.Random(seed)
    dut = Dma(grid)
    words = random_memory(rng)
    memory = AxiMemory(
        grid, dut.arbiter.axi, words.copy(),
        write_latency=rng.randint(0, 12), pause=pauses, seed=seed,
    )  # fmt: skip
    half = WORDS // 2
    configs, streams, plan = [], [[], []], [[], []]
    for _ in range(30):
        k = rng.randrange(2)
        values = random_descriptor(rng, half * k, half * (k + 1)) | {"source": rng.randrange(2)}
        addresses = dma_model.word_addresses(values)
        packet = [rng.randint(-32768, 32767) for _ in addresses]
        for address, word in zip(addresses, packet, strict=True):
            words[address] = word & 0xFFFF
        configs.append(Config(Kind.WRITE, values, columns=1 << k))
        streams[k].append(packet)
        plan[k].append(values)

    done = [0, 0]
    sources = [[], []]

    async def count(ctx, *, k):
        port = dut.writers[k]
        fresh = True
        samples = ctx.tick().sample(
            port.done, port.i.valid & port.i.ready, port.i.payload.last, port.source,
            port.source_valid,
        )  # fmt: skip
        async for _, _, pulse, moves, last, source, valid in samples:
            done[k] += pulse
            if moves:
                assert valid, "taken without a configuration"
                if fresh:
                    sources[k].append(source)
                assert source == sources[k][-1], "source changed within a packet"
                fresh = last

    async def wait(ctx):
        while sum(done) < len(configs):
            await ctx.tick()
        await ctx.tick().repeat(20)

    benches = [functools.partial(configure, bus=dut.bus, packets=configs), wait]
    for k in range(2):
        benches.append(
            functools.partial(
                put, stream=dut.writers[k].i, packets=streams[k], pace=Pace(pauses, seed + k)
            )
        )
    counters = [functools.partial(count, k=k) for k in range(2)]
    simulate(dut, *benches, background=[memory.run, *counters])
    assert done == [len(p) for p in plan]
    assert sources == [[d["source"] for d in p] for p in plan]
    assert (memory.words == words).all()
    for k in range(2):
        bursts = [(beat, beats) for number, beat, beats in memory.writes if number == k]
        assert bursts == [burst for d in plan[k] for burst in dma_model.bursts(d, grid)]


def flat(base, run, **more):
    """Return a descriptor of one run, or of equal runs with more given."""
    ones = {f"count{level}": 1 for level in range(3)} | {f"step{level}": 0 for level in range(3)}
    return {"base": base, "run": run} | ones | more


WIDE = dataclasses.replace(VIRTEX6, columns=1)


@pytest.mark.parametrize("base", [0, 3])
def test_long_read_sustains_a_beat_a_cycle(base):
    dut = Dma(WIDE)
    clock = Clock()
    memory = AxiMemory(WIDE, dut.arbiter.axi, np.arange(WORDS), latency=10)
    moments = []

    async def sink(ctx):
        ctx.set(dut.readers[0].o.ready, 1)
        last = False
        while not last:
            beat, = await ctx.tick().sample(dut.readers[0].o.payload).until(dut.readers[0].o.valid)
            moments.append(clock.now)
            last = beat.last

    config = Config(Kind.READ_ROWS, flat(base, 4000, dest=1))
    send = functools.partial(configure, bus=dut.bus, packets=[config, config])
    simulate(dut, send, sink, background=[clock.run, memory.run])
    assert len(moments) == 500
    assert len(moments) / (moments[-1] - moments[0] + 1) >= 0.95


@pytest.mark.parametrize("queue", [1, 2])
def test_latencies_of_the_read_port_are_as_said(queue):
    grid = dataclasses.replace(TINY, config_queue=queue)
    dut = Dma(grid)
    memory = AxiMemory(grid, dut.arbiter.axi, np.arange(WORDS))
    port, clock, first = dut.readers[0], Clock(), {}

    async def note(ctx):
        bus = port.bus
        async for _, _, *seen in ctx.tick().sample(
            bus.valid & bus.payload.last, port.request.valid, port.response.valid, port.o.valid
        ):
            for name, value in zip(("config", "request", "response", "o"), seen, strict=True):
                if value:
                    first.setdefault(name, clock.now)

    async def run(ctx):
        packet = Config(Kind.READ_ROWS, flat(0, 16, dest=1))
        await configure(ctx, bus=dut.bus, packets=[packet])
        await ctx.tick().until(port.o.valid)

    simulate(dut, run, background=[clock.run, memory.run, note])
    assert first["request"] - first["config"] == ReadPort.START + queue
    assert first["o"] - first["response"] == ReadPort.LATENCY


@pytest.mark.parametrize("latency", [0, 4])
def test_short_reads_ask_for_a_burst_a_cycle(latency):
    dut = Dma(WIDE)
    memory = AxiMemory(WIDE, dut.arbiter.axi, np.arange(WORDS), latency=latency)
    clock = Clock()
    got = []
    config = Config(Kind.READ_ROWS, flat(5, 1, count0=200, step0=19, dest=1))
    moments = []

    async def note(ctx):
        port = dut.readers[0]
        async for _, _, valid, ready in ctx.tick().sample(port.request.valid, port.request.ready):
            if valid and ready:
                moments.append(clock.now)

    simulate(
        dut,
        functools.partial(configure, bus=dut.bus, packets=[config]),
        functools.partial(receive, port=dut.readers[0], count=1, into=got, pace=Pace()),
        background=[clock.run, memory.run, note],
    )
    assert got == [(1, [5 + 19 * k for k in range(200)])]
    assert len(moments) / (moments[-1] - moments[0] + 1) >= 0.95


@pytest.mark.parametrize("base", [0, 3])
def test_long_write_takes_a_beat_a_cycle(base):
    dut = Dma(WIDE)
    clock = Clock()
    memory = AxiMemory(WIDE, dut.arbiter.axi, np.zeros(WORDS, np.int64), write_latency=10)
    moments = []
    config = Config(Kind.WRITE, flat(base, 2000, source=0))

    async def drained(ctx):
        await ctx.tick().until(dut.writers[0].done)

    simulate(
        dut,
        functools.partial(configure, bus=dut.bus, packets=[config]),
        functools.partial(
            put, stream=dut.writers[0].i, packets=[range(1, 2001)], moments=moments, clock=clock
        ),
        drained,
        background=[clock.run, memory.run],
    )
    assert len(moments) == 500
    assert len(moments) / (moments[-1] - moments[0] + 1) >= 0.95
    expected = np.zeros(WORDS, np.int64)
    expected[base : base + 2000] = range(1, 2001)
    assert (memory.words == expected).all()


def test_at_most_16_bursts_of_each_direction_are_under_way():
    dut = Dma(WIDE)
    words = np.arange(WORDS)
    memory = AxiMemory(WIDE, dut.arbiter.axi, words, latency=80, write_latency=80)
    short = flat(3, 1, count0=50, step0=9)
    got = []

    async def run(ctx):
        reads = [Config(kind, short | {"dest": 1}) for kind in KINDS[:2]]
        packets = [*reads, Config(Kind.WRITE, short | {"base": 4096, "source": 0})]
        await configure(ctx, bus=dut.bus, packets=packets)
        ctx.set(dut.readers[1].o.ready, 1)
        await put(ctx, stream=dut.writers[0].i, packets=[range(50)])
        await ctx.tick().until(dut.writers[0].done)

    receiver = functools.partial(receive, port=dut.readers[0], count=1, into=got, pace=Pace())
    simulate(dut, run, receiver, background=[memory.run])
    assert (memory.most_reads, memory.most_writes) == (BURSTS, BURSTS)
    assert got == [(1, [3 + 9 * k for k in range(50)])]
    assert memory.words[4096 : 4096 + 450 : 9].tolist() == list(range(50))


def test_beats_under_way_are_bounded():
    dut = Dma(WIDE)
    memory = AxiMemory(WIDE, dut.arbiter.axi, np.arange(WORDS), latency=300)
    packets = [Config(kind, flat(0, 4000, dest=1)) for kind in KINDS]

    async def run(ctx):
        await configure(ctx, bus=dut.bus, packets=packets)
        await ctx.tick().repeat(200)

    simulate(dut, run, background=[memory.run])
    assert not memory.read_beats
    beats = sum(beats for _, _, beats in memory.reads)
    # A burst counts two cycles after it was asked for: two more may follow it.
    assert READ_BEATS <= beats < READ_BEATS + 3 * WIDE.burst_beats


def test_write_addresses_go_ahead_of_their_data():
    dut = Dma(TINY)
    axi = dut.arbiter.axi
    short = flat(0, 1, count0=50, step0=3, source=0)
    seen = 0

    async def run(ctx):
        nonlocal seen
        await configure(ctx, bus=dut.bus, packets=[Config(Kind.WRITE, short)])
        ctx.set(axi.aw.ready, 1)
        async for _, _, valid in ctx.tick().sample(axi.aw.valid):
            seen += valid

    async def feed(ctx):
        await put(ctx, stream=dut.writers[0].i, packets=[range(50)])

    async def wait(ctx):
        await ctx.tick().repeat(120)

    # The data of no burst are taken: two beats, each a burst, wait in registers at the output.
    simulate(dut, wait, background=[run, feed])
    assert seen == WRITES + 1 + 2


def test_ports_take_turns():
    # With room for more bursts rows would have more turns, as they go first.
    grid = dataclasses.replace(TINY, rows_beats=TINY.dma_beats)
    dut = Dma(grid)
    memory = AxiMemory(grid, dut.arbiter.axi, np.zeros(WORDS, np.int64), latency=20)
    # Single words: more bursts wanted than the arbiter lets out.
    short = {"count0": 300, "step0": 3}
    packets = [Config(kind, flat(0, 1, dest=1, **short)) for kind in KINDS]
    packets += [
        Config(Kind.WRITE, flat(4096 * k, 1, source=0, **short), columns=1 << k) for k in range(2)
    ]

    async def run(ctx):
        for port in dut.readers[:3]:
            ctx.set(port.o.ready, 1)
        await configure(ctx, bus=dut.bus, packets=packets)
        await ctx.tick().repeat(250)

    feeds = [
        functools.partial(put, stream=dut.writers[k].i, packets=[range(300)]) for k in range(2)
    ]
    simulate(dut, run, *feeds, background=[memory.run])
    # Once all are busy, each gets its share.
    for log, ports in ((memory.reads[40:130], 3), (memory.writes[40:130], 2)):
        served = [sum(number == k for number, _, _ in log) for k in range(ports)]
        assert len(log) == 90
        assert max(served) - min(served) <= 2, served


def test_write_port_takes_nothing_without_a_configuration():
    dut = Dma(TINY)
    memory = AxiMemory(TINY, dut.arbiter.axi, np.zeros(WORDS, np.int64))
    port = dut.writers[0]
    taken = []

    async def run(ctx):
        ctx.set(port.i.valid, 1)
        ctx.set(port.i.payload.count, 2)
        for packet in range(2):
            await ctx.tick().repeat(10)
            assert not ctx.get(port.i.ready)
            assert not ctx.get(port.source_valid)
            # Unaligned, so that the last words spill into one more beat.
            config = Config(Kind.WRITE, flat(5 + packet * 40, 24, source=1))
            await configure(ctx, bus=dut.bus, packets=[config])
            await ctx.tick().until(port.done)
        assert sum(taken) == 2 * 12

    async def watch_taken(ctx):
        async for _, _, ready, valid, source in ctx.tick().sample(
            port.i.ready, port.source_valid, port.source
        ):
            taken.append(ready)
            # The stream always offers and the buffer never fills.
            assert ready == valid
            assert not ready or source == 1

    simulate(dut, run, background=[memory.run, watch_taken])


def test_next_descriptor_is_asked_for_while_the_first_waits_for_its_consumer():
    dut = Dma(WIDE)
    memory = AxiMemory(WIDE, dut.arbiter.axi, np.arange(WORDS))
    packets = [Config(Kind.READ_ROWS, flat(base, 80, dest=1)) for base in (0, 800)]

    async def run(ctx):
        await configure(ctx, bus=dut.bus, packets=packets)
        await ctx.tick().repeat(40)

    simulate(dut, run, background=[memory.run])
    assert (0, 100, 10) in [(number, beat, 10) for number, beat, _ in memory.reads]


@pytest.mark.parametrize(
    ("kind", "beats"), [(Kind.READ_ROWS, TINY.rows_beats), (Kind.READ_WEIGHTS, TINY.dma_beats)]
)
def test_room_bounds_what_is_asked_for(kind, beats):
    dut = Dma(TINY)
    memory = AxiMemory(TINY, dut.arbiter.axi, np.arange(WORDS))
    packets = [Config(kind, flat(2, 400, dest=1))]

    async def run(ctx):
        await configure(ctx, bus=dut.bus, packets=packets)
        await ctx.tick().repeat(100)

    simulate(dut, run, background=[memory.run])
    # Beats that left the buffer: before the merger, three inside it, two at the output.
    asked = sum(length for _, _, length in memory.reads)
    assert beats < asked <= beats + 6
    assert memory.read_beats == asked


def test_operand_line_keeps_dest_with_its_packet():
    dut = OperandLine(TINY)
    seen = []

    async def send(ctx):
        for dest, words in ((1, [1, 2, 3]), (0, [4]), (1, [5, 6, 7, 8])):
            ctx.set(dut.i_dest, dest)
            await put(ctx, stream=dut.i, packets=[words])

    async def take(ctx):
        for o in dut.o:
            ctx.set(o.ready, 1)
        while len(seen) < 5:
            beats = await ctx.tick().sample(*(signal for o in dut.o for signal in (o.valid, o.payload)))
            for dest, (valid, beat) in enumerate(zip(beats[2::2], beats[3::2], strict=True)):
                if valid:
                    words = [beat.words[lane] for lane in range(beat.count)]
                    seen.append((dest, words, beat.last))

    simulate(dut, send, take)
    assert seen == [(1, [1, 2], 0), (1, [3], 1), (0, [4], 1), (1, [5, 6], 0), (1, [7, 8], 1)]


@pytest.mark.parametrize("of", [1, 2])
def test_rows_do_not_take_turns_from_others(of):
    """Rows of column 0 come in every other cycle; all weights, or operands, are asked for throughout."""
    dut = Arbiter(VIRTEX6)
    others = list(range(of, 3 * VIRTEX6.columns, 3))
    granted = []

    async def run(ctx):
        ctx.set(dut.axi.ar.ready, 1)
        for k in others:
            ctx.set(dut.read[k].valid, 1)
        for cycle in range(BURSTS):
            ctx.set(dut.read[0].valid, cycle % 2)
            await ctx.tick()
            if ctx.get(dut.axi.ar.valid):
                granted.append(ctx.get(dut.axi.ar.id))

    simulate(dut, run)
    turns = [k for k in granted if k in others]
    assert len(turns) >= 6 and turns == (2 * others)[: len(turns)]


@pytest.mark.parametrize("kind", [Kind.READ_ROWS, Kind.WRITE])
def test_error_response_is_sticky(kind):
    dut = Dma(TINY)
    memory = AxiMemory(TINY, dut.arbiter.axi, np.arange(WORDS), errors={2})
    reading = kind == Kind.READ_ROWS
    values = flat(8, 8, **({"dest": 1} if reading else {"source": 0}))

    async def run(ctx):
        ctx.set(dut.readers[0].o.ready, 1)
        await configure(ctx, bus=dut.bus, packets=[Config(kind, values)])
        if not reading:
            await put(ctx, stream=dut.writers[0].i, packets=[range(8)])
        await ctx.tick().repeat(40)
        errors = (ctx.get(dut.arbiter.read_error), ctx.get(dut.arbiter.write_error))
        assert errors == (int(reading), int(not reading))

    simulate(dut, run, background=[memory.run])


@pytest.mark.parametrize("name", ["virtex6", "tiny"])
def test_model_bursts_cover_every_run_once_and_stay_in_4_kb(name):
    grid = {"virtex6": VIRTEX6, "tiny": TINY}[name]
    rng = random.Random(5)
    for _ in range(200):
        descriptor = random_descriptor(rng, 0, WORDS)
        beats = []
        for beat, count in dma_model.bursts(descriptor, grid):
            page = 2048 // grid.bus_words
            assert 1 <= count <= grid.burst_beats
            assert beat // page == (beat + count - 1) // page
            beats += range(beat, beat + count)
        expected = []
        for start in dma_model.runs(descriptor):
            last = start + descriptor["run"] - 1
            expected += range(start // grid.bus_words, last // grid.bus_words + 1)
        assert beats == expected
