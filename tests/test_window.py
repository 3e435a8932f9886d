# amaranth: UnusedElaboratable=no
"""Window reduction against its model, and the model against plain loops."""

from __future__ import annotations

import random

import numpy as np
import pytest

from neuflow.blocks import window_model
from neuflow.blocks.window import Window
from neuflow.blocks.window_model import WindowSpec
from neuflow.layout import Kind, WindowOp
from tests.helpers import PACES, Config, run_unit

MAX, SUM = WindowOp.MAX, WindowOp.SUM


def slow(spec: WindowSpec, x: np.ndarray) -> list[int]:
    """Return the formula of layout.WINDOW with plain loops, in stream order (y, map, x)."""
    maps, height, width = x.shape
    out = []
    for oy in range(spec.out[0]):
        for c in range(maps):
            for ox in range(spec.out[1]):
                rows = range(oy * spec.stride[0] - spec.pad[0], height)[: spec.kernel[0]]
                cols = range(ox * spec.stride[1] - spec.pad[1], width)[: spec.kernel[1]]
                words = [int(x[c, y, k]) for y in rows if y >= 0 for k in cols if k >= 0]
                value = sum(words) if spec.op == SUM else max(words, default=-32768)
                value = ((value * spec.m + (1 << spec.s >> 1)) >> spec.s) + spec.zero
                high = (1 << (spec.bits - 1)) - 1
                out.append(max(-high - 1, min(high, value)))
    return out


def stream(x: np.ndarray) -> list[int]:
    """Return (map, y, x) in the order of the stream: (y, map, x)."""
    return x.transpose(1, 0, 2).ravel().tolist()


def image(shape: tuple[int, int, int], seed: int = 0, ends: bool = False) -> np.ndarray:
    """Return random words, or words at the ends of the range."""
    rng = np.random.default_rng(seed)
    if ends:
        return rng.choice([-32768, 32767], shape)
    return rng.integers(-32768, 32768, shape)


