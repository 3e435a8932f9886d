# amaranth: UnusedElaboratable=no
"""Every block and its part of the cycle judge, side by side: equal handshakes in every cycle."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest

from neuflow import layout
from neuflow.blocks.alu import Alu
from neuflow.blocks.conv_lanes import FORM
from neuflow.blocks.convolver import Convolver
from neuflow.blocks.fifo import Fifo
from neuflow.blocks.mapper import Mapper
from neuflow.blocks.router import Router
from neuflow.blocks.window import Window
from neuflow.blocks.window_model import WindowSpec
from neuflow.cycle import alu, awake, column, fifo, mapper, router, state, window
from neuflow.cycle.convolver import convolver_activity, convolver_edge, convolver_wires
from neuflow.grid import TINY, GridConfig
from neuflow.layout import UNITS, AluOp, Cause, Kind, RouterIn, RouterOut, WindowOp
from tests.convolver_layers import LAYERS, Layer, configs, expected, rows_packets, weights_packet
from tests.helpers import PACES, Config, Pace, configure, get, put, simulate

Step = Callable[..., None]


def one(dtype: np.dtype) -> Any:
    """Return one record of zeros: an array, as compiled functions want it, and its record."""
    array = np.zeros(1, dtype)
    return array, array[0]


async def side_by_side(ctx: Any, *, signals: Sequence[Any], step: Step) -> None:
    """Background bench: hand what every cycle shows before its edge to ``step``."""
    while True:
        _, _, *values = await ctx.tick().sample(*signals)
        step(*values)


def ports(*streams: Any) -> list[Any]:
    """Return valid, ready, count and last of streams."""
    return [s for x in streams for s in (x.valid, x.ready, x.payload.count, x.payload.last)]


class Receiver:
    """blocks.config.ConfigReceiver once more, in front of a part of the judge."""

    def __init__(self, kind: Kind, depth: int):
        self.layout, self.depth = UNITS[kind], depth
        self.array, self.r = one(state.RECEIVER)
        self.words: list[int] = []
        self.arrived: tuple[int, int] | None = None
        self.following: Any = None  # where the unit sees the packet that waits

    def ready(self) -> bool:
        return not (self.arrived and self.r["full"])

    def edge(self, taken: int, data: int, last: int) -> None:
        """Move the registers; call it after the unit's edge."""
        r, full, ready = self.r, self.r["full"], self.ready()
        arrived = self.arrived
        if ready:
            self.arrived = (data, last) if taken else None
        if self.depth == 2 and full and (not r["valid"] or r["ready"]):
            self._load()
            r["full"] = 0
        elif r["ready"]:
            r["valid"] = 0
            if self.depth == 1:
                r["full"] = 0
        if arrived and not full:
            self.words.append(arrived[0])
            r["full"] = arrived[1]
            if arrived[1] and self.following is not None:
                values = self.layout.unpack(self.words)
                for name in FORM:
                    self.following[name] = values[name]
            if arrived[1] and self.depth == 1:
                self._load()

    def _load(self) -> None:
        values = list(self.layout.unpack(self.words).values())[: state.PACKET_FIELDS]
        self.r["o"]["fields"][: len(values)] = values
        self.words = []
        self.r["valid"] = 1


def bus_ports(bus: Any) -> list[Any]:
    """Return what a receiver needs to see of its bus; every word is for it."""
    return [bus.valid, bus.ready, bus.payload.data, bus.payload.last]


def set_link(link: Any, valid: int, count: int, last: int) -> None:
    """Drive an input; whoever drives a link clears its ``ready``."""
    link["ready"] = 0
    link["valid"], link["count"], link["last"] = valid, count, last


def same(what: str, link: Any, valid: int, count: int, last: int) -> None:
    """Compare what stands at an output."""
    assert bool(link["valid"]) == valid, what
    if valid:
        assert (link["count"], link["last"]) == (count, last), what


