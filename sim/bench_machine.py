"""Bench of the whole machine: compiled networks, memory to memory, equal to golden."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from neuflow.compiler import compile_graph
from neuflow.grid import TINY
from neuflow.run import frames, golden, measure
from sim.machine import DONE, MEMORY_BYTES, Machine
from tests.quantgraphs import Builder

WATCHDOG = 5000


def small_network(seed: int) -> tuple[Builder, str]:
    """Return convolution, map, pooling, skip connection and dense layer; and its output."""
    net = Builder(seed)
    x = net.relu(net.conv(net.input(2, 8, 9), 3, (3, 3), pads=(1, 1, 1, 1)))
    y = net.pool(x, "max", (2, 2), (2, 2))
    z = net.odd_map(net.conv(y, 3, (1, 1)))
    total = net.alu("add", y, z, shift_a=1, shift=1)
    return net, net.dense(net.reshape(total, 3 * 4 * 4, 1, 1), 5)


def strided_network(seed: int) -> tuple[Builder, str]:
    """Return a strided, dilated convolution, an average and a product; and its output."""
    net = Builder(seed, bits=8)
    x = net.conv(net.input(3, 11, 10), 5, (3, 2), stride=(2, 2), dilation=(2, 1), pads=(2, 1, 2, 0))
    y = net.pool(x, "sum", (3, 2), (1, 2), pads=(1, 0, 1, 0))
    return net, net.alu("square", y, shift=7)


async def run(dut: Any, network: tuple[Builder, str], images: int, pause: float) -> dict[str, int]:
    """Compile, run ``images`` frames, compare with golden; return the registers."""
    net, output = network
    program = compile_graph(net.build(output), TINY)
    words = net.words(images)
    place = measure.placement(program, images)
    assert place.size <= MEMORY_BYTES
    machine = Machine(dut, pause)
    machine.ram.write(place.program, program.device)
    machine.store(place.inputs, frames.pack(program, words).reshape(-1))

    found = await machine.run(place.program, place.inputs, place.outputs, images, 0, WATCHDOG)
    assert found["STATUS"] == DONE
    assert found["FRAMES_DONE"] == images
    memory = machine.words()[place.outputs // 2 :][: images * program.output_words]
    outputs = frames.unpack(program, memory.reshape(images, -1), images)
    wanted = golden.run(program, words).outputs
    assert set(outputs) == set(wanted)
    for name, expected in wanted.items():
        assert (outputs[name] == expected).all(), name
        assert np.unique(expected).size > 1, f"{name}: nothing to compare"
    return found


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(pause=[0.0, 0.3])
async def small_networks(dut: Any, pause: float) -> None:
    found = await run(dut, small_network(cocotb.RANDOM_SEED), 2, pause)
    # Every multiplier of every cycle has one cause.
    assert sum(measure.causes_of(TINY, found)) == TINY.macs * found["CYCLES"]
    assert found["MAC_CYCLES"] > 0 and found["CONFIG_WORDS"] > 0 and found["READ_BEATS"] > 0


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def strided_networks(dut: Any) -> None:
    await run(dut, strided_network(cocotb.RANDOM_SEED), 3, 0.2)
