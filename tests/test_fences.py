"""Fences: what goes before them, that each is needed, and that early rows gain cycles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuflow.compiler import Stages, compile_graph, fences, run_passes
from neuflow.compiler.cut import Cut
from neuflow.compiler.mapping import Span
from neuflow.compiler.turn import Turn
from neuflow.cycle import judge
from neuflow.grid import TINY, VIRTEX6, GridConfig
from neuflow.ir import Program
from neuflow.layout import INSTRUCTION, WRITE, Opcode
from neuflow.run import device, rtl
from neuflow.run.device_memory import DeviceFault
from tests.quantgraphs import Builder, evaluate

ROOMY = dataclasses.replace(TINY, name="roomy", row_words=4096, scratchpad_words=0)


def two_layers(rows: int = 8, channels: int = 4) -> Builder:
    net = Builder(3)
    x = net.relu(net.conv(net.input(2, rows, 6), channels, (3, 3), pads=(1, 1, 1, 1)))
    net.conv(x, 4, (3, 3), pads=(1, 1, 1, 1))
    return net


def turns_of(net: Builder, grid: GridConfig) -> tuple[Turn, ...]:
    graph = net.build(net.nodes[-1].output)
    stages = Stages(None, grid, nouns={"graph": None, "quantised": graph})
    return run_passes(stages, "schedule")["schedule"].turns


def check(net: Builder, grid: GridConfig) -> Program:
    """Compile, run in the interpreter, compare every word; return the program."""
    output = net.nodes[-1].output
    graph = net.build(output)
    program, words = compile_graph(graph, grid), net.words(1)
    got = device.run(program, words).outputs[output]
    np.testing.assert_array_equal(got, evaluate(graph, words)[output])
    return program


def names_of(program: Program, chain: str) -> list[str]:
    """What the instructions of a chain are for, in order."""
    origins = [name.split("/") for _, name in program.origins]
    return [name[-1] for name in origins if name[0] == chain and name[1] == "pass0"]


def words_at(program: Program, name: str) -> list[int]:
    return [word for word, origin in program.origins if origin == name]


def changed(program: Program, at: int, words: list[int]) -> Program:
    code = np.frombuffer(program.device, "<u4").copy()
    code[at : at + len(words)] = words
    return dataclasses.replace(program, device=code.tobytes())


def test_first_rows_are_read_while_the_last_writer_works() -> None:
    net = two_layers()
    writer, reader = turns_of(net, ROOMY)[0], turns_of(net, ROOMY)[-1]
    place = reader.rows[0]
    assert place is not None and place.two and reader.early_fence == reader.fence == 0b11
    first, second = writer.writes(0)
    assert (first.lo, second.hi) == (0, 8) and first.hi == second.lo == place.early
    names = names_of(check(net, ROOMY), "conv2")
    early = names.index("fence of early rows")
    assert names[early:][:4] == ["fence of early rows", "READ_ROWS", "fence", "READ_ROWS"]


def test_a_map_of_one_row_is_read_behind_the_fence() -> None:
    net = two_layers(rows=1)
    assert not any(turn.early_fence or turn.first_write for turn in turns_of(net, ROOMY))
    names = names_of(check(net, ROOMY), "conv2")
    assert names.index("fence") < names.index("READ_ROWS")


def test_rows_that_nobody_writes_do_not_wait() -> None:
    """Passes that go on with partial sums wait for these, not for the input."""
    net = Builder(4)
    net.conv(net.input(40, 6, 6), 2, (3, 3), pads=(1, 1, 1, 1))
    fenced = [turn for turn in turns_of(net, TINY) if turn.fence]
    places = [place for turn in fenced for place in turn.rows if place is not None]
    assert fenced and all(place.early == place.plan.rows and not place.two for place in places)
    assert not any(turn.early_fence for turn in fenced)
    origins = [name for _, name in check(net, TINY).origins]
    reads = [n for n, name in enumerate(origins) if name.startswith(fenced[0].label) and "ROWS" in name]
    assert max(reads) < origins.index(f"{fenced[0].label}/fence")


def test_rows_of_the_layer_before_the_last_writer_wait_for_no_packet_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of the first convolution; the second, whose result is added, is the last to write.

    Where they are not read before it writes.
    """
    monkeypatch.setattr(fences, "_overtakes", lambda *_: False)
    net = Builder(4)
    x = net.input(3, 6, 6)
    y = net.conv(x, 4, (3, 3), pads=(1, 1, 1, 1))
    y = net.conv(y, 4, (3, 3), pads=(1, 1, 1, 1))
    net.alu("add", net.conv(x, 4, (1, 1)), y)
    *writers, reader = turns_of(net, ROOMY)
    place = reader.rows[0]
    assert place is not None and place.early == place.plan.rows and not place.two
    assert reader.early_fence == reader.fence == 0b11
    assert not any(writer.first_write for writer in writers)
    check(net, ROOMY)