def run_side_by_side(
    dut: Any, step: Step, signals: list[Any], inputs: Sequence[tuple[Any, list]],
    outputs: Sequence[tuple[Any, int]], buses: Sequence[tuple[Any, list[Config]]] = (),
    pauses: tuple[float, float] = (0.0, 0.0), seed: int = 0, columns: int = 1, sub: int = 0,
) -> int:  # fmt: skip
    """Send packets and configurations, take packets; return the cycles compared."""
    print(f"seed {seed}, pauses {pauses}")
    cycles = 0

    def counted(*values: Any) -> None:
        nonlocal cycles
        try:
            step(*values)
        except AssertionError as error:
            raise AssertionError(f"cycle {cycles}: {error}") from error
        cycles += 1

    async def address(ctx: Any) -> None:
        if hasattr(dut, "columns"):
            ctx.set(dut.columns, columns)
        if hasattr(dut, "sub"):
            ctx.set(dut.sub, sub)

    source, sink = pauses
    benches: list[Any] = [address]
    for n, (bus, packets) in enumerate(buses):
        pace = Pace(source / 2, seed + 50 + n)
        benches.append(functools.partial(configure, bus=bus, packets=packets, pace=pace))
    for n, (stream, packets) in enumerate(inputs):
        pace = Pace(source, seed + n)
        benches.append(functools.partial(put, stream=stream, packets=packets, pace=pace))
    for n, (stream, count) in enumerate(outputs):
        pace = Pace(sink, seed + 90 + n)
        benches.append(functools.partial(get, stream=stream, count=count, into=[], pace=pace))
    observer = functools.partial(side_by_side, signals=signals, step=counted)
    simulate(dut, *benches, background=[observer], limit=60_000)
    return cycles


def packets_of(rng: random.Random, count: int, longest: int) -> list[list[int]]:
    return [[rng.randrange(-99, 99) for _ in range(rng.randrange(1, longest))] for _ in range(count)]


# --- convolver ------------------------------------------------------------------------------------


@numba.njit
def _wires(g, w, t):
    convolver_wires(g[0], w[0], t[0].columns[0])
    return convolver_activity(w[0], t[0].columns[0])


_edge = numba.njit(lambda g, w, t: convolver_edge(g[0], w[0], t[0], t[0].columns[0]))


