"""The judge cycle equals the judge rtl: cycles, counters, times of writes, activity over time."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from programs import PAGE_WORDS, program

import neuflow
from examples import digits
from neuflow import api, layout
from neuflow.compiler import compile_graph
from neuflow.cycle import judge
from neuflow.cycle.config_bus import WORD
from neuflow.cycle.program import decode
from neuflow.cycle.state import PACKET_FIELDS, ROUTER, UNIT_OF
from neuflow.errors import HardwareError
from neuflow.grid import TINY, MemoryConfig
from neuflow.ir import Program
from neuflow.layout import Activity, Kind, Opcode, Operand, Relocate, RouterIn, RouterOut, Row
from neuflow.run import measure, rtl
from tests.quantgraphs import Builder, evaluate
from tests.random_graphs import RandomGraph

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

MEMORIES = [
    TINY.memory,
    dataclasses.replace(TINY.memory, shared=False),
    dataclasses.replace(TINY.memory, tokens=1, tokens_per_beat=1),
    dataclasses.replace(TINY.memory, tokens=3, tokens_per_beat=7, outstanding=1),
    MemoryConfig(tokens=1, tokens_per_beat=1, shared=False, read_latency=1, write_latency=1),
    MemoryConfig(read_latency=90, write_latency=70, outstanding=16),
]


def assert_equal(program: Program, words: dict, memory: MemoryConfig | None, seed: int | None) -> int:
    """Run both judges; compare all that they measure; return the cycles."""
    images = len(next(iter(words.values())))
    _, want = rtl.simulate(program, words, memory, seed)
    got = judge.simulate(program, images, memory, seed)
    for field in dataclasses.fields(want):
        if field.name != "seconds":
            assert getattr(got, field.name) == getattr(want, field.name), field.name
    return got.cycles


# --- hand-made programs: DMA, lines, routers --------------------------------------------------------


def instruction(opcode: Opcode, columns: int, **values: int) -> list[int]:
    zero = dict.fromkeys((field.name for field in layout.INSTRUCTION.fields), 0)
    return layout.INSTRUCTION.pack(**zero | {"opcode": opcode, "columns": columns} | values)


def config(kind: Kind, column: int, payload: list[int], sub: int = 0, **values: int) -> list[int]:
    head = {"kind": kind, "sub": sub, "length": len(payload), **values}
    return instruction(Opcode.CONFIG, 1 << column, **head) + payload


class RandomCopies:
    """A program of random strided copies, through random ways, with fences between some.

    From and to memory and scratchpad, so that ports change from one to the other under way.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.device: list[int] = []
        for _ in range(self.upto(12)):
            self.copy(self.upto(TINY.columns) - 1)
            if self.rng.random() < 0.2:
                self.device += instruction(Opcode.FENCE, self.upto(3))
        empty = program()
        steps = [empty.input_words, empty.output_words]
        self.device += instruction(Opcode.END, 3) + steps
        self.program = dataclasses.replace(empty, device=np.array(self.device, "<u4").tobytes())

    def upto(self, high: int, low: int = 1) -> int:
        return int(self.rng.integers(low, high + 1))

    def walk(self, words: int, room: int) -> dict[str, int]:
        """Return a random descriptor of so many words within the first ``room``."""
        sizes = []
        for _ in range(3):
            divisors = [n for n in range(1, words + 1) if words % n == 0]
            sizes.append(int(self.rng.choice(divisors[: 1 + len(divisors) // 2])))
            words //= sizes[-1]
        run, *counts = words, *sizes
        reach = (room - run) // 3
        low = base = 0
        fields = {"run": run}
        for level, count in enumerate(counts):
            step = self.upto(reach // count, -(reach // count)) if count > 1 else 0
            low += min(0, (count - 1) * step)
            base += max(0, (count - 1) * step)
            fields |= {f"count{level}": count, f"step{level}": step}
        return fields | {"base": -low + self.upto(room - run + low - base, 0)}

    def place(self, words: int, outside: Relocate) -> tuple[dict[str, int], Relocate]:
        """Return a random walk through memory or scratchpad, and what it counts from."""
        if self.rng.random() < 0.6:
            return self.walk(words, PAGE_WORDS), outside
        walk = self.walk(words, TINY.scratchpad_words)
        return walk | {"base": walk["base"] + layout.SCRATCHPAD}, Relocate.NONE

    def route(self, column: int, row: int, output: RouterOut, source: RouterIn) -> None:
        word = layout.ROUTE.pack(output=output, input=source, peers=1 << output)
        self.device += config(Kind.ROUTER, column, word, sub=row)

    def copy(self, column: int) -> None:
        words = self.upto(200)
        walk, relocate = self.place(words, Relocate.INPUT)
        payload = layout.READ.pack(**walk, dest=int(Operand.OPERATOR))
        self.device += config(Kind.READ_OPERAND, column, payload, relocate=relocate)
        near = int(self.rng.random() < 0.5)
        if near:
            self.route(column, Row.OPERATOR, RouterOut.GLOBAL, RouterIn.GLOBAL)
        else:
            self.route(column, Row.OPERATOR, RouterOut.SOUTH, RouterIn.GLOBAL)
            self.route(column, Row.MAPPER, RouterOut.SOUTH, RouterIn.NORTH)
            self.route(column, Row.FIFO, RouterOut.LOCAL0, RouterIn.NORTH)
            self.route(column, Row.FIFO, RouterOut.GLOBAL, RouterIn.LOCAL0)
        walk, relocate = self.place(words, Relocate.OUTPUT)
        payload = layout.WRITE.pack(**walk, source=near)
        self.device += config(Kind.WRITE, column, payload, relocate=relocate)


def blank(images: int) -> dict:
    return {"x": np.zeros((images, 3, 4, 5), np.int64)}


@pytest.mark.rtl
@pytest.mark.parametrize("case", range(40))
def test_random_copies(case: int) -> None:
    memory = MEMORIES[case % len(MEMORIES)]
    assert_equal(RandomCopies(case).program, blank(1 + case % 3), memory, case if case % 2 else None)


@pytest.mark.rtl
def test_errors_are_those_of_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    good = RandomCopies(1).program
    code = np.frombuffer(good.device, "<u4").copy()
    size = measure.placement(good, 1).size
    monkeypatch.setattr(measure, "WATCHDOG_CYCLES", 2000)
    run = layout.READ.fields[1]
    assert run.name == "run"
    write = next(at for kind, _, _, at in configurations(good.device) if kind == Kind.WRITE)
    for error, at, value in (
        ("ILLEGAL_INSTRUCTION", 0, 0),
        ("ILLEGAL_INSTRUCTION", 0, code[0] | 1 << 31),
        ("READ_RESPONSE", 1, size),
        ("WRITE_RESPONSE", write, size),
        ("READ_RESPONSE", 1, layout.SCRATCHPAD + TINY.scratchpad_words),
        ("WRITE_RESPONSE", write, layout.SCRATCHPAD + TINY.scratchpad_words),
        ("HANG", 2, int(code[2]) - 1),
    ):
        broken = code.copy()
        broken[at] = value
        bad = dataclasses.replace(good, device=broken.tobytes())
        messages = []
        for simulate in (
            lambda bad=bad: rtl.simulate(bad, blank(1)),
            lambda bad=bad: judge.simulate(bad, 1),
        ):
            with pytest.raises(HardwareError, match=f"error {error}") as caught:
                simulate()
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_a_run_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(HardwareError, match="no end within the cycles allowed after 100 cycles"):
        judge.simulate(RandomCopies(1).program, 1, max_cycles=100)


# --- compiled programs ------------------------------------------------------------------------------


@functools.cache
def lenet(model: str, batch: int, grid: str = "tiny") -> neuflow.Program:
    data = digits.load({"a": 28, "b": 32, "c": 32}[model])
    return neuflow.compile(
        EXAMPLES / f"lenet5_{model}.onnx", grid=grid, calib=data.train_x[:64], batch=batch
    )


@pytest.mark.rtl
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize(("model", "batch", "images"), [("b", 1, 2), ("c", 2, 3)])
def test_lenet(model: str, batch: int, images: int, seed: int | None) -> None:
    program = lenet(model, batch)
    size = {"b": 32, "c": 32}[model]
    words = api.quantise_inputs(program.ir, digits.load(size).test_x[:images])
    assert_equal(program.ir, words, None, seed)


@pytest.mark.rtl
@pytest.mark.xdist_group("virtex6")
@pytest.mark.parametrize("latency", [40, 300])
def test_lenet_on_virtex6(latency: int) -> None:
    """Four columns; with a slow memory as many beats are under way as the arbiter allows."""
    program = lenet("b", 10, "virtex6")
    words = api.quantise_inputs(program.ir, digits.load(32).test_x[:10])
    memory = dataclasses.replace(program.grid.memory, read_latency=latency)
    assert_equal(program.ir, words, memory, None)


@pytest.mark.parametrize(
    "grid", ["virtex6_wide", "asic45", "asic45_4grid", "cnp", "fig2", "ecp5_85k"]
)
def test_presets_give_golden_s_words(grid: str) -> None:
    """Those that no other test runs; bandwidth of both ways, 8 maps a column, one column, three."""
    program, images = lenet("b", 2, grid), digits.load(32).test_x[:3]
    golden, cycle = program.golden(images), program.cycle(images)
    assert all(np.array_equal(cycle.words[n], golden.words[n]) for n in golden.words)
    assert cycle.stats["cycles"] > cycle.stats["network_roofline_cycles"]


@pytest.mark.rtl
def test_statistics_and_words_are_those_of_rtl() -> None:
    program = lenet("b", 1).ir
    words = api.quantise_inputs(program, digits.load(32).test_x[:2])
    want, got = rtl.run(program, words), judge.run(program, words)
    assert all(np.array_equal(got.outputs[name], want.outputs[name]) for name in want.outputs)
    assert got.stats == {**want.stats, "judge": "cycle"}
    assert sum(layer["cycles"] for layer in got.stats["layers"]) == got.stats["cycles"]


@pytest.mark.rtl
@pytest.mark.parametrize(("case", "seed"), [(299, 19), (413, 13)])
def test_the_last_words_of_a_program_may_come_late(case: int, seed: int) -> None:
    """END's steps lie in a burst that the stalled bus had not been asked for; it once never was."""
    made = RandomGraph(case)
    images = 1 + case % 3
    compiled = compile_graph(made.net.build(*made.outputs), TINY, images)
    assert_equal(compiled, made.net.words(images), None, seed)


@pytest.mark.rtl
def test_partial_sums_go_through_memory() -> None:
    net = Builder(3)
    net.conv(net.input(40, 6, 20), 5, (3, 3))
    compiled = compile_graph(net.build(net.nodes[-1].output), TINY)
    drains = [f for kind, f in packets_of(compiled.device) if kind == Kind.CONV_DRAIN]
    assert any(f["partial_in"] for f in drains) and any(f["partial_out"] for f in drains)
    assert_equal(compiled, net.words(1), None, None)


@pytest.mark.rtl
@pytest.mark.parametrize(("width", "gather"), [(9, 0), (17, 1)])
def test_a_table_of_connections_goes_tap_by_tap(width: int, gather: int) -> None:
    """In one pass every map reads channels of its own; what follows it does not work by tap."""
    net = Builder(9)
    x = net.table(net.input(6, 11, width), 7, (3, 5), 2, pads=(2, 0, 1, 0))
    net.conv(x, 4, (2, 2), pads=(1, 1, 0, 0))
    graph, words = net.build(x, net.nodes[-1].output), net.words(2)
    compiled = compile_graph(graph, TINY)
    arrays = [f for kind, f in packets_of(compiled.device) if kind == Kind.CONV_ARRAY]
    assert [(f["by_tap"], f["gather"]) for f in (arrays[0], arrays[-1])] == [(1, gather), (0, 0)]
    for memory, seed in ((MEMORIES[0], None), (MEMORIES[3], 5)):
        assert_equal(compiled, words, memory, seed)
    outputs, _ = rtl.simulate(compiled, words, MEMORIES[0], None)
    want = evaluate(graph, words)
    assert all(np.array_equal(outputs[name], want[name]) for name in graph.outputs)


@pytest.mark.rtl
def test_lanes_go_on_from_row_end_to_row() -> None:
    """Rows of the input are longer than those of the output; strides, borders and a table by tap."""
    net = Builder(12)
    x = net.conv(net.input(1, 19, 32), 4, (3, 5), pads=(1, 0, 1, 0), stride=(2, 2))
    x = net.table(x, 5, (3, 4), 2, pads=(1, 0, 0, 0))
    net.conv(x, 3, (4, 3))
    graph, words = net.build(net.nodes[-1].output), net.words(2)
    compiled = compile_graph(graph, TINY)
    assert compiled.mapping.count("row ends closed") == 3
    arrays = [f for kind, f in packets_of(compiled.device) if kind == Kind.CONV_ARRAY]
    assert all(f["row_pitch"] > f["pitch"] for f in arrays)
    assert {f["by_tap"] for f in arrays} == {0, 1} and {f["stride"] for f in arrays} == {1, 2}
    for memory, seed in ((MEMORIES[0], None), (MEMORIES[3], 5)):
        assert_equal(compiled, words, memory, seed)
    outputs, _ = rtl.simulate(compiled, words, MEMORIES[0], None)
    want = evaluate(graph, words)
    assert all(np.array_equal(outputs[name], want[name]) for name in graph.outputs)


@pytest.mark.rtl
def test_rows_stay_for_the_next_maps() -> None:
    """Weights of few maps fit at once; the input, which fits whole, is read once for all."""
    net = Builder(4)
    net.conv(net.input(8, 7, 8), 24, (3, 3))
    compiled = compile_graph(net.build(net.nodes[-1].output), TINY)
    packets = packets_of(compiled.device)
    rows = [fields["rows"] for kind, fields in packets if kind == Kind.CONV_ROWS]
    assert rows[0] == 7 and rows.count(0) >= 2
    assert sum(kind == Kind.READ_ROWS for kind, _ in packets) == len(rows) - rows.count(0)
    for seed in (None, 3):
        assert_equal(compiled, net.words(2), None, seed)


@pytest.mark.rtl
def test_an_operand_behind_partial_sums_does_not_stop_them() -> None:
    """Both come by one line: rows that wait for the operand must not hold back the sums."""
    net = Builder(5)
    x = net.input(16, 8, 8)
    net.alu("add", net.conv(x, 16, (3, 3), pads=(1, 1, 1, 1)), x)
    compiled = compile_graph(net.build(net.nodes[-1].output), TINY)
    packets = packets_of(compiled.device)
    assert any(fields["partial_in"] for kind, fields in packets if kind == Kind.CONV_DRAIN)
    assert any(kind == Kind.ALU for kind, _ in packets)
    assert_equal(compiled, net.words(1), None, None)


@pytest.mark.rtl
@pytest.mark.parametrize("shape", [(64, 24, 1), (100, 16, 2), (100, 24, 8)])
def test_rows_that_wait_behind_the_sums_keep_their_own_slots_alone(shape) -> None:
    """The last words of a row wait for the operand; blocks that do without its slot go on."""
    net = Builder(5)
    x = net.input(*shape)
    maps = shape[2] if shape[2] == 8 else 4
    y, z = net.conv(x, maps, (1, 1)), net.conv(x, maps, (3, 1), pads=(1, 0, 1, 0))
    net.alu("add", y, z)
    compiled = compile_graph(net.build(net.nodes[-1].output), TINY)
    assert [layer.operator for layer in compiled.layers] == ["conv", "conv+alu"]
    assert any(f["partial_in"] for kind, f in packets_of(compiled.device) if kind == Kind.CONV_DRAIN)
    assert_equal(compiled, net.words(1), None, None)


# --- parts ------------------------------------------------------------------------------------------


def packets_of(device: bytes) -> list[tuple[Kind, dict[str, int]]]:
    """Kind and fields of every packet, one for each ROUTE word, as the layouts unpack them."""
    found = []
    for kind, _, records, _ in configurations(device):
        found += [(kind, fields) for fields in records]
    return found


def configurations(device: bytes) -> list[tuple[Kind, dict[str, int], list[dict[str, int]], int]]:
    """Kind, head, records and first payload word of every CONFIG instruction."""
    code = np.frombuffer(device, "<u4")
    at, found = 0, []
    while True:
        head = layout.INSTRUCTION.unpack([code[at]])
        at += 1
        if head["opcode"] == Opcode.END:
            return found
        if head["opcode"] == Opcode.CONFIG:
            unit = layout.UNITS[Kind(head["kind"])]
            starts = range(at, at + head["length"], unit.words)
            records = [unit.unpack(code[first : first + unit.words]) for first in starts]
            found.append((Kind(head["kind"]), head, records, at))
            at += head["length"]


def test_packets_are_decoded_as_the_layouts_say() -> None:
    device = lenet("b", 1).ir.device
    decoded = decode(device, TINY.columns)
    number, writes = 0, np.zeros(TINY.columns, np.int64)
    for kind, head, records, at in configurations(device):
        unit = UNIT_OF.get((kind, head["sub"]), ROUTER)
        for index, fields in enumerate(records):
            want = list(fields.values())[:PACKET_FIELDS]
            assert decoded.packets[number, : len(want)].tolist() == want
            words = layout.UNITS[kind].words
            for word in decoded.bus[at + index * words : at + (index + 1) * words]:
                carried = unpack_bus(int(word))
                assert carried["packet"] == number and carried["columns"] == head["columns"]
                assert carried["unit"] == unit
                if unit == ROUTER:
                    assert {name: carried[name] for name in fields} == fields
                    assert carried["row"] == head["sub"]
            number += 1
        if kind == Kind.WRITE:
            writes += head["columns"] >> np.arange(TINY.columns) & 1
    assert number == len(decoded.packets) and (writes == decoded.writes).all()


def unpack_bus(word: int) -> dict[str, int]:
    fields = {}
    for name, bits in WORD.items():
        fields[name] = word & ((1 << bits) - 1)
        word >>= bits
    return fields


def test_a_trace_says_what_each_column_did_in_each_cycle() -> None:
    program = lenet("b", 1).ir
    cycles = judge.simulate(program, 1).cycles
    trace = np.zeros((cycles + 5, TINY.columns), np.uint32)
    measured = judge.simulate(program, 1, trace=trace)
    array = [Activity.MAC, Activity.WAIT_ROWS, Activity.WAIT_WEIGHTS, Activity.WAIT_DRAIN, Activity.IDLE]
    bits = sum((trace[:cycles] >> bit & 1 for bit in array), np.zeros_like(trace[:cycles]))
    assert (bits == 1).all() and not trace[cycles:].any()
    taps = trace >> Activity.MAC & 1
    assert taps.sum() == measured.registers["MAC_CYCLES"]
    moves = trace >> Activity.CONFIG & 1
    assert (moves == moves[:, :1]).all() and moves[:, 0].sum() == measured.registers["CONFIG_WORDS"]
    hidden = (moves[:, 0] & taps.any(axis=1)).sum()
    assert 0 < hidden == measured.registers["CONFIG_HIDDEN"]
