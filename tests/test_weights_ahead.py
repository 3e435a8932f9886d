"""Weights that come ahead, in shared packets or before an earlier turn's fence: which, room, gain."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.compiler import Stages, compile_graph, run_passes, weights
from neuflow.compiler.geometry import conv_shape
from neuflow.compiler.turn import Turn
from neuflow.compiler.weights_ahead import weights_sent
from neuflow.compiler.weights_packets import shared_packets, sources
from neuflow.cycle import judge
from neuflow.grid import TINY, VIRTEX6, GridConfig
from neuflow.ir import Program, QuantGraph, Words
from neuflow.layout import CONV_WEIGHTS, READ
from neuflow.run import device, rtl
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_weights import WeightRings
from tests.quantgraphs import Builder, evaluate

assemble = importlib.import_module("neuflow.compiler.assemble")


def separable(channels: int, size: int) -> Builder:
    """Depthwise and pointwise convolutions in turn: few weights, then many."""
    net = Builder(2)
    x = net.input(channels, size, size)
    for _ in range(2):
        x = net.conv(x, channels, (3, 3), pads=(1, 1, 1, 1), groups=channels)
        x = net.conv(x, channels, (1, 1))
    return net


def graph_of(net: Builder) -> QuantGraph:
    return net.build(net.nodes[-1].output)


def turns_of(graph: QuantGraph, grid: GridConfig) -> tuple[Turn, ...]:
    stages = Stages(None, grid, nouns={"graph": None, "quantised": graph})
    return run_passes(stages, "schedule")["schedule"].turns


def packets_of(graph: QuantGraph, grid: GridConfig) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return the labels of turns, and the numbers of those that share packets."""
    turns = turns_of(graph, grid)
    return [turn.label for turn in turns], shared_packets(turns, grid)


def pointwise(*channels: int) -> Builder:
    """Pointwise convolutions on 2x2 pixels: many weights, little work."""
    net = Builder(3)
    x = net.input(channels[0], 2, 2)
    for maps in channels[1:]:
        x = net.conv(x, maps, (1, 1))
    return net