def convolver(
    layers: list[Layer], grid: GridConfig = TINY, pauses: tuple[float, float] = (0.0, 0.0),
    partials: list[list[int]] | None = None, seed: int = 0, resident: tuple[int, ...] = (),
) -> None:  # fmt: skip
    """Run the passes of ``layers``; those in ``resident`` read the rows of the pass before."""
    dut = Convolver(grid)
    data = [layer.data() for layer in layers]
    packets = [rows_packets(*pair) for pair in zip(layers, data, strict=True)]
    units = [configs(layer, grid) for layer in layers]
    for n in resident:
        units[n][0].values["rows"] = 0
    kinds = (Kind.CONV_ROWS, Kind.CONV_WEIGHTS, Kind.CONV_ARRAY, Kind.CONV_DRAIN)
    arrays = state.grid_record(grid), state.new_wires(grid)[:1], column.new_tiles(grid)
    wires, tile = arrays[1][0], arrays[2][0]["columns"][0]
    wires["awake"], arrays[2][0]["plain"] = awake.ALL, 1
    o = tile["results"][0]
    receivers = [Receiver(kind, grid.config_queue) for kind in kinds]
    for number, receiver in enumerate(receivers):
        receiver.r = wires["receivers"][number]
    receivers[state.ARRAY].following = tile["array"]["following"]
    flags = ("tap", "wait_rows", "wait_weights", "wait_drain", "idle", "draining")
    reasons = ("fill", "configured", "drain_configured", "held", "lanes", "maps")
    signals = [
        *ports(dut.rows, dut.weights, dut.partials, dut.o),
        *(getattr(dut, flag) for flag in flags), dut.rows_listening, dut.weights_listening,
        *(port for bus in dut.config for port in bus_ports(bus)),
        *(getattr(dut, name) for name in reasons),
    ]  # fmt: skip
    before: list[int] = []  # lanes and maps of a tap in the cycle before

    def step(*values: int) -> None:
        fill, configured, drain_configured, held, lanes, maps = values[-len(reasons) :]
        values = values[: -len(reasons)]
        rows, weights, partial, out, rest = (*(values[4 * k : 4 * k + 4] for k in range(4)), values[16:])
        assert (tile["rows"]["opened"], tile["weights"]["active"]) == rest[6:8]
        links = (wires["rows_line"], wires["weights_line"], wires["partials"])
        for link, (valid, _, count, last) in zip(links, (rows, weights, partial), strict=True):
            set_link(link, valid, count, last)
        same("o", o, out[0], out[2], out[3])
        o["ready"] = out[0] and out[1]
        bits = _wires(*arrays)
        assert [bits >> k & 1 for k in range(6)] == list(rest[:6]), flags
        did = layout.ACTIVITY.unpack([bits])
        drain = Cause.WAIT_OUTPUT if held else Cause.OUTPUT_DRAIN
        truth = [  # in order: the first that holds
            (rest[0], Cause.USEFUL), (rest[1] and fill, Cause.FILL), (rest[1], Cause.WAIT_INPUT),
            (rest[2], Cause.WEIGHT_LOAD), (rest[3], drain), (configured, Cause.FILL),
            (drain_configured, drain), (1, Cause.IDLE_TILE),
        ]  # fmt: skip
        assert did["cause"] == next(cause for holds, cause in truth if holds)
        assert before in ([], [lanes, maps])
        before[:] = [did["lanes"], did["maps"]] if rest[0] else []
        for link, (valid, ready, _, _) in zip(links, (rows, weights, partial), strict=True):
            assert not valid or bool(link["ready"]) == ready
        _edge(*arrays)
        for k, receiver in enumerate(receivers):
            valid, ready, word, last = rest[8 + 4 * k : 12 + 4 * k]
            assert receiver.ready() == ready, "bus"
            receiver.edge(valid and ready, word, last)

    run_side_by_side(
        dut, step, signals,
        [
            (dut.rows, [p for n, of_pass in enumerate(packets) if n not in resident for p in of_pass]),
            (dut.weights, [weights_packet(*pair, grid) for pair in zip(layers, data, strict=True)]),
            (dut.partials, partials or []),
        ],
        [(dut.o, len(layers))],
        [(bus, [unit[k] for unit in units]) for k, bus in enumerate(dut.config)],
        pauses, seed,
    )  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_convolver_layers(name: str) -> None:
    convolver([LAYERS[name]])


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pauses", PACES)
def test_convolver_passes_follow_one_another(depth: int, pauses: tuple[float, float]) -> None:
    names = ("ring", "one_beat", "column_vector", "stride", "two_beats", "stride_padded_ring", "narrow")
    layers = [replace(LAYERS[name], seed=k) for k, name in enumerate(names)]
    layers.insert(1, replace(LAYERS["same"], ahead=1, base=400))
    convolver(layers, replace(TINY, config_queue=depth), pauses, seed=depth)


@pytest.mark.parametrize(("maps", "pixels"), [(2, 5), (4, 9), (8, 1)])
@pytest.mark.parametrize("pauses", PACES[::2])
def test_convolver_passes_by_tap_among_others(
    maps: int, pixels: int, pauses: tuple[float, float]
) -> None:
    """Blocks of many steps and of few, that wait for the addition of those before, and for rows."""
    grid = replace(
        TINY, maps=maps, bus_words=2 * maps, pixels=pixels, row_banks=32, row_words=1024,
        weight_words=512, reorder_words=1024, burst_beats=4,
    )  # fmt: skip
    short = Layer(height=5, width=9, maps=3, by_tap=1, kernel=(2, 3))
    layers = [
        short, replace(LAYERS["same"], ahead=1, base=512), LAYERS["by_tap"], LAYERS["by_tap_even"],
        replace(short, slots=3, seed=2), LAYERS["pointwise"],
    ]  # fmt: skip
    if grid.tap_gather:
        kernel = maps + 1, 2 * maps + 1
        gather = Layer(height=maps + 2, width=20, maps=2, by_tap=1, gather=1, kernel=kernel, slots=2)
        layers.insert(1, gather)
    convolver(layers, grid, pauses, seed=pixels)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("pauses", PACES)