def test_columns_that_share_the_rows_of_a_map_are_waited_for_as_far_as_they_are_read() -> None:
    net = Builder(5)
    x = net.conv(net.input(1, 16, 6), 1, (3, 3), pads=(1, 1, 1, 1))
    net.conv(x, 4, (3, 3), pads=(1, 1, 1, 1))
    writer, *_, reader = turns_of(net, ROOMY)
    assert [piece.out.rows.lo for piece in writer.pieces] == [0, 8]
    place = reader.rows[0]
    assert place is not None and 0 < place.early < 8 and reader.early_fence == 0b01
    assert [len(writer.writes(i)) for i in range(2)] == [2, 1]
    check(net, ROOMY)


def test_strided_rows_wait_for_the_rows_they_skip_to() -> None:
    net = Builder(6)
    x = net.conv(net.input(2, 9, 6), 4, (3, 3), pads=(1, 1, 1, 1))
    net.conv(x, 4, (1, 1), stride=(2, 2))
    writer, *_, reader = turns_of(net, ROOMY)
    place = reader.rows[0]
    assert place is not None and place.plan.rows == 5 and 0 < place.early < 5
    assert writer.writes(0)[0].size == 2 * (place.early - 1) + 1
    check(net, ROOMY)


def test_of_a_batch_the_first_band_is_read_while_the_last_images_are_made() -> None:
    """By a dense layer behind convolutions, whose images lie side by side; then by one behind that."""
    net = Builder(6)
    x = net.pool(net.conv(net.input(2, 10, 10), 4, (3, 3)), "max", (2, 2), (2, 2))
    net.dense(net.relu(net.dense(x, 9)), 5)
    graph = net.build(net.nodes[-1].output)
    grid = dataclasses.replace(ROOMY, scratchpad_words=4096, weight_words=1024)
    cuts = {name: Cut(images=1, maps=2, rows=1) for name in ("dense2", "dense4")}
    stages = Stages(None, grid, batch=16, cuts=cuts, nouns={"graph": None, "quantised": graph})
    program, turns = run_passes(stages)["program"], stages["schedule"].turns
    first, second = (next(t for t in turns if t.chain.name == name) for name in ("dense2", "dense4"))
    for turn in first, second:
        assert {place and (place.early, place.plan.rows) for place in turn.rows} == {(1, 2)}
        assert turn.early_fence == turn.fence == 0b11
    writers = [turn for turn in turns if turn.chain.name == "conv0"]
    assert not any(turn.first_write for turn in writers)  # the last of them writes the second band
    assert first.writes(0) == (Span(0, 1), Span(1, 2))
    words = net.words(16)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])


def shortcut(rows: int = 8, maps: int = 4) -> Builder:
    """A block of a residual network: beside its first convolution one of a tap, which is added last."""
    net = Builder(9)
    x = net.relu(net.conv(net.input(2, rows, rows), maps, (3, 3), pads=(1, 1, 1, 1)))
    y = net.relu(net.conv(x, maps, (3, 3), pads=(1, 1, 1, 1)))
    y = net.conv(y, maps, (3, 3), pads=(1, 1, 1, 1))
    net.alu("add", y, net.conv(x, maps, (1, 1)))
    return net


def test_rows_of_the_turn_before_the_last_are_read_before_the_last_one_writes() -> None:
    net = shortcut()
    _, writer, between, reader = turns_of(net, ROOMY)
    assert (between.chain.name, reader.overtakes) == ("conv5", True)
    assert reader.early_fence == 0b11 and all(place and place.two for place in reader.rows)
    assert [len(writer.writes(i)) for i in range(2)] == [2, 2]
    program = check(net, ROOMY)
    names = [name for _, name in program.origins]
    early = names.index(f"{reader.label}/fence of early rows")
    reads = names.index(f"{between.label}/column0/READ_ROWS")
    writes = [n for n, name in enumerate(names) if name.startswith(between.label) and "WRITE" in name]
    weights = names.index(f"{reader.label}/column0/READ_WEIGHTS")  # they load meanwhile
    assert reads < weights < early < min(writes)
    # Without it the rows are read too soon.
    (at,) = words_at(program, names[early])
    head = {field.name: 0 for field in INSTRUCTION.fields} | {"opcode": Opcode.FENCE}
    with pytest.raises(DeviceFault, match="hazard|never written"):
        device.run(changed(program, at, INSTRUCTION.pack(**head)), net.words(1))