def deep() -> Builder:
    """Much work, then many weights."""
    net = Builder(4)
    x = net.input(64, 16, 16)
    for maps, kernel, stride in ((64, 3, 1), (64, 3, 1), (128, 1, 8), (256, 1, 1), (256, 1, 1)):
        pads = (kernel // 2,) * 4
        x = net.conv(x, maps, (kernel, kernel), (stride, stride), pads=pads)
    return net


def test_many_weights_come_as_one_packet_that_is_sent_as_soon_as_can_be() -> None:
    graph = graph_of(deep())
    labels, packets = packets_of(graph, VIRTEX6)
    assert labels == [f"conv{number}/pass0" for number in range(5)]
    assert packets == [(0,), (1, 2, 3, 4)]
    assert weights_sent(turns_of(graph, VIRTEX6), packets, VIRTEX6) == [2] * 5
    origins = [name for _, name in compile_graph(graph, VIRTEX6).origins]
    reads = [name for name in origins if name.endswith("column0/READ_WEIGHTS")]
    assert reads == ["conv0/pass0/column0/READ_WEIGHTS", "conv1/pass0/column0/READ_WEIGHTS"]
    assert origins.index(reads[1]) < origins.index("conv1/pass0/fence")


@pytest.mark.parametrize(("channels", "grid"), [(128, VIRTEX6), (16, TINY)])
def test_turns_share_no_packet_where_the_bus_is_late_or_weights_are_few(channels, grid) -> None:
    labels, packets = packets_of(graph_of(separable(channels, 6)), grid)
    assert packets == [(number,) for number in range(len(labels))]


def test_many_weights_go_before_the_fence_of_the_turn_before_the_last() -> None:
    turns = turns_of(graph_of(separable(128, 6)), VIRTEX6)
    labels, packets = [turn.label for turn in turns], shared_packets(turns, VIRTEX6)
    fenced, many = labels.index("conv2/pass0"), labels.index("conv3/pass0")
    assert many == fenced + 2 and turns[fenced].fence and turns[many].weights_bound
    assert weights_sent(turns, packets, VIRTEX6)[fenced] == many + 1


def test_small_packets_do_not_keep_a_large_one_back_while_the_bus_is_ahead() -> None:
    net = Builder(4)
    x = net.input(64, 16, 16)
    for maps, kernel, stride in ((64, 3, 1), (16, 1, 1), (16, 1, 1), (64, 1, 8), (512, 1, 1)):
        pads = (kernel // 2,) * 4
        x = net.conv(x, maps, (kernel, kernel), (stride, stride), pads=pads)
    turns = turns_of(graph_of(net), VIRTEX6)
    assert len(turns) == 5 and turns[4].weights_bound
    each = [(number,) for number in range(5)]
    assert weights_sent(turns, each, VIRTEX6)[1] == 5  # at the first fence, two places notwithstanding
    late = [dataclasses.replace(turns[0], chain=turns[4].chain, pieces=turns[4].pieces), *turns[1:]]
    assert weights_sent(late, each, VIRTEX6)[1] == 4


def test_a_packet_has_parameters_for_half_a_ring_so_that_the_next_finds_room() -> None:
    graph = graph_of(deep())
    beats = [conv_shape(t.chain, t.pieces[0]).lead_beats(VIRTEX6) for t in turns_of(graph, VIRTEX6)]
    blocks = 2 * sum(beats[1:4]) // PARAMETER_BEATS
    small = dataclasses.replace(VIRTEX6, name="small", weight_blocks=blocks)
    assert packets_of(graph, small)[1] == [(0,), (1, 2, 3), (4,)]


def test_turns_with_weights_of_other_ports_share_no_packet() -> None:
    """Rows in two columns: one port serves both."""
    turns = turns_of(graph_of(deep()), VIRTEX6)
    first, second, *others = turns[3].pieces
    second = dataclasses.replace(second, out=second.out._replace(maps=first.out.maps))
    changed = list(turns)
    changed[3] = dataclasses.replace(turns[3], pieces=(first, second, *others))
    assert sources(turns[3], VIRTEX6) == ((0, 0), (1, 1), (2, 2), (3, 3))
    assert sources(changed[3], VIRTEX6) == ((0, 0), (1, 0), (2, 2), (3, 3))
    assert shared_packets(changed, VIRTEX6) == [(0,), (1, 2), (3,), (4,)]


def test_weights_of_many_turns_are_in_no_shared_packet() -> None:
    turns = turns_of(graph_of(deep()), VIRTEX6)
    assert shared_packets([*turns, turns[3]], VIRTEX6) == [(0,), (1, 2, 3, 4, 5)]
    thrice = [*turns, turns[3], turns[3]]
    assert shared_packets(thrice, VIRTEX6) == [(0,), (1, 2), (3,), (4,), (5,), (6,)]


def test_with_one_place_in_its_queue_no_packet_goes_ahead() -> None:
    grid = dataclasses.replace(VIRTEX6, name="short", config_queue=1)
    turns = turns_of(graph_of(separable(128, 6)), grid)
    packets = shared_packets(turns, grid)
    assert weights_sent(turns, packets, grid) == list(range(1, len(turns) + 1))


def test_weights_wait_in_the_rings_as_far_as_these_have_room() -> None:
    rings = WeightRings(dataclasses.replace(TINY, weight_words=64, weight_blocks=2, bus_words=4))
    assert rings.has_room(6, 24 + 64)
    assert not rings.has_room(7, 28 + 64) and not rings.has_room(6, 24 + 68)
    rings.put(4, np.zeros(16 + 40, np.int16), 0)
    assert rings.has_room(2, 8 + 24)
    assert not rings.has_room(3, 12) and not rings.has_room(0, 28)


def test_passes_take_their_part_of_a_packet_in_turn() -> None:
    rings = WeightRings(TINY)
    packet = np.arange(3 * 4 + 40, dtype=np.int16)
    rings.put(3, packet, 0)
    for first, second in (((0, 4), (12, 28)), ((4, 12), (28, 52))):
        taken = rings.take(first[1] - first[0], second[1] - second[0])
        np.testing.assert_array_equal(taken[0], packet[slice(*first)])
        np.testing.assert_array_equal(taken[1], packet[slice(*second)])
    assert not rings.left
    rings.put(3, packet, 0)
    with pytest.raises(DeviceFault, match=r"12 \+ 40 words left, not 4 \+ 44"):
        rings.take(4, 44)
    with pytest.raises(DeviceFault, match="deadlock"):
        rings.put(PARAMETER_BEATS * TINY.weight_blocks + 1, packet, 0)


def test_a_program_that_counts_on_more_room_than_there_is_is_refused() -> None:
    """The machine would wait for ever."""
    net = separable(128, 6)
    graph = graph_of(net)
    program, words = compile_graph(graph, VIRTEX6), net.words(1)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])
    (at,) = (word for word, name in program.origins if name == "conv2/pass0/column0/CONV_WEIGHTS")
    code = np.frombuffer(program.device, "<u4").copy()
    fields = CONV_WEIGHTS.unpack(code[at + 1 : at + 2])
    code[at + 1 : at + 2] = CONV_WEIGHTS.pack(**fields | {"lead": 3 * VIRTEX6.weight_blocks + 1})
    with pytest.raises(DeviceFault, match="deadlock"):
        device.run(dataclasses.replace(program, device=code.tobytes()), words)