def test_convolver_rows_may_be_resident(ahead: int, pauses: tuple[float, float]) -> None:
    layer = replace(LAYERS["same"], ahead=ahead)
    other = replace(LAYERS["valid"], ahead=ahead, base=400)
    convolver([layer, layer, layer, other, other, layer], TINY, pauses, resident=(1, 2, 4))


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("pauses", PACES)
def test_convolver_rows_may_come_as_two_packets(first: int, pauses: tuple[float, float]) -> None:
    names = ("same", "ring", "stride", "decimated", "valid")
    convolver([replace(LAYERS[name], first=first) for name in names] + [LAYERS["same"]], TINY, pauses)


@pytest.mark.parametrize("stride", [2, 3, 4, 9])
@pytest.mark.parametrize("width", [16, 19, 21])
def test_convolver_phases_of_wide_beats(stride: int, width: int) -> None:
    grid = replace(
        TINY, maps=4, bus_words=8, pixels=7, row_banks=16, row_words=1024, reorder_words=512
    )
    layer = Layer(height=3, width=width, stride=stride, kernel=(2, 3), channels=2)
    thin = replace(layer, kernel=(1, 1), decimated=True, base=512, ahead=1)
    convolver([layer, thin, layer], grid)


@pytest.mark.parametrize("pauses", PACES[1:])
def test_convolver_both_phases_wait_for_the_next_beat(pauses: tuple[float, float]) -> None:
    """Rows begin and end anywhere in a beat, and go on in one that is late."""
    grid = replace(
        TINY, maps=4, bus_words=8, pixels=7, row_banks=16, row_words=1024, reorder_words=512
    )
    layers = [
        Layer(height=3, width=width, stride=2, kernel=(2, 3), channels=2, seed=width)
        for width in (9, 14, 19, 23)
    ]
    convolver(layers, grid, pauses, seed=4)


@pytest.mark.parametrize("pauses", PACES)
def test_convolver_weights_fill_their_rings(pauses: tuple[float, float]) -> None:
    # More than the ring holds: in one packet that is freed on its way, and in packets one after
    # the other; the parameters of 16 blocks pass through a ring of 4.
    vector = Layer(height=1, width=1, channels=60, kernel=(1, 1), maps=8, stream_weights=1)
    layers = [vector, *(Layer(channels=3, maps=4, width=6, seed=k) for k in range(6)), vector]
    convolver(layers, replace(TINY, weight_words=256, weight_blocks=4), pauses)


@pytest.mark.parametrize("pixels", [12, 13, 16])
@pytest.mark.parametrize("pauses", PACES[::2])
def test_convolver_waits_for_a_drain_of_many_pixels(
    pixels: int, pauses: tuple[float, float]
) -> None:
    grid = replace(TINY, pixels=pixels, row_banks=16, reorder_words=512)
    few_taps = Layer(channels=1, maps=8, kernel=(1, 2), width=6, height=7)
    convolver([few_taps, replace(few_taps, kernel=(1, 1)), LAYERS["same"]], grid, pauses)


@pytest.mark.parametrize("width", [5, 7, 8])
@pytest.mark.parametrize("pauses", PACES[::2])
def test_convolver_rows_of_any_width_are_packed(width: int, pauses: tuple[float, float]) -> None:
    # With 4 lanes a last beat may spill over.
    grid = replace(TINY, maps=4, bus_words=8, row_banks=16, reorder_words=512)
    layers = [Layer(maps=m, width=width, kernel=(2, 1), height=4, seed=m) for m in (1, 2, 3, 6)]
    convolver(layers, grid, pauses)


@pytest.mark.parametrize("channels", [2, 3, 6])
@pytest.mark.parametrize("pauses", PACES)
def test_convolver_rows_of_two_channels_at_once(channels: int, pauses: tuple[float, float]) -> None:
    """A cycle stores what is there of the row that ends and of the next, of one or two beats."""
    grid = replace(TINY, maps=4, bus_words=8, row_banks=16, row_words=1024, reorder_words=512)
    layers = [
        Layer(height=3, width=width, kernel=(2, 1), channels=channels, joined=True, first=width % 3)
        for width in (1, 2, 3, 5, 6, 7, 8, 11, 16, 17)
    ]
    convolver(layers, grid, pauses, seed=channels)