def test_a_ring_between_would_wait_for_its_own_writes() -> None:
    """Its rows need room that it makes only when it can write, and would be in front in the queue."""
    turns = turns_of(shortcut(), ROOMY)
    place = turns[2].rows[0]
    assert place is not None and fences._overtakes(turns[2], [1], 3, ROOMY)
    ring = dataclasses.replace(place, plan=dataclasses.replace(place.plan, ring_words=64))
    for between, writers, grid in (
        (dataclasses.replace(turns[2], rows=(ring,)), [1], ROOMY),
        (turns[2], [1, 2], ROOMY),
        (turns[2], [], ROOMY),
        (turns[2], [1], dataclasses.replace(ROOMY, config_queue=1)),
    ):
        assert not fences._overtakes(between, writers, 3, grid)


def test_rows_read_before_a_short_layer_writes_gain_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = shortcut(8, 32).build("alu6.out")
    early = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    monkeypatch.setattr(fences, "_overtakes", lambda *_: False)
    assert early < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 100


@pytest.mark.rtl
@pytest.mark.parametrize("seed", [None, 3])
def test_the_grid_reads_them_so_as_well(seed: int | None) -> None:
    net = shortcut(5)
    program = compile_graph(net.build(net.nodes[-1].output), TINY)
    assert "before the turn before writes" in program.schedule
    words = net.words(2)
    found = rtl.run(program, words, seed=seed)
    assert found.stats["cycles"] == judge.simulate(program, 2, seed=seed).cycles
    want = evaluate(program.graph, words)["alu6.out"]
    np.testing.assert_array_equal(found.outputs["alu6.out"], want)


def test_an_early_fence_is_needed_and_its_packets_hold_what_is_read() -> None:
    net = two_layers()
    program, words = check(net, ROOMY), net.words(1)
    (at,) = words_at(program, "conv2/pass0/fence of early rows")
    head = {field.name: 0 for field in INSTRUCTION.fields} | {"opcode": Opcode.FENCE}
    with pytest.raises(DeviceFault, match="hazard|never written"):
        device.run(changed(program, at, INSTRUCTION.pack(**head)), words)

    # The first packet a row shorter and the second a row longer: the same words, but one row is late.
    first, second = words_at(program, "conv0/pass0/column0/WRITE")
    code = np.frombuffer(program.device, "<u4")
    a, b = (WRITE.unpack(code[word + 1 :][: WRITE.words]) for word in (first, second))
    level = next(k for k in range(2, -1, -1) if a[f"count{k}"] > 1)
    a[f"count{level}"] -= 1
    b[f"count{level}"] += 1
    b["base"] -= a[f"step{level}"]
    late = changed(changed(program, first + 1, WRITE.pack(**a)), second + 1, WRITE.pack(**b))
    with pytest.raises(DeviceFault, match="hazard"):
        device.run(late, words)
    b["base"] += a[f"step{level}"]
    b[f"count{level}"] -= 1
    short = changed(changed(program, first + 1, WRITE.pack(**a)), second + 1, WRITE.pack(**b))
    with pytest.raises(DeviceFault, match="never written|are not written|names"):
        device.run(short, words)


def test_early_rows_gain_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Builder(7)
    x = net.relu(net.conv(net.input(8, 16, 16), 16, (3, 3), pads=(1, 1, 1, 1)))
    net.conv(x, 16, (3, 3), pads=(1, 1, 1, 1))
    graph = net.build(net.nodes[-1].output)
    early = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    monkeypatch.setattr(fences._Early, "rows", lambda self, turn, writers: turn)
    late = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    assert early < late - 200


def test_of_a_first_group_so_many_rows_are_early_that_it_is_there_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fifth row leaves with the second group only: four are read while that is at work."""
    net = Builder(3)
    x = net.conv(net.input(64, 6, 6), 64, (3, 3), pads=(1, 1, 1, 1), groups=64)
    net.conv(x, 64, (1, 1))
    graph = net.build(net.nodes[-1].output)
    assert {rows and rows.early for rows in turns_of(net, VIRTEX6)[1].rows} == {4}
    cycles = judge.simulate(check(net, VIRTEX6), 1).cycles
    monkeypatch.setattr(fences._Early, "_wanted", lambda *_: 5)
    assert cycles < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 40


def test_rows_of_the_last_writers_last_group_are_not_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight rows of 8 the third group of 25 lanes makes two: with one of them all would be late."""
    net = Builder(3)
    x = net.conv(net.input(64, 8, 8), 64, (3, 3), pads=(1, 1, 1, 1))
    net.conv(x, 64, (3, 3), pads=(1, 1, 1, 1))
    graph = net.build(net.nodes[-1].output)
    assert {rows and rows.early for rows in turns_of(net, VIRTEX6)[1].rows} == {6}
    cycles = judge.simulate(check(net, VIRTEX6), 1).cycles
    monkeypatch.setattr(fences._Early, "_wanted", lambda *_: 7)
    assert cycles < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 300
