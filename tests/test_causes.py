# amaranth: UnusedElaboratable=no
"""Every MAC-cycle has one cause: sums, counters against activity, counters against the program."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

import neuflow
from examples import digits
from neuflow import api, listing
from neuflow.blocks.array import column_cause
from neuflow.blocks.convolver import FLAGS
from neuflow.compiler import compile_graph
from neuflow.cycle.machine import LATE
from neuflow.grid import TINY
from neuflow.ir import Program
from neuflow.layout import FLAG_BITS, MAC_CAUSES, Cause
from neuflow.run import frames, rtl, stats
from tests.quantgraphs import Builder
from tests.random_graphs import RandomGraph

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

def test_the_first_cause_that_holds_counts():
    m = Module()
    did = {name: Signal(name=name) for name in FLAGS}
    cause = column_cause(m, did)

    async def all_cases(ctx):
        states = ("tap", "wait_rows", "wait_weights", "wait_drain", "idle")
        others = ("fill", "configured", "drain_configured", "held")
        for state, values in itertools.product(states, itertools.product((0, 1), repeat=len(others))):
            case = dict.fromkeys(states, 0) | {state: 1} | dict(zip(others, values, strict=True))
            for name, value in case.items():
                ctx.set(did[name], value)
            await ctx.delay(1e-9)
            drain = Cause.WAIT_OUTPUT if case["held"] else Cause.OUTPUT_DRAIN
            wanted = {
                "tap": Cause.USEFUL,
                "wait_rows": Cause.FILL if case["fill"] else Cause.WAIT_INPUT,
                "wait_weights": Cause.WEIGHT_LOAD,
                "wait_drain": drain,
                "idle": Cause.FILL if case["configured"]
                else drain if case["drain_configured"] else Cause.IDLE_TILE,
            }  # fmt: skip
            assert ctx.get(cause) == wanted[state], case

    sim = Simulator(m)
    sim.add_testbench(all_cases)
    sim.run()


def check(program: Program, words: dict, seed: int | None = None) -> np.ndarray:
    """Run on the RTL; hold its counters against all that says the same; return the causes."""
    images = frames.image_count(program, words)
    _, run = rtl.simulate(program, words, seed=seed)
    found = np.array(run.causes)
    assert found.sum() == program.grid.macs * run.cycles
    # The harness has watched every cycle itself.
    seen = np.array(run.timeline)[:, :, FLAG_BITS:].sum(axis=(0, 1))
    seen[Cause.IDLE_TILE] -= LATE * program.grid.macs
    assert (seen == found).all()
    # What the taps do is known beforehand.
    planned = listing.frame_macs(program)
    passes = frames.frame_count(program, images)
    assert [found[cause] for cause in MAC_CAUSES] == [passes * n for n in planned.values()]
    # Layer by layer.
    split = stats.layer_causes(program, images, run)
    took = np.array(stats.layer_cycles(program, images, run))
    assert (split >= 0).all() and (split.sum(axis=0) == found).all()
    assert (split.sum(axis=1) == program.grid.macs * took).all()
    return found


@pytest.mark.rtl
@pytest.mark.parametrize("model", ["a", "b", "c"])
def test_useful_macs_of_a_lenet_are_the_nominal_ones(model: str) -> None:
    data = digits.load({"a": 28, "b": 32, "c": 32}[model])
    made = neuflow.compile(
        EXAMPLES / f"lenet5_{model}.onnx", grid="tiny", calib=data.train_x[:16], batch=2
    ).ir
    words = api.quantise_inputs(made, data.test_x[:3])
    found = check(made, words)
    assert found[Cause.USEFUL] == 4 * sum(layer.macs for layer in made.layers)  # two passes of two


@pytest.mark.rtl
@pytest.mark.parametrize("seed", [None, 3])
def test_maps_and_lanes_that_are_not_there_are_told_apart(seed: int | None) -> None:
    # 3 maps on 2 lanes; 6 rows of 6, which end in the middle of a group of 5.
    net = Builder(1)
    output = net.conv(net.input(2, 8, 8), 3, (3, 3))
    program = compile_graph(net.build(output), TINY)
    found = check(program, net.words(1), seed)
    assert found[Cause.USEFUL] == sum(layer.macs for layer in program.layers)
    assert found[Cause.MAP_REMAINDER] and found[Cause.EDGE_LANES]


@pytest.mark.rtl
@pytest.mark.parametrize("kind", ["by_block", "by_tap", "gather"])
def test_lanes_that_multiply_zeros_are_not_useful(kind: str) -> None:
    net = Builder(2)
    if kind == "by_block":  # depthwise: two channels a block, each read by one of its maps
        output = net.conv(net.input(6, 7, 8), 6, (3, 3), groups=6)
    else:  # each map reads two channels of six; a row of three taps in two steps of two lanes, or
        # one of five in two steps and a half
        width, kernel_x = (10, 3) if kind == "by_tap" else (12, 5)
        output = net.conv(net.input(6, 9, width), 4, (3, kernel_x))
        for n, weight in enumerate(net.nodes[-1].attrs["weight"]):
            weight[[k for k in range(6) if k not in (n, (n + 3) % 6)]] = 0
    program = compile_graph(net.build(output), TINY)
    assert any(fields[kind] for _, fields in listing.array_packets(program.device))
    found = check(program, net.words(1))
    assert found[Cause.USEFUL] == sum(layer.macs for layer in program.layers)
    assert found[Cause.MAP_REMAINDER]


@pytest.mark.rtl
@pytest.mark.parametrize("number", range(8))
def test_random_programs(number: int) -> None:
    made = RandomGraph(number)
    program = compile_graph(made.net.build(*made.outputs), TINY)
    assert check(program, made.net.words(2))[Cause.CONFIGURATION]
