"""Convolutions of any form over small images: golden == the interpreter of the device section.

Small images are where padding, strides and kernels meet in every way: half of a kernel outside, one
output row, a stride beyond the image. Random networks (``test_random_layers.py``) seldom get there.
"""

from __future__ import annotations

import numpy as np
import pytest

from neuflow.compiler import compile_graph
from neuflow.errors import CompileError
from neuflow.grid import TINY, VIRTEX6, GridConfig
from neuflow.run import device, golden
from tests.quantgraphs import Builder

CASES, PARTS = 500, 2


def convolution(rng: np.random.Generator) -> tuple[Builder, str]:
    """Draw a convolution that gives at least one position, some of its kernels zero."""
    while True:
        channels, height, width = rng.integers(1, (7, 10, 10))
        kernel, dilation = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
        stride = rng.integers(1, 5, 2) if rng.random() < 0.3 else rng.integers(1, 5, 1).repeat(2)
        pads = rng.integers(0, 5, 4)
        reach = (kernel - 1) * dilation
        if height + pads[0] + pads[2] > reach[0] and width + pads[1] + pads[3] > reach[1]:
            break
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    groups = int(rng.choice(divisors)) if rng.random() < 0.3 else 1
    net = Builder(int(rng.integers(1 << 31)))
    forms = (tuple(map(int, form)) for form in (kernel, stride, dilation, pads))
    x = net.input(int(channels), int(height), int(width))
    y = net.conv(x, groups * int(rng.integers(1, 7)), *forms, groups)
    weight = net.nodes[-1].attrs["weight"]
    weight[rng.random(weight.shape[:2]) < rng.choice([0, 0.5], p=[0.7, 0.3])] = 0
    return net, y


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("grid", (TINY, VIRTEX6), ids=lambda grid: grid.name)
def test_golden_is_what_the_device_section_computes(grid: GridConfig, part: int) -> None:
    computed = 0
    for number in range(part, CASES, PARTS):
        rng = np.random.default_rng([*grid.name.encode(), number])
        net, y = convolution(rng)
        batch = int(rng.integers(1, 4))
        try:
            program = compile_graph(net.build(y), grid, batch)
        except CompileError:  # too large for this grid
            continue
        words = net.words(batch)
        want, found = golden.run(program, words).outputs, device.run(program, words).outputs
        assert np.array_equal(found[y], want[y]), f"{grid.name} {number}: {net.nodes[0]}"
        computed += 1
    assert computed > 0.9 * CASES / PARTS