@pytest.mark.parametrize("pauses", PACES)
def test_convolver_partial_sums(pauses: tuple[float, float]) -> None:
    layer = Layer(channels=2, maps=3, pads=(1, 1, 1, 1))
    height, width = layer.out_shape
    unit = configs(layer, TINY)[2].values
    count = 3 * unit["groups"] * unit["blocks"] * TINY.pixels * TINY.maps
    words = [list(range(count)), list(range(count))]
    layers = [
        replace(layer, partial_out=1), replace(layer, partial_in=1, partial_out=1), layer,
        replace(layer, partial_in=1), replace(layer, partial_out=1), layer,
    ]  # fmt: skip
    assert len(expected(layer)) == 3 * height * width
    convolver(layers, TINY, pauses, partials=words)


# --- operators of the other tiles ---------------------------------------------------------------------


_alu_wires = numba.njit(lambda u, r, a, b, o: alu.alu_wires(u[0], r[0], a[0], b[0], o[0]))
_alu_edge = numba.njit(lambda u, r, a, o: alu.alu_edge(u[0], r[0], a[0], o[0]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pauses", PACES)
def test_alu(depth: int, pauses: tuple[float, float]) -> None:
    rng = random.Random(depth)
    dut = Alu(4, depth)
    unit, receiver = np.zeros(1, alu.ALU), Receiver(Kind.ALU, depth)
    (links_a, a), (links_b, b), (links_o, o) = (one(state.LINK) for _ in range(3))
    jobs, first, second = [], [], []
    for packet in packets_of(rng, 14, 20):
        op = rng.choice(list(AluOp))
        shifts = {n: rng.randrange(12) for n in ("shift_a", "shift_b", "shift")}
        jobs.append(Config(Kind.ALU, {"op": op, "narrow": 0, **shifts}))
        first.append(packet)
        if op not in (AluOp.ABS, AluOp.SQUARE):
            second.append(packet)

    def step(*v: int) -> None:
        set_link(a, v[0], v[2], v[3])
        set_link(b, v[4], v[6], v[7])
        same("o", o, v[8], v[10], v[11])
        o["ready"] = v[8] and v[9]
        assert bool(_alu_wires(unit, receiver.array, links_a, links_b, links_o)) == v[12], "active"
        assert (bool(a["ready"]), bool(b["ready"])) == (v[1], v[5]), "a, b"
        _alu_edge(unit, receiver.array, links_a, links_o)
        receiver.edge(v[13] and v[14], *v[15:])

    run_side_by_side(
        dut, step, [*ports(dut.a, dut.b, dut.o), dut.active, *bus_ports(dut.bus)],
        [(dut.a, first), (dut.b, second)], [(dut.o, len(jobs))], [(dut.bus, jobs)], pauses, depth,
    )  # fmt: skip


_mapper_wires = numba.njit(lambda u, r, i, o: mapper.mapper_wires(u[0], r[0], i[0], o[0]))
_mapper_edge = numba.njit(lambda u, r, i, o: mapper.mapper_edge(u[0], r[0], i[0], o[0]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pauses", PACES)
def test_mapper(depth: int, pauses: tuple[float, float]) -> None:
    rng = random.Random(depth)
    dut = Mapper(4, depth)
    unit, receiver = np.zeros(1, mapper.MAPPER), Receiver(Kind.MAPPER, depth)
    (links_i, i), (links_o, o) = one(state.LINK), one(state.LINK)
    packets = packets_of(rng, 9, 40) + packets_of(rng, 5, 4)

    def step(*v: int) -> None:
        set_link(i, v[0], v[2], v[3])
        same("o", o, v[4], v[6], v[7])
        o["ready"] = v[4] and v[5]
        assert bool(_mapper_wires(unit, receiver.array, links_i, links_o)) == v[8], "active"
        assert not v[0] or bool(i["ready"]) == v[1], "i"
        _mapper_edge(unit, receiver.array, links_i, links_o)
        receiver.edge(v[9] and v[10], *v[11:])

    job = Config(Kind.MAPPER, MAPPER_FIELDS)
    run_side_by_side(
        dut, step, [*ports(dut.i, dut.o), dut.active, *bus_ports(dut.bus)],
        [(dut.i, packets)], [(dut.o, len(packets))], [(dut.bus, [job] * len(packets))], pauses, depth,
    )  # fmt: skip


MAPPER_FIELDS = dict.fromkeys((f.name for f in UNITS[Kind.MAPPER].fields), 0)


_fifo_wires = numba.njit(lambda u, i: fifo.fifo_wires(u[0], i[0]))
_fifo_edge = numba.njit(lambda u, i, o: fifo.fifo_edge(u[0], i[0], o[0]))


@pytest.mark.parametrize("pauses", PACES)
def test_fifo(pauses: tuple[float, float]) -> None:
    rng = random.Random(3)
    dut = Fifo(2, 12)
    unit = np.zeros(1, fifo.FIFO)
    unit["depth"] = dut.depth
    (links_i, i), (links_o, o) = one(state.LINK), one(state.LINK)
    packets = packets_of(rng, 20, 30)

    def step(*v: int) -> None:
        set_link(i, v[0], v[2], v[3])
        same("o", o, v[4], v[6], v[7])
        o["ready"] = v[4] and v[5]
        _fifo_wires(unit, links_i)
        assert not v[0] or bool(i["ready"]) == v[1], "i"
        _fifo_edge(unit, links_i, links_o)

    run_side_by_side(
        dut, step, ports(dut.i, dut.o), [(dut.i, packets)], [(dut.o, len(packets))], (), pauses
    )


WINDOWS = [
    # (maps, height, width), kernel, stride, pad, out
    ((1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((3, 5, 7), (2, 2), (2, 2), (0, 0), (2, 3)),
    ((3, 6, 6), (3, 3), (2, 2), (0, 0), (3, 3)),
    ((2, 7, 7), (3, 3), (2, 2), (1, 1), (4, 4)),
    ((2, 5, 6), (3, 3), (1, 1), (1, 1), (5, 6)),
    ((1, 6, 11), (2, 3), (4, 5), (0, 0), (2, 2)),
    ((2, 4, 9), (1, 4), (3, 1), (0, 3), (2, 12)),
    ((1, 3, 5), (3, 2), (1, 3), (2, 1), (5, 2)),
    ((2, 40, 30), (3, 3), (2, 2), (0, 0), (19, 14)),
    ((4, 5, 5), (5, 5), (1, 1), (2, 2), (5, 5)),
    ((8, 3, 70), (2, 2), (1, 1), (0, 0), (2, 69)),  # fills the ring
]


_window_rests = numba.njit(lambda u, r, o: window.window_rests(u[0], r[0], o[0]))
_window_wires = numba.njit(lambda u, r, i, n: window.window_wires(u[0], r[0], i[0], n))
_window_edge = numba.njit(lambda u, r, i, o, n: window.window_edge(u[0], r[0], i[0], o[0], n))


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("pauses", PACES)
def test_window(lanes: int, pauses: tuple[float, float]) -> None:
    depth = 1 + lanes % 2
    dut = Window(lanes, 1024, depth)
    unit, receiver = np.zeros(1, window.WINDOW), Receiver(Kind.WINDOW, depth)
    (links_i, i), (links_o, o) = one(state.LINK), one(state.LINK)
    records = (unit, receiver.array, links_i, links_o, lanes)
    jobs, packets = [], []
    for k, ((maps, height, width), kernel, stride, pad, out) in enumerate(WINDOWS):
        spec = WindowSpec(list(WindowOp)[k % 2], kernel, stride, pad, out)
        jobs.append(Config(Kind.WINDOW, spec.fields(maps, height, width)))
        packets.append(list(range(maps * height * width)))

    def step(*v: int) -> None:
        set_link(i, v[0], v[2], v[3])
        same("o", o, v[4], v[6], v[7])
        o["ready"] = v[4] and v[5]
        receiver.r["ready"] = 0
        active = 0
        moves = not _window_rests(unit, receiver.array, links_o)
        if moves:
            active = bool(_window_wires(unit, receiver.array, links_i, lanes))
        assert active == v[8], "active"
        assert not v[0] or bool(i["ready"]) == v[1], "i"
        if moves:
            _window_edge(*records)
        receiver.edge(v[9] and v[10], *v[11:])

    run_side_by_side(
        dut, step, [*ports(dut.i, dut.o), dut.active, *bus_ports(dut.bus)],
        [(dut.i, packets)], [(dut.o, len(packets))], [(dut.bus, jobs)], pauses, lanes,
    )  # fmt: skip


# --- router ---------------------------------------------------------------------------------------


_router_input = numba.njit(lambda u, i, link: router.router_input(u[0], i, link[0]))
_router_bus_ready = numba.njit(lambda u: router.router_bus_ready(u[0]))
_router_rests = numba.njit(lambda u: router.router_rests(u[0]))
_router_edge = numba.njit(lambda u, route: router.router_edge(u[0], route[0]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pauses", PACES)
def test_router(depth: int, pauses: tuple[float, float]) -> None:
    rng = random.Random(depth)
    names_in = (RouterIn.NORTH, RouterIn.EAST, RouterIn.LOCAL0)
    names_out = (RouterOut.SOUTH, RouterOut.WEST, RouterOut.GLOBAL, RouterOut.LOCAL1)
    dut = Router(names_in, names_out, 2, depth)
    (units, unit), (route_words, route) = one(router.ROUTER), one(state.ROUTE_WORD)
    masks = (sum(1 << n for n in names) for names in (names_in, names_out))
    router.reset_router(unit, *masks, depth)
    links = {i: one(state.LINK) for i in names_in}
    words: list[Config] = []
    sent: dict[RouterIn, list] = {i: [] for i in names_in}
    taken = dict.fromkeys(names_out, 0)
    for packet in packets_of(rng, 60, 9):
        source, targets = rng.choice(names_in), rng.sample(names_out, rng.randrange(1, 4))
        # A peer that does not exist is not waited for, a word for it is dropped.
        peers = sum(1 << o for o in targets) | rng.choice((0, 1 << RouterOut.NORTH))
        extra = [RouterOut.NORTH] if peers >> RouterOut.NORTH & 1 else []
        for o in [*targets, *extra]:
            words.append(Config(Kind.ROUTER, {"output": o, "input": source, "peers": peers}))
        sent[source].append(packet)
        for o in targets:
            taken[o] += 1

    def step(*v: int) -> None:
        shown = [v[4 * k : 4 * k + 4] for k in range(7)]
        bus_valid, bus_ready, word, _ = v[28:]
        for o, (valid, ready, count, last) in zip(names_out, shown[3:], strict=True):
            same(o.name, unit["out"][o]["o"], valid, count, last)
            unit["out"][o]["o"]["ready"] = valid and ready
        for i, (valid, ready, count, last) in zip(names_in, shown, strict=False):
            array, link = links[i]
            set_link(link, valid, count, last)
            if unit["armed"] >> i & 1:
                _router_input(units, int(i), array)
            assert bool(link["ready"]) == (valid and ready), i.name
        route["take"] = 0
        if bus_valid:
            fields = UNITS[Kind.ROUTER].unpack([word])
            for name, value in fields.items():
                route[name] = value
            can = _router_bus_ready(units)
            assert bool(can) == bus_ready, "bus"
            route["take"] = can
        if route["take"] or unit["moving"] or not _router_rests(units):
            _router_edge(units, route_words)

    run_side_by_side(
        dut, step,
        [*ports(*map(dut.input, names_in), *map(dut.output, names_out)), *bus_ports(dut.bus)],
        [(dut.input(i), packets) for i, packets in sent.items()],
        [(dut.output(o), count) for o, count in taken.items()], [(dut.bus, words)], pauses, depth,
    )  # fmt: skip
