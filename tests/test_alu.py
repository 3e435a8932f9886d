# amaranth: UnusedElaboratable=no
"""Term-by-term operator against its model, and the model against exact rational numbers."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest

from neuflow.blocks import alu_model
from neuflow.blocks.alu import Alu
from neuflow.layout import AluOp, Kind
from tests.helpers import PACES, Config, run_unit

EDGES = [-32768, -32767, -16385, -2, -1, 0, 1, 2, 3, 127, 128, 16384, 32766, 32767]
PAIRS = list(itertools.product(EDGES, EDGES))
SHIFTS = [(0, 0, 0), (0, 0, 1), (31, 31, 47), (31, 0, 31), (0, 31, 30), (3, 9, 8), (0, 3, 14)]


def exact(op: AluOp, a: int, b: int, sa: int, sb: int, shift: int, bits: int) -> int:
    """Return the formula of layout.ALU in rational numbers."""
    high = (1 << (bits - 1)) - 1
    left, right = a << sa, b << sb
    if op == AluOp.DIV:
        if right == 0:
            value = (left > 0) * 10**9 - (left < 0) * 10**9
        else:
            ratio = Fraction(left, right)
            value = int(abs(ratio) + Fraction(1, 2)) * (1 if ratio >= 0 else -1)
    else:
        value = {
            AluOp.ADD: left + right, AluOp.SUB: left - right, AluOp.MUL: a * b,
            AluOp.SQUARE: a * a, AluOp.MAX: max(left, right), AluOp.MIN: min(left, right),
            AluOp.ABS: abs(left),
        }[op]  # fmt: skip
        value = (value + (1 << shift >> 1)) >> shift
    return max(-high - 1, min(high, value))


def config(op: AluOp, sa: int = 0, sb: int = 0, shift: int = 0, narrow: int = 0) -> Config:
    """Return an ALU configuration."""
    values = {"op": op, "shift_a": sa, "shift_b": sb, "shift": shift, "narrow": narrow}
    return Config(Kind.ALU, values, sub=1)


def model(entry: Config, a, b) -> list[int]:
    """Return what the model gives for a packet."""
    v = entry.values
    op = AluOp(v["op"])
    return alu_model.alu(
        op, a, None if op in alu_model.UNARY else b, shift_a=v["shift_a"], shift_b=v["shift_b"],
        shift=v["shift"], bits=8 if v["narrow"] else 16,
    ).tolist()  # fmt: skip


def run(jobs, lanes=4, depth=2, pauses=(0.0, 0.0), seed=0):
    """Run packets (config, a, b) through the gates; compare with the model."""
    dut = Alu(lanes, depth)
    second = [b for entry, _, b in jobs if entry.values["op"] not in alu_model.UNARY]
    result = run_unit(
        dut, [(dut.a, [a for _, a, _ in jobs]), (dut.b, second)], [entry for entry, _, _ in jobs],
        pauses=pauses, seed=seed, expected=len(jobs), sub=1,
    )  # fmt: skip
    assert result.packets == [model(*job) for job in jobs]
    return result


@pytest.mark.parametrize("op", list(AluOp))
def test_model_is_exact_over_the_extremes(op: AluOp) -> None:
    a, b = np.array(PAIRS).T
    for (sa, sb, shift), narrow in itertools.product(SHIFTS, (0, 1)):
        bits = 8 if narrow else 16
        wanted = [exact(op, x, y, sa, sb, shift, bits) for x, y in PAIRS]
        assert model(config(op, sa, sb, shift, narrow), a, b) == wanted


def test_model_refuses_operands_of_different_length() -> None:
    with pytest.raises(ValueError, match="operands"):
        alu_model.alu(AluOp.ADD, [1, 2], [1])


@pytest.mark.parametrize("op", list(AluOp))
def test_gates_agree_over_the_extremes(op: AluOp) -> None:
    a, b = np.array(PAIRS).T
    if op == AluOp.DIV:
        # Bit by bit division is long: every pair once, each shift with some of them.
        jobs = [(config(op), a, b)]
        for k, shifts in enumerate(SHIFTS):
            jobs += [(config(op, *shifts, narrow), a[k::7], b[k::7]) for narrow in (0, 1)]
    else:
        jobs = [(config(op, *s, n), a[::2], b[::2]) for s in SHIFTS for n in (0, 1)]
    run(jobs)


def test_quotients_of_any_number_of_bits() -> None:
    """From none to 48, so that each number of bits is skipped, or found too many; and ends of words."""
    jobs = []
    for n in range(-31, 32):
        pairs = [(-32768, 1), (32767, -1), (32767, -32768), (1, 3), (-3, 2), (5, 0)]
        for a in (1, 3, -255, 32767, -32768):
            near = (abs(a) << max(n, 0)) >> 15 + max(-n, 0)
            pairs += [(a, min(near + k, 32767)) for k in range(2)]
        a, b = np.array(pairs).T
        jobs.append((config(AluOp.DIV, max(n, 0), max(-n, 0)), a, b))
    run(jobs)


@pytest.mark.parametrize("pauses", PACES)
@pytest.mark.parametrize(("lanes", "depth"), [(1, 2), (4, 1), (2, 2)])
def test_random_packets_with_stalls(lanes: int, depth: int, pauses: tuple[float, float]) -> None:
    rng = random.Random(7)
    jobs = [(config(AluOp.ADD), [1], [2])]
    for length in [1, 2, 3, 4, 5, 9, 12, 1, 1]:
        a, b = ([rng.randrange(-32768, 32768) for _ in range(length)] for _ in range(2))
        op = rng.choice(list(AluOp))
        jobs.append((config(op, rng.randrange(5), rng.randrange(5), rng.randrange(16)), a, b))
    run(jobs, lanes, depth, pauses, seed=lanes)


@pytest.mark.parametrize("op", [AluOp.ADD, AluOp.ABS, AluOp.DIV])
@pytest.mark.parametrize("beats", [1, 6])
def test_latency_is_as_the_model_says(op: AluOp, beats: int) -> None:
    words = list(range(1, 4 * beats + 1))
    result = run([(config(AluOp.ABS), [1], [1]), (config(op, 2, 0), words, words)])
    # The configuration of the second packet is there when its first beat is.
    first = result.given[1]
    each = alu_model.divide_cycles(2, 0) if op == AluOp.DIV else 1
    assert result.given[-1] - first == each * (beats - 1)
    assert first - result.taken[1] == alu_model.LATENCY
    assert alu_model.cycles(op, beats, 2, 0) == alu_model.LATENCY - 1 + each * beats
