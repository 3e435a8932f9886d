"""Random layers under random memories: cycle == rtl in all that is measured, words == golden.

``make test`` draws 20 networks on each of two grids whose simulators other tests build anyway;
``make nightly`` draws 125 on each of the eight grids of ``tests/grids.py``. A case is named by its
grid and number and is the same in every run.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuflow.compiler import compile_graph
from neuflow.cycle import judge
from neuflow.errors import CompileError
from neuflow.grid import TINY, VIRTEX6, GridConfig, MemoryConfig
from neuflow.ir import Program
from neuflow.run import device, golden, rtl, stats
from tests.grids import GRIDS
from tests.random_graphs import RandomBranches, RandomConv, RandomGraph, RandomTable

NIGHTLY_CASES = 125  # of each grid


@dataclasses.dataclass(frozen=True)
class Case:
    """A compiled network, its words, and the memory it runs with."""

    program: Program
    words: dict[str, np.ndarray]
    memory: MemoryConfig
    seed: int | None
    """Of the bus's random stalls."""


def draw(grid: GridConfig, number: int) -> Case:
    """Return case ``number``; networks that the grid cannot hold are passed over."""
    rng = np.random.default_rng([*grid.name.encode(), number])
    kind = (RandomConv, RandomBranches, RandomGraph, RandomTable)[number % 4]
    batch = int(rng.integers(1, 4))
    while True:
        made = kind(int(rng.integers(1 << 31)))
        try:
            program = compile_graph(made.net.build(*made.outputs), grid, batch)
        except CompileError:
            continue
        seed = number if rng.random() < 0.5 else None
        return Case(program, made.net.words(int(rng.integers(1, 5))), memory(rng), seed)


def memory(rng: np.random.Generator) -> MemoryConfig:
    """Return a memory between one that is at once there and one that hardly answers."""
    cost = int(rng.integers(1, 21))
    return MemoryConfig(
        tokens=int(rng.integers(1, cost + 1)),
        tokens_per_beat=cost,
        shared=bool(rng.random() < 0.5),
        read_latency=int(rng.choice([1, 2, 10, 40, 150])),
        write_latency=int(rng.choice([1, 2, 6, 20, 90])),
        outstanding=int(rng.choice([1, 2, 4, 16])),
    )


def check(grid: GridConfig, number: int) -> None:
    """Run the three judges."""
    case = draw(grid, number)
    program, words = case.program, case.words
    images = len(next(iter(words.values())))
    print(f"{grid.name} {number}: {case.memory}, seed {case.seed}, {images} images")
    outputs, want = rtl.simulate(program, words, case.memory, case.seed)
    got = judge.simulate(program, images, case.memory, case.seed)
    for field in dataclasses.fields(want):
        if field.name != "seconds":
            assert getattr(got, field.name) == getattr(want, field.name), field.name
    short = judge.simulate(program, images, case.memory, case.seed, timeline=False)
    for field in dataclasses.fields(want):
        if field.name not in ("seconds", "timeline", "window_cycles"):
            assert getattr(short, field.name) == getattr(want, field.name), field.name
    for of_layers in (stats.layer_cycles, stats.layer_causes):
        assert np.array_equal(of_layers(program, images, got), of_layers(program, images, want))
    assert sum(stats.layer_cycles(program, images, want)) == want.cycles
    expected = golden.run(program, words).outputs
    values = device.run(program, words).outputs
    for name, wanted in expected.items():
        assert np.array_equal(outputs[name], wanted), f"rtl: {name}"
        assert np.array_equal(values[name], wanted), f"cycle: {name}"


def cases(grids: list[GridConfig], count: int) -> list[object]:
    """Return (grid, number); what needs one simulator stays in one process."""
    return [
        pytest.param(grid, n, id=f"{grid.name}-{n}", marks=pytest.mark.xdist_group(grid.name))
        for grid in grids
        for n in range(count)
    ]


@pytest.mark.rtl
@pytest.mark.parametrize(("grid", "number"), cases([TINY, VIRTEX6], 20))
def test_judges_agree(grid: GridConfig, number: int) -> None:
    check(grid, number)


FOUND = (52, 503, 657, 695)
"""Cases of virtex6 in which words were wrong once."""


@pytest.mark.rtl
@pytest.mark.xdist_group("virtex6")
@pytest.mark.parametrize("number", FOUND)
def test_judges_agree_where_they_did_not(number: int) -> None:
    check(VIRTEX6, number)


@pytest.mark.rtl
@pytest.mark.nightly
@pytest.mark.parametrize(("grid", "number"), cases(list(GRIDS.values()), NIGHTLY_CASES))
def test_judges_agree_on_eight_grids(grid: GridConfig, number: int) -> None:
    check(grid, number)