def test_a_packet_for_several_columns_lets_those_of_their_own_ports_go_first() -> None:
    """The port of column 0 has no place until the weights of columns 1 and 2 are there."""
    net = Builder(5)
    x = net.input(4, 21, 9)
    a = net.conv(x, 2, (7, 7), pads=(3, 3, 3, 3))
    b = net.conv(x, 2, (3, 3), pads=(1, 1, 1, 1))
    y = net.conv(net.alu("add", b, a, shift_a=1, shift=1), 10, (1, 3), (2, 2), pads=(0, 1, 0, 0))
    y = net.conv(net.conv(y, 2, (1, 3), (2, 2)), 4, (3, 1), (1, 2), pads=(1, 0, 0, 0))
    net.dense(y, 12)
    graph = graph_of(net)
    program, words = compile_graph(graph, VIRTEX6), net.words(1)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])


@pytest.mark.parametrize("early", [False, True])
def test_a_packet_that_is_still_coming_keeps_its_place(
    early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two turns' weights are more than the ring holds: the packet of three has not passed when two of
    its turns are yet to be sent, so that the one after the next finds no place."""
    net = pointwise(20, 20, 20, 20, 20, 20, 20)
    graph = graph_of(net)
    packets = [(0,), (1, 2, 3), (4,), (5,)]
    monkeypatch.setattr(weights, "shared_packets", lambda turns, grid: packets)
    sent = [1, 2, 4, 4, 4, 4] if early else [1, 2, 2, 2, 3, 4]
    monkeypatch.setattr(assemble, "weights_sent", lambda *_: sent)
    program, words = compile_graph(graph, TINY), net.words(1)
    if early:
        with pytest.raises(DeviceFault, match="deadlock"):
            device.run(program, words)
    else:
        got = device.run(program, words).outputs[graph.outputs[0]]
        np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])


@pytest.mark.parametrize("queue", [1, 2])
def test_rtl_takes_a_packet_longer_than_its_ring(
    queue: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = pointwise(20, 20, 20, 20, 20)
    grid = dataclasses.replace(TINY, name=f"queue{queue}", config_queue=queue)
    graph = graph_of(net)
    monkeypatch.setattr(weights, "shared_packets", lambda *_: [(0,), (1, 2, 3)])
    program, words = compile_graph(graph, grid), net.words(1)
    (at,) = (at for at, name in program.origins if name == "conv1/pass0/column0/READ_WEIGHTS")
    code = np.frombuffer(program.device, "<u4")
    assert READ.unpack(code[at + 1 : at + 1 + READ.words])["run"] > 2 * grid.weight_words
    equal_in_rtl(program, graph, words)


def equal_in_rtl(program: Program, graph: QuantGraph, words: dict[str, Words]) -> None:
    got = rtl.run(program, words)
    np.testing.assert_array_equal(
        got.outputs[graph.outputs[0]], evaluate(graph, words)[graph.outputs[0]]
    )
    assert got.stats["cycles"] == judge.simulate(program, 1).cycles


def test_rtl_takes_weights_ahead() -> None:
    net = separable(16, 2)
    graph = graph_of(net)
    turns = turns_of(graph, TINY)
    ahead = weights_sent(turns, shared_packets(turns, TINY), TINY)
    assert any(end > n + 2 and turns[n].fence for n, end in enumerate(ahead))
    equal_in_rtl(compile_graph(graph, TINY), graph, net.words(1))


def test_weights_ahead_gain_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(separable(128, 6))
    ahead = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    monkeypatch.setattr(assemble, "weights_sent", lambda turns, *_: range(1, len(turns) + 1))
    assert ahead < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 400


def test_shared_packets_gain_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(deep())
    shared = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    monkeypatch.setattr(weights, "shared_packets", lambda turns, _: [(n,) for n in range(len(turns))])
    assert shared < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 1000