def spec_for(op, shape, kernel, stride, pad=(0, 0), ceil=False, **rest) -> WindowSpec:
    """Return a spec with the usual output size: floor, or ceil with bottom and right padding."""
    out = []
    for have, k, s, p in zip(shape[1:], kernel, stride, pad, strict=True):
        span = have + 2 * p - k
        out.append((-(-span // s) if ceil else span // s) + 1)
    return WindowSpec(op, kernel, stride, pad, tuple(out), **rest)


CASES = [
    # (shape, kernel, stride, pad, ceil)
    ((1, 1, 1), (1, 1), (1, 1), (0, 0), False),
    ((3, 1, 1), (1, 1), (1, 1), (0, 0), False),
    ((1, 1, 7), (1, 3), (1, 2), (0, 1), False),
    ((2, 4, 4), (2, 2), (2, 2), (0, 0), False),
    ((3, 5, 7), (2, 2), (2, 2), (0, 0), False),  # a row and a column that no window covers
    ((3, 6, 6), (3, 3), (2, 2), (0, 0), True),  # windows partly beyond the end
    ((2, 7, 7), (3, 3), (2, 2), (1, 1), False),
    ((2, 5, 6), (3, 3), (1, 1), (1, 1), False),
    ((5, 7, 7), (7, 7), (1, 1), (0, 0), False),
    ((1, 9, 9), (5, 5), (1, 1), (2, 2), False),
    ((1, 6, 11), (2, 3), (4, 5), (0, 0), False),  # gaps between the windows
    ((2, 4, 9), (1, 4), (3, 1), (0, 3), True),
    ((1, 3, 5), (3, 2), (1, 3), (2, 1), False),
]


@pytest.mark.parametrize("op", [MAX, SUM])
def test_model_is_exact(op: WindowOp) -> None:
    for index, (shape, kernel, stride, pad, ceil) in enumerate(CASES):
        for rest in ({}, {"m": 7282, "s": 16, "zero": -5}, {"m": 3, "s": 1, "bits": 8}):
            spec = spec_for(op, shape, kernel, stride, pad, ceil, **rest)
            x = image(shape, index)
            assert stream(window_model.window(spec, x)) == slow(spec, x)


def test_window_of_padding_alone_is_the_smallest_word_or_nothing() -> None:
    x = np.full((1, 2, 2), 5)
    assert window_model.window(WindowSpec(MAX, (1, 1), (2, 2), out=(2, 2)), x)[0].tolist() == [
        [5, -32768],
        [-32768, -32768],
    ]
    assert window_model.window(WindowSpec(SUM, (2, 2), (2, 2), out=(2, 1)), x).ravel().tolist() == [
        20,
        0,
    ]


def run(jobs, lanes=4, depth=2, pauses=(0.0, 0.0), seed=0, words=512):
    """Run packets (spec, input) through the gates; compare with the model."""
    dut = Window(lanes, words, depth)
    configs = []
    for spec, x in jobs:
        need = window_model.memory_words(
            spec.kernel[0], spec.stride[0], spec.out[0], x.shape[0], x.shape[2], lanes
        )
        assert need <= words
        configs.append(Config(Kind.WINDOW, spec.fields(*x.shape)))
    result = run_unit(
        dut, [(dut.i, [stream(x) for _, x in jobs])], configs,
        pauses=pauses, seed=seed, expected=len(jobs),
    )  # fmt: skip
    assert result.packets == [stream(window_model.window(spec, x)) for spec, x in jobs]
    return result


@pytest.mark.parametrize("op", [MAX, SUM])
@pytest.mark.parametrize(("lanes", "depth"), [(1, 2), (2, 1), (4, 2), (8, 1)])
def test_gates_agree(op: WindowOp, lanes: int, depth: int) -> None:
    jobs = []
    for index, (shape, kernel, stride, pad, ceil) in enumerate(CASES):
        spec = spec_for(op, shape, kernel, stride, pad, ceil, m=1 + index, s=index % 4)
        jobs.append((spec, image(shape, index, ends=index % 2 == 0)))
    run(jobs, lanes, depth)


@pytest.mark.parametrize("pauses", PACES[1:])
def test_random_windows_with_stalls(pauses: tuple[float, float]) -> None:
    rng = random.Random(5)
    jobs = []
    for index in range(8):
        shape = (rng.randrange(1, 4), rng.randrange(1, 8), rng.randrange(1, 9))
        kernel = (rng.randrange(1, shape[1] + 1), rng.randrange(1, shape[2] + 1))
        stride = (rng.randrange(1, 5), rng.randrange(1, 5))
        pad = (rng.randrange(kernel[0]), rng.randrange(kernel[1]))
        spec = spec_for(rng.choice([MAX, SUM]), shape, kernel, stride, pad, rng.random() < 0.5)
        jobs.append((spec, image(shape, index)))
    run(jobs, 2, 1 + (pauses[0] > 0.5), pauses, seed=3)


@pytest.mark.parametrize("op", [MAX, SUM])
def test_windows_wholly_in_padding(op: WindowOp) -> None:
    jobs = [
        (WindowSpec(op, (1, 1), (2, 2), out=(3, 3)), image((2, 2, 2))),
        (WindowSpec(op, (3, 2), (2, 3), (1, 1), out=(5, 4)), image((2, 3, 4))),
        (WindowSpec(op, (4, 1), (1, 1), (3, 0), out=(9, 2)), image((1, 2, 2))),
    ]
    run(jobs)


def test_widest_window_sums_the_extremes() -> None:
    x = np.full((1, 2, 255), -32768)
    jobs = [(WindowSpec(SUM, (2, 255), (1, 1), (1, 254), out=(3, 3), m=32767, s=24), x)]
    jobs.append((WindowSpec(SUM, (2, 255), (2, 1), out=(1, 1), m=1, s=9), -1 - x))
    run(jobs, lanes=4)


def test_long_rows_pass_through_the_ring() -> None:
    spec = spec_for(MAX, (1, 2, 1500), (2, 2), (2, 255))
    run([(spec, image((1, 2, 1500)))], lanes=4, words=1500)
    spec = WindowSpec(MAX, (1, 3), (1, 2), out=(1, 2))
    run([(spec, image((1, 2, 1100)))], lanes=2)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad"),
    [
        ((2, 9, 13), (3, 3), (1, 1), (1, 1)),
        ((2, 9, 13), (3, 3), (2, 2), (1, 1)),
        ((2, 8, 9), (4, 2), (3, 1), (0, 0)),
        ((1, 6, 6), (6, 6), (1, 1), (0, 0)),
        ((3, 7, 5), (5, 1), (1, 1), (4, 0)),
    ],
)
def test_memory_of_just_the_words_needed(shape, kernel, stride, pad) -> None:
    for op in (MAX, SUM):
        spec = spec_for(op, shape, kernel, stride, pad, m=3, s=4)
        words = window_model.memory_words(
            kernel[0], stride[0], spec.out[0], shape[0], shape[2], lanes=4
        )
        run([(spec, image(shape, k)) for k in range(2)], words=words)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad", "speed"),
    [
        ((4, 8, 32), (2, 2), (2, 2), (0, 0), 2.9),
        ((6, 28, 28), (2, 2), (2, 2), (0, 0), 3.5),
        ((16, 9, 28), (3, 3), (2, 2), (0, 0), 3.4),
        ((4, 9, 29), (3, 3), (2, 2), (0, 0), 2.7),
        ((8, 14, 14), (3, 3), (1, 1), (1, 1), 0.9),
        ((32, 7, 7), (7, 7), (1, 1), (0, 0), 3.0),
        ((4, 12, 12), (5, 5), (1, 1), (2, 2), 0.5),
        ((1, 40, 3), (3, 3), (1, 1), (1, 1), 0.4),  # rows too short to hide the steps between them
    ],
)
def test_cycles_keep_to_the_bound(shape, kernel, stride, pad, speed) -> None:
    spec = spec_for(MAX, shape, kernel, stride, pad)
    first = (WindowSpec(MAX, (1, 1), (1, 1)), image((1, 1, 1)))
    result = run([first, (spec, image(shape))])
    taken = result.given[-1] - result.taken[1] + 1
    bound = window_model.cycles_bound(spec, *shape, lanes=4)
    print(taken, bound, shape[0] * shape[1] * shape[2] / taken)
    assert 0.9 * bound <= taken <= bound
    assert shape[0] * shape[1] * shape[2] >= speed * taken  # words a cycle


@pytest.mark.parametrize(
    ("maps", "width", "early"),
    # The last chunk lies in the last beat alone, or begins in the one before it.
    [(1, 60, 0), (1, 57, 0), (2, 58, 0), (2, 59, 1)],
)
def test_latency_from_the_last_word(maps: int, width: int, early: int) -> None:
    first = (WindowSpec(MAX, (1, 1), (1, 1)), image((1, 1, 1)))
    # Windows with gaps between them: reading keeps up with the input.
    spec = WindowSpec(MAX, (1, 4), (1, 8), out=(1, 8))
    result = run([first, (spec, image((maps, 1, width)))])
    assert result.given[-1] - result.taken[-1] == Window.LATENCY - early
