"""The interpreter finds what is wrong: mutated programs never give a wrong result in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from neuflow.blocks.convolver_model import channel_steps
from neuflow.compiler import compile_graph
from neuflow.compiler.geometry import ConvShape
from neuflow.grid import TINY, GridConfig
from neuflow.ir import Program
from neuflow.layout import INSTRUCTION, UNITS, Kind, Opcode, Scatter
from neuflow.run import device
from neuflow.run.device import DeviceFault
from neuflow.run.device_memory import Memory
from tests.quantgraphs import Builder, evaluate


def network() -> Builder:
    net = Builder(1)
    x = net.conv(net.input(4, 12, 14), 6, (5, 5))
    x = net.pool(net.relu(x), "max", (2, 2), (2, 2))
    x = net.conv(x, 5, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    net.dense(net.alu("add", x, x), 7)
    return net


@pytest.fixture(scope="module")
def case():
    net = network()
    graph = net.build(net.nodes[-1].output)
    words = net.words(1)
    return compile_graph(graph, TINY), words, evaluate(graph, words)[graph.outputs[0]]


def instructions(program: Program) -> list[tuple[int, dict[str, int]]]:
    """Word and head of every instruction."""
    code = np.frombuffer(program.device, "<u4")
    found, at = [], 0
    while True:
        head = INSTRUCTION.unpack([code[at]])
        found.append((at, head))
        if head["opcode"] == Opcode.END:
            return found
        at += 1 + (head["length"] if head["opcode"] == Opcode.CONFIG else 0)


def packets(program: Program, kind: Kind) -> list[dict[str, int]]:
    """Fields of the packets to units of ``kind``, in order."""
    code, layout = np.frombuffer(program.device, "<u4"), UNITS[kind]
    heads = [(at, h) for at, h in instructions(program) if h["opcode"] == Opcode.CONFIG]
    return [layout.unpack(code[at + 1 : at + 1 + layout.words]) for at, h in heads if h["kind"] == kind]


def with_words(program: Program, at: int, words: list[int]) -> Program:
    code = np.frombuffer(program.device, "<u4").copy()
    code[at : at + len(words)] = words
    return replace(program, device=code.tobytes())


def mutate(program: Program, kind: Kind, number: int, change: Callable[[dict], None]) -> Program:
    """Change the fields of the ``number``-th packet to units of ``kind``."""
    at = [at for at, head in instructions(program)
          if head["opcode"] == Opcode.CONFIG and head["kind"] == kind][number]  # fmt: skip
    layout = UNITS[kind]
    code = np.frombuffer(program.device, "<u4")
    fields = layout.unpack(code[at + 1 : at + 1 + layout.words])
    change(fields)
    return with_words(program, at + 1, layout.pack(**fields))


def add(name: str, amount: int) -> Callable[[dict], None]:
    def change(fields: dict) -> None:
        fields[name] += amount

    return change


def caught(program: Program, words, want) -> bool:
    """Whether a fault is raised, or the result differs: no mutation may go unseen."""
    try:
        outputs = device.run(program, words).outputs
    except DeviceFault:
        return True
    return any((outputs[name] != want).any() for name in outputs)


def test_unchanged_program_gives_the_reference(case):
    program, words, want = case
    assert not caught(program, words, want)


MUTATIONS = [
    (Kind.READ_ROWS, "base", 1), (Kind.READ_ROWS, "run", -1), (Kind.READ_ROWS, "count0", 1),
    (Kind.READ_WEIGHTS, "base", 4), (Kind.READ_WEIGHTS, "run", 1),
    (Kind.WRITE, "base", 1), (Kind.WRITE, "run", 1), (Kind.WRITE, "step0", 1),
    (Kind.CONV_ROWS, "pitch", 1), (Kind.CONV_ROWS, "ring_rows", -5), (Kind.CONV_ROWS, "base", 8),
    (Kind.CONV_ROWS, "width", 1), (Kind.CONV_ROWS, "rows", -1),
    (Kind.CONV_WEIGHTS, "lead", 1),
    (Kind.CONV_ARRAY, "start", 1), (Kind.CONV_ARRAY, "step_x", 1), (Kind.CONV_ARRAY, "step_y", 1),
    (Kind.CONV_ARRAY, "need", -4), (Kind.CONV_ARRAY, "release", 3), (Kind.CONV_ARRAY, "tap_x", 3),
    (Kind.CONV_ARRAY, "kernel_x", -1), (Kind.CONV_ARRAY, "groups", -1),
    (Kind.CONV_ARRAY, "channel_step", 8), (Kind.CONV_ARRAY, "pitch", -1),
    (Kind.CONV_DRAIN, "maps", -1), (Kind.CONV_DRAIN, "height", -1),
    (Kind.CONV_DRAIN, "map_step", 1), (Kind.CONV_DRAIN, "beats", -1), (Kind.CONV_DRAIN, "shift", 1),
    (Kind.WINDOW, "kernel_x", 1), (Kind.WINDOW, "maps", 1), (Kind.WINDOW, "m", 1),
    (Kind.MAPPER, "a7", 1), (Kind.MAPPER, "b7", 1), (Kind.ALU, "shift_a", 1),
]  # fmt: skip


def counts(kind: Kind, name: str, fields: dict[str, int]) -> bool:
    """Whether a field of a packet means anything: partial sums make no rows, one run no step."""
    if name == "step0":
        return fields["count0"] > 1
    return kind != Kind.CONV_DRAIN or not fields["partial_out"]


@pytest.mark.parametrize(("kind", "name", "amount"), MUTATIONS)
def test_a_changed_field_is_caught(case, kind, name, amount):
    program, words, want = case
    number = [counts(kind, name, fields) for fields in packets(program, kind)].index(True)
    assert caught(mutate(program, kind, number, add(name, amount)), words, want)


@pytest.fixture(scope="module", params=["row by row", "gathered"])
def by_tap(request):
    net = Builder(7)
    kernel_y = 4 if request.param == "row by row" else 3
    net.table(net.input(7, 9, 11), 5, (kernel_y, 5), 2, pads=(1, 0, 1, 0))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    program = compile_graph(graph, TINY)
    assert " by tap" in program.mapping
    gather = {fields["gather"] for fields in packets(program, Kind.CONV_ARRAY)}
    assert gather == {int(request.param == "gathered")}
    want = evaluate(graph, words)[graph.outputs[0]]
    assert not caught(program, words, want)
    return program, words, want


@pytest.mark.parametrize(
    ("kind", "name", "amount"),
    [
        (Kind.CONV_ARRAY, "by_tap", -1), (Kind.CONV_DRAIN, "by_tap", -1),
        (Kind.CONV_ARRAY, "by_block", -1), (Kind.CONV_ARRAY, "step_x", 1),
        (Kind.CONV_ARRAY, "dilation_x", -1), (Kind.CONV_ARRAY, "channels", -1),
        (Kind.CONV_ARRAY, "kernel_x", -1), (Kind.CONV_ARRAY, "kernel_x", 1),
        (Kind.CONV_ARRAY, "tap_x", -1), (Kind.CONV_ARRAY, "tap_x", 1),
        (Kind.CONV_ARRAY, "base", 8), (Kind.CONV_ARRAY, "stride", 1),
        (Kind.CONV_ARRAY, "kernel_y", 1),
        (Kind.CONV_DRAIN, "maps", -1), (Kind.CONV_DRAIN, "partial_in", 1),
    ],
)  # fmt: skip
def test_a_changed_field_of_a_pass_by_tap_is_caught(by_tap, kind, name, amount):
    program, words, want = by_tap
    assert caught(mutate(program, kind, 0, add(name, amount)), words, want)


def test_last_taps_gathered_or_not_against_the_weights_are_caught(by_tap):
    program, words, want = by_tap

    def other(fields: dict) -> None:
        fields["gather"] ^= 1

    assert caught(mutate(program, Kind.CONV_ARRAY, 0, other), words, want)


@pytest.fixture(scope="module", params=["by map", "by tap"])
def closed(request):
    net = Builder(8)
    if request.param == "by tap":
        net.table(net.input(7, 12, 13), 5, (3, 5), 2, pads=(1, 0, 1, 0))
    else:
        net.conv(net.input(3, 16, 13), 4, (3, 4), pads=(1, 0, 0, 0))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    program = compile_graph(graph, TINY)
    assert "row ends closed" in program.mapping
    assert (" by tap" in program.mapping) == (request.param == "by tap")
    want = evaluate(graph, words)[graph.outputs[0]]
    assert not caught(program, words, want)
    return program, words, want


@pytest.mark.parametrize(
    ("kind", "name", "amount"),
    [
        (Kind.CONV_ARRAY, "row_pitch", 1), (Kind.CONV_ARRAY, "row_pitch", 8),
        (Kind.CONV_ARRAY, "row_pitch", -8), (Kind.CONV_ARRAY, "pitch", 1),
        (Kind.CONV_ARRAY, "pitch", -1), (Kind.CONV_ROWS, "pitch", 8), (Kind.CONV_ROWS, "pitch", -1),
        (Kind.CONV_ARRAY, "step_y", 8), (Kind.CONV_DRAIN, "pitch", 1), (Kind.CONV_ARRAY, "groups", -1),
        (Kind.CONV_ARRAY, "need", -1), (Kind.CONV_ARRAY, "release", 1),
    ],
)  # fmt: skip
def test_a_changed_field_of_a_pass_with_closed_row_ends_is_caught(closed, kind, name, amount):
    program, words, want = closed
    assert caught(mutate(program, kind, 0, add(name, amount)), words, want)


@pytest.mark.parametrize(
    ("height", "width", "kernel"), [(6, 5, (2, 3)), (7, 6, (3, 4)), (8, 5, (3, 3))]
)
def test_a_second_row_end_behind_the_output_is_found_by_tap(monkeypatch, height, width, kernel):
    """It was not, and the Verilog's last words of the last row were wrong (random cases 503, 695)."""

    def closes(shape: ConvShape, grid: GridConfig) -> bool:
        """``ConvShape.closes`` as it was, by tap: what is behind the last row does not count."""
        size, pitch = shape.out_height * shape.out_width, shape.out_width
        first = np.arange(0, size, grid.pixels)
        last = np.minimum(first + grid.pixels, size) - 1
        return shape.by_tap and bool((last // pitch - first // pitch <= 1).all())

    net = Builder(3)
    net.table(net.input(4, height, width), 5, kernel, 2)
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    monkeypatch.setattr(ConvShape, "closes", closes)
    wrong = compile_graph(graph, TINY)
    assert "by tap closed" in wrong.mapping
    with pytest.raises(DeviceFault, match="lanes beyond a row's end"):
        device.run(wrong, words)


def test_rows_that_end_three_times_in_a_group_are_not_closed():
    """TINY has 5 pixel lanes: rows of 1 pixel end four times among them, of 2 or more twice at most."""
    for width, closes in ((1, False), (2, True), (4, True), (5, True)):
        net = Builder(3)
        net.conv(net.input(2, 14, width + 3), 2, (3, 4))
        program = compile_graph(net.build(net.nodes[-1].output), TINY)
        assert ("row ends closed" in program.mapping) == closes


def test_a_changed_weight_of_any_lane_is_caught(by_tap):
    """All words behind the parameters of a packet: weights, and the channels that they name."""
    program, words, want = by_tap
    at, label = next(place for place in program.origins if "/weights/" in place[1])
    maps = re.search(r"maps (\d+)\.\.(\d+)", label)
    assert maps is not None
    blocks = int(maps[2]) - int(maps[1]) + 1
    array = packets(program, Kind.CONV_ARRAY)[0]
    kernel, gather = (array["kernel_y"], array["kernel_x"]), bool(array["gather"])
    begin = 2 * at + 6 * TINY.maps * blocks
    steps = 2 * channel_steps(*kernel, TINY.maps, gather)
    seen = []
    for word in range(begin, begin + steps * TINY.maps):
        code = np.frombuffer(program.device, "<u2").copy()
        code[word] ^= 1 << 6
        seen.append(caught(replace(program, device=code.tobytes()), words, want))
    assert all(seen)


def test_a_ring_without_room_is_a_deadlock(case):
    program, words, _ = case
    short = mutate(program, Kind.CONV_ROWS, 0, lambda f: f.update(ring_rows=3))
    with pytest.raises(DeviceFault, match="deadlock"):
        device.run(short, words)


def test_both_phases_do_not_meet_in_a_bank(case):
    program, words, _ = case
    strided = {
        kind: next(n for n, fields in enumerate(packets(program, kind)) if fields["stride"] == 2)
        for kind in (Kind.CONV_ROWS, Kind.CONV_ARRAY)
    }
    rows = packets(program, Kind.CONV_ROWS)[strided[Kind.CONV_ROWS]]
    assert rows["scatter"] == Scatter.BOTH_PHASES
    for name, amount in (("phase_x_step", 1), ("ring_words", 8 * TINY.row_banks), ("stride", 1)):
        changed = program
        for kind, number in strided.items():
            changed = mutate(changed, kind, number, add(name, amount))
        with pytest.raises(DeviceFault, match="both phases at once would meet in a bank"):
            device.run(changed, words)


def test_rows_of_two_channels_do_not_meet_in_a_bank(case):
    program, words, _ = case
    number = next(
        n for n, fields in enumerate(packets(program, Kind.CONV_ROWS))
        if fields["scatter"] == Scatter.ROWS
    )  # fmt: skip
    for name, amount in (("channel_step", 1), ("ring_words", 8 * TINY.row_banks)):
        changed = program
        for kind in (Kind.CONV_ROWS, Kind.CONV_ARRAY):
            changed = mutate(changed, kind, number, add(name, amount))
        with pytest.raises(DeviceFault, match="two channels' rows at once would meet in a bank"):
            device.run(changed, words)


def test_rows_loaded_ahead_over_others_are_found(case):
    program, words, _ = case
    changed = program
    for kind in (Kind.CONV_ROWS, Kind.CONV_ARRAY):
        heads = [head for _, head in instructions(program) if head["opcode"] == Opcode.CONFIG]
        for number in range(sum(head["kind"] == kind for head in heads)):
            changed = mutate(changed, kind, number, lambda fields: fields.update(base=0))
    with pytest.raises(DeviceFault, match="rows loaded ahead overwrite"):
        device.run(changed, words)


def test_resident_rows_are_those_of_the_pass_before():
    net = Builder(4)
    net.conv(net.input(8, 7, 8), 24, (3, 3))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    program = compile_graph(graph, TINY)
    want = evaluate(graph, words)[graph.outputs[0]]
    assert not caught(program, words, want)
    moved = mutate(program, Kind.CONV_ROWS, 1, add("width", 1))
    with pytest.raises(DeviceFault, match="resident rows are not those of the pass before"):
        device.run(moved, words)


def test_every_fence_is_needed(case):
    program, words, _ = case
    fences = [at for at, head in instructions(program) if head["opcode"] == Opcode.FENCE]
    assert fences
    for at in fences:
        # A fence of no columns waits for nothing.
        nothing = INSTRUCTION.pack(
            opcode=Opcode.FENCE, kind=0, sub=0, columns=0, length=0, relocate=0, left=0, reserved=0
        )
        with pytest.raises(DeviceFault, match="hazard|never written"):
            device.run(with_words(program, at, nothing), words)


def test_a_route_to_nowhere_is_found(case):
    program, words, _ = case
    at = [at for at, head in instructions(program)
          if head["opcode"] == Opcode.CONFIG and head["kind"] == Kind.ROUTER][0]  # fmt: skip
    route = UNITS[Kind.ROUTER]
    fields = route.unpack(np.frombuffer(program.device, "<u4")[at + 1 : at + 2])
    for name, value in (("output", 0), ("input", 0), ("peers", 1 << 8)):
        with pytest.raises(DeviceFault):
            device.run(with_words(program, at + 1, route.pack(**{**fields, name: value})), words)


def test_illegal_instruction_is_found(case):
    program, words, _ = case
    with pytest.raises(DeviceFault, match="illegal"):
        device.run(with_words(program, 0, [0]), words)


def test_frames_are_independent():
    net = network()
    graph = net.build(net.nodes[-1].output)
    program = compile_graph(graph, TINY, batch=2)
    words = net.words(5)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])


def test_room_in_a_frame_of_inputs_is_the_program_s_and_unknown_until_it_writes():
    memory = Memory(np.zeros(2, np.int16), 6)
    memory.load(2, np.array([7, 0, 8, 9], np.int16), np.array([0, 1, 0, 0], bool))
    words = {"run": 1} | {f"{name}{level}": 1 for level in range(3) for name in ("count", "step")}
    with pytest.raises(DeviceFault, match="reads word 3, never written"):
        memory.read({**words, "base": 3}, 0, "read")
    with pytest.raises(DeviceFault, match="word 4 is not the program's"):
        memory.write({**words, "base": 4}, np.array([5], np.int16), "write")
    memory.fence([memory.write({**words, "base": 3}, np.array([5], np.int16), "write")], 1)
    assert memory.read({**words, "run": 4, "base": 2}, 2, "read").tolist() == [7, 5, 8, 9]
