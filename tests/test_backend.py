"""The back end through the interpreter of the device section: every result equals the reference."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace

import numpy as np
import pytest

from neuflow.compiler import PASSES, Stages, compile_graph, run_passes
from neuflow.compiler.allocate import Buffer, pack
from neuflow.compiler.assemble import assemble
from neuflow.compiler.assign import assign
from neuflow.compiler.cut import Cut, part_lists
from neuflow.compiler.descriptors import descriptor
from neuflow.compiler.fuse import fuse
from neuflow.compiler.geometry import conv_shape, read_channels
from neuflow.compiler.mapping import Part, Span
from neuflow.compiler.order import blocks_of_like
from neuflow.compiler.schedule import schedule
from neuflow.errors import CompileError
from neuflow.grid import ASIC45, CNP, FIG2, TINY, VIRTEX6, VIRTEX6_WIDE, GridConfig
from neuflow.layout import Scatter
from neuflow.run import device, golden
from tests import grids
from tests.quantgraphs import Builder, evaluate, lenet
from tests.random_graphs import RandomBranches, RandomGraph, RandomTable

LONE = replace(TINY, name="lone", columns=1, fifo_tiles=0, config_queue=1)
SHORT_QUEUE = replace(TINY, name="short_queue", config_queue=1)
GRIDS = (TINY, VIRTEX6, LONE, SHORT_QUEUE, CNP, FIG2)


def check(net: Builder, grid: GridConfig, batch: int = 1, images: int | None = None, outputs=()):
    """Compile, run, compare every word; return the program."""
    graph = net.build(*(outputs or (net.nodes[-1].output,)))
    program = compile_graph(graph, grid, batch)
    words = net.words(images or batch)
    got, want = device.run(program, words).outputs, evaluate(graph, words)
    for name in graph.outputs:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    return program


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", "abc")
@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
@pytest.mark.parametrize("batch", (1, 16))
def test_lenet_equals_the_reference(kind, grid, batch):
    net = lenet(kind)
    program = check(net, grid, batch)
    words = net.words(1)
    assert golden.run(program, words).outputs.keys() == {net.nodes[-1].output}


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_graphs_equal_the_reference(grid, first):
    for seed in range(first, first + 20):
        case = RandomGraph(seed)
        check(case.net, grid, batch=1 + seed % 3, images=1 + seed % 5, outputs=case.outputs)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_branches_equal_the_reference(grid, first):
    for seed in range(first, first + 20):
        print("seed", seed)
        case = RandomBranches(seed)
        check(case.net, grid, batch=1 + seed % 3, images=1 + seed % 5, outputs=case.outputs)
        graph, words = case.net.build(*case.outputs), case.net.words(2)
        want = evaluate(graph, words)
        for name, got in golden.run(graph, words).outputs.items():
            np.testing.assert_array_equal(got, want[name])


OCTET, VECTOR = grids.GRIDS["octet"], grids.GRIDS["vector"]


@pytest.mark.parametrize("grid", [TINY, VIRTEX6, OCTET, VECTOR], ids=lambda grid: grid.name)
def test_random_tables_equal_the_reference(grid):
    by_tap = 0
    for seed in range(30):
        print("seed", seed)
        case = RandomTable(seed)
        program = check(case.net, grid, batch=1 + seed % 3, images=1 + seed % 4, outputs=case.outputs)
        by_tap += " by tap" in program.mapping
    assert by_tap >= 2


def test_a_large_table_goes_by_tap_in_one_pass():
    net = Builder(18)
    net.table(net.input(48, 24, 40), 64, (9, 9), 8)
    program = check(net, VIRTEX6)
    passes = re.findall(r"(\d+) passes", program.mapping)
    assert " by tap" in program.mapping and passes == ["1"]
    # With maps that fill their blocks, nothing is to be gained.
    full = Builder(18)
    full.conv(full.input(8, 24, 40), 64, (9, 9))
    assert " by tap" not in check(full, VIRTEX6).mapping


def sparse(net: Builder, x: str, channels: set[int]) -> str:
    """A convolution whose maps read none but ``channels``."""
    y = net.conv(x, 5, (3, 3), pads=(1, 1, 1, 1))
    weight = net.nodes[-1].attrs["weight"]
    weight[:, [c for c in range(weight.shape[1]) if c not in channels]] = 0
    return y


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_channels_that_no_map_reads_are_not_fetched(grid):
    net = Builder(21)
    sparse(net, net.input(6, 9, 11), {2, 4})
    found = re.findall(r"channels (\d+\.\.\d+) taps", check(net, grid).mapping)
    assert set(found) <= {"2..4", "2..3", "4..4"} and found


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("kind", ["mul", "sub"])
def test_maps_that_nobody_reads_are_not_made(grid, kind):
    """Of a square, and of a difference (which one column alone makes whole, in its convolver)."""
    net = Builder(22)
    x = net.input(6, 9, 11)
    made = net.alu(kind, x, x if kind == "mul" else net.relu(x))
    y = sparse(net, made, {1, 2})
    program = check(net, grid)
    if grid.columns > 1 or kind == "mul":
        own = program.mapping[: program.mapping.index(f"\n{net.nodes[-1].name}:")]
        lines = [line for line in own.splitlines() if " pass " in line and "channels" not in line]
        assert any(re.search(r"maps 1\.\.2|maps 1\.\.1", line) for line in lines)
    # Who reads all of it gets all of it.
    check(net, grid, outputs=(made, y))


def test_a_ramp_whose_pieces_do_not_fit_is_not_tried():
    """Its cost was asked for, with an input of a piece that finds no room."""
    case = RandomTable(41)
    check(case.net, VECTOR, outputs=case.outputs)


def dense_block(net: Builder, layers: int) -> str:
    """A chain of concats, as in DenseNet: every layer reads all before it and adds 3 maps."""
    x = net.conv(net.input(3, 6, 7), 4, (3, 3), pads=(1, 1, 1, 1))
    for _ in range(layers):
        x = net.concat(x, net.relu(net.conv(x, 3, (3, 3), pads=(1, 1, 1, 1))))
    return x


@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_a_dense_block_lies_in_memory_once_and_takes_no_copy(grid):
    net = Builder(20)
    net.conv(dense_block(net, 5), 2, (1, 1))
    program = check(net, replace(grid, scratchpad_words=0), batch=2)
    assert [layer.operator for layer in program.layers] == ["conv", *["conv+map"] * 5, "conv"]
    record = -(-(4 + 5 * 3) * 7 // grid.bus_words) * grid.bus_words
    assert program.work_words >= 2 * 6 * record  # two images of the last concat
    if grid is VIRTEX6:  # no sums there
        assert program.work_words == 2 * 6 * record


def test_siblings_of_a_concat_need_no_fence_and_its_reader_one():
    net = Builder(21)
    x = net.input(2, 6, 6)
    parts = [net.conv(x, 4, (3, 3)) for _ in range(3)]
    net.conv(net.concat(*parts), 2, (1, 1))
    graph = net.build(net.nodes[-1].output)
    turns = schedule(assign(graph, VIRTEX6, 1), VIRTEX6).turns
    assert [bool(turn.fence) for turn in turns] == [False, False, False, True]


def branches(net: Builder) -> tuple[str, str, str]:
    """A 1x1 and two reducing convolutions of one tensor, as in GoogLeNet; two of 3x3 behind these."""
    x = net.conv(net.input(3, 7, 9), 6, (3, 3), pads=(1, 1, 1, 1))
    small = [net.relu(net.conv(x, maps, (1, 1))) for maps in (5, 7)]
    behind = [net.conv(y, 3, (3, 3), pads=(1, 1, 1, 1)) for y in small]
    return net.conv(x, 4, (1, 1)), *behind


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_convolutions_that_read_one_tensor_alike_are_one_layer(grid):
    net = Builder(24)
    outputs = branches(net)
    program = check(net, grid, batch=2, outputs=outputs)
    _, one, other, *alone = (node.name for node in net.nodes if node.op == "conv")
    names = [layer.name for layer in program.layers]
    assert f"{one}+{other}" in names and not {one, other} & set(names)
    assert set(alone) <= set(names)


def test_what_others_than_convolutions_read_is_made_alone():
    """A pool behind one goes with it; an output of the model, or a part of a concat, is itself."""
    for kind in ("pool", "output", "concat"):
        net = Builder(24)
        x = net.input(3, 7, 9)
        a, b = (net.relu(net.conv(x, maps, (1, 1))) for maps in (5, 7))
        y = net.conv(b, 2, (1, 1))
        if kind == "pool":
            outputs = net.pool(a, "max", (2, 2), (2, 2)), y
        elif kind == "output":
            outputs = a, net.conv(a, 2, (1, 1)), y
        else:
            outputs = net.conv(net.concat(a, x), 2, (1, 1)), y
        program = check(net, VIRTEX6, outputs=outputs)
        assert not any("+conv" in layer.name for layer in program.layers)


def test_zero_kernels_are_not_paid_for():
    """Maps 4k to 4k + 3 read channels 4k to 4k + 3 alone: a quarter of the work."""
    nets = []
    for sparse in (False, True):
        net = Builder(22)
        net.conv(net.input(16, 20, 20), 16, (5, 5))
        if sparse:
            block = np.kron(np.eye(4, dtype=np.int64), np.ones((4, 4), np.int64))
            net.nodes[-1].attrs["weight"][block == 0] = 0
        check(net, VIRTEX6)
        (assignment,) = assign(net.build("conv0.out"), VIRTEX6, 1).assignments
        nets.append(assignment)
    assert nets[1].cycles < 0.45 * nets[0].cycles  # the start takes as long
    chain = nets[1].chain
    for piece in (piece for one in nets[1].passes for piece in one.pieces):
        read = read_channels(chain, piece.out.maps, piece.part) or range(piece.part.channels.size)
        assert {piece.part.channels.lo + k for k in read} == set(range(*piece.out.maps))


def test_partial_sums_and_an_operand_share_the_operand_line():
    net = Builder(23)
    x = net.input(300, 3, 3)
    y = net.conv(x, 300, (3, 3), pads=(1, 1, 1, 1))
    net.alu("sub", x, y)  # the stream is b
    for grid in (TINY, LONE):
        program = check(net, grid)
        want = ["conv+alu"] if grid is TINY else ["conv", "conv+alu"]
        assert [layer.operator for layer in program.layers] == want


@pytest.mark.parametrize("op", ("add", "sub", "mul", "div", "max", "min"))
def test_operand_from_memory_joins_a_convolution_or_a_neighbour(op):
    net = Builder(3)
    x = net.input(6, 9, 11)
    y = net.conv(x, 6, (3, 3), pads=(1, 1, 1, 1))
    left = net.alu(op, y, x, shift_a=1, shift_b=2, shift=2)
    right = net.alu(op, x, left, shift=1)
    program = check(net, TINY, batch=2, outputs=(left, right))
    assert [layer.operator for layer in program.layers] == ["conv+alu", "alu"]


def test_both_orders_of_map_and_pool_are_one_pass():
    for order in ("map pool", "pool map", "alu map pool", "map alu pool"):
        net = Builder(4)
        x = net.conv(net.input(3, 10, 12), 4, (3, 3))
        for op in order.split():
            if op == "map":
                x = net.odd_map(x)
            else:
                x = net.alu("abs", x) if op == "alu" else net.pool(x, "sum", (2, 2), (2, 2))
        program = check(net, VIRTEX6)
        assert len(program.layers) == 1


def test_a_tensor_with_two_readers_is_not_fused_away():
    net = Builder(5)
    y = net.conv(net.input(2, 6, 6), 3, (3, 3))
    z = net.alu("add", net.relu(y), net.alu("square", y, shift=8))
    program = check(net, TINY, outputs=(z,))
    assert len(program.layers) == 3


def test_memory_is_reused_and_stays_right():
    net = Builder(6)
    x = net.input(4, 8, 8)
    for _ in range(6):
        x = net.conv(x, 4, (3, 3), pads=(1, 1, 1, 1))
    program = check(net, TINY, images=3)
    assert program.work_words <= 2 * 8 * 4 * 8


# --- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "shape", "maps", "kernel", "options"),
    [
        (TINY, (1, 70, 75), 2, (70, 65), {}),  # kernel fields, weights
        (VIRTEX6, (1, 72, 75), 3, (70, 65), {}),
        (TINY, (1, 310, 20), 2, (2, 2), {"dilation": (300, 5)}),  # dilation field
        (TINY, (3, 40, 40), 4, (16, 16), {"stride": (17, 17)}),  # stride field
        (TINY, (3, 6, 300), 4, (3, 3), {"pads": (1, 1, 1, 1)}),  # reorder buffer, rows
        (TINY, (600, 3, 3), 4, (3, 3), {"pads": (1, 1, 1, 1)}),  # channels beyond the row buffer
        (TINY, (2, 30, 30), 3, (20, 20), {}),  # one channel's taps beyond the weight buffer
        (TINY, (20, 12, 12), 50, (5, 5), {}),
        (TINY, (3, 23, 29), 5, (3, 5),
         {"stride": (3, 3), "dilation": (2, 3), "pads": (4, 1, 0, 3)}),
        (TINY, (4, 17, 19), 6, (3, 3), {"stride": (2, 3)}),  # unequal strides
        (TINY, (12, 9, 9), 24, (3, 3), {"groups": 12, "pads": (1, 1, 1, 1)}),
    ],
)
def test_layers_beyond_a_buffer_or_field_still_run(grid, shape, maps, kernel, options):
    net = Builder(7)
    net.conv(net.input(*shape), maps, kernel, **options)
    check(net, grid)


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((3, 5, 5), (2, 2), {"stride": (2, 2), "pads": (0, 0, 1, 1)}),
        ((3, 5, 5), (3, 3), {"stride": (2, 2), "pads": (0, 0, 2, 2)}),
        ((2, 1, 4), (1, 2), {"stride": (3, 3), "pads": (0, 0, 0, 3)}),
        ((2, 5, 1), (2, 1), {"stride": (2, 2), "pads": (0, 0, 1, 0)}),
        ((3, 6, 4), (1, 2), {"stride": (3, 3), "dilation": (2, 2), "pads": (2, 0, 0, 3)}),
    ],
)
@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_taps_of_which_the_last_positions_have_one_inside_are_more_than_one(
    grid, shape, kernel, options
):
    """The input ends at the first tap of the last position, as where there is no other tap."""
    net = Builder(9)
    net.conv(net.input(*shape), 5, kernel, **options)
    check(net, grid)


@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
@pytest.mark.parametrize(("width", "stride"), [(8, 2), (9, 2), (9, 3), (10, 3), (11, 3), (13, 4)])
def test_a_strided_tap_reads_whole_rows(grid, width, stride):
    """What lies between its last word and the next row costs less than a burst for every row."""
    net = Builder(9)
    net.conv(net.input(3, 7, width), 5, (1, 1), stride=(stride, stride))
    check(net, grid)
    made = schedule(assign(net.build("conv0.out"), grid, 1), grid)
    shapes = [conv_shape(turn.chain, piece) for turn in made.turns for piece in turn.pieces]
    assert {shape.cols for shape in shapes if shape.every > 1} == {Span(0, width)}


@pytest.mark.parametrize(
    ("grid", "shape", "scatter"),
    [
        (VIRTEX6, (16, 32, 32), Scatter.BOTH_PHASES), (VIRTEX6, (1, 500, 500), Scatter.PHASES),
        (TINY, (2, 7, 6), Scatter.BOTH_PHASES), (TINY, (2, 40, 11), Scatter.PHASES),
    ],
)  # fmt: skip
def test_both_phases_are_stored_at_once_but_in_rings(grid, shape, scatter):
    net = Builder(9)
    net.conv(net.input(*shape), 3, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    check(net, grid)
    made = schedule(assign(net.build("conv0.out"), grid, 1), grid)
    plans = [rows.plan for turn in made.turns for rows in turn.rows]
    assert {plan.scatter for plan in plans} == {scatter}
    assert all((plan.ring_words == 0) == (scatter == Scatter.BOTH_PHASES) for plan in plans)


@pytest.mark.parametrize(
    ("grid", "shape", "scatter"),
    [
        (VIRTEX6, (16, 13, 13), Scatter.ROWS), (VIRTEX6, (16, 13, 16), Scatter.ROW),
        (VIRTEX6, (1, 13, 13), Scatter.ROW), (VIRTEX6, (16, 130, 130), Scatter.ROW),
        (TINY, (4, 5, 5), Scatter.ROWS), (TINY, (4, 30, 5), Scatter.ROW),
    ],
)  # fmt: skip
def test_rows_of_two_channels_are_stored_at_once_where_a_beat_holds_both(grid, shape, scatter):
    net = Builder(9)
    net.conv(net.input(*shape), 3, (3, 3), pads=(1, 1, 1, 1))
    check(net, grid)
    made = schedule(assign(net.build("conv0.out"), grid, 1), grid)
    plans = [rows.plan for turn in made.turns for rows in turn.rows]
    assert {plan.scatter for plan in plans} == {scatter}


@pytest.mark.parametrize("batch", (1, 4, 27))
@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_dense_layers_of_any_size_and_batch(batch, grid):
    net = Builder(8)
    x = net.dense(net.input(50, 4, 4), 37)
    net.dense(net.relu(x), 11)
    check(net, grid, batch)


def test_a_dense_layer_of_more_blocks_than_their_field_holds_is_cut():
    """One column of four maps at once: 4,400 outputs are 1,100 blocks, and the field has ten bits."""
    net = Builder(8)
    net.dense(net.input(3, 1, 1), 4400)
    check(net, CNP)


def test_vectors_of_more_values_than_a_walk_counts_are_cut():
    """Two columns take an image of the batch each: their values lie word beside word."""
    net = Builder(8)
    x = net.input(70_001, 1, 1)
    net.alu("mul", net.alu("add", x, x), net.relu(x))
    check(net, VIRTEX6, batch=2)


@pytest.mark.parametrize(("kind", "grid", "batch"), [("dense", VIRTEX6, 5), ("alu", ASIC45, 2)])
def test_vectors_of_a_batch_are_not_read_value_by_value(kind, grid, batch):
    """They lie image beside image: a column for each image would read words far apart."""
    net = Builder(9)
    x = net.input(7001, 1, 1)
    net.dense(x, 10) if kind == "dense" else net.alu("mul", net.alu("add", x, x), net.relu(x))
    mapping = assign(net.build(net.nodes[-1].output), grid, batch)
    spans = {p.out.cols.size for a in mapping.assignments for one in a.passes for p in one.pieces}
    assert spans == {batch}


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [((3, 64, 48), 16, 16), ((2, 40, 61), 5, 20), ((3, 16, 64), 16, 16), ((2, 70, 17), 17, 17)],
)
@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_strides_beyond_their_field_are_a_divisor_and_a_window(grid, shape, kernel, stride):
    """Those that have none are cut place by place."""
    net = Builder(8)
    net.conv(net.input(*shape), 6, (kernel, kernel), stride=(stride, stride))
    program = check(net, grid, batch=2)
    assert ("pool" in program.layers[0].operator) == (stride != 17)


def test_pools_beyond_the_window_memory_are_cut():
    net = Builder(9)
    x = net.pool(net.input(40, 20, 30), "max", (3, 3), (2, 2), (1, 1, 1, 1))
    net.pool(x, "sum", (10, 15), (1, 1))
    check(net, TINY, batch=2)


FIVE_WAYS = {
    "maps": Cut(maps=2, rounds=2),
    "rows": Cut(rows=2, row_rounds=3),
    "strips": Cut(maps=2, strips=4),
    "sums": Cut(maps=2, parts=tuple(Part(Span(c, c + 2), Span(0, 3), Span(0, 5))
                                    for c in (0, 2, 4))),
    "kept": Cut(maps=2, rounds=2, keep=True),
    "kept sums": Cut(maps=2, rounds=2, keep=True, parts=tuple(
        Part(Span(c, c + 2), Span(0, 3), Span(0, 5)) for c in (0, 2, 4))),
    "taps": Cut(parts=tuple(Part(Span(0, 6), Span(y, y + 1), x)
                            for y in range(3) for x in (Span(0, 2), Span(2, 5)))),
    "all": Cut(maps=2, rows=2, rounds=2, row_rounds=2, strips=3,
               parts=tuple(Part(Span(c, c + 3), Span(0, 3), Span(0, 5)) for c in (0, 3))),
}  # fmt: skip


@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_a_layer_cut_in_any_way_is_the_same_layer(grid):
    net = Builder(10)
    geometry = {"stride": (2, 2), "dilation": (2, 1), "pads": (2, 1, 1, 3)}
    y = net.conv(net.input(6, 15, 17), 8, (3, 5), **geometry)
    net.pool(net.odd_map(y), "max", (2, 2), (2, 2))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    want = evaluate(graph, words)[graph.outputs[0]]
    for name, cut in FIVE_WAYS.items():
        wide = replace(grid, row_words=4096, weight_words=4096, reorder_words=4096,
                       window_words=1024, columns=4)  # fmt: skip
        mapping = assign(graph, wide, 1, {"conv0": cut})
        program = assemble(schedule(mapping, wide), wide, graph)
        got = device.run(program, words).outputs[graph.outputs[0]]
        np.testing.assert_array_equal(got, want, err_msg=name)
    assert len(FIVE_WAYS) >= 5


def test_rows_that_are_kept_are_read_once():
    net = Builder(14)
    net.conv(net.input(4, 9, 9), 16, (3, 3))
    graph = net.build("conv0.out")
    parts = tuple(Part(Span(c, c + 2), Span(0, 3), Span(0, 3)) for c in (0, 2))
    mapping = assign(graph, VIRTEX6, 1, {"conv0": Cut(rounds=4, keep=True, parts=parts)})
    made = schedule(mapping, VIRTEX6)
    assert len(made.turns) == 8 and str(made).count("from the pass before") == 6
    # All sums of a part are open at once.
    assert len({turn.sums[0].base for turn in made.turns[:4]}) == 4


def test_sums_that_the_pass_before_has_just_made_are_waited_for():
    """Rows come behind the fence: a cut whose sums wait for other maps meanwhile is better."""
    net = Builder(14)
    x = net.conv(net.input(8, 14, 14), 512, (1, 1))
    net.conv(x, 512, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    mapping = assign(net.build("conv1.out"), VIRTEX6_WIDE, 1)
    chosen = mapping.assignments[-1]
    assert x in chosen.chain.scratchpad and chosen.reason.endswith("sums, rows kept")


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 40, 30), (3, 3), {"pads": (1, 1, 1, 1)}),
        ((3, 50, 21), (5, 4), {}),
        ((1, 60, 33), (3, 2), {"stride": (2, 2), "pads": (2, 0, 1, 1), "dilation": (2, 1)}),
    ],
)
def test_a_ramp_gives_the_same_layer(shape, kernel, options):
    net = Builder(15)
    net.relu(net.conv(net.input(*shape), 4, kernel, **options))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    want = evaluate(graph, words)[graph.outputs[0]]
    mapping = assign(graph, VIRTEX6, 1, {"conv0": Cut(rows=4, ramp=True)})
    made = schedule(mapping, VIRTEX6)
    # All columns share a reading, but for the large pieces.
    shared = [turn for turn in made.turns if len({piece.box for piece in turn.pieces}) == 1]
    assert [turn.pieces[0].box is None for turn in shared].count(True) == 1
    program = assemble(made, VIRTEX6, graph)
    np.testing.assert_array_equal(device.run(program, words).outputs[graph.outputs[0]], want)


def test_a_large_first_layer_begins_with_small_pieces():
    net = Builder(16)
    net.conv(net.input(4, 200, 200), 4, (9, 9), pads=(4, 4, 4, 4))
    assert "small first and last pieces" in compile_graph(net.build("conv0.out"), VIRTEX6).mapping


def test_a_connection_table_costs_what_its_blocks_read():
    net = Builder(17)
    x = net.conv(net.input(24, 12, 12), 32, (3, 3))
    table = np.zeros((32, 24), bool)
    for n in range(32):  # four maps of each eighth read the same
        table[n, [n % 8, (n % 8 + 8), (n % 8 + 13) % 24]] = True
    net.nodes[-1].attrs["weight"][~table] = 0
    net.conv(net.pool(net.relu(x), "max", (2, 2), (2, 2)), 5, (3, 3))
    mapping = assign(net.build(net.nodes[-1].output), VIRTEX6, 1)
    chain, pieces = mapping.assignments[0].chain, mapping.assignments[0].passes[0].pieces
    assert all(conv_shape(chain, piece).channels_added < 12 for piece in pieces)
    assert len({piece.part for piece in pieces}) == 1  # all listen to one reading
    check(net, VIRTEX6)
    check(net, TINY)


def test_maps_with_like_kernels_are_put_side_by_side():
    kernels = np.zeros((6, 6), bool)
    kernels[[0, 3, 5], :2] = kernels[[1, 2, 4], 3:] = True
    order = blocks_of_like(kernels, 3)
    assert sorted(order[:3]) == [0, 3, 5] and sorted(order[3:]) == [1, 2, 4]


def test_maps_of_layers_behind_each_other_are_put_in_order():
    """The second layer's channels have the order of the first one's maps when its own are sorted."""
    net = Builder(13)
    x = net.input(8, 6, 6)
    for _ in range(3):
        x = net.conv(x, 8, (3, 3), pads=(1, 1, 1, 1))
        weight = net.nodes[-1].attrs["weight"]
        weight[0::2, 4:] = weight[1::2, :4] = 0
    check(net, TINY)
    check(net, VIRTEX6)


def test_the_piece_that_reads_most_decides_whether_a_cut_fits():
    """Strips of one column with two columns of padding: neither of the first two reads all taps."""
    net = Builder(14)
    x = net.input(5, 6, 8)
    net.alu("mul", net.conv(x, 5, (3, 3), dilation=(1, 2), pads=(1, 2, 1, 2)), x, shift=12)
    check(net, grids.GRIDS["least"])


def test_the_maps_that_read_most_decide_whether_a_cut_fits():
    """The third of five blocks of maps reads both channels, the others one: its weights are too many."""
    net = Builder(15)
    net.conv(net.input(2, 4, 2), 10, (4, 2), pads=(2, 0, 1, 1))
    weight = net.nodes[-1].attrs["weight"]
    weight[:4, 1] = weight[6:, 0] = 0
    check(net, replace(LONE, weight_words=16))


def test_a_cut_that_does_not_fit_is_refused_in_one_line():
    net = Builder(11)
    net.conv(net.input(40, 12, 12), 4, (5, 5))
    with pytest.raises(CompileError, match="conv0: .* overflows .*; cut it finer"):
        assign(net.build("conv0.out"), TINY, 1, {"conv0": Cut()})


def test_a_pool_that_cannot_fit_is_refused_in_one_line():
    net = Builder(12)
    net.pool(net.input(1, 300, 3), "max", (300, 1), (1, 1))
    says = "pool0: no way to cut it fits grid 'tiny': a kernel or stride of 300, at most 255; use two"
    with pytest.raises(CompileError, match=says):
        compile_graph(net.build("pool0.out"), TINY)
    net = Builder(12)
    net.pool(net.input(1, 250, 250), "max", (250, 250), (1, 1))
    with pytest.raises(CompileError, match="'tiny'; use a grid with larger buffers"):
        compile_graph(net.build("pool0.out"), TINY)


# --- parts of the walk ------------------------------------------------------------------------


def test_passes_make_one_noun_after_another():
    net = lenet("b")
    graph = net.build(net.nodes[-1].output)
    stages = Stages(None, TINY, nouns={"graph": None, "quantised": graph})
    run_passes(stages, "schedule")
    assert list(stages.nouns) == [noun for noun, _ in PASSES[:-1]]
    assert "loaded ahead" in str(stages["schedule"])
    assert "sums" in str(stages["mapping"])


def test_the_same_graph_gives_the_same_bytes():
    net = lenet("c")
    graph = net.build(net.nodes[-1].output)
    assert compile_graph(graph, TINY, 2).device == compile_graph(graph, TINY, 2).device


def test_every_word_has_an_origin():
    net = lenet("b")
    program = compile_graph(net.build(net.nodes[-1].output), TINY)
    starts = [word for word, _ in program.origins]
    assert starts[0] == 0 and starts == sorted(set(starts))
    names = [name for _, name in program.origins]
    assert "conv0/pass0/column0,1/CONV_ARRAY" in names
    assert any(name.startswith("conv0/weights/maps 0..1") for name in names)


def test_rounds_of_maps_differ_by_one_block_at_most():
    """52 blocks of four maps in three rounds of four columns: 5, 4 and 4 each, not 5, 5 and 3."""
    net = Builder(25)
    net.conv(net.input(2, 6, 6), 208, (3, 3))
    mapping = assign(net.build("conv0.out"), VIRTEX6, 1, {"conv0": Cut(maps=4, rounds=3)})
    sizes = [[p.out.maps.size for p in one.pieces] for one in mapping.assignments[0].passes]
    assert sizes == [[20] * 4, [16] * 4, [16] * 4]


def test_shared_streams_are_read_once():
    """Columns that work on different maps share rows, those on different rows share weights."""
    net = Builder(13)
    net.conv(net.input(2, 8, 8), 16, (3, 3))
    graph = net.build("conv0.out")
    for cut, name in ((Cut(maps=4), "READ_ROWS"), (Cut(rows=4), "READ_WEIGHTS")):
        mapping = assign(graph, VIRTEX6, 1, {"conv0": cut})
        program = assemble(schedule(mapping, VIRTEX6), VIRTEX6, graph)
        assert sum(origin.endswith(name) for _, origin in program.origins) == 1


def test_images_of_a_dense_layer_work_side_by_side():
    """Columns with other images share the weights; each stores its own images only."""
    net = Builder(14)
    net.dense(net.input(5, 3, 3), 7)
    graph, words = net.build("dense0.out"), net.words(10)
    mapping = assign(graph, VIRTEX6, 10, {"dense0": Cut(images=4)})
    (one,) = mapping.assignments[0].passes
    assert [piece.out.cols for piece in one.pieces] == list(Span(0, 10).split(4))
    program = assemble(schedule(mapping, VIRTEX6), VIRTEX6, graph)
    assert sum(origin.endswith("READ_WEIGHTS") for _, origin in program.origins) == 1
    got, want = device.run(program, words).outputs, evaluate(graph, words)
    np.testing.assert_array_equal(got["dense0.out"], want["dense0.out"])


@pytest.mark.parametrize(("queue", "early"), [(2, True), (1, False)])
def test_weights_that_bind_a_layer_load_while_the_one_before_waits(queue, early):
    """With a queue of one they would hold up what the layer before them needs to go on."""
    net = Builder(15)
    x = net.conv(net.input(2, 8, 8), 4, (3, 3))
    net.dense(net.conv(x, 4, (3, 3)), 60)
    program = check(net, replace(VIRTEX6, name=f"queue{queue}", config_queue=queue))
    names = [name for _, name in program.origins]
    weights = next(i for i, n in enumerate(names) if n == "dense2/pass0/column0/READ_WEIGHTS")
    assert names.index("conv0/pass0/column0/READ_ROWS") < names.index("conv1/pass0/fence")
    assert (weights < names.index("conv1/pass0/fence")) == early


def test_the_first_layer_gets_its_weights_before_its_rows():
    """Nothing hides its start; rows, which go first on the bus, would hold its few weights back."""
    net = lenet("b")
    names = [name.split("/")[-1] for _, name in check(net, VIRTEX6).origins]
    assert names.index("READ_WEIGHTS") < names.index("READ_ROWS")


def test_behind_a_fence_rows_come_first():
    """Units are set up while the fence waits; the array then waits for rows."""
    net = lenet("b")
    program = check(net, VIRTEX6)
    names = [name.split("/")[-1] for _, name in program.origins]
    fences = [i for i, name in enumerate(names) if name == "fence"]
    assert len(fences) == 4
    for fence in fences:
        assert names[fence + 1] == "READ_ROWS"
        behind = names[fence : names.index("WRITE", fence)]
        assert {name.rstrip("0123456789") for name in behind} == {"fence", "READ_ROWS", "ROUTER"}


def test_a_pool_bound_by_its_window_unit_takes_all_columns():
    net = Builder(16)
    net.pool(net.input(16, 24, 24), "max", (3, 3), (1, 1), (1, 1, 1, 1))
    mapping = assign(net.build("pool0.out"), VIRTEX6, 1)
    assert [len(one.pieces) for one in mapping.assignments[0].passes] == [4]


def test_of_cuts_that_wait_for_rows_alike_the_one_on_more_columns_is_taken():
    """A short cut that pads maps: its rows take longer to come than their few products."""
    net = Builder(3)
    x = net.conv(net.input(8, 16, 16), 32, (3, 3), pads=(1, 1, 1, 1))
    y = net.conv(x, 64, (1, 1), stride=(2, 2))
    net.nodes[-1].attrs["weight"][:, :, 0, 0] = np.eye(64, 32, dtype=np.int64)
    graph = net.build(net.conv(y, 8, (3, 3)))
    assert assign(graph, VIRTEX6, 1).assignments[1].reason == "columns: 4 maps"


def test_layers_count_work_and_writes():
    net = lenet("b")
    program = compile_graph(net.build(net.nodes[-1].output), VIRTEX6)
    conv = program.layers[0]
    assert (conv.operator, conv.macs) == ("conv+map+pool", 28 * 28 * 25 * 6)
    assert (conv.words, conv.weight_words) == (32 * 32 + 150 + 6 * 14 * 14, 150)
    writes = sum(origin.endswith("WRITE") for _, origin in program.origins)
    assert sum(sum(layer.writes) for layer in program.layers) == writes


def test_a_pool_of_more_rows_than_their_field_holds_is_cut():
    net = Builder(8)
    net.pool(net.input(1, 70_000, 4), "max", (2, 2), (2, 2))
    check(net, CNP)


def test_fences_of_a_large_batch_take_time_by_its_passes_not_their_square(monkeypatch):
    net = lenet("b")
    graph = net.build(net.nodes[-1].output)
    module = importlib.import_module("neuflow.compiler.fences")
    inner, looks = module._conflict, []
    monkeypatch.setattr(module, "_conflict", lambda *uses: looks.append(1) or inner(*uses))
    counts = []
    for batch in (32, 128):
        looks.clear()
        schedule(assign(graph, VIRTEX6, batch), VIRTEX6)
        counts.append(len(looks))
    assert 0 < counts[1] <= 4 * counts[0]


def test_descriptors_merge_what_continues():
    assert descriptor(5, [(4, 24), (3, 8), (8, 1)])["run"] == 96
    walk = descriptor(5, [(4, 30), (3, 8), (8, 1)])
    assert (walk["run"], walk["count0"], walk["step0"]) == (24, 4, 30)
    assert descriptor(0, [(7, 16)]) == {
        "base": 0, "run": 1, "count0": 7, "step0": 16, "count1": 1, "step1": 0, "count2": 1,
        "step2": 0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="4 counts"):
        descriptor(0, [(2, 1000), (2, 100), (2, 10), (2, 3)])


def test_descriptors_merge_only_what_a_field_holds():
    """Images of 12 x 1080 x 1920 words are more than a run has bits for."""
    net = Builder(0)
    net.relu(net.input(12, 1080, 1920))
    compile_graph(net.build(net.nodes[-1].output), CNP)
    walk = descriptor(0, [(1080, 12 * 1920), (12, 1920), (1920, 1)])
    assert (walk["run"], walk["count0"], walk["step0"]) == (1920, 1080 * 12, 1920)
    walk = descriptor(0, [(300, 900), (300, 3), (1, 1)])
    assert (walk["run"], walk["count0"], walk["count1"]) == (1, 300, 300)


def test_buffers_that_live_together_never_overlap():
    rng = np.random.default_rng(1)
    for _ in range(50):
        numbers = rng.integers((1, 0, 0), (99, 9, 4), (12, 3)).tolist()
        buffers = [Buffer(str(i), n, a, a + more) for i, (n, a, more) in enumerate(numbers)]
        offsets, used = pack(buffers, 8)
        for one in buffers:
            assert offsets[one.name] % 8 == 0 and offsets[one.name] + one.size <= used
            for other in buffers:
                meet = one.first <= other.last and other.first <= one.last and one is not other
                apart = (
                    offsets[one.name] + one.size <= offsets[other.name]
                    or offsets[other.name] + other.size <= offsets[one.name]
                )
                assert apart or not meet


def test_parts_of_a_sum_cover_every_product_once():
    net = Builder(14)
    net.conv(net.input(5, 9, 9), 2, (3, 4))
    net.dense("conv0.out", 3)
    for chain in fuse(net.build("dense1.out"), 1).chains:
        channels = 5 if chain.name == "conv0" else chain.source_shape[0] * 7 * 6
        kernel = (3, 4) if chain.name == "conv0" else (1, 1)
        for parts in part_lists(chain):
            seen = np.zeros((channels, *kernel), int)
            for part in parts:
                box = tuple(slice(span.lo, span.hi) for span in part)
                seen[box] += 1
            assert (seen == 1).all()
